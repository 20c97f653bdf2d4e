"""What a log, a pipe or a file gets to see: lines. `_terminal` has the same for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from podero_async.cli._output.snapshot import Show, Snapshot

__all__ = ["EVERY_S", "SHOWS_END", "print_pairs", "progress"]

EVERY_S = 10.0
SHOWS_END = False  # the summary follows


@contextmanager
def progress(stream: TextIO) -> Iterator[Show]:
    """Show each look as a line."""

    def show(look: Snapshot) -> None:
        parts = [look.vehicles_text, look.figures_text] + ([] if look.is_discovering else [look.left_text])
        print(f"{look.seconds:5.0f} s  {', '.join(parts)}", file=stream, flush=True)

    yield show


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print labels and what stands beside them."""
    for label, text in pairs:
        print(f"{label:<10}{text}")

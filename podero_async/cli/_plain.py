"""What a log, a pipe or a file gets to see: lines. `_terminal` has the same for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from podero_async.models import FleetSummary

__all__ = ["Display", "Show", "print_pairs", "progress"]

Show = Callable[[FleetSummary], None]
"""Tells how far a fetch is."""

_EVERY_S = 1.0


class Display(Protocol):
    """What both modules have."""

    def progress(self, total: int) -> AbstractContextManager[Show]:
        """Show how many of so many vehicles are done."""

    def print_pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Print labels and what stands beside them."""


@contextmanager
def progress(total: int) -> Iterator[Show]:
    """Show the progress as a line a second."""
    due_s = _EVERY_S

    def show(summary: FleetSummary) -> None:
        nonlocal due_s
        if summary.seconds < due_s:
            return
        due_s = summary.seconds + _EVERY_S
        print(
            f"{summary.seconds:5.1f} s  {summary.vehicles + summary.failures:,} of {total:,} vehicles,"
            f" {summary.sessions:,} sessions, {summary.requests:,} requests, {summary.retries:,} retries,"
            f" {summary.pauses:,} pauses, {summary.failures:,} failures",
            flush=True,
        )

    yield show


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print labels and what stands beside them."""
    for label, text in pairs:
        print(f"{label:<10}{text}")

"""What a terminal gets to see: tables and a live bar. The only module that knows rich, which is an extra."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from podero_async.cli._output.snapshot import Show, Snapshot

__all__ = ["EVERY_S", "SHOWS_END", "print_pairs", "print_table", "progress"]

EVERY_S = 0.2
SHOWS_END = True  # the bar stays where it is: full, or as far as it came


def _console(stream: TextIO | None = None) -> Console:
    # What a server sends is text, not markup.
    return Console(file=stream, markup=False, emoji=False, highlight=False)


@contextmanager
def progress(stream: TextIO) -> Iterator[Show]:
    """Show the looks as a bar that moves, with the figures below it."""
    # Drawn when there is something new, from the event loop's own thread; and stdout is the report's.
    with Live(console=_console(stream), auto_refresh=False, redirect_stdout=False) as live:

        def show(look: Snapshot) -> None:
            live.update(_bar(look), refresh=True)

        yield show


def _bar(look: Snapshot) -> Group:
    line = Table.grid(padding=(0, 1), expand=True)
    for ratio in (None, 1, None):
        line.add_column(ratio=ratio, no_wrap=True)
    total = None if look.is_discovering else max(look.vehicles, 1)
    done = look.done if look.vehicles else total or 0
    line.add_row(look.vehicles_text, ProgressBar(total=total, completed=done), look.left_text)
    return Group(line, Text(look.figures_text))


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print labels and what stands beside them."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    for label, text in pairs:
        table.add_row(label, text)
    _console().print(table)


def print_table(columns: Mapping[str, str], rows: Iterable[Sequence[str]], *, numbers: Container[str]) -> None:
    """Print a table with a footing under each heading; the columns of `numbers` stand on the right."""
    # Close together: on 80 columns there is room for most outcomes in one line.
    table = Table(box=SIMPLE_HEAD, show_footer=True, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, footing in columns.items():
        table.add_column(heading, footing, justify="right" if heading in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)

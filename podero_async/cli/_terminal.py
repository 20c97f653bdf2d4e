"""What a terminal gets to see: tables and a live bar. The only module that knows rich, which is an extra."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from podero_async.cli._plain import Show
from podero_async.models import FleetSummary

__all__ = ["print_pairs", "print_table", "progress"]


def _console() -> Console:
    # What a server sends is text, not markup.
    return Console(markup=False, emoji=False, highlight=False)


@contextmanager
def progress(total: int) -> Iterator[Show]:
    """Show the progress as a bar that moves."""
    with Progress(
        TextColumn("{task.completed:,} of {task.total:,} vehicles"),
        BarColumn(bar_width=None),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=_console(),
        expand=True,
    ) as bar:
        task = bar.add_task("", total=total)

        def show(summary: FleetSummary) -> None:
            words = f"{summary.sessions:,} sessions, {summary.retries:,} retries, {summary.failures:,} failures"
            bar.update(task, completed=summary.vehicles + summary.failures, description=words)

        yield show


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

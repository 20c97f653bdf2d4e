"""Output on a terminal: tables and a progress bar. The only module that imports rich, which is an extra."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table
from rich.text import Text

from podero_async.backfill import Progress
from podero_async.cli._output.progress import figures_text, is_discovering, vehicles_done

__all__ = ["BackfillBar", "bars", "print_section", "print_table", "progress_bar", "shades"]


def _console(stream: TextIO | None = None) -> Console:
    # Texts of the server must not be taken as markup.
    return Console(file=stream, markup=False, emoji=False, highlight=False)


class BackfillBar:
    """A bar of vehicles above a line of figures; rich estimates the speeds from the last 30 seconds."""

    def __init__(self, progress: Progress, clock: Callable[[], float] | None = None) -> None:
        self._progress = progress
        self._bar = Bar(
            TextColumn("{task.description}"),
            MofNCompleteColumn(" of "),
            TextColumn("vehicles"),
            BarColumn(None, table_column=Column(ratio=1)),
            TimeRemainingColumn(),
            speed_estimate_period=30,
            auto_refresh=False,
            get_time=clock,
            expand=True,
        )
        self._bar.add_task("discovering", total=None)
        self._bar.add_task("requests", total=None, visible=False)
        self._vehicles, self._requests = self._bar.tasks

    def update(self) -> None:
        """Update the bar and the line below it from the progress."""
        progress = self._progress
        if is_discovering(progress):
            self._bar.update(self._vehicles.id, completed=progress.vehicles)
        else:
            self._bar.update(
                self._vehicles.id,
                description="reading",
                total=progress.vehicles,
                completed=vehicles_done(progress),
            )
        self._bar.update(self._requests.id, completed=progress.requests)

    def __rich__(self) -> Group:
        """Return the bar above the figures."""
        return Group(self._bar, Text(figures_text(self._progress, self._requests.speed or 0.0)))


@contextmanager
def progress_bar(progress: Progress, stream: TextIO) -> Iterator[Callable[[], None]]:
    """Draw a bar on a terminal; the block gets a function that draws it anew. The last state stays on the screen."""
    bar = BackfillBar(progress)
    # Only the event loop's thread draws, and stdout is left alone, since it may be a file for the report.
    with Live(bar, console=_console(stream), auto_refresh=False, redirect_stdout=False) as live:

        def redraw() -> None:
            bar.update()
            live.refresh()

        try:
            yield redraw
        finally:
            redraw()


def print_table(columns: Mapping[str, str], rows: Iterable[Sequence[str]], *, numbers: Container[str]) -> None:
    """Print a table with a footer for each heading; the columns named in `numbers` are aligned right."""
    # With narrow padding, most values of `session_outcome` fit into 80 columns.
    table = Table(box=SIMPLE_HEAD, show_footer=True, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, footer in columns.items():
        table.add_column(heading, footer, justify="right" if heading in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def bars(values: Sequence[float | None], cells: int) -> list[str]:
    """Return a small bar for each value; that of the highest one has the given length."""
    block = "█" if _has_blocks() else "#"
    peak = max((value or 0 for value in values), default=0)
    return [block * round(cells * max(0, value or 0) / peak) if peak > 0 else "" for value in values]


def shades(rows: Sequence[Sequence[int]]) -> list[str]:
    """Return a line for each row, with two characters for each value, which are the darker the higher it is."""
    levels = " ░▒▓█" if _has_blocks() else " .:+#"
    peak = max(map(max, rows))
    return ["".join(2 * levels[-(-value * 4 // peak) if peak else 0] for value in row) for row in rows]


def _has_blocks() -> bool:
    return _console().encoding.startswith("utf")


def print_section(title: str, finding: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title, a sentence, and a table whose first and last columns are aligned left."""
    console = _console()
    console.print(f"\n{title}", style="bold")
    if finding:
        console.print(finding)
    if not rows:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, heading in enumerate(headings):
        is_text = number in {0, len(headings) - 1}
        table.add_column(
            heading, justify="left" if is_text else "right", overflow="fold", no_wrap=is_text and number > 0
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)

"""Progress of a backfill while it runs: a bar on a terminal, and lines everywhere else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from datetime import timedelta
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from podero_async.backfill import Progress

__all__ = [
    "ProgressLines",
    "can_draw",
    "figures_text",
    "is_discovering",
    "is_terminal",
    "show_progress",
    "vehicles_done",
]

_REDRAW_EVERY_S = 0.2


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which a bar can be drawn."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}


def can_draw(stream: TextIO) -> bool:
    """Return whether a stream is a terminal, and rich is installed to draw a bar on it."""
    return is_terminal(stream) and find_spec("rich") is not None


@asynccontextmanager
async def show_progress(
    progress: Progress, stream: TextIO, *, is_live: bool, line_every_s: float
) -> AsyncIterator[None]:
    """Show a progress on a stream while the block runs. If the stream cannot be written to, the block goes on."""
    shown: AbstractContextManager[Callable[[], None]]
    if is_live:
        from podero_async.cli._output.rich import progress_bar  # noqa: PLC0415 - rich is an extra

        shown, every_s = progress_bar(progress, stream), _REDRAW_EVERY_S
    else:
        shown, every_s = nullcontext(ProgressLines(progress, stream).print_line), line_every_s
    with shown as show:
        showing = asyncio.create_task(_repeat(show, every_s), name="podero_async progress")
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait([showing])


async def _repeat(show: Callable[[], None], every_s: float) -> None:
    with suppress(OSError):
        while True:
            await asyncio.sleep(every_s)
            show()


def is_discovering(progress: Progress) -> bool:
    """Return whether the vehicles of a backfill are not all known yet."""
    return progress.phase in {"starting", "discovering"}


def vehicles_done(progress: Progress) -> int:
    """Return how many vehicles are done. The count is approximate if some vehicles have two windows to read."""
    if not progress.work_items:
        return progress.skipped
    return progress.skipped + (progress.vehicles - progress.skipped) * progress.received // progress.work_items


def figures_text(progress: Progress, requests_per_second: float) -> str:
    """Return the counts of a progress in one line, with the reason why it waits."""
    retries = f", {progress.retries:,} retries" if progress.retries else ""
    outage = ", waiting: all recent requests failed" if progress.is_breaker_open else ""
    return (
        f"{progress.received_sessions:,} sessions, {requests_per_second:,.0f} requests/s,"
        f" {progress.in_flight} of {progress.limit} in flight, {progress.pauses} pauses{retries},"
        f" {progress.failed:,} failed{outage}"
    )


class ProgressLines:
    """Prints lines about a progress, with the rates since the previous line."""

    def __init__(self, progress: Progress, stream: TextIO, clock: Callable[[], float] = monotonic) -> None:
        self._progress = progress
        self._stream = stream
        self._clock = clock
        self._started_s = self._last_s = clock()
        self._requests = progress.requests
        self._received = progress.received

    def print_line(self) -> None:
        """Print the state of the progress."""
        progress, now_s = self._progress, self._clock()
        passed_s = max(now_s - self._last_s, 1e-3)
        figures = figures_text(progress, (progress.requests - self._requests) / passed_s)
        if is_discovering(progress):
            text = f"looking for vehicles, {progress.vehicles:,} so far, {figures}"
        else:
            left = self._time_left((progress.received - self._received) / passed_s)
            text = f"{vehicles_done(progress):,} of {progress.vehicles:,} vehicles, {figures}, {left} left"
        self._last_s, self._requests, self._received = now_s, progress.requests, progress.received
        print(f"{now_s - self._started_s:5.0f} s  {text}", file=self._stream, flush=True)

    def _time_left(self, windows_per_second: float) -> str:
        if not windows_per_second:
            return "-:--:--"
        windows = self._progress.work_items - self._progress.received
        return str(timedelta(seconds=round(windows / windows_per_second)))

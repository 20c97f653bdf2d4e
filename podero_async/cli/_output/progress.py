"""Looks at a backfill while it runs: how far it is, how fast it goes, and how long it still takes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from time import monotonic
from typing import TextIO

import attrs

from podero_async.backfill import Progress
from podero_async.cli._output import text as _plain
from podero_async.cli._output.snapshot import Display, Snapshot

__all__ = ["Watch", "display_on", "watched"]

_LOOKED_BACK_S = 30.0


@attrs.frozen
class _Mark:
    at_s: float
    requests: int
    received: int


class Watch:
    """Looks at a progress now and then; speeds are those of the last half minute."""

    def __init__(self, progress: Progress, clock: Callable[[], float] = monotonic) -> None:
        self._progress = progress
        self._clock = clock
        self._began_s = clock()
        self._marks = deque([_Mark(self._began_s, 0, 0)])

    def look(self) -> Snapshot:
        """Say how things stand."""
        progress = self._progress
        mark = _Mark(self._clock(), progress.requests, progress.received)
        while len(self._marks) > 1 and mark.at_s - self._marks[0].at_s > _LOOKED_BACK_S:
            self._marks.popleft()
        since = self._marks[0]
        self._marks.append(mark)
        passed_s = max(mark.at_s - since.at_s, 1e-3)
        per_second = (mark.received - since.received) / passed_s
        left = progress.tasks - progress.received
        return Snapshot(
            seconds=mark.at_s - self._began_s,
            is_discovering=progress.phase in {"starting", "discovering"},
            vehicles=progress.vehicles,
            done=self._vehicles_done(),
            sessions=progress.received_sessions,
            requests_per_second=(mark.requests - since.requests) / passed_s,
            in_flight=progress.in_flight,
            limit=progress.limit,
            pauses=progress.pauses,
            failed=progress.failed,
            left=timedelta(seconds=round(left / per_second)) if per_second else None,
        )

    def _vehicles_done(self) -> int:
        """Count the vehicles; where some have two windows to read, near enough."""
        progress = self._progress
        if not progress.tasks:
            return progress.skipped
        return progress.skipped + (progress.vehicles - progress.skipped) * progress.received // progress.tasks


def display_on(stream: TextIO) -> Display:
    """Return what shows a progress on a stream: a bar, where that is a terminal and rich is there to draw it."""
    if stream.isatty():
        with suppress(ModuleNotFoundError):
            from podero_async.cli._output import rich as _terminal  # noqa: PLC0415 - it needs rich, which is an extra

            return _terminal
    return _plain


@asynccontextmanager
async def watched(progress: Progress, display: Display, stream: TextIO, every_s: float) -> AsyncIterator[None]:
    """Show a progress every so many seconds, within, and once more at the end where the display stays."""
    watch = Watch(progress)
    with display.progress(stream) as show:

        async def keep_showing() -> None:
            with suppress(OSError):  # nobody looks any more: no reason to end a backfill
                while True:
                    await asyncio.sleep(every_s)
                    show(watch.look())

        showing = asyncio.create_task(keep_showing(), name="podero_async progress")
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait([showing])
            if display.SHOWS_END:
                show(watch.look())

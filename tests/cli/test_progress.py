"""What a progress comes to: how far, how fast, how long still, and who shows it."""

from __future__ import annotations

import asyncio
import gc
import io
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TextIO

import pytest

import podero_async.cli
from podero_async.backfill import Progress
from podero_async.cli._output import text as _plain
from podero_async.cli._output.progress import Watch, display_on, watched
from podero_async.cli._output.snapshot import Show, Snapshot


def test_speeds_are_those_of_the_last_half_minute() -> None:
    """After an hour's pause, the time left would be hours off."""
    now, progress = [0.0], Progress(phase="fetching", vehicles=100, tasks=100)
    watch = Watch(progress, lambda: now[0])
    assert watch.look().left is None
    for second in range(1, 101):
        now[0] = float(second)
        progress.received += 0 if second <= 60 else 1
        progress.requests += 0 if second <= 60 else 2
        look = watch.look()
    assert (look.done, look.seconds, look.left) == (40, 100, timedelta(seconds=60))
    assert look.requests_per_second == pytest.approx(2)


def test_vehicles_are_counted_and_not_their_windows() -> None:
    """Vehicles of two windows would make a fleet of twice its size, and those that need nothing would be missing."""
    progress = Progress(phase="fetching", vehicles=10, skipped=4, tasks=12, received=6)
    assert Watch(progress).look().done == 7
    assert Watch(Progress(phase="fetching", vehicles=4, skipped=4)).look().done == 4


def test_lines() -> None:
    """A line of the log would not say how far the backfill is."""
    stream, progress = io.StringIO(), Progress(phase="discovering", vehicles=1234)
    with _plain.progress(stream) as show:
        show(Watch(progress).look())
        progress.phase, progress.tasks = "fetching", 1234
        show(Watch(progress).look())
    first, second = stream.getvalue().splitlines()
    assert "looking for vehicles, 1,234 so far" in first
    assert "left" not in first
    assert "0 of 1,234 vehicles, 0 sessions, 0 requests/s, 0 of 0 in flight, 0 pauses, 0 failed, -:--:-- left" in second


class _Display:
    EVERY_S = 0.01
    SHOWS_END = True

    def __init__(self) -> None:
        self.looks: list[Snapshot] = []

    def progress(self, stream: TextIO) -> AbstractContextManager[Show]:
        return nullcontext(self.show)

    def show(self, look: Snapshot) -> None:
        self.looks.append(look)

    print_pairs = staticmethod(_plain.print_pairs)


class _Broken(_Display):
    SHOWS_END = False

    def show(self, look: Snapshot) -> None:
        super().show(look)
        raise BrokenPipeError


async def test_a_last_look() -> None:
    """The bar would end short of its end."""
    display, progress = _Display(), Progress()
    async with watched(progress, display, sys.stderr, 60):
        progress.received_sessions = 7
    assert [look.sessions for look in display.looks] == [7]


async def test_nobody_looks_any_more() -> None:
    """A backfill would end because its log is full or gone."""
    display, complaints = _Broken(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with watched(Progress(), display, sys.stderr, 0.005):
        await asyncio.sleep(0.04)
    gc.collect()
    assert (len(display.looks), complaints) == (1, [])


def test_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an extra that only draws, a backfill on a terminal would not run at all."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert display_on(sys.stderr) is not _plain
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.delitem(sys.modules, "podero_async.cli._output.rich")
    monkeypatch.delattr(podero_async.cli._output, "rich")
    assert display_on(sys.stderr) is _plain
    assert _plain.EVERY_S == 10

"""The progress of a backfill: its lines, its bar, and their rates."""

from __future__ import annotations

import asyncio
import gc
import io
import re
import sys

import pytest
from rich.console import Console

from podero_async.backfill import ApiDownError, Progress, SessionStore, backfill
from podero_async.cli._output.progress import ProgressLines, can_draw, figures_text, show_progress, vehicles_done
from podero_async.cli._output.rich import BackfillBar
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of


def _drawn(bar: BackfillBar) -> str:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(bar)
    return capture.get()


def test_the_bar_estimates_from_the_last_half_minute() -> None:
    """A minute without progress does not affect the speed and the time left, since both use the last 30 seconds."""
    now, progress = [0.0], Progress(phase="fetching", vehicles=100, work_items=100)
    bar = BackfillBar(progress, lambda: now[0])
    bar.update()
    assert "-:--:--" in _drawn(bar)
    for second in range(1, 101):
        now[0] = float(second)
        progress.received += 0 if second <= 60 else 1
        progress.requests += 0 if second <= 60 else 2
        bar.update()
    drawn = _drawn(bar)
    assert re.search(r"reading +40 of 100 vehicles .* 0:01:00", drawn)
    assert "2 requests/s" in drawn


def test_the_bar_while_vehicles_are_discovered() -> None:
    """The bar counts the vehicles found so far, and starts anew when all are known."""
    progress = Progress(phase="discovering", vehicles=7)
    bar = BackfillBar(progress)
    bar.update()
    assert re.search(r"discovering +7 of \? vehicles", _drawn(bar))
    progress.phase, progress.skipped = "fetching", 2
    bar.update()
    assert re.search(r"reading +2 of 7 vehicles", _drawn(bar))


def test_found_vehicles_do_not_count_as_read_ones() -> None:
    """The time left is that of the reads, however fast the vehicles before them were found."""
    now, progress = [0.0], Progress(phase="discovering")
    bar = BackfillBar(progress, lambda: now[0])
    for second in range(1, 11):
        now[0], progress.vehicles = float(second), 100 * second
        progress.requests += 20
        bar.update()
    assert "20 requests/s" in _drawn(bar)
    progress.phase, progress.work_items = "fetching", 1000
    for second in range(11, 22):
        now[0] = float(second)
        bar.update()
        progress.received += 10
    assert re.search(r"reading +100 of 1000 vehicles .* 0:01:30", _drawn(bar))


def test_vehicles_are_counted_instead_of_windows() -> None:
    """A vehicle with two windows counts once, and a vehicle that is up to date counts as done."""
    assert vehicles_done(Progress(phase="fetching", vehicles=10, skipped=4, work_items=12, received=6)) == 7
    assert vehicles_done(Progress(phase="fetching", vehicles=4, skipped=4)) == 4


def test_lines_have_the_rates_since_the_last_line() -> None:
    """Each line has the counts, and the speed and time left by the last interval."""
    now, stream, progress = [0.0], io.StringIO(), Progress(phase="discovering", vehicles=1234)
    lines = ProgressLines(progress, stream, lambda: now[0])
    for now_s, received in ((10.0, 0), (20.0, 0), (30.0, 4), (40.0, 14)):
        lines.print_line()
        now[0], progress.phase, progress.work_items = now_s, "fetching", 1234
        progress.received, progress.requests = received, 2 * received
    lines.print_line()
    first, second, _, fourth, fifth = stream.getvalue().splitlines()
    assert first.startswith("    0 s  looking for vehicles, 1,234 so far, 0 sessions")
    assert "left" not in first
    figures = "0 sessions, 0 requests/s, 0 of 0 in flight, 0 pauses, 0 failed"
    assert second == f"   10 s  0 of 1,234 vehicles, {figures}, -:--:-- left"
    assert "1 requests/s" in fourth
    assert fifth.startswith("   40 s  14 of 1,234 vehicles, 0 sessions, 2 requests/s")
    assert fifth.endswith("0:20:20 left")


@pytest.mark.leaping
async def test_lines_tell_of_an_outage(simulator: PoderoSimulator) -> None:
    """While all recent requests to an endpoint have failed, the lines say so, and count the retries."""
    simulator.add_fault(Fault(kind="status", status=503, endpoint="sessions"))
    stream, progress = io.StringIO(), Progress()
    async with client_of(simulator) as client, SessionStore(":memory:") as store:
        async with show_progress(progress, stream, is_live=False, line_every_s=1):
            with pytest.raises(ApiDownError):
                await backfill(client, store, simulator.first_day, simulator.last_day, progress=progress)
    assert "in flight, 0 pauses, 0 failed, waiting: all recent requests failed, -:--:-- left" in stream.getvalue()
    assert re.search(r"0 pauses, [1-9]\d* retries, [1-9]\d* failed", figures_text(progress, 0))


async def test_the_last_state_of_a_bar_stays() -> None:
    """The bar is drawn once more at the end, before its first interval is over."""
    stream, progress = io.StringIO(), Progress()
    async with show_progress(progress, stream, is_live=True, line_every_s=60):
        progress.received_sessions = 7
    assert "7 sessions" in stream.getvalue()


class _ClosedPipe(io.StringIO):
    writes = 0

    def write(self, _: str) -> int:
        self.writes += 1
        raise BrokenPipeError


async def test_a_closed_stream_ends_the_lines_only() -> None:
    """If a line cannot be written, the block goes on, no line follows, and asyncio reports nothing."""
    stream, complaints = _ClosedPipe(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with show_progress(Progress(), stream, is_live=False, line_every_s=0.001):
        async with asyncio.timeout(60):
            while not stream.writes:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
    gc.collect()
    assert (stream.writes, complaints) == (1, [])


def test_a_terminal_without_rich_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar needs a terminal and rich."""
    assert not can_draw(io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert can_draw(sys.stderr)
    monkeypatch.setenv("TERM", "dumb")
    assert not can_draw(sys.stderr)
    monkeypatch.delenv("TERM")
    monkeypatch.setitem(sys.modules, "rich", None)
    assert not can_draw(sys.stderr)

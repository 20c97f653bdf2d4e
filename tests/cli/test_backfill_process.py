"""`podero-async backfill` as a process: signals and resuming, a store in use, a full disk, and its progress."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from podero_async.backfill import SessionStore
from podero_async.testing import Fault, PoderoSimulator
from tests._support.commands import Call, Ended, end_of, run_on_pty, start, start_on_small_disk, whole_fleet

pytestmark = pytest.mark.slow

_FREQUENT_LINES = "main(line_every_s=0.05)"


async def _stored(path: Path) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return the vehicles with a receipt, and the sessions by id."""
    async with SessionStore(path, read_only=True) as store:
        receipts = await store.query("SELECT vehicle_id FROM receipts ORDER BY vehicle_id")
        rows = await store.query("SELECT * FROM sessions")
    sessions = {row["id"]: row for row in rows}
    assert len(sessions) == len(rows)
    return [receipt["vehicle_id"] for receipt in receipts], sessions


async def _start_slowly(
    simulator: PoderoSimulator, path: Path, *argv: str, after: int = 5, latency_s: float = 0.02, **options: Any
) -> asyncio.subprocess.Process:
    """Start a backfill that hangs after some vehicles, and wait until it does."""
    simulator.latency_s = latency_s
    simulator.add_fault(Fault(kind="hang", seconds=60, endpoint="sessions", nth=after + 1))
    process = await start(*whole_fleet(simulator, path), "--max-concurrency=1", *argv, **options)
    async with asyncio.timeout(60):
        while simulator.counts.requests["sessions"] <= after:
            assert process.returncode is None, await end_of(process)
            await asyncio.sleep(0.02)
    return process


async def _signal(process: asyncio.subprocess.Process, number: int) -> Ended:
    process.send_signal(number)
    return await end_of(process)


def _all_ids(simulator: PoderoSimulator) -> set[str]:
    return {row["id"] for vehicle in simulator.vehicles for row in simulator.truth(vehicle)}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_stops_it_and_the_same_command_resumes(
    served: PoderoSimulator, path: Path, number: signal.Signals, code: int
) -> None:
    """A signal commits the received sessions; the printed command reads the rest, and nothing twice."""
    process = await _start_slowly(served, path)
    ended = await _signal(process, number)
    assert ended.code == code
    said, _, command = ended.complaint.rpartition(": ")
    assert said == "interrupted; the sessions received so far are stored; to read the rest, run the same command again"
    assert shlex.split(command) == ["podero-async", *whole_fleet(served, path), "--max-concurrency=1"]
    assert "5 read: 5 verified" in ended.out
    vehicles, sessions = await _stored(path)
    assert len(vehicles) == 5
    assert 0 < len(sessions) < len(_all_ids(served))

    served.clear_faults()
    served.latency_s = 0
    asked = served.counts.requests.copy()
    again = await end_of(await start(*shlex.split(command)[1:], "--json"))
    assert (again.code, again.err) == (0, "")
    report = json.loads(again.out)
    assert (report["skipped"], report["done"]) == (5, 5)
    assert served.counts.requests["sessions"] - asked["sessions"] == 5
    assert served.counts.requests["users"] - asked["users"] == 1, "the fleet is discovered in each call"
    assert (await _stored(path))[1].keys() == _all_ids(served)


async def test_a_signal_stops_the_discovery(served: PoderoSimulator, path: Path) -> None:
    """If a signal arrives before the vehicles are known, the command ends with an unfinished report."""
    served.latency_s = 60
    process = await start(*whole_fleet(served, path), "--json")
    async with asyncio.timeout(60):
        while not served.requests:
            await asyncio.sleep(0.02)
    ended = await _signal(process, signal.SIGTERM)
    assert (ended.code, json.loads(ended.out)["finished"]) == (143, False)
    assert "run the same command again" in ended.complaint


async def test_a_store_in_use_is_exit_code_5(call: Call, served: PoderoSimulator, path: Path) -> None:
    """If a process has the store open, other commands fail with its id, and do not disturb it."""
    process = await _start_slowly(served, path)
    for argv in (whole_fleet(served, path), ["status", f"--store={path}"], ["verify", f"--store={path}"]):
        ended = await call(*argv)
        assert (ended.code, ended.out) == (5, "")
        assert str(process.pid) in ended.complaint
        assert str(path) in ended.complaint
    assert (await _signal(process, signal.SIGINT)).code == 130
    assert len((await _stored(path))[0]) == 5


async def test_a_full_disk_is_exit_code_5(call: Call, served: PoderoSimulator, path: Path) -> None:
    """If the disk is full, the store keeps its contents, and a later run completes it."""
    assert (await call(*whole_fleet(served, path), f"--to={served.first_day}")).code == 0
    before = await _stored(path)
    for vehicle in served.vehicles:
        for _ in range(500):
            served.insert(vehicle)
    ended = await end_of(await start_on_small_disk(64, *whole_fleet(served, path)))
    assert (ended.code, ended.out) == (5, "")
    assert str(path) in ended.complaint
    assert await _stored(path) == before
    assert (await call(*whole_fleet(served, path))).code == 0
    assert (await _stored(path))[1].keys() == _all_ids(served)


@pytest.mark.slow
async def test_a_log_that_a_full_disk_keeps_is_a_warning(call: Call, served: PoderoSimulator, path: Path) -> None:
    """If the disk has no space to merge the log of a store, the command names the log and the space, and loses no row."""
    assert (await call(*whole_fleet(served, path), f"--to={served.first_day}")).code == 0
    ended = await end_of(await start_on_small_disk(path.stat().st_size // 1024 + 4, *whole_fleet(served, path)))
    assert ended.code == 0
    assert f"the newest rows are in {path}.wal" in ended.complaint
    assert "free about 3 MB" in ended.complaint
    assert (await _stored(path))[1].keys() == _all_ids(served)
    ended = await call(*whole_fleet(served, path))
    assert (ended.code, ended.err) == (0, "")
    assert not path.with_name(f"{path.name}.wal").exists()


async def test_progress_in_a_log(served: PoderoSimulator, path: Path) -> None:
    """If stderr is a pipe, it gets lines of progress, and stdout only the JSON report."""
    process = await _start_slowly(served, path, "--json", script=_FREQUENT_LINES, latency_s=0.1)
    ended = await _signal(process, signal.SIGINT)
    *lines, last = ended.err.splitlines()
    assert last.startswith("podero-async: interrupted")
    figures = r"\d+ sessions, \d+ requests/s, \d of 1 in flight, 0 pauses, 0 failed"
    assert any(re.fullmatch(rf" +\d+ s  looking for vehicles, \d so far, {figures}", line) for line in lines)
    assert re.fullmatch(rf" +\d+ s  \d+ of 10 vehicles, {figures}, (-:--:--|\d+:\d\d:\d\d) left", lines[-1])
    assert not json.loads(ended.out)["finished"]


async def test_a_closed_log_does_not_end_a_backfill(served: PoderoSimulator, path: Path) -> None:
    """A backfill succeeds when the reader of its progress is gone."""
    served.latency_s = 0.05
    reading, writing = os.pipe()
    process = await start(*whole_fleet(served, path), "--max-concurrency=1", script=_FREQUENT_LINES, stderr=writing)
    os.close(writing)
    assert await asyncio.to_thread(os.read, reading, 1)
    os.close(reading)
    async with asyncio.timeout(60):
        assert await process.wait() == 0
    assert (await _stored(path))[1].keys() == _all_ids(served)


async def test_progress_on_a_terminal(served: PoderoSimulator, path: Path) -> None:
    """If stderr is a terminal, it shows the discovery and a full bar, and stdout gets only the JSON report."""
    served.latency_s = 1.0

    def look(shown: str) -> None:
        if "discovering" in shown:
            served.latency_s = 0.0

    ended = await run_on_pty(*whole_fleet(served, path), "--json", stream="stderr", look=look)
    assert (ended.code, served.latency_s) == (0, 0.0)
    assert json.loads(ended.out)["is_clean"] is True
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ended.err)
    assert "10 of 10 vehicles" in text
    assert "in flight, 0 pauses, 0 failed" in text
    assert "\x1b[?25l" in ended.err
    assert ended.err.rindex("\x1b[?25h") > ended.err.rindex("\x1b[?25l")
    assert max(map(len, re.split(r"[\r\n]+", text))) <= 80

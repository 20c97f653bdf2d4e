"""`podero-async backfill` as a process: signals, two processes and one store, a full disk, progress, and going on."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from podero_async.backfill import SessionStore
from podero_async.testing import Fault, PoderoSimulator
from tests.cli.conftest import Call, Ended, end_of, run_on_pty, start, start_on_small_disk, whole_fleet

_SLOW_END = "import asyncio, podero_async.backfill._writer as w; w.BatchWriter.drain = lambda self: asyncio.sleep(60)"
_IMPATIENT = "; import podero_async.cli._signals as s; s._MAX_S = 0.3"
_LINE_EVERY = "import podero_async.cli._output.text as p; p.EVERY_S = 0.2"


async def _held(path: Path) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return the vehicles with a receipt, and the sessions by id."""
    async with SessionStore(path, read_only=True) as store:
        receipts = await store.query("SELECT vehicle_id FROM receipts ORDER BY vehicle_id")
        rows = await store.query("SELECT * FROM sessions")
    sessions = {row["id"]: row for row in rows}
    assert len(sessions) == len(rows)
    return [receipt["vehicle_id"] for receipt in receipts], sessions


async def _under_way(
    simulator: PoderoSimulator, path: Path, *argv: str, code: str = "", after: int = 5, latency_s: float = 0.02
) -> asyncio.subprocess.Process:
    """Start a slow backfill, and wait until it has asked for some vehicles' sessions."""
    simulator.latency_s = latency_s
    simulator.add_fault(Fault(kind="hang", seconds=60, endpoint="sessions", nth=after + 1))
    process = await start(*whole_fleet(simulator, path), "--max-concurrency=1", *argv, code=code)
    async with asyncio.timeout(30):
        while simulator.counts.requests["sessions"] <= after:
            assert process.returncode is None, await end_of(process)
            await asyncio.sleep(0.02)
    return process


async def _signalled(process: asyncio.subprocess.Process, number: int) -> tuple[Ended, float]:
    since = time.monotonic()
    process.send_signal(number)
    return await end_of(process), time.monotonic() - since


def _all_ids(simulator: PoderoSimulator) -> set[str]:
    return {row["id"] for vehicle in simulator.vehicles for row in simulator.truth(vehicle)}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_it_in_order_and_the_same_command_goes_on(
    served: PoderoSimulator, path: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C or a pod's end would throw away what was received, take forever, or not say what to do next."""
    process = await _under_way(served, path)
    ended, took_s = await _signalled(process, number)
    assert ended.code == code
    assert took_s < 5
    said, _, command = ended.complaint.rpartition(": ")
    assert "interrupted; what was received is in the store" in said
    assert shlex.split(command) == ["podero-async", *whole_fleet(served, path), "--max-concurrency=1"]
    assert "5 read: 5 verified" in ended.out
    vehicles, sessions = await _held(path)
    assert len(vehicles) == 5
    assert 0 < len(sessions) < len(_all_ids(served))

    served.clear_faults()
    served.latency_s = 0
    asked = served.counts.requests.copy()
    again = await end_of(await start(*shlex.split(command)[1:], "--json"))
    assert (again.code, again.err) == (0, "")
    report = json.loads(again.out)
    assert (report["resumed"], report["skipped"], report["done"]) == (True, 5, 5)
    assert served.counts.requests["sessions"] - asked["sessions"] == 5
    assert served.counts.requests["users"] == asked["users"]
    assert (await _held(path))[1].keys() == _all_ids(served)


async def test_a_signal_while_the_fleet_is_discovered(served: PoderoSimulator, path: Path) -> None:
    """Ctrl-C in the first minutes of a large fleet would be ignored until all users are known."""
    served.latency_s = 60
    process = await start(*whole_fleet(served, path), "--json")
    async with asyncio.timeout(20):
        while not served.requests:
            await asyncio.sleep(0.02)
    ended, took_s = await _signalled(process, signal.SIGTERM)
    assert (ended.code, json.loads(ended.out)["finished"]) == (143, False)
    assert took_s < 5
    assert "run the same command again" in ended.complaint


@pytest.mark.parametrize(
    ("first", "second", "code", "said"),
    [
        (signal.SIGINT, signal.SIGINT, 130, "stopped at once"),
        (signal.SIGTERM, None, 143, "took too long"),
    ],
)
async def test_an_end_that_takes_too_long(
    served: PoderoSimulator, path: Path, first: signal.Signals, second: signal.Signals | None, code: int, said: str
) -> None:
    """A second Ctrl-C would be ignored, or a pod be killed without a word, or the store be spoilt by either."""
    process = await _under_way(served, path, code=_SLOW_END + ("" if second else _IMPATIENT))
    if second:
        process.send_signal(first)
        await asyncio.sleep(0.3)  # the process takes note of one signal, before another
        assert process.returncode is None
    ended, took_s = await _signalled(process, second or first)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.complaint
    assert took_s < 3
    await _held(path)


async def test_a_store_in_use_is_exit_code_5(call: Call, served: PoderoSimulator, path: Path) -> None:
    """Two jobs at once would spoil each other's store, or the second would wait for ever."""
    process = await _under_way(served, path)
    for argv in (whole_fleet(served, path), ["status", f"--store={path}"], ["verify", f"--store={path}"]):
        ended = await call(*argv)
        assert (ended.code, ended.out) == (5, "")
        assert ended.complaint == f"another process (PID {process.pid}) has the store open: {path}"
    ended, _ = await _signalled(process, signal.SIGINT)
    assert ended.code == 130
    assert len((await _held(path))[0]) == 5


async def test_a_full_disk_is_exit_code_5_and_the_store_as_it_was(
    call: Call, served: PoderoSimulator, path: Path
) -> None:
    """A disk that fills up would cost what the store held."""
    assert (await call(*whole_fleet(served, path), f"--to={served.first_day}")).code == 0
    before = await _held(path)
    for vehicle in served.vehicles:
        for _ in range(500):
            served.insert(vehicle)
    ended = await end_of(await start_on_small_disk(64, *whole_fleet(served, path)))
    assert (ended.code, ended.out) == (5, "")
    assert str(path) in ended.complaint
    vehicles, sessions = await _held(path)
    assert sessions == before[1]
    assert vehicles == before[0]
    assert (await call(*whole_fleet(served, path))).code == 0
    assert (await _held(path))[1].keys() == _all_ids(served)


async def test_lines_into_a_log(served: PoderoSimulator, path: Path) -> None:
    """A log would say nothing until the end, or what reads stdout would find progress in it."""
    process = await _under_way(served, path, "--json", code=_LINE_EVERY, latency_s=0.1)
    ended, _ = await _signalled(process, signal.SIGINT)
    *lines, last = ended.err.splitlines()
    assert last.startswith("podero-async: interrupted")
    assert lines
    figures = r"\d sessions, \d+ requests/s, \d of 1 in flight, 0 pauses, 0 failed"
    assert re.fullmatch(rf" +\d+ s  looking for vehicles, \d so far, {figures}", lines[0])
    assert re.fullmatch(rf" +\d+ s  \d of 10 vehicles, \d*{figures}, (-:--:--|\d+:\d\d:\d\d) left", lines[-1])
    assert not json.loads(ended.out)["finished"]


async def test_a_log_that_is_gone(served: PoderoSimulator, path: Path) -> None:
    """A backfill would end because nobody reads its progress any more."""
    process = await _under_way(served, path, code=_LINE_EVERY, after=2)
    assert process.stderr is not None
    process.stderr._transport.close()  # type: ignore[attr-defined]
    await asyncio.sleep(0.5)
    assert process.returncode is None
    process.kill()
    await process.wait()


def _holding(simulator: PoderoSimulator) -> asyncio.Event:
    """Let no request be answered before the event is set."""
    go_on, sleep = asyncio.Event(), simulator._server._sleep

    async def hold(seconds: float) -> bool:
        await go_on.wait()
        return await sleep(seconds)

    simulator._server._sleep = hold
    return go_on


async def test_a_bar_on_a_terminal(served: PoderoSimulator, path: Path) -> None:
    """A person would stare at nothing, or at a bar that is torn, or wider than the terminal."""
    go_on = _holding(served)

    def look(shown: str) -> None:
        if "looking for vehicles, 0 so far" in shown:
            go_on.set()

    ended = await run_on_pty(*whole_fleet(served, path), err_too=True, look=look)
    assert ended.code == 0
    assert go_on.is_set()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ended.out)
    assert "10 of 10 vehicles" in text
    assert "in flight, 0 pauses, 0 failed" in text
    assert "\x1b[?25l" in ended.out
    assert ended.out.rindex("\x1b[?25h") > ended.out.rindex("\x1b[?25l")
    assert max(map(len, re.split(r"[\r\n]+", text))) <= 80


async def test_json_beside_a_bar(served: PoderoSimulator, path: Path) -> None:
    """`--json` into a file, with somebody looking on, would write parts of the bar into it."""
    ended = await run_on_pty(*whole_fleet(served, path), "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["is_clean"] is True


@pytest.mark.soak
@pytest.mark.parametrize("when", [0.0, 1.0])
async def test_a_kill_is_only_an_interruption(served: PoderoSimulator, path: Path, when: float) -> None:
    """A crash would leave a store that the same command cannot go on with."""
    process = await _under_way(served, path)
    await asyncio.sleep(when)  # before its batch is committed, and after
    process.kill()
    await process.wait()
    served.clear_faults()
    served.latency_s = 0
    ended = await end_of(await start(*whole_fleet(served, path)))
    assert (ended.code, ended.err) == (0, "")
    assert (await _held(path))[1].keys() == _all_ids(served)
    again = await end_of(await start("status", f"--store={path}", "--json"))
    assert json.loads(again.out)["sessions"] == len(_all_ids(served))

"""`podero-async verify`: differences between a store and the API, and exit codes."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from uuid import UUID

import duckdb
import pytest

from podero_async.testing import Fault, PoderoSimulator
from tests._support.commands import Call, end_of, start, whole_fleet

_REPORT_KEYS = (
    "finished checked matching differing repaired left left_sessions uncovered doubled unreadable rejected unproven failed requests"
    " differences failures alarms is_clean"
)


async def test_a_store_that_equals_the_api(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """If all vehicles are equal, the exit code is 0 and the store is unchanged."""
    before = filled.read_bytes()
    ended = await call("verify", f"--store={filled}")
    assert (ended.code, ended.err) == (0, "")
    assert "10 checked, with 10 requests" in ended.out
    assert "equal     10" in ended.out
    assert filled.read_bytes() == before


async def test_a_sample(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """`--sample` reads that many vehicles; the JSON report has fixed keys."""
    asked = served.counts.requests["sessions"]
    ended = await call("verify", f"--store={filled}", "--sample=3", "--json")
    report = json.loads(ended.out)
    assert report.keys() == set(_REPORT_KEYS.split())
    assert (ended.code, report["checked"], report["is_clean"]) == (0, 3, True)
    assert served.counts.requests["sessions"] - asked == 3


async def test_nothing_to_compare(call: Call, served: PoderoSimulator, path: Path) -> None:
    """If no day is settled, the exit code is 1, and one line names `--all`, which compares provisional days."""
    await call(*whole_fleet(served, path), "--settle-days=36000")
    ended = await call("verify", f"--store={path}")
    assert ended.code == 1
    assert "nothing was compared" in ended.complaint
    assert "--all" in ended.complaint
    assert (await call("verify", f"--store={path}", "--all")).code == 0


async def test_differences_are_exit_code_1(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """A vehicle whose sessions differ gets one line on stderr, with the ids of each kind of difference."""
    one, other = served.vehicles[:2]
    new = served.insert(one, served.truth(one)[0] | {"id": str(UUID(int=7))})["id"]
    gone, changed = (row["id"] for row in served.truth(other)[:2])
    served.remove(other, gone)
    served.update(other, changed, actual_savings_eur=99.0)
    ended = await call("verify", f"--store={filled}")
    assert ended.code == 1
    assert "different 2, 0 of them repaired" in ended.out
    lines = {line.partition("vehicle ")[2].split()[0]: line for line in ended.err.splitlines()}
    assert lines[str(one.vehicle_id)].endswith(f": 1 sessions differ; only in the API: {new}")
    assert lines[str(other.vehicle_id)].endswith(
        f": 2 sessions differ; only in the store: {gone}, with other contents: {changed}"
    )
    report = json.loads((await call("verify", f"--store={filled}", "--json")).out)
    found = {(*each["missing"], *each["surplus"], *each["changed"]) for each in report["differences"]}
    assert found == {(new,), (gone, changed)}


@pytest.mark.slow
async def test_a_repair_is_exit_code_0(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """`--repair` makes the store equal, and says how many vehicles it repaired; the next call finds no difference."""
    with duckdb.connect(str(filled)) as con:
        con.execute(
            "UPDATE sessions SET energy_charged_kwh = 0 WHERE vehicle_id < (SELECT max(vehicle_id) FROM sessions)"
        )
    assert (await call("verify", f"--store={filled}")).code == 1
    ended = await call("verify", f"--store={filled}", "--repair")
    assert ended.code == 0
    assert "different 9, 9 of them repaired" in ended.out
    ended = await call("verify", f"--store={filled}", "--all")
    assert (ended.code, ended.err) == (0, "")
    assert "equal     10" in ended.out


async def test_a_vehicle_that_left_is_exit_code_0(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """A vehicle that the API no longer lists is counted apart; one that is listed, but not found, has failed."""
    gone = served.vehicles[0]
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=gone))
    ended = await call("verify", f"--store={filled}")
    assert (ended.code, f"vehicle {gone.vehicle_id} of user {gone.user_id} failed" in ended.err) == (1, True)
    assert "10 checked, with 12 requests; 0 left the fleet" in ended.out
    served.remove_vehicle(gone)
    ended = await call("verify", f"--store={filled}")
    assert (ended.code, ended.err) == (0, "")
    assert "9 checked, with 12 requests; 1 left the fleet" in ended.out


@pytest.mark.slow
async def test_rows_that_are_wrong_by_themselves_are_exit_code_1(
    call: Call, served: PoderoSimulator, filled: Path
) -> None:
    """Doubled ids and rows of days that no read covers have counts of their own; a repair removes doubled rows."""
    with duckdb.connect(str(filled)) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("INSERT INTO sessions SELECT * FROM sessions ORDER BY id LIMIT 1")
        con.execute("INSERT INTO sessions SELECT * REPLACE (uuid() AS vehicle_id, uuid() AS id) FROM sessions LIMIT 2")
    ended = await call("verify", f"--store={filled}", "--repair")
    assert ended.code == 1
    assert "different 1, 1 of them repaired" in ended.out
    assert "2 sessions of days that no read covers; 0 of vehicles that left" in ended.out
    uncovered, doubled = ended.err.splitlines()[1], ended.err.splitlines()[0]
    assert "1 sessions differ; stored more than once: " in doubled
    assert "2 stored sessions are of days that no read covers" in uncovered
    report = json.loads((await call("verify", f"--store={filled}", "--json")).out)
    assert (report["differing"], report["doubled"], report["uncovered"], report["is_clean"]) == (0, 0, 2, False)


async def test_failures_are_exit_code_1(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """If a vehicle cannot be read, it is one line on stderr, and the exit code is 1."""
    served.add_fault(Fault(kind="status", status=403, endpoint="sessions", vehicle=served.vehicles[0]))
    ended = await call("verify", f"--store={filled}")
    assert ended.code == 1
    assert "failed    1" in ended.out
    assert "HTTP 403" in ended.complaint


async def test_an_api_that_is_down_is_exit_code_4(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """If no vehicle can be read, the exit code is 4."""
    served.add_fault(Fault(kind="status", status=503, endpoint="sessions"))
    ended = await call("verify", f"--store={filled}", "--sample=2", "--json")
    assert (ended.code, json.loads(ended.out)["failed"]) == (4, 2)


@pytest.mark.slow
async def test_ctrl_c_prints_the_report_so_far(served: PoderoSimulator, filled: Path) -> None:
    """An interrupted comparison prints a report of the vehicles that it has compared, with the exit code of the signal."""
    before = served.counts.requests["sessions"]
    served.latency_s = 0.2
    process = await start("verify", f"--store={filled}", "--max-concurrency=1", "--json")
    async with asyncio.timeout(60):
        while served.counts.requests["sessions"] < before + 4:
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    ended = await end_of(process)
    report = json.loads(ended.out)
    assert (ended.code, report["finished"], report["is_clean"]) == (130, False, False)
    assert 0 < report["checked"] == report["matching"] < 10
    assert "interrupted" in ended.complaint

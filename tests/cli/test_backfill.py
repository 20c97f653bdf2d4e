"""`podero-async backfill`: its report, its exit codes, its options, and bad input."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from podero_async import ConfigurationError, PoderoClient, RetryPolicy, ThrottlePolicy
from podero_async.backfill import SessionStore
from podero_async.models import VehicleRef
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import USER, VEHICLE, wire_row
from tests._support.commands import Call, Ended, settings_of, whole_fleet

_REPORT_KEYS = (
    "from_date to_date include_hidden run_id finished alarms vehicles done skipped failed vanished verified repaired"
    " unproven failures unproven_vehicles sessions new changed unchanged withdrawn rejected settled provisional missing"
    " requests retries seconds is_clean"
)


async def _ask(path: Path, sql: str) -> list[dict[str, Any]]:
    async with SessionStore(path, read_only=True) as store:
        return await store.query(sql)


def _report(ended: Ended) -> dict[str, Any]:
    (line,) = ended.out.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


async def test_a_whole_fleet(call: Call, served: PoderoSimulator, path: Path) -> None:
    """A backfill stores all sessions, and reports them as text."""
    ended = await call(*whole_fleet(served, path), "--include-hidden")
    assert (ended.code, ended.err) == (0, "")
    assert f"window    {served.first_day} to {served.last_day}, with hidden sessions" in ended.out
    assert "10: 0 up to date, 0 failed" in ended.out
    assert "10 read: 10 verified" in ended.out
    ((count,),) = [row.values() for row in await _ask(path, "SELECT count(*) AS n FROM sessions")]
    assert count == served.total_sessions() == 400


@pytest.mark.parametrize(
    ("name", "value", "code", "said"),
    [
        ("PODERO_ORG_ID", str(USER), 2, "check PODERO_ORG_ID"),
        ("PODERO_CLIENT_SECRET", "wrong", 3, "invalid_client"),
    ],
)
async def test_a_first_run_with_wrong_settings(
    call: Call,
    served: PoderoSimulator,
    new_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    code: int,
    said: str,
) -> None:
    """An unknown organization is exit code 2 with advice, and refused credentials are 3; no file is left."""
    monkeypatch.setenv(name, value)
    ended = await call(*whole_fleet(served, new_path))
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.complaint
    assert list(new_path.parent.iterdir()) == []


@pytest.mark.slow
async def test_a_report_in_json(call: Call, served: PoderoSimulator, path: Path) -> None:
    """With `--json`, stdout has one JSON object with fixed keys."""
    ended = await call(*whole_fleet(served, path), "--json")
    report = _report(ended)
    assert (ended.code, ended.err) == (0, "")
    assert (report["vehicles"], report["verified"], report["is_clean"], report["finished"]) == (10, 10, True, True)
    assert (report["from_date"], report["failures"]) == (str(served.first_day), [])
    assert report.keys() == set(_REPORT_KEYS.split())
    again = _report(await call(*whole_fleet(served, path), "--json"))
    assert (again["new"], again["changed"], again["run_id"]) == (0, 0, report["run_id"] + 1)


@pytest.mark.slow
async def test_the_days_are_told_apart(call: Call, served: PoderoSimulator, path: Path) -> None:
    """The report counts settled, provisional and missing days separately."""
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=served.vehicles[0]))
    ended = await call(*whole_fleet(served, path), "--settle-days=36000")
    days = (served.last_day - served.first_day).days + 1
    assert f"days      0 settled, {9 * days:,} provisional, {days:,} missing (days of vehicles)" in ended.out
    assert ended.code == 1
    assert "1 of 10 vehicles failed (at most a share of 0.02 is accepted)" in ended.err
    accepted = await call(*whole_fleet(served, path), "--max-failed=0.5")
    assert accepted.code == 0
    assert "1 of 10 vehicles failed or were not proven complete: an accepted share" in accepted.err


async def test_a_fleet_that_vanishes_is_exit_code_1(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """If too many vehicles vanish from the list, the exit code is 1, and one line names the remedy."""
    for user in {vehicle.user_id for vehicle in served.vehicles[:5]}:
        served.delete_user(user)
    ended = await call(*whole_fleet(served, filled))
    assert ended.code == 1
    assert "known vehicles are no longer listed" in ended.complaint
    assert (await call(*whole_fleet(served, filled), "--max-vanished=1")).code == 0


def _lines(simulator: PoderoSimulator, count: int = 3) -> str:
    return "".join(f"{vehicle.user_id},{vehicle.vehicle_id}\n" for vehicle in simulator.vehicles[:count])


@pytest.mark.slow
async def test_vehicles_from_a_file(
    call: Call, served: PoderoSimulator, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--vehicles` reads a file, a pipe or stdin; no user is listed when vehicles are given."""
    file = tmp_path / "vehicles.csv"
    file.write_text("user_id,vehicle_id\n" + _lines(served))
    assert _report(await call(*whole_fleet(served, path), f"--vehicles={file}", "--json"))["vehicles"] == 3
    assert not served.counts.requests["users"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(_lines(served, 4).encode())))
    assert _report(await call(*whole_fleet(served, path), "--vehicles=-", "--json"))["vehicles"] == 4
    reading, writing = os.pipe()
    os.write(writing, _lines(served, 5).encode())
    os.close(writing)
    assert _report(await call(*whole_fleet(served, path), f"--vehicles=/dev/fd/{reading}", "--json"))["vehicles"] == 5
    os.close(reading)


async def test_a_dry_run_reads_no_session_and_leaves_no_file(
    call: Call, served: PoderoSimulator, new_path: Path
) -> None:
    """`--dry-run` prints the requests and their time, requests no session, and creates no store."""
    ended = await call(*whole_fleet(served, new_path), "--dry-run", "--requests-per-second=50")
    assert (ended.code, ended.err) == (0, "")
    assert "10: 0 up to date" in ended.out
    assert "at least 20;" in ended.out, "each vehicle asks for its current session"
    assert "at least 0.4 s at 50 requests/s" in ended.out
    assert f"{served.first_day} to {served.last_day}: 10 vehicles" in ended.out
    assert not served.counts.requests["sessions"]
    assert not list(new_path.parent.iterdir())
    assert "pass --requests-per-second" in (await call(*whole_fleet(served, new_path), "--dry-run")).out


async def test_a_dry_run_changes_no_store(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """`--dry-run` computes its plan from an existing store, and does not change the store."""
    before, asked = filled.read_bytes(), served.counts.requests["sessions"]
    argv = [*whole_fleet(served, filled), "--dry-run", "--json"]
    day_before = served.first_day - timedelta(1)
    plan = _report(await call(*argv, f"--from={day_before}", "--requests-per-second=40"))
    assert (plan["vehicles"], plan["least_requests"], plan["least_seconds"]) == (10, 20, 0.5)
    assert plan["windows"] == [[str(day_before), str(day_before), 10]]
    assert plan.keys() == {"vehicles", "skipped", "least_requests", "windows", "failures", "least_seconds"}
    assert _report(await call(*argv))["least_seconds"] is None
    assert filled.read_bytes() == before
    assert served.counts.requests["sessions"] == asked


@pytest.mark.slow
async def test_failed_vehicles_are_listed(call: Call, served: PoderoSimulator, path: Path) -> None:
    """Each failed vehicle is one line on stderr, and the exit code is 1; the next run reads the vehicle."""
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", nth={1, 2}))
    ended = await call(*whole_fleet(served, path))
    assert ended.code == 1
    *lines, alarm = ended.err.splitlines()
    assert len(lines) == 2
    assert all("podero-async: vehicle " in line and "HTTP 404" in line for line in lines)
    assert "2 of 10 vehicles failed" in alarm
    assert "2 failed" in ended.out
    assert (await call(*whole_fleet(served, path))).code == 0


async def test_failures_in_json(call: Call, served: PoderoSimulator, path: Path) -> None:
    """With `--json`, failures are in the report only: a vehicle, or a user whose vehicles could not be listed."""
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", nth={1}))
    served.add_fault(Fault(kind="status", status=404, endpoint="vehicles", nth={1}))
    ended = await call(*whole_fleet(served, path), "--json")
    report = _report(ended)
    assert (ended.code, ended.err, report["failed"], report["is_clean"]) == (1, "", 2, False)
    assert {failure["kind"] for failure in report["failures"]} == {"NotFoundError"}
    assert sum(failure["vehicle_id"] is None for failure in report["failures"]) == 1


async def test_failed_users_are_listed(call: Call, served: PoderoSimulator, path: Path) -> None:
    """If the vehicles of a user could not be listed, the user is one line on stderr, in a plan and in a run."""
    served.add_fault(Fault(kind="status", status=404, endpoint="vehicles", nth={1, 9}))
    for argv in (["--dry-run"], []):
        ended = await call(*whole_fleet(served, path), *argv)
        assert ended.code == 1
        assert ended.err.startswith("podero-async: the list of vehicles of user ")


async def test_unproven_vehicles_are_listed(call: Call, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a vehicle is not proven complete, it is one line on stderr, and the exit code is 1."""
    ref = VehicleRef(user_id=USER, vehicle_id=VEHICLE)
    rows = {ref: [wire_row(number) for number in range(450)]}  # one day, more than two pages
    async with PoderoSimulator(rows=rows, faults=[Fault(kind="unstable_order")]) as simulator:
        for name, value in settings_of(simulator).items():
            monkeypatch.setenv(name, value)
        ended = await call(*whole_fleet(simulator, path))
    assert ended.code == 1
    line, alarm = ended.err.splitlines()
    assert line == f"podero-async: vehicle {VEHICLE} of user {USER}: not proven complete"
    assert "1 of 1 vehicles were not proven complete" in alarm
    assert "1 unproven" in ended.out


async def test_unreadable_sessions_are_counted(call: Call, served: PoderoSimulator, path: Path) -> None:
    """If sessions could not be read for the first time, they are counted on stderr, and the exit code is 1."""
    served.add_fault(Fault(kind="malformed_row", field="plug_in_time", damage="missing", nth=1))
    ended = await call(*whole_fleet(served, path))
    assert ended.code == 1
    assert ended.complaint.startswith("1 session could not be read")


async def test_the_speed_is_limited(call: Call, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`backfill` and `verify` pass their limits to the client."""
    asked: dict[str, Any] = {}

    def from_env(**options: Any) -> PoderoClient:
        asked.update(options)
        raise ConfigurationError("enough")

    monkeypatch.setattr(PoderoClient, "from_env", from_env)
    speed = ["--max-concurrency=3", "--requests-per-second=1.5"]
    for argv in (["backfill", "--from=2026-01-01", "--to=2026-01-02"], ["verify"]):
        assert (await call(*argv, f"--store={path}", *speed)).complaint == "enough"
        assert asked["throttle"] == ThrottlePolicy(max_concurrency=3, requests_per_second=1.5)
        asked.clear()


async def test_a_store_of_another_organization_is_exit_code_5(
    call: Call, served: PoderoSimulator, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store refuses the credentials of another organization; `status` shows the owner."""
    assert (
        f"owner     organization {served.org_id} at {served.base_url}\n"
        in (await call("status", f"--store={filled}")).out
    )
    monkeypatch.setenv("PODERO_ORG_ID", str(USER))
    for argv in (whole_fleet(served, filled), ["verify", f"--store={filled}"]):
        ended = await call(*argv)
        assert (ended.code, ended.out) == (5, "")
        assert str(served.org_id) in ended.complaint


@pytest.mark.parametrize("options", [["--json"], []])
async def test_an_api_that_is_down_is_exit_code_4(
    call: Call, served: PoderoSimulator, path: Path, options: list[str]
) -> None:
    """If all requests fail, the exit code is 4; the report is printed and, without `--json`, each failed vehicle."""
    retry = RetryPolicy(backoff_initial=0.001, backoff_max=0.002, budget=1, max_elapsed=1.0)
    served.add_fault(Fault(kind="status", status=503, endpoint="sessions"))
    ended = await call(*whole_fleet(served, path), *options, retry=retry)
    assert ended.code == 4
    *failures, verdict = ended.err.splitlines()
    assert verdict.startswith("podero-async: the API is ")
    if options:
        assert _report(ended)["failed"] == 10
        assert not failures
    else:
        assert "10 failed" in ended.out
        assert len(failures) == 10
        assert all(line.startswith("podero-async: vehicle ") and " failed: " in line for line in failures)


async def test_missing_settings_leave_no_store(call: Call, simulator: PoderoSimulator, new_path: Path) -> None:
    """If credentials are missing, no store is created."""
    ended = await call(*whole_fleet(simulator, new_path))
    assert ended.code == 2
    assert "PODERO_ORG_ID" in ended.complaint
    assert not new_path.exists()


_TOMORROW = (datetime.now(UTC) + timedelta(days=2)).date()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shard=5/4"], "5/4"),
        (["--shard=half"], "half"),
        (["--requests-per-second=0"], "not a number above 0"),
        (["--requests-per-second=fast"], "not a number above 0"),
        (["--requests-per-second=inf"], "not a number above 0"),
        (["--max-concurrency=0"], "not a whole number from 1"),
        (["--settle-days=-1"], "not a whole number from 0"),
        (["--fresh-for=-1"], "not a number of hours"),
        (["--fresh-for=inf"], "not a number of hours"),
        (["--fresh-for=soon"], "not a number of hours"),
        (["--max-failed=2"], "not a number from 0 to 1"),
        (["--max-vanished=x"], "not a number from 0 to 1"),
        (["--to=2020-01-01"], "--from must not be after --to: "),
        ([f"--from={_TOMORROW}", f"--to={_TOMORROW + timedelta(9)}"], "--from is "),
        (["--store="], "not a file"),
        (["--store=:memory:"], "not a file"),
        (["--vehicles=nowhere.csv"], "cannot read nowhere.csv: No such file"),
        (["--vehicles=/"], "cannot read /: Is a directory"),
        (["--vehicles=/dev/null"], "no vehicle in /dev/null"),
    ],
)
async def test_bad_arguments_leave_no_store(
    call: Call, served: PoderoSimulator, new_path: Path, options: list[str], said: str
) -> None:
    """If an argument is wrong, the exit code is 2; no request is sent, and no store is created."""
    ended = await call(*whole_fleet(served, new_path), *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.complaint
    assert not served.requests
    assert not list(new_path.parent.iterdir())


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"me,you\n", "user_id"),
        (b"one\n", "user_id,vehicle_id"),
        (b"{\n", "JSON"),
        (b"\xff\xfe\n", "line 4: "),
    ],
)
async def test_a_bad_line_of_vehicles(
    call: Call, served: PoderoSimulator, filled: Path, tmp_path: Path, bad: bytes, said: str
) -> None:
    """If a line is wrong, the error names the file and the number of the line, and no request is sent."""
    before, asked = filled.read_bytes(), len(served.requests)
    file = tmp_path / "vehicles.csv"
    file.write_bytes(_lines(served).encode() + bad + _lines(served).encode())
    ended = await call(*whole_fleet(served, filled), f"--vehicles={file}")
    assert (ended.code, ended.out) == (2, "")
    assert f"{file}, line 4: " in ended.complaint
    assert said in ended.complaint
    assert (filled.read_bytes(), len(served.requests)) == (before, asked)


def _text(path: Path) -> None:
    path.write_text("no database\n" * 500)


def _too_new(path: Path) -> None:
    async def make() -> None:
        async with SessionStore(path):
            pass

    asyncio.run(make())
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")


def _other_database(path: Path) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE sessions (id INTEGER)")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_text, "store"),
        (_too_new, "99"),
        (_other_database, "store"),
        (Path.mkdir, "directory"),
        (Path.touch, "store"),
    ],
)
@pytest.mark.parametrize("command", ["backfill", "dry run", "status", "verify", "export"])
async def test_another_file_is_exit_code_5(
    call: Call, served: PoderoSimulator, new_path: Path, make: Callable[[Path], None], said: str, command: str
) -> None:
    """If the path is not a store of this version, it is left unchanged."""
    await asyncio.to_thread(make, new_path)
    before = new_path.read_bytes() if new_path.is_file() else None
    backfill = whole_fleet(served, new_path)
    argv = {
        "backfill": backfill,
        "dry run": [*backfill, "--dry-run"],
        "export": ["export", f"--store={new_path}", f"--output={new_path.parent / 'out'}"],
    }.get(command, [command, f"--store={new_path}"])
    ended = await call(*argv)
    assert (ended.code, ended.out) == (5, "")
    assert said in ended.complaint
    assert str(new_path) in ended.complaint
    assert [file.name for file in new_path.parent.iterdir()] == [new_path.name]
    assert before is None or new_path.read_bytes() == before


@pytest.mark.parametrize("missing", ["duckdb", "pyarrow"])
async def test_without_the_extra(
    call: Call, served: PoderoSimulator, path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """If DuckDB or Arrow is missing, one line names the extra to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == missing or ".store.duckdb" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    for argv in (whole_fleet(served, path), ["status", f"--store={path}"], ["demo", "--vehicles=1"]):
        ended = await call(*argv)
        assert (ended.code, ended.out) == (2, "")
        assert "podero_async[backfill]" in ended.complaint

"""`podero-async demo`: it succeeds on a fleet that fails and changes, and it would notice if something were missing."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from podero_async.backfill import BackfillReport, SessionStore, backfill
from podero_async.cli.commands.demo import command as _demo
from podero_async.cli.commands.demo import fleet as _demo_fleet
from podero_async.cli.commands.demo.fleet import demo_simulator
from podero_async.testing import Fault
from tests.cli.conftest import Call, end_of, run_on_pty, start

_CLEAN = "0 lost, 0 doubled, 0 altered, 0 foreign: all of it is there, once"


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no fault stand in the way of a test that is about something else."""
    monkeypatch.setattr(_demo_fleet, "_FAULTS", ())


async def test_with_all_that_goes_wrong() -> None:
    """The first thing that anybody tries would fail, or leave out what it promises to show."""
    ended = await end_of(await start("demo", "--vehicles", "30", "--seed", "2"))
    assert (ended.code, ended.err) == (0, "")
    said = dict(re.findall(r"^(\w+) +(.+)$", ended.out, re.MULTILINE))
    assert said["truth"] == _CLEAN
    assert said["vehicles"] == "30 in the store, 0 failed"
    labels = [
        "sessions",
        "energy",
        "cost",
        "savings",
        "outcomes",
        "requests",
        "lists",
        "calls",
        "speed",
        "faults",
        "changes",
    ]
    assert [label for label in labels if label not in said] == []
    assert "status" in said["faults"]
    assert "token_revoked" in said["faults"]
    assert re.search(r"^ +\d+ s  \d+ of 30 vehicles, .* [1-9]\d* pauses", ended.out, re.MULTILINE)
    assert re.search(r"^Interrupted: \d+ vehicles are in the store", ended.out, re.MULTILINE)


async def test_on_a_real_terminal() -> None:
    """The bar would never move, or would tear the summary apart."""
    ended = await run_on_pty("demo", "--vehicles", "5")
    assert (ended.code, ended.err) == (0, "")
    assert "5 of 5 vehicles" in ended.out
    assert "\x1b[" in ended.out
    assert _CLEAN in ended.out


@pytest.mark.usefixtures("calm")
async def test_bar_and_lines_on_a_terminal(on_terminal: Call) -> None:
    """`--plain` would do nothing, or would need rich."""
    bar, lines = await on_terminal("demo", "--vehicles=5"), await on_terminal("demo", "--vehicles=5", "--plain")
    assert (bar.code, lines.code) == (0, 0)
    assert "5 of 5 vehicles" in bar.out
    assert "\x1b[" not in lines.out
    assert _CLEAN in bar.out
    assert _CLEAN in lines.out


@pytest.mark.usefixtures("calm")
async def test_lists_that_change_all_the_time(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo would call a fleet torn because it was alive."""
    monkeypatch.setattr(_demo_fleet, "_CHANGING", 1.0)
    ended = await call("demo", "--vehicles=20")
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"[1-9]\d* sessions inserted, [1-9]\d* removed", ended.out)
    assert _CLEAN in ended.out


@pytest.mark.usefixtures("calm")
async def test_the_seed_says_what_comes(call: Call) -> None:
    """Two runs that should be the same would be about different fleets."""
    first, again = await call("demo", "--vehicles=3", "--seed=4"), await call("demo", "--vehicles=3", "--seed=4")
    other = await call("demo", "--vehicles=3", "--seed=5")
    assert first.out.splitlines()[0] == again.out.splitlines()[0] != other.out.splitlines()[0]


def test_the_fleet_of_the_demo() -> None:
    """The demo would be about less than it says: no second page, no user without vehicles, no hidden session."""
    simulator = demo_simulator(500, seed=0)
    assert len(simulator.vehicles) == 500
    assert 55_000 < simulator.total_sessions() < 65_000
    owners = [vehicle.user_id for vehicle in simulator.vehicles]
    assert 0 < len(set(owners)) < 500  # some have two
    assert len(simulator.truth(simulator.vehicles[-1])) > 200
    assert any(row["is_hidden"] for row in simulator.truth(simulator.vehicles[-1], include_hidden=True))


_SPOILS = {
    "lost": "DELETE FROM sessions WHERE id = (SELECT min(id) FROM sessions)",
    "doubled": "INSERT INTO sessions FROM sessions WHERE id = (SELECT min(id) FROM sessions)",
    "altered": "UPDATE sessions SET is_at_home = NOT is_at_home WHERE id = (SELECT min(id) FROM sessions)",
    "foreign": "INSERT INTO sessions SELECT * REPLACE (uuid() AS id) FROM sessions WHERE id = (SELECT min(id) FROM sessions)",
}
_A_VEHICLE = "WHERE vehicle_id = (SELECT quantile_disc(vehicle_id, 0.5) FROM receipts)"


def _spoiling(monkeypatch: pytest.MonkeyPatch, *statements: str) -> None:
    """Spoil the store behind the demo's back, once the backfill has come to its end."""

    async def spoilt(*args: Any, **options: Any) -> BackfillReport:
        report = await backfill(*args, **options)
        store: SessionStore = args[1]
        for statement in statements if report.finished else ():
            await store.call(duckdb.DuckDBPyConnection.execute, statement)
        return report

    monkeypatch.setattr(_demo, "backfill", spoilt)


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("kind", _SPOILS)
async def test_a_spoilt_session_is_noticed(call: Call, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The demo would say that all is there whatever the library does."""
    monkeypatch.setattr(_demo_fleet, "_CHANGING", 0.0)
    _spoiling(monkeypatch, _SPOILS[kind])
    ended = await call("demo", "--vehicles=3")
    assert ended.code == 1
    assert f"1 {kind}" in ended.out
    assert "NOT what the server has" in ended.out


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (f"DELETE FROM sessions {_A_VEHICLE}", "lost"),
        (f"INSERT INTO sessions FROM sessions {_A_VEHICLE}", "doubled"),
        (f"INSERT INTO sessions SELECT * REPLACE (vehicle_id + 1 AS vehicle_id, uuid() AS id) {_A_VEHICLE}", "foreign"),
        (f"UPDATE sessions SET withdrawn_at = now() {_A_VEHICLE}", "lost"),
    ],
)
async def test_a_spoilt_vehicle_is_noticed(
    call: Call, monkeypatch: pytest.MonkeyPatch, statement: str, said: str
) -> None:
    """A vehicle that is missing, that is there twice, or that nobody has, would not be noticed."""
    statement = statement.replace("vehicle_id + 1 AS", "(vehicle_id::UHUGEINT + 1)::UUID AS")
    _spoiling(monkeypatch, statement.replace("uuid() AS id) WHERE", "uuid() AS id) FROM sessions WHERE"))
    ended = await call("demo", "--vehicles=3")
    assert ended.code == 1
    assert re.search(rf"[1-9]\d* {said}", ended.out)


async def test_failed_vehicles_are_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet with a failed vehicle would count as whole, or nobody would learn why it failed."""
    monkeypatch.setattr(
        _demo_fleet, "_FAULTS", (Fault(kind="status", status=404, endpoint="sessions", nth=range(1, 8)),)
    )
    ended = await call("demo", "--vehicles=9")
    assert ended.code == 1
    assert "2 in the store, 7 failed" in ended.out
    assert len(ended.err.splitlines()) == 6
    assert "HTTP 404" in ended.err
    assert "and 2 more failed" in ended.err


@pytest.mark.usefixtures("calm")
async def test_it_is_interrupted_and_goes_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo would not show what it is about: an end half-way, and a second call that goes on from there."""
    reports: list[BackfillReport] = []

    async def noted(*args: Any, **options: Any) -> BackfillReport:
        reports.append(await backfill(*args, **options))
        return reports[-1]

    monkeypatch.setattr(_demo, "backfill", noted)
    ended = await call("demo", "--vehicles=60")
    assert ended.code == 0
    first, second = reports
    assert (first.finished, second.finished, second.resumed) == (False, True, True)
    assert first.done > 0
    assert second.skipped == first.done
    assert first.done + second.done == 60
    assert f"Interrupted: {first.done} vehicles are in the store" in ended.out
    assert f"calls     {first.done} vehicles in " in ended.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_while_the_fleet_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    """It would be ignored for the first seconds, end in a traceback, or leave the database behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = await start("demo", "--vehicles=5000")
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert b"5,000 vehicles" in await process.stdout.readline()
        process.send_signal(number)
        ended = await end_of(process)
    assert (ended.code, ended.complaint) == (code, "interrupted")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("calm")
async def test_nothing_stays_behind(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each demo would leave a database of some megabytes in the folder for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert (await call("demo", "--vehicles=2")).code == 0
    assert not list(tmp_path.iterdir())

"""`podero-async demo`: its fleet, its faults, its interruption, and the check that finds wrong sessions."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import signal
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import attrs
import duckdb
import pytest

from podero_async.backfill import SessionStore, backfill
from podero_async.cli.commands.demo import command as demo
from podero_async.cli.commands.demo.fleet import ListChanges, TruthCheck, demo_simulator
from podero_async.testing import Fault
from tests._support.clients import client_of
from tests._support.commands import Call, end_of, run_on_pty, start

_CLEAN = "0 lost, 0 doubled, 0 altered, 0 foreign: all of it is there, once"


def _demo_with(**keywords: Any) -> dict[str, Any]:
    """Return the keywords of `main` for a demo with other faults or changes; by default without faults."""
    run = partial(demo.run, **{"faults": (), **keywords})
    return {"commands": [attrs.evolve(demo.COMMAND, run=run)]}


@pytest.mark.slow
async def test_with_all_faults() -> None:
    """A small fleet under all faults is stored without a loss, and the report has all its lines."""
    ended = await end_of(await start("demo", "--vehicles", "30", "--seed", "2"))
    assert (ended.code, ended.err) == (0, "")
    said = dict(re.findall(r"^(\w[\w-]*) +(.+)$", ended.out, re.MULTILINE))
    assert said["truth"] == _CLEAN
    assert said["vehicles"] == "30 in the store, 0 failed"
    labels = "sessions energy cost savings outcomes windows calls requests speed faults changes"
    assert [label for label in labels.split() if label not in said] == []
    assert "status" in said["faults"]
    assert "token_revoked" in said["faults"]
    assert re.search(r"^ +\d+ s  \d+ of 30 vehicles, .* requests/s, ", ended.out, re.MULTILINE)
    assert re.search(r"^Interrupted: \d+ vehicles are in the store", ended.out, re.MULTILINE)


@pytest.mark.slow
async def test_on_a_real_terminal() -> None:
    """A terminal gets a bar, and the report below it."""
    ended = await run_on_pty("demo", "--vehicles", "5")
    assert (ended.code, ended.err) == (0, "")
    assert "5 of 5 vehicles" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ended.out)
    assert "\x1b[" in ended.out
    assert _CLEAN in ended.out


@pytest.mark.slow
async def test_lines_on_a_terminal(on_terminal: Call) -> None:
    """With `--plain`, a terminal gets lines."""
    ended = await on_terminal("demo", "--vehicles=5", "--plain", **_demo_with())
    assert ended.code == 0
    assert "\x1b[" not in ended.out
    assert _CLEAN in ended.out


@pytest.mark.slow
async def test_lists_that_change_at_each_page(call: Call) -> None:
    """The store is right when sessions are inserted and removed before each page."""
    ended = await call("demo", "--vehicles=20", **_demo_with(change_rate=1.0))
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"[1-9]\d* sessions inserted, [1-9]\d* removed", ended.out)
    assert _CLEAN in ended.out


@pytest.mark.slow
async def test_the_store_may_be_kept(call: Call, tmp_path: Path) -> None:
    """With `--keep`, the store and a page stay in the directory, and each of the printed commands runs; no store is
    replaced.
    """
    folder = tmp_path / "a b" / "kept"
    ended = await call("demo", "--vehicles=3", f"--keep={folder}", **_demo_with())
    assert (ended.code, ended.err) == (0, "")
    assert f"page      {folder / 'report.html'}, " in ended.out
    assert ">3 vehicles, 3 customers<" in (folder / "report.html").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in ended.out.splitlines() if line.startswith("  podero-async")]
    assert [command[1] for command in commands] == ["status", "sql", "sql", "export"]
    for _, *argv in commands[:-1]:
        assert (await call(*argv)).code == 0
    assert "customer_1" in (await call(*commands[1][1:])).out
    again = await call("demo", "--vehicles=3", f"--keep={folder}", **_demo_with())
    assert (again.code, again.complaint) == (2, f"a store is in the way of the demo's: {folder / 'demo.duckdb'}")


def test_the_seed_decides_the_fleet() -> None:
    """Equal seeds make equal fleets, and other seeds make others."""
    first, again, other = (demo_simulator(3, seed, ()) for seed in (4, 4, 5))
    assert first.vehicles == again.vehicles != other.vehicles
    assert [first.truth(vehicle) for vehicle in first.vehicles] == [again.truth(vehicle) for vehicle in again.vehicles]


def test_the_fleet_of_the_demo() -> None:
    """The fleet has vehicles with several pages, users without and with two vehicles, and hidden sessions."""
    simulator = demo_simulator(500, seed=0, faults=())
    assert len(simulator.vehicles) == 500
    assert 55_000 < simulator.total_sessions() < 65_000
    owners = [vehicle.user_id for vehicle in simulator.vehicles]
    assert 0 < len(set(owners)) < 500
    assert len(simulator.truth(simulator.vehicles[-1])) > 200
    assert any(row["is_hidden"] for row in simulator.truth(simulator.vehicles[-1], include_hidden=True))


_A_SESSION = "WHERE id = (SELECT min(id) FROM sessions)"
_A_VEHICLE = "WHERE vehicle_id = (SELECT quantile_disc(vehicle_id, 0.5) FROM receipts)"
_OTHER_VEHICLE = "(vehicle_id::UHUGEINT + 1)::UUID AS vehicle_id"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[TruthCheck, Path]:
    """Store a fleet of three vehicles that does not change."""
    path = tmp_path_factory.mktemp("demo") / "demo.duckdb"
    simulator = demo_simulator(3, 0, ())
    check = TruthCheck(simulator, ListChanges(simulator, Random(0), 0.0))

    async def store_all() -> None:
        await check.remember()
        days = simulator.first_day, simulator.last_day
        async with simulator, client_of(simulator) as client, SessionStore(path) as store:
            assert (await backfill(client, store, *days, include_hidden=True)).is_clean

    asyncio.run(store_all())
    return check, path


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("SELECT 1", set()),
        (f"DELETE FROM sessions {_A_SESSION}", {"lost"}),
        (f"INSERT INTO sessions FROM sessions {_A_SESSION}", {"doubled"}),
        (f"UPDATE sessions SET is_at_home = NOT is_at_home {_A_SESSION}", {"altered"}),
        (f"INSERT INTO sessions SELECT * REPLACE (uuid() AS id) FROM sessions {_A_SESSION}", {"foreign"}),
        (f"DELETE FROM sessions {_A_VEHICLE}", {"lost"}),
        (f"UPDATE sessions SET withdrawn_at = now() {_A_VEHICLE}", {"lost"}),
        (f"INSERT INTO sessions FROM sessions {_A_VEHICLE}", {"doubled"}),
        (
            f"INSERT INTO sessions SELECT * REPLACE ({_OTHER_VEHICLE}, uuid() AS id) FROM sessions {_A_VEHICLE}",
            {"foreign"},
        ),
    ],
)
async def test_wrong_sessions_are_found(
    stored: tuple[TruthCheck, Path], tmp_path: Path, statement: str, found: set[str]
) -> None:
    """The check counts lost, doubled, altered and foreign sessions, for a single session and for a whole vehicle."""
    check, original = stored
    path = Path(shutil.copy(original, tmp_path))
    with duckdb.connect(str(path)) as connection:
        connection.execute(statement)
    check.found.clear()
    async with SessionStore(path, read_only=True) as store:
        await check.compare(store)
    assert {kind for kind, count in check.found.items() if count} == found


@pytest.mark.slow
async def test_a_lost_session_is_exit_code_1(call: Call) -> None:
    """If the store lacks a session, the report counts it as lost."""
    faults = [Fault(kind="malformed_row", field="plug_in_time", damage="missing", nth=1)]
    ended = await call("demo", "--vehicles=3", **_demo_with(faults=faults, change_rate=0.0))
    assert ended.code == 1
    assert "1 lost, 0 doubled, 0 altered, 0 foreign: NOT what the server has" in ended.out


@pytest.mark.slow
async def test_failed_vehicles_are_listed(call: Call) -> None:
    """If vehicles fail, the first are lines on stderr, the others are counted, and the exit code is 1."""
    faults = [Fault(kind="status", status=404, endpoint="sessions", nth=range(1, 8))]
    ended = await call("demo", "--vehicles=9", **_demo_with(faults=faults))
    assert ended.code == 1
    assert "2 in the store, 7 failed" in ended.out
    assert len(ended.err.splitlines()) == 6
    assert "HTTP 404" in ended.err
    assert "and 2 more failed" in ended.err


@pytest.mark.slow
async def test_it_stops_half_way_and_resumes(call: Call) -> None:
    """The first call stops with some vehicles stored, and the second call reads the others only."""
    ended = await call("demo", "--vehicles=60", **_demo_with())
    assert ended.code == 0
    match = re.search(r"^calls +(\d+) vehicles in .* s; then (\d+) vehicles in ", ended.out, re.MULTILINE)
    assert match
    first, second = map(int, match.groups())
    assert f"Interrupted: {first} vehicles are in the store" in ended.out
    assert first > 0
    assert first + second == 60


@pytest.mark.slow
async def test_a_signal_while_the_fleet_is_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a signal arrives in the first seconds, the demo ends and leaves no file."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = await start("demo", "--vehicles=5000")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert b"5,000 vehicles" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        ended = await end_of(process)
    assert (ended.code, ended.complaint) == (130, "interrupted")
    assert not list(tmp_path.iterdir())


async def test_no_file_is_left(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo removes its store."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert (await call("demo", "--vehicles=2", **_demo_with())).code == 0
    assert not list(tmp_path.iterdir())

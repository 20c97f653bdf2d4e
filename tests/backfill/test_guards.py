"""The plausibility of a whole run: fleets and sessions that seem to vanish, and vehicles that keep failing."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import duckdb
import pytest
from aiohttp import web

from podero_async import PoderoClient, VehicleRef
from podero_async.backfill import Bounds, SessionStore, Shard, backfill
from podero_async.backfill._alarms import Vanished
from podero_async.backfill.store.duckdb import vehicles
from podero_async.backfill.store.duckdb.schema import create_tables
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of, page_body, serving, static_client, wire_row
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of, utc
from tests.backfill.conftest import AGAIN, Clock


@pytest.mark.slow
async def test_a_fleet_that_vanishes_is_an_alarm(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If too many known vehicles vanish from the list, none is recorded as gone, until a run accepts it."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        stored = await held_by(store)
        for user in {vehicle.user_id for vehicle in sim.vehicles[:3]}:
            sim.delete_user(user)
        left = len(sim.vehicles) - 6
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.finished, report.is_clean, report.vanished, report.vehicles) == (True, False, 6, left)
        (alarm,) = report.alarms
        assert "6 of 12 known vehicles are no longer listed" in alarm
        assert (await store.status(clock)).gone == 0
        accepted = await backfill(client, store, FIRST, LAST, bounds=Bounds(max_vanished=1), now=clock)
        assert (accepted.is_clean, accepted.vanished) == (True, 6)
        status = await store.status(clock)
        assert (status.gone, status.provisional + status.settled) == (6, left * 30)
        assert await held_by(store) == stored, "the sessions of vehicles that have gone stay"
        again = await backfill(client, store, FIRST, LAST, now=clock)
        assert (again.is_clean, again.vanished) == (True, 0)


def test_a_vehicle_that_comes_back_is_not_gone() -> None:
    """A vehicle that leaves the list is recorded as gone; under another user, or listed again, it has not vanished."""
    one, other, moved = (
        VehicleRef(user_id=UUID(int=user), vehicle_id=UUID(int=vehicle)) for user, vehicle in ((1, 3), (1, 4), (2, 3))
    )
    listed = [([one, other], [], 0), ([moved, other], [one], 0), ([other], [one, moved], 1), ([one, other], [moved], 0)]
    with duckdb.connect() as con:
        create_tables(con)
        for night, (roster, gone, vanished) in enumerate(listed):
            vehicles.clear_roster(con)
            vehicles.add_to_roster(con, [], roster, [])
            found = vehicles.record_fleet(con, None, utc(2026, 1, 1 + night), 0.5, is_complete=True)
            assert found.vanished == vanished
            rows = con.execute("SELECT user_id, vehicle_id FROM vehicles WHERE gone_since IS NOT NULL").fetchall()
            assert {VehicleRef(user_id=user, vehicle_id=vehicle) for user, vehicle in rows} == set(gone)
        vehicles.clear_roster(con)
        assert vehicles.record_fleet(con, None, utc(2026, 1, 9), 0.5, is_complete=False) == Vanished()
        seen = con.execute("SELECT first_seen_at, last_seen_at FROM vehicles ORDER BY user_id, vehicle_id").fetchall()
        assert [(first.day, last.day) for first, last in seen] == [(1, 4), (1, 4), (2, 2)]


async def test_a_shard_misses_only_its_own_vehicles(sim: PoderoSimulator, client: PoderoClient, clock: Clock) -> None:
    """A run over another shard does not take the vehicles of the first one for vanished."""
    async with SessionStore(":memory:") as store:
        for index in (1, 2, 1):
            report = await backfill(client, store, FIRST, LAST, shard=Shard(index, 2), now=clock)
            assert (report.is_clean, report.vanished) == (True, 0)


@pytest.mark.slow
async def test_sessions_that_vanish_are_an_alarm(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If too many stored sessions are absent, none is withdrawn, until a run accepts it."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        stored = await held_by(store)
        for vehicle in sim.vehicles[:3]:
            for row in sim.truth(vehicle, FIRST, LAST):
                sim.remove(vehicle, row["id"])
        report = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        assert (report.finished, report.is_clean, report.withdrawn) == (True, False, 0)
        (alarm,) = report.alarms
        assert "stored sessions were no longer listed" in alarm
        assert await held_by(store) == stored
        absent = (await store.status(clock)).absent
        assert absent == len(stored) - len(truth_of(sim, FIRST, LAST))
        bounds = Bounds(max_withdrawn=1)
        accepted = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, bounds=bounds, now=clock)
        assert (accepted.is_clean, accepted.withdrawn) == (True, absent)
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


@pytest.mark.slow
async def test_a_dead_vehicle_is_no_alarm_after_three_days(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A vehicle that fails causes an alarm in a small fleet;
    after three days it still counts as failed, without an alarm.
    """
    sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=sim.vehicles[0]))
    clean = []
    async with SessionStore(path) as store:
        for _ in range(5):
            report = await backfill(client, store, FIRST, clock.at.date(), now=clock)
            assert (report.finished, report.failed) == (True, 1)
            clean.append(report.is_clean)
            clock.forward(days=1)
        assert clean == [False, False, False, True, True]
        assert (await store.status(clock)).failures == 1
        runs = await store.runs()
        assert [len(run.alarms) for run in runs] == [0, 0, 1, 1, 1]
        assert "1 of 12 vehicles failed" in runs[-1].alarms[0]


@pytest.mark.slow
async def test_unreadable_rows_are_an_alarm_for_three_days(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A row that cannot be read is an alarm of each run for three days, also of a run that reads nothing."""
    vehicle = sim.vehicles[0]
    sim.update(vehicle, sim.truth(vehicle, FIRST, LAST)[0]["id"], energy_charged_kwh="10.5")
    clean = []
    async with SessionStore(path) as store:
        for hours in (0, 1, 23, 24, 23, 2, 24):  # after one hour, no vehicle is read
            clock.forward(hours=hours)
            report = await backfill(client, store, FIRST, clock.at.date(), now=clock)
            assert report.rejected == (hours > 2 or not hours)
            clean.append(report.is_clean)
        assert clean == [False, False, False, False, False, True, True]
        sim.update(vehicle, sim.truth(vehicle, FIRST, LAST)[1]["id"], energy_charged_kwh="10.5")
        clock.forward(days=1)
        (alarm,) = (await backfill(client, store, FIRST, clock.at.date(), now=clock)).alarms
        assert alarm.startswith("2 sessions could not be read, 1 of them for less than 3 days")


async def test_a_clock_that_goes_back_during_the_run_is_an_alarm(
    client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If the clock goes back before a read, the days that it misses are reported as missing,
    and the next run reads them.
    """
    looks = 0

    def set_back() -> datetime:
        nonlocal looks
        looks += 1
        return clock() - timedelta(days=10 if looks > 6 else 0)

    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, now=set_back)
        assert (report.finished, report.is_clean, report.failed) == (True, False, 0)
        (alarm,) = report.alarms
        assert f"{report.missing} days of {report.missing // 8} vehicles are missing" in alarm
        again = await backfill(client, store, FIRST, LAST, now=clock)
        assert (again.is_clean, again.missing) == (True, 0)


async def test_a_day_that_has_just_begun_may_be_missing(path: Path) -> None:
    """Just after midnight, the server may have the day before: the new day is missing then, but the run is clean."""
    local, server = Clock(utc(2026, 7, 2) + timedelta(seconds=1)), utc(2026, 7, 1, 23, 59)
    async with (
        PoderoSimulator(vehicles=2, sessions_per_vehicle=3, clock=server.timestamp) as slow,
        client_of(slow) as slow_client,
        SessionStore(path) as store,
    ):
        report = await backfill(slow_client, store, FIRST, local.at.date(), now=local)
        assert (report.is_clean, report.missing) == (True, 2)


@pytest.mark.parametrize("total", [-(10**400), 10**400], ids=["-1e400", "1e400"])
async def test_a_total_that_cannot_be_true_ends_no_run(total: int, path: Path, clock: Clock) -> None:
    """A vehicle whose list states such a total is unproven, its sessions are stored, and the other vehicle is read."""
    odd, other = UUID(int=3), UUID(int=4)

    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith("/users"):
            return web.json_response([{"id": str(UUID(int=1))}])
        if request.path.endswith("/electric-vehicles"):
            return web.json_response([{"id": str(odd)}, {"id": str(other)}])
        if request.path.endswith("/current"):
            return web.json_response({"session": None})
        is_odd = str(odd) in request.path
        rows = [wire_row(1 if is_odd else 2)][int(request.query["offset"]) :]
        return web.Response(body=page_body(*rows, total=total if is_odd else 1))

    async with serving(handler) as origin, static_client(origin) as client, SessionStore(path) as store:
        report = await backfill(client, store, date(2026, 1, 1), date(2026, 1, 31), now=clock)
        assert (report.new, report.unproven, report.failed) == (2, 1, 0)


@pytest.mark.slow
async def test_old_records_are_deleted(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> None:
    """At the end of a run, receipts and runs that are over 400 days old are deleted; sessions are not."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        stored = len(await held_by(store))
        clock.forward(days=399)
        await backfill(client, store, FIRST, LAST, now=clock)
        assert [run.run_id for run in await store.runs()] == [2, 1]
        clock.forward(days=2)
        await backfill(client, store, FIRST, clock.at.date(), now=clock)
        assert [run.run_id for run in await store.runs()] == [3, 2]
        assert {row["run_id"] for row in await store.query("SELECT DISTINCT run_id FROM receipts")} == {2, 3}
        assert len(await held_by(store)) == stored

"""The tables of users, vehicles and their history, which a discovery or a list of vehicles fills in."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest

from podero_async import PoderoClient, User, VehicleRef
from podero_async.backfill import Bounds, SessionStore, Shard, backfill
from podero_async.backfill.store.duckdb import vehicles
from podero_async.backfill.store.duckdb.schema import create_tables
from podero_async.testing import Fault, PoderoSimulator
from tests._support.expected_rows import FIRST, LAST, utc
from tests.backfill.conftest import Clock

NIGHT = utc(2026, 1, 1, 2)
ONE_DAY = timedelta(days=1)


def user(number: int, external_id: str | None = None, **more: Any) -> User:
    return User(id=UUID(int=number), external_user_id=external_id, **more)


def car(owner: int, number: int, **more: Any) -> VehicleRef:
    return VehicleRef(user_id=UUID(int=owner), vehicle_id=UUID(int=number), **more)


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    create_tables(con)
    con.execute("SET TimeZone = 'UTC'")
    return con


def discover(
    con: duckdb.DuckDBPyConnection, users: list[User], found: list[VehicleRef], at: datetime, **options: Any
) -> None:
    vehicles.clear_roster(con)
    vehicles.add_to_roster(con, users, found, [])
    vehicles.record_fleet(con, options.pop("shard", None), at, 1.0, is_complete=True, **options)


def periods_of(con: duckdb.DuckDBPyConnection) -> list[tuple[int, int, str | None, int, int | None]]:
    """Return the history: vehicle, user, external id, and the days from which and until when."""
    rows = con.execute("FROM ownership ORDER BY vehicle_id, since, user_id").fetchall()
    return [(car.int, user.int, name, since.day, until and until.day) for car, user, name, since, until in rows]


async def test_a_discovery_fills_users_and_vehicles_at_no_extra_request(
    sim: PoderoSimulator, client: PoderoClient, clock: Clock
) -> None:
    """A backfill stores external ids, roles and models, with one request for the list of users and one for each user."""
    async with SessionStore(":memory:") as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        assert (sim.counts.requests["users"], sim.counts.requests["vehicles"], sim.counts.requests["user"]) == (1, 6, 0)
        users = await store.query("SELECT * FROM users ORDER BY external_user_id")
        assert [row["external_user_id"] for row in users] == [f"customer_{number}" for number in range(1, 7)]
        assert {(row["role"], row["num_electric_vehicles"], row["gone_since"]) for row in users} == {("user", 2, None)}
        found = {row["vehicle_id"]: row for row in await store.query("SELECT * FROM vehicles")}
        assert found.keys() == {str(vehicle.vehicle_id) for vehicle in sim.vehicles}
        for vehicle in await client.electric_vehicles(sim.vehicles[0].user_id):
            row, model = found[str(vehicle.id)], vehicle.device_model
            assert model is not None
            assert (row["manufacturer"], row["model"], row["year"]) == (model.manufacturer, model.model, model.year)
            assert (row["price_zone"], row["lifecycle_state"], row["is_authenticated"]) == ("AT", "active", True)


@pytest.mark.slow
async def test_the_store_says_who_had_a_vehicle_when(sim: PoderoSimulator, client: PoderoClient, clock: Clock) -> None:
    """When a vehicle changes its user, and when it leaves, the history keeps each user with the time."""
    async with SessionStore(":memory:") as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        first, moment = sim.vehicles[0], clock.at
        clock.forward(days=1)
        second = sim.move_vehicle(first, sim.vehicles[-1].user_id)
        await backfill(client, store, FIRST, LAST, now=clock)
        clock.forward(days=1)
        sim.remove_vehicle(second)
        await backfill(client, store, FIRST, LAST, bounds=Bounds(max_vanished=1), now=clock)
        owner_at = """
        SELECT external_user_id FROM ownership WHERE vehicle_id = ? AND since <= ? AND (until IS NULL OR until > ?)
        """
        for days, expected in enumerate(["customer_1", "customer_6", None]):
            at = moment + timedelta(days=days, hours=1)
            rows = await store.query(owner_at, [first.vehicle_id, at, at])
            assert [row["external_user_id"] for row in rows] == [expected] * (expected is not None)


def test_a_changed_external_id_starts_a_new_period(con: duckdb.DuckDBPyConnection) -> None:
    """Users have their current external id, and the history the earlier ones; a night without a change adds nothing."""
    discover(con, [user(1, "a"), user(2, "b")], [car(1, 3), car(2, 4)], NIGHT)
    discover(con, [user(1, "a"), user(2, "b")], [car(1, 3), car(2, 4)], NIGHT + ONE_DAY)
    assert periods_of(con) == [(3, 1, "a", 1, None), (4, 2, "b", 1, None)]
    discover(con, [user(1, "z"), user(2)], [car(1, 3), car(2, 4)], NIGHT + 2 * ONE_DAY)
    discover(con, [user(1, "z"), user(2)], [car(1, 3)], NIGHT + 3 * ONE_DAY)
    assert periods_of(con) == [(3, 1, "a", 1, 3), (3, 1, "z", 3, None), (4, 2, "b", 1, 3), (4, 2, None, 3, 4)]
    assert con.execute("SELECT external_user_id FROM users ORDER BY user_id").fetchall() == [("z",), (None,)]


def test_a_user_who_is_not_listed_is_gone_and_may_return(con: duckdb.DuckDBPyConnection) -> None:
    """A user is gone since the first discovery without the user, and a run over another shard changes nothing."""
    one, other = (next(n for n in range(1, 99) if Shard(index, 2).holds(UUID(int=n))) for index in (1, 2))
    discover(con, [user(one), user(other)], [], NIGHT)
    discover(con, [], [], NIGHT + ONE_DAY, shard=Shard(1, 2))
    gone = "SELECT user_id, gone_since, last_seen_at FROM users ORDER BY user_id = ?"
    found = con.execute(gone, [UUID(int=other)]).fetchall()
    assert [(row[0].int, row[1] and row[1].day) for row in found] == [(one, 2), (other, None)]
    discover(con, [user(one), user(other)], [], NIGHT + 2 * ONE_DAY)
    assert [row[1:] for row in con.execute(gone, [UUID(int=other)]).fetchall()] == [(None, NIGHT + 2 * ONE_DAY)] * 2


def test_values_that_no_column_can_hold_are_left_out(con: duckdb.DuckDBPyConnection) -> None:
    """A year beyond the range of an integer is NULL, and a text that is not Unicode gets question marks."""
    discover(
        con, [user(1, "x\udce4", num_electric_vehicles=2**40)], [car(1, 2, year=-(2**31) - 1, model="\ud800")], NIGHT
    )
    assert con.execute("SELECT external_user_id, num_electric_vehicles FROM users").fetchall() == [("x?", None)]
    assert con.execute('SELECT "year", model FROM vehicles').fetchall() == [(None, "?")]


@pytest.mark.slow
async def test_a_run_over_given_vehicles_fills_in_what_is_known(
    sim: PoderoSimulator, client: PoderoClient, clock: Clock
) -> None:
    """Vehicles of a caller's list get the details of the list once they are read; a pair that fails is not recorded."""
    found = [vehicle async for vehicle in client.discover_vehicles()]
    plain = VehicleRef(user_id=found[1].user_id, vehicle_id=found[1].vehicle_id)
    unknown = car(7, 8, external_user_id="nobody")
    async with SessionStore(":memory:") as store:
        await backfill(client, store, FIRST, LAST, vehicles=[found[0], plain, unknown], now=clock)
        rows = {row["vehicle_id"]: row["manufacturer"] for row in await store.query("SELECT * FROM vehicles")}
        assert rows == {str(found[0].vehicle_id): found[0].manufacturer, str(plain.vehicle_id): None}
        users = await store.query("SELECT * FROM users WHERE external_user_id IS NOT NULL")
        assert [(row["user_id"], row["external_user_id"]) for row in users] == [
            (str(found[0].user_id), found[0].external_user_id)
        ]
        clock.forward(days=1)
        await backfill(client, store, FIRST, LAST, vehicles=[plain], now=clock)
        await backfill(client, store, FIRST, LAST, vehicles=[found[1]], fresh_for=timedelta(), now=clock)
        clock.forward(days=1)
        await backfill(client, store, FIRST, LAST, vehicles=[plain], now=clock)
        (row,) = await store.query("SELECT * FROM vehicles WHERE vehicle_id = ?", [plain.vehicle_id])
        assert row["manufacturer"] == found[1].manufacturer, "a list without details does not erase them"
        assert row["last_seen_at"] is None, "no discovery has listed it"
        await backfill(client, store, FIRST, LAST, now=clock)
        (row,) = await store.query("SELECT * FROM vehicles WHERE vehicle_id = ?", [plain.vehicle_id])
        assert row["last_seen_at"] - row["first_seen_at"] > timedelta(days=1)


@pytest.mark.slow
async def test_given_vehicles_that_a_discovery_does_not_list_have_not_vanished(
    sim: PoderoSimulator, client: PoderoClient, clock: Clock
) -> None:
    """A pair of a caller's list whose vehicle has moved is gone after the next discovery, and its sessions have moved."""
    async with SessionStore(":memory:") as store:
        moved = sim.vehicles[:6]
        await backfill(client, store, FIRST, LAST, vehicles=moved, now=clock)
        for vehicle in moved:
            sim.move_vehicle(vehicle)
        clock.forward(days=1)
        now_at = [vehicle for vehicle in sim.vehicles if vehicle.vehicle_id in {old.vehicle_id for old in moved}]
        await backfill(client, store, FIRST, LAST, vehicles=now_at, now=clock)
        users = {UUID(row["user_id"]) for row in await store.query("SELECT DISTINCT user_id FROM live_sessions")}
        assert users == {vehicle.user_id for vehicle in now_at}
        for vehicle in now_at:
            sim.remove_vehicle(vehicle)
        clock.forward(days=1)
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.is_clean, report.vanished) == (True, 0)
        assert len(await store.query("FROM vehicles WHERE gone_since IS NOT NULL")) == 12


@pytest.mark.slow
async def test_external_ids_are_not_kept_if_the_caller_says_so(
    sim: PoderoSimulator, client: PoderoClient, clock: Clock
) -> None:
    """A run that must not keep external ids stores none, and removes those that earlier runs have stored."""
    found = [vehicle async for vehicle in client.discover_vehicles()]
    sim.add_fault(Fault(kind="status", status=404, nth=1, endpoint="vehicles"))
    async with SessionStore(":memory:") as store:

        async def ids() -> list[dict[str, Any]]:
            known = "SELECT external_user_id FROM users UNION ALL SELECT external_user_id FROM ownership"
            return await store.query(f"FROM ({known}) WHERE external_user_id IS NOT NULL")

        for given in (None, found):
            await backfill(client, store, FIRST, LAST, vehicles=given, keep_external_ids=False, now=clock)
            assert await ids() == []
            assert len(await store.query("FROM users")) == 6
            await backfill(client, store, FIRST, LAST, vehicles=given, fresh_for=timedelta(), now=clock)
            assert await ids() != []


async def test_a_snapshot_has_no_byte_of_removed_external_ids(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A snapshot after a run that keeps no external ids contains none, although the store's file did before the run."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
    assert b"customer_" in path.read_bytes()
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, keep_external_ids=False, now=clock)
        await store.snapshot(path.with_name("copy"))
    assert b"customer_" not in path.with_name("copy").read_bytes()


async def test_a_fleet_fetch_says_whose_vehicle_an_outcome_is(sim: PoderoSimulator, client: PoderoClient) -> None:
    """The vehicle of an outcome has the external id and the model that the discovery found, and equals its plain ids."""
    async with client.fetch_fleet(FIRST, LAST) as fleet:
        outcomes = [outcome async for outcome in fleet]
    assert {outcome.vehicle for outcome in outcomes} == set(sim.vehicles)
    assert {outcome.vehicle.external_user_id for outcome in outcomes if outcome.vehicle} == {
        f"customer_{number}" for number in range(1, 7)
    }
    assert all(outcome.vehicle and outcome.vehicle.manufacturer and outcome.vehicle.year for outcome in outcomes)
    assert "customer" not in repr(outcomes)

"""The views that analysts read, and the comments on all tables, views and columns."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from math import fsum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from podero_async import PoderoClient
from podero_async.backfill import SessionStore, backfill
from podero_async.testing import PoderoSimulator
from tests._support.expected_rows import FIRST, LAST, truth_of
from tests._support.old_store import create_old_store
from tests.backfill.conftest import Clock

VIENNA = "Europe/Vienna"
VIEWS = {"live_sessions", "monthly_savings", "vehicle_coverage"}


@pytest.mark.slow
async def test_live_sessions_are_those_that_the_server_lists(
    sim: PoderoSimulator, client: PoderoClient, clock: Clock
) -> None:
    """A withdrawn session is not in the view, and each row has its user's external id and its vehicle's model."""
    vehicle = sim.vehicles[0]
    async with SessionStore(":memory:") as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.remove(vehicle, sim.truth(vehicle, FIRST, LAST)[0]["id"])
        clock.forward(days=1)
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert report.withdrawn == 1
        rows = await store.query("FROM live_sessions")
        assert {(row["vehicle_id"], row["id"]) for row in rows} == truth_of(sim, FIRST, LAST).keys()
        names = {str(user.id): user.external_user_id async for user in client.users()}
        assert all(row["external_user_id"] == names[row["user_id"]] for row in rows)
        assert all(row["manufacturer"] and row["model"] for row in rows)
        assert not {"withdrawn_at", "absent_at"} & rows[0].keys()


@pytest.mark.parametrize("zone", ["UTC", VIENNA])
async def test_savings_by_month_are_the_sums_of_the_sessions(
    sim: PoderoSimulator, client: PoderoClient, clock: Clock, zone: str
) -> None:
    """Months are those of the given time zone in any connection; sums skip missing savings, and count them."""
    expected: dict[tuple[str, date], list[dict[str, Any]]] = defaultdict(list)
    owners = {str(vehicle.vehicle_id): str(vehicle.user_id) for vehicle in sim.vehicles}
    for (vehicle, _), row in truth_of(sim, date(2026, 5, 1), LAST).items():
        month = row["plug_in_time"].astimezone(ZoneInfo(zone)).date().replace(day=1)
        expected[owners[vehicle], month].append(row)
    async with SessionStore(":memory:") as store:
        await backfill(client, store, date(2026, 5, 1), LAST, now=clock)
        table = "monthly_savings" if zone == "UTC" else f"monthly_savings_in('{zone}')"
        for own_zone in ("UTC", "Asia/Tokyo"):
            await store.query(f"SET TimeZone = '{own_zone}'; FROM {table}")
            rows = await store.query(f"FROM {table}")
            assert {(row["user_id"], row["month"]) for row in rows} == expected.keys()
            for row in rows:
                mine = expected[row["user_id"], row["month"]]
                saved = [each["actual_savings_eur"] for each in mine if each["actual_savings_eur"] is not None]
                assert (row["sessions"], row["sessions_without_savings"]) == (len(mine), len(mine) - len(saved))
                assert row["actual_savings_eur"] == pytest.approx(fsum(saved)) or (
                    not saved and row["actual_savings_eur"] is None
                )
                assert row["energy_charged_kwh"] == pytest.approx(
                    fsum(each["energy_charged_kwh"] or 0 for each in mine)
                )
                assert row["external_user_id"].startswith("customer_")


async def test_the_coverage_of_a_vehicle_counts_its_days(
    sim: PoderoSimulator, client: PoderoClient, clock: Clock
) -> None:
    """Each vehicle has its settled and provisional days, and the missing ones between them."""
    vehicle = sim.vehicles[0]
    async with SessionStore(":memory:") as store:
        for first, last in ((date(2026, 6, 6), date(2026, 6, 10)), (date(2026, 6, 25), LAST)):
            await backfill(client, store, first, last, vehicles=[vehicle], settle_days=15, now=clock)
        (row,) = await store.query("FROM vehicle_coverage")
        assert (row["from_date"], row["to_date"]) == (date(2026, 6, 6), LAST)
        assert (row["settled_days"], row["provisional_days"], row["missing_days"]) == (5, 6, 14)


def uncommented(path: Path) -> list[tuple[str, ...]]:
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute("""
            SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL
            UNION ALL SELECT table_name, '' FROM duckdb_tables() WHERE comment IS NULL
            UNION ALL SELECT view_name, '' FROM duckdb_views() WHERE NOT internal AND comment IS NULL
        """).fetchall()


@pytest.mark.slow
async def test_each_table_view_and_column_has_a_comment(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """New and migrated stores, snapshots and stores after a `forget` have the views, their macro and all comments."""
    old, copy = path.with_name("old.duckdb"), path.with_name("copy.duckdb")
    create_old_store(old, 2, {})
    async with SessionStore(old):
        pass
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        await store.snapshot(copy)
        await store.forget(sim.vehicles[0].user_id)
    for each in (path, old, copy):
        assert uncommented(each) == []
        with duckdb.connect(str(each), read_only=True) as con:
            names = con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
            assert {name for (name,) in names} == VIEWS
            for table in (*VIEWS, f"monthly_savings_in('{VIENNA}')"):
                assert bool(con.execute(f"FROM {table}").fetchall()) == (each != old)


async def test_a_column_that_a_table_gets_later_breaks_no_view(path: Path) -> None:
    """The views name their columns, so a later release may add columns to the tables."""
    async with SessionStore(path):
        pass
    with duckdb.connect(str(path)) as con:
        for table in ("sessions", "users", "vehicles", "coverage"):
            con.execute(f"ALTER TABLE {table} ADD COLUMN later INTEGER")
        for view in VIEWS:
            con.execute(f"FROM {view}")

"""The status of a store, and its comparison with the API."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from podero_async import PoderoClient
from podero_async.backfill import DayCounts, SessionStore, backfill, verify
from podero_async.testing import Fault, PoderoSimulator
from tests._support.expected_rows import FIRST, LAST, truth_of
from tests.backfill.conftest import AGAIN, Clock


async def test_a_complete_store_is_clean(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> None:
    """`verify()` of a complete store is clean with one request per vehicle, and can check a sample."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        whole = await verify(client, store)
        assert (whole.checked, whole.matching, whole.requests) == (12, 12, 12)
        assert whole.is_clean
        assert (await verify(client, store, 5)).checked == 5
        with pytest.raises(ValueError, match="sample"):
            await verify(client, store, 0)


async def test_differences_are_named(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> None:
    """`verify()` names missing and surplus sessions by vehicle, and none after the next backfill."""
    vehicle = sim.vehicles[0]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        removed = sim.truth(vehicle, FIRST, LAST)[0]["id"]
        sim.remove(vehicle, removed)
        added = sim.insert(sim.vehicles[1], plug_in_time=None)["id"]
        report = await verify(client, store)
        assert (report.matching, report.differing) == (10, 2)
        assert not report.is_clean
        found = {difference.vehicle: (difference.missing, difference.surplus) for difference in report.differences}
        assert found == {vehicle: ((), (removed,)), sim.vehicles[1]: ((added,), ())}
        await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        report = await verify(client, store)
        assert (report.checked, report.matching, report.differing) == (12, 12, 0)
        assert report.is_clean
        await store.query("DELETE FROM sessions RETURNING id")
        assert (await verify(client, store)).differing == 12, "the table is compared, not a record of it"


async def test_failures_and_unproven_reads_are_counted(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Vehicles that fail or remain unproven are counted as such, and the report is not clean."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=sim.vehicles[0]))
        sim.add_fault(Fault(kind="wrong_total", delta=7, vehicle=sim.vehicles[1]))
        report = await verify(client, store)
        assert (report.matching, report.failed, report.unproven) == (10, 1, 1)
        assert report.failures[0].vehicle_id == str(sim.vehicles[0].vehicle_id)
        assert not report.is_clean


async def test_unproven_reads_are_not_verified(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Days that were never proven complete are missing, so there is nothing to verify."""
    sim.add_fault(Fault(kind="wrong_total", delta=7, rate=1.0))
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.clear_faults()
        assert (await verify(client, store)).checked == 0


async def test_the_coverage_shows_gaps(client: PoderoClient, path: Path, clock: Clock) -> None:
    """The coverage has the days that were read, and the others are missing."""
    async with SessionStore(path) as store:
        for first, last in ((1, 7), (8, 10), (20, 25)):
            window = date(2026, 6, first), date(2026, 6, last)
            await backfill(client, store, *window, now=clock)
        coverage = (await store.status(clock)).coverage
        days = await store.days(FIRST, LAST, now=clock)
    found = {(each.from_date.day, each.to_date.day) for each in coverage}
    assert {first for first, _ in found} >= {2, 8, 20}, "spans of different times are not joined"
    assert not any(10 < last < 20 or last > 25 for _, last in found)
    assert days == DayCounts(settled=days.settled, provisional=12 * 16 - days.settled, missing=12 * 14)


async def test_the_status_summarizes_the_store(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """The status counts vehicles, days, sessions, failures and runs, of an empty store, too."""
    bad = sim.vehicles[3]
    sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=bad))
    async with SessionStore(path) as store:
        empty = await store.status(clock)
        assert (empty.sessions, empty.fetched_at, empty.runs, empty.coverage) == (0, None, (), ())
        await backfill(client, store, FIRST, LAST, include_hidden=True, now=clock)
        await backfill(client, store, FIRST, date(2026, 7, 2), include_hidden=True, now=clock)
        status = await store.status(clock)
        truth = [
            row
            for (vehicle, _), row in truth_of(sim, FIRST, LAST, include_hidden=True).items()
            if vehicle != str(bad.vehicle_id)
        ]
        assert (status.vehicles, status.gone, status.sessions, status.withdrawn) == (12, 0, len(truth), 0)
        assert status.hidden == len([row for row in truth if row["is_hidden"]])
        assert status.first_plug_in == min(row["plug_in_time"] for row in truth)
        assert status.last_plug_in == max(row["plug_in_time"] for row in truth)
        assert (status.failures, status.failed_vehicles[0].kind) == (1, "NotFoundError")
        assert (status.missing, status.settled + status.provisional) == (0, 11 * 32), (
            "a vehicle that failed has no first day"
        )
        assert {(part.from_date, part.is_settled, part.vehicles) for part in status.coverage} >= {
            (date(2026, 7, 1), False, 11)
        }
        assert [(run.run_id, run.failed, run.finished_at is None) for run in status.runs] == [
            (2, 1, False),
            (1, 1, False),
        ]
        assert status.runs == tuple(await store.runs())
        assert await store.runs(1) == [status.runs[0]]

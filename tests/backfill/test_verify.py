"""The status of a store, and its comparison with the API."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from podero_async import PoderoClient, ThrottlePolicy
from podero_async.backfill import Bounds, DayCounts, Progress, SessionStore, backfill, verify
from podero_async.backfill._values import Limits
from podero_async.testing import Fault, PageRequest, PoderoSimulator
from tests._support.clients import client_of
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of, utc
from tests.backfill.conftest import Clock

LATER = timedelta(days=60)
"""By then, all days of June are settled."""


async def _filled(client: PoderoClient, store: SessionStore, clock: Clock, **options: Any) -> None:
    """Fill a store with settled days."""
    clock.at += LATER
    assert (await backfill(client, store, FIRST, LAST, now=clock, **options)).is_clean


@pytest.mark.slow
async def test_a_complete_store_is_clean(client: PoderoClient, path: Path, clock: Clock) -> None:
    """`verify()` of a complete store is clean with one request per vehicle;
    it can check a sample, and read the store only.
    """
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
    progress = Progress()
    async with SessionStore(path, read_only=True) as store:
        whole = await verify(client, store, progress=progress, limits=Limits(max_batch_outcomes=5, work_slice=3))
        assert (whole.checked, whole.matching, whole.requests) == (12, 12, 12)
        assert whole.is_clean
        assert (progress.vehicles, progress.received, progress.phase) == (12, 12, "ended")
        assert (await verify(client, store, 5)).checked == 5
        with pytest.raises(ValueError, match="sample"):
            await verify(client, store, 0)


async def test_only_settled_days_are_compared(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Sessions of provisional days may come later, so they are compared only if that is asked for."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.insert(sim.vehicles[0], plug_in_time=utc(2026, 6, 29, 12))
        settled = await verify(client, store)
        assert settled.checked < 12, "most vehicles have not asked for their current session yet"
        assert settled.is_clean
        report = await verify(client, store, include_provisional=True)
        assert (report.checked, report.differing) == (12, 1)


async def test_differences_are_named(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> None:
    """`verify()` names missing, surplus and changed sessions by vehicle, and leaves the store as it is."""
    one, two, three = sim.vehicles[:3]
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        removed, changed = sim.truth(one, FIRST, LAST)[0]["id"], sim.truth(two, FIRST, LAST)[0]["id"]
        sim.remove(one, removed)
        sim.update(two, changed, actual_savings_eur=99.0)
        added = sim.insert(three, sim.truth(three, FIRST, LAST)[0] | {"id": str(UUID(int=7))})["id"]
        before = await held_by(store)
        report = await verify(client, store)
        assert (report.matching, report.differing, report.repaired) == (9, 3, 0)
        assert not report.is_clean
        found = {each.vehicle: (each.sessions, each.missing, each.surplus, each.changed) for each in report.differences}
        assert found == {one: (1, (), (removed,), ()), two: (1, (), (), (changed,)), three: (1, (added,), (), ())}
        assert await held_by(store) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "differing"),
    [
        pytest.param("UPDATE sessions SET plug_in_time = plug_in_time - INTERVAL 40 DAY", 12, marks=pytest.mark.slow),
        ("INSERT INTO sessions BY NAME SELECT * REPLACE (uuid() AS id) FROM sessions LIMIT 1", 1),
        pytest.param("DELETE FROM sessions", 12, marks=pytest.mark.slow),
        pytest.param("UPDATE sessions SET withdrawn_at = fetched_at", 12, marks=pytest.mark.slow),
        pytest.param("UPDATE sessions SET energy_charged_kwh = 0", 12, marks=pytest.mark.slow),
        pytest.param("UPDATE sessions SET vehicle_id = uuid()", 12, marks=pytest.mark.slow),
        pytest.param("DELETE FROM sessions WHERE id = (SELECT min(id) FROM sessions)", 1, marks=pytest.mark.slow),
    ],
)
async def test_a_damaged_table_differs_and_is_repaired(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, damage: str, differing: int
) -> None:
    """Rows that were lost, changed, moved, withdrawn or added by hand are differences; a repair makes them right."""
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        await store.query(f"{damage} RETURNING id")
        report = await verify(client, store)
        assert (report.differing, report.is_clean) == (differing, False)
        clock.forward(days=1)
        report = await verify(client, store, repair=True, now=clock)
        assert (report.differing, report.repaired, report.alarms) == (differing, differing, ())
        assert report.is_clean
        assert await held_by(store) == truth_of(sim, FIRST, LAST)
        report = await verify(client, store, include_provisional=True)
        assert (report.matching, report.is_clean) == (12, True)


@pytest.mark.slow
async def test_doubled_rows_are_a_difference_of_their_own(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Ids that are stored more than once are named, even of rows that cannot be compared;
    a repair keeps one row of each.
    """
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        one, other = (str(sim.truth(vehicle, FIRST, LAST)[0]["id"]) for vehicle in sim.vehicles[:2])
        double = "INSERT INTO sessions SELECT * {} FROM sessions WHERE id = ? RETURNING id"
        await store.query(double.format(""), [one])
        await store.query(
            double.format("REPLACE (uuid() AS vehicle_id, changed_at - INTERVAL 1 DAY AS changed_at)"), [other]
        )
        report = await verify(client, store)
        assert (report.differing, report.doubled, report.uncovered, report.is_clean) == (2, 2, 1, False)
        assert sorted(each.doubled for each in report.differences) == sorted([(one,), (other,)])
        clock.forward(days=1)
        report = await verify(client, store, repair=True, now=clock)
        assert (report.repaired, report.doubled, report.uncovered) == (2, 0, 0)
        assert await held_by(store) == truth_of(sim, FIRST, LAST)
        assert (await verify(client, store)).is_clean


@pytest.mark.slow
async def test_rows_that_cannot_be_compared_are_counted(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Rows of vehicles that have left are counted and leave a store clean; rows of days that no read covers do not."""
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        vehicle = sim.vehicles[0]
        stored = len(sim.truth(vehicle, FIRST, LAST))
        sim.remove_vehicle(vehicle)
        await backfill(client, store, FIRST, LAST, now=clock)
        report = await verify(client, store)
        assert (report.left, report.left_sessions, report.uncovered) == (1, stored, 0)
        assert report.is_clean
        other = sim.vehicles[0]
        await store.query("DELETE FROM coverage WHERE vehicle_id = ? RETURNING from_date", [other.vehicle_id])
        report = await verify(client, store, 3)
        assert (report.left_sessions, report.uncovered) == (stored, len(sim.truth(other, FIRST, LAST)))
        assert not report.is_clean


@pytest.mark.slow
async def test_a_repair_includes_hidden_sessions(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Days that were read with hidden sessions are compared and repaired with them, and other days without."""
    async with SessionStore(path) as store:
        await _filled(client, store, clock, include_hidden=True, vehicles=sim.vehicles[:6])
        assert (await backfill(client, store, FIRST, LAST, now=clock, vehicles=sim.vehicles[6:])).is_clean
        assert (await verify(client, store)).matching == 12
        before = await held_by(store)
        await store.query("DELETE FROM sessions RETURNING id")
        clock.forward(days=1)
        report = await verify(client, store, repair=True, now=clock)
        assert (report.differing, report.repaired, report.is_clean) == (12, 12, True)
        assert await held_by(store) == before
        assert any(row["is_hidden"] for row in before.values())


@pytest.mark.slow
async def test_a_repair_withdraws_nothing_if_too_much_is_missing(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If the API lists too few sessions, a repair withdraws none, and its report tells why and is not clean."""
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        before = await held_by(store)
        for vehicle in sim.vehicles[:8]:
            for row in sim.truth(vehicle, FIRST, LAST):
                sim.remove(vehicle, row["id"])
        clock.forward(days=1)
        report = await verify(client, store, repair=True, now=clock)
        assert (report.differing, report.repaired, report.is_clean) == (8, 0, False)
        assert "--max-withdrawn" in report.alarms[0]
        assert await held_by(store) == before
        clock.forward(days=1)
        bounds = Bounds(max_withdrawn=1)
        await verify(client, store, include_provisional=True, repair=True, bounds=bounds, now=clock)
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


@pytest.mark.slow
async def test_sessions_of_the_time_before_a_move_stay(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If a vehicle moves, and the API lists only a part of its history under the new user, the other sessions stay with the
    old user, and are counted as ones that cannot be compared.
    """
    vehicle, other = sim.vehicles[0], sim.vehicles[-1].user_id
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        before, (*old, moved) = await held_by(store), sim.truth(vehicle, FIRST, LAST)
        now_at = sim.move_vehicle(vehicle, other)
        for row in old:
            sim.remove(now_at, row["id"])
        for _ in range(2):
            clock.forward(days=1)
            report = await backfill(client, store, FIRST, LAST, now=clock)
            assert (report.is_clean, report.withdrawn) == (True, 0)
        assert len(await held_by(store)) == len(before)
        users = await store.query(
            "SELECT user_id, count(*) AS n FROM sessions WHERE vehicle_id = ? GROUP BY 1 ORDER BY 2",
            [vehicle.vehicle_id],
        )
        assert [(row["user_id"], row["n"]) for row in users] == [(str(other), 1), (str(vehicle.user_id), len(old))]
        assert await store.query("SELECT 1 FROM sessions WHERE absent_at IS NOT NULL OR withdrawn_at IS NOT NULL") == []
        found = await verify(client, store, include_provisional=True)
        assert (found.left_sessions, found.uncovered, found.is_clean) == (len(old), 0, True)
        assert moved["id"] in {row["id"] for row in sim.truth(now_at, FIRST, LAST)}


@pytest.mark.slow
async def test_a_vehicle_that_left_is_no_difference(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Vehicles that the API no longer has are counted apart, before and after a backfill has recorded it."""
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        left = [vehicle for vehicle in sim.vehicles if vehicle.user_id == sim.vehicles[0].user_id]
        sim.delete_user(left[0].user_id)
        for vehicle in left:
            sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=vehicle))
        report = await verify(client, store)
        assert (report.checked, report.left, report.is_clean) == (12 - len(left), len(left), True)
        await backfill(client, store, FIRST, LAST, bounds=Bounds(max_vanished=1), now=clock)
        requests = report.requests
        report = await verify(client, store)
        assert (report.checked, report.left, report.is_clean) == (12 - len(left), len(left), True)
        assert report.requests < requests


@pytest.mark.slow
async def test_a_vehicle_that_is_listed_but_not_found_has_failed(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A vehicle whose sessions answer 404 has left only if its user no longer lists it, or the user has left;
    if that is unknown, it has failed.
    """
    listed, removed = sim.vehicles[0], sim.vehicles[2]
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        sim.remove_vehicle(removed)
        sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=listed))
        report = await verify(client, store)
        assert (report.matching, report.left, report.failed, report.is_clean) == (10, 1, 1, False)
        assert [each.vehicle_id for each in report.failures] == [str(listed.vehicle_id)]
        for endpoint in ("users", "vehicles"):
            sim.clear_faults()
            sim.add_fault(Fault(kind="status", status=403, endpoint=endpoint))
            report = await verify(client, store)
            assert (report.matching, report.left, report.failed, report.is_clean) == (11, 0, 1, False)


@pytest.mark.slow
async def test_sessions_that_cannot_be_read_were_not_compared(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A vehicle with unreadable sessions counts neither as equal nor as different, and the report is not clean."""
    one, other = sim.vehicles[:2]
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        for vehicle in (one, other):
            for row in sim.truth(vehicle, FIRST, LAST):
                sim.update(vehicle, row["id"], energy_charged_kwh="10.5")
        added = sim.insert(other, plug_in_time=utc(2026, 6, 3, 12))["id"]
        report = await verify(client, store, include_provisional=True, repair=True, now=clock)
        unreadable = len(sim.truth(one, FIRST, LAST)) + len(sim.truth(other, FIRST, LAST)) - 1
        assert (report.checked, report.matching, report.unreadable, report.rejected) == (12, 10, 1, unreadable)
        assert (report.differing, report.repaired, report.is_clean) == (1, 0, False)
        assert report.differences[0].missing == (added,)


async def test_failures_and_unproven_reads_are_counted(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Vehicles that fail or remain unproven are counted as such, and the report is not clean."""
    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        sim.add_fault(Fault(kind="status", status=403, endpoint="sessions", vehicle=sim.vehicles[0]))
        sim.add_fault(Fault(kind="wrong_total", delta=7, vehicle=sim.vehicles[1]))
        report = await verify(client, store, repair=True, now=clock)
        assert (report.matching, report.failed, report.unproven, report.differing) == (10, 1, 1, 0)
        assert report.failures[0].vehicle_id == str(sim.vehicles[0].vehicle_id)
        assert not report.is_clean


async def test_a_call_that_is_stopped_reports_what_it_compared(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If the event is set during the reads, the report has the vehicles that were compared, and is not clean."""
    stop = asyncio.Event()

    def set_at_the_fifth(request: PageRequest) -> None:
        if sim.counts.requests["sessions"] >= before + 5:
            stop.set()

    async with SessionStore(path) as store:
        await _filled(client, store, clock)
        before = sim.counts.requests["sessions"]
        sim.before_page = set_at_the_fifth
        async with client_of(sim, throttle=ThrottlePolicy(max_concurrency=1)) as slow:
            report = await verify(slow, store, stop=stop)
        assert not report.finished
        assert 0 < report.checked == report.matching < 12
        assert not report.is_clean


@pytest.mark.slow
async def test_unproven_reads_are_not_verified(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Days that were never proven complete are missing, so nothing is compared, and the result is not clean."""
    sim.add_fault(Fault(kind="wrong_total", delta=7, rate=1.0))
    clock.at += LATER
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.clear_faults()
        report = await verify(client, store, include_provisional=True)
        assert (report.checked, report.differing, report.is_clean) == (0, 0, False)


@pytest.mark.slow
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


@pytest.mark.slow
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

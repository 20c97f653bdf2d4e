"""`backfill()` over a real server and a real database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from podero_async import (
    AuthenticationError,
    PoderoClient,
    RejectedItem,
    RetryPolicy,
    StaticToken,
    ThrottlePolicy,
    VehicleRef,
)
from podero_async._paging.window import Window
from podero_async.backfill import (
    ApiDownError,
    Bounds,
    Progress,
    SessionStore,
    Shard,
    StoreError,
    backfill,
    plan_backfill,
    verify,
)
from podero_async.backfill._values import Limits, WorkItem
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.testing import Fault, PageRequest, PoderoSimulator
from tests._support.clients import client_of, wire_row
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of, utc
from tests._support.fetched import fetched, rows_of
from tests.backfill.conftest import AGAIN, Clock

SMALL_BATCHES = Limits(max_batch_outcomes=2)


async def test_a_fleet_is_stored_with_receipts(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A first run stores every session of every vehicle with all its fields, and one receipt per vehicle."""
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, now=clock)
        truth = truth_of(sim, FIRST, LAST)
        assert await held_by(store) == truth
        assert (report.vehicles, report.done, report.verified, report.skipped, report.failed) == (12, 12, 12, 0, 0)
        assert (report.sessions, report.new, report.changed, report.withdrawn) == (len(truth), len(truth), 0, 0)
        assert report.finished
        assert report.is_clean
        assert (report.settled, report.provisional, report.missing) == (3, 12 * 30 - 3, 0)
        assert report.requests == sim.counts.total_requests - sim.counts.requests["token"]
        receipts = await store.query("SELECT * FROM receipts")
        assert len(receipts) == 12
        assert {receipt["completeness"] for receipt in receipts} == {"verified"}
        assert sum(receipt["count"] for receipt in receipts) == len(truth)
        assert all(receipt["total"] == receipt["count"] and len(receipt["digest"]) == 32 for receipt in receipts)
        (row,) = await store.query("SELECT * FROM sessions LIMIT 1")
        assert row["first_seen_at"] == row["fetched_at"]
        assert row["changed_at"] >= row["first_seen_at"]
        assert row["absent_at"] is row["withdrawn_at"] is None


@pytest.mark.slow
async def test_a_run_after_a_stopped_one_reads_the_rest(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """After a run was stopped, the same call requests only the vehicles that were not committed."""
    stop = asyncio.Event()
    sim.before_page = lambda asked: stop.set() if asked.number == 7 else None
    async with SessionStore(path) as store:
        first = await backfill(client, store, FIRST, LAST, stop=stop, now=clock, limits=SMALL_BATCHES)
        assert not first.finished
        assert not first.is_clean
        assert 0 < first.done < 12
        (alarm,) = first.alarms
        assert "ended early" in alarm
        asked = sim.counts.requests.copy()
        plan = await plan_backfill(client, store, FIRST, LAST, now=clock)
        assert (plan.vehicles, plan.skipped) == (12, first.done)
        second = await backfill(client, store, FIRST, LAST, now=clock)
        assert second.is_clean
        assert second.skipped == first.done
        assert sim.counts.requests["sessions"] - asked["sessions"] == 12 - first.done
        assert plan.least_requests == 12 - first.done + sim.counts.requests["current"] - asked["current"]
        assert await held_by(store) == truth_of(sim, FIRST, LAST)
        runs = await store.runs()
        assert [(run.run_id, run.done, run.finished_at is None) for run in runs] == [
            (2, second.done, False),
            (1, first.done, True),
        ]


@pytest.mark.slow
async def test_a_run_after_a_stopped_one_reads_failed_and_unproven_vehicles_again(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """After a run was stopped, the same call reads the vehicles that it left unproven, and lists all users again."""
    sim.add_fault(Fault(kind="status", status=404, endpoint="vehicles", nth=1))
    sim.add_fault(Fault(kind="wrong_total", delta=7, rate=1.0))
    stop = asyncio.Event()
    sim.before_page = lambda asked: stop.set() if asked.number == 60 else None
    one_by_one = client_of(sim, throttle=ThrottlePolicy(max_concurrency=1))
    async with SessionStore(path) as store:
        async with one_by_one:
            first = await backfill(
                one_by_one, store, FIRST, LAST, stop=stop, now=clock, limits=Limits(max_batch_outcomes=1)
            )
        assert not first.finished
        assert (first.failed, first.unproven > 0) == (1, True)
        assert (await store.status(clock)).failures == 1 + first.unproven
        sim.clear_faults()
        sim.before_page = None
        second = await backfill(client, store, FIRST, LAST, now=clock)
        assert second.is_clean
        assert (second.failed, second.unproven) == (0, 0)
        assert (await store.status(clock)).failures == 0
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


@pytest.mark.slow
async def test_a_user_that_was_not_listed_stays_a_failure_until_the_fleet_is_discovered_again(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If a user's vehicles cannot be listed, the failure keeps its first time until a discovery lists them.

    A run over given vehicles does not clear it.
    """
    async with SessionStore(path) as store:
        for nth in range(2):
            sim.add_fault(Fault(kind="status", status=404, endpoint="vehicles", nth=1))
            report = await backfill(client, store, FIRST, LAST, now=clock)
            assert (report.finished, report.failed, report.is_clean) == (True, 1, False)
            await backfill(client, store, FIRST, LAST, vehicles=sim.vehicles[:1], now=clock)
            (failure,) = await store.query("SELECT * FROM failures WHERE vehicle_id IS NULL")
            assert failure["first_failed_at"] <= failure["failed_at"]
            sim.clear_faults()
            if nth == 0:
                first = failure["first_failed_at"]
                user = failure["user_id"]
            elif failure["user_id"] == user:
                assert failure["first_failed_at"] == first
            clock.forward(days=1)
        assert (await backfill(client, store, FIRST, LAST, now=clock)).is_clean
        assert (await store.status(clock)).failures == 0


async def test_a_stop_during_discovery_ends_the_run(client: PoderoClient, path: Path, clock: Clock) -> None:
    """If the stop is set before the discovery, the run ends without reading a vehicle."""
    stop = asyncio.Event()
    stop.set()
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, stop=stop, now=clock)
        assert not report.finished
        assert report.done == 0


async def test_a_cancelled_run_leaves_no_task_and_can_be_resumed(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If a run is cancelled, it leaves no task, and the next call completes the store."""
    async with SessionStore(path) as store:
        running = asyncio.create_task(backfill(client, store, FIRST, LAST, now=clock, limits=SMALL_BATCHES))

        def cancel(asked: PageRequest) -> None:
            if asked.number == 7:
                running.cancel()

        sim.before_page = cancel
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [
            task for task in asyncio.all_tasks() if "podero_async" in task.get_name() and "batch" in task.get_name()
        ] == []
        sim.before_page = None
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert report.finished
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


@pytest.mark.slow
async def test_a_run_after_a_finished_one_reads_provisional_days_again(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """After a finished run, the same call reads all provisional days again, unless they were read a short time ago."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        idle = await backfill(client, store, FIRST, LAST, now=clock)
        assert (idle.done, idle.skipped) == (0, 12)
        windows: set[tuple[date, date]] = set()
        sim.before_page = lambda asked: windows.add((asked.from_date, asked.to_date))
        clock.forward(hours=13)
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert windows == {(FIRST, LAST), (FIRST + timedelta(days=1), LAST)}, "one day of some vehicles is settled"
        assert report.unchanged == len(truth_of(sim, FIRST, LAST))
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_run_over_later_days_reads_provisional_days_before_its_window(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A run over yesterday alone also reads the provisional days of earlier runs, in the same request."""
    clock.at = utc(2026, 6, 29, 2)
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, date(2026, 6, 28), now=clock)
        windows: set[tuple[date, date]] = set()
        sim.before_page = lambda asked: windows.add((asked.from_date, asked.to_date))
        clock.forward(days=1)
        report = await backfill(client, store, date(2026, 6, 29), date(2026, 6, 29), now=clock)
        assert windows == {(FIRST, date(2026, 6, 29))}
        assert report.done == 12
        assert (report.settled, report.provisional, report.missing) == (0, 12, 0)


async def test_a_wider_window_reads_the_missing_days(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A wider window reads missing days; one window has both those before and after the stored ones if few lie between."""
    wide = sim.first_day, LAST
    late = date(2026, 6, 10), LAST
    async with SessionStore(path) as store:
        await backfill(client, store, *late, vehicles=sim.vehicles[:11], now=clock)
        windows: dict[VehicleRef, set[tuple[date, date]]] = {}
        sim.before_page = lambda asked: windows.setdefault(asked.vehicle, set()).add((asked.from_date, asked.to_date))
        plan = await plan_backfill(client, store, *wide, vehicles=sim.vehicles, now=clock)
        report = await backfill(client, store, *wide, vehicles=sim.vehicles, now=clock)
        assert windows.pop(sim.vehicles[11]) == {wide}
        assert len(windows) == 11
        for asked in windows.values():
            assert asked == {(sim.first_day, date(2026, 6, 9))}
        assert plan.windows[0] == (sim.first_day, date(2026, 6, 9), 11)
        assert plan.least_requests == report.requests == 12
        assert plan.seconds_at(10) == 1.2
        assert await held_by(store) == truth_of(sim, *wide)


@pytest.mark.slow
async def test_a_gap_between_stored_days_is_filled(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A run reads the gaps between stored windows, with one request if few days lie between them."""
    async with SessionStore(path) as store:
        await backfill(client, store, date(2026, 6, 1), date(2026, 6, 9), now=clock)
        await backfill(client, store, date(2026, 6, 20), date(2026, 6, 25), now=clock)
        windows: set[tuple[date, date]] = set()
        sim.before_page = lambda asked: windows.add((asked.from_date, asked.to_date))
        await backfill(client, store, FIRST, LAST, now=clock)
        assert windows == {(date(2026, 6, 10), LAST)}
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_only_rows_of_the_days_read_are_withdrawn(path: Path, clock: Clock) -> None:
    """A run withdraws only rows that were plugged in on the days that it read; the bounds are exact to the second."""
    vehicle = VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=2))
    times = "2026-06-09T23:59:59Z", "2026-06-10T00:00:00Z", "2026-06-12T23:59:59Z", "2026-06-13T00:00:00Z"
    rows = [wire_row(number, plug_in_time=time) for number, time in enumerate(times)]
    async with PoderoSimulator(rows={vehicle: rows}) as sim, client_of(sim) as client, SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        for row in rows:
            sim.remove(vehicle, row["id"])
        report = await backfill(
            client,
            store,
            date(2026, 6, 10),
            date(2026, 6, 12),
            fresh_for=AGAIN,
            now=clock,
            bounds=Bounds(max_withdrawn=1),
        )
        assert report.withdrawn == 3, "provisional days before the window are read, too"
        assert {row_id for _, row_id in await held_by(store)} == {rows[3]["id"]}


async def test_a_window_ends_with_today(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> None:
    """Days after today are neither read nor counted as missing; a later run reads them."""
    clock.at = utc(2026, 6, 29, 12)
    windows: set[tuple[date, date]] = set()
    sim.before_page = lambda asked: windows.add((asked.from_date, asked.to_date))
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, date(2027, 1, 1), now=clock)
        assert windows == {(FIRST, date(2026, 6, 29))}
        assert (report.provisional, report.missing) == (12 * 29, 0)
        clock.forward(days=1)
        windows.clear()
        await backfill(client, store, FIRST, date(2027, 1, 1), now=clock)
        assert windows == {(FIRST, LAST)}
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_run_on_a_later_day_reads_all_provisional_days(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """After an interrupted run, a run on the next day reads every vehicle, since all days may have changed."""
    stop = asyncio.Event()
    sim.before_page = lambda asked: stop.set() if asked.number == 7 else None
    async with SessionStore(path) as store:
        first = await backfill(client, store, FIRST, LAST, stop=stop, now=clock, limits=SMALL_BATCHES)
        clock.forward(days=1)
        second = await backfill(client, store, FIRST, LAST, now=clock)
        assert second.done == 12
        assert 0 < first.done < 12
        assert len(await store.runs()) == 2, "the interrupted run stays as a record"


@pytest.mark.slow
async def test_changed_hidden_removed_and_returning_rows(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Changed rows get `changed_at`, hidden and removed ones `withdrawn_at`,
    and returning ones lose it; none is deleted.
    """
    vehicle = sim.vehicles[0]
    kept, changed, hidden, removed = [row["id"] for row in sim.truth(vehicle, FIRST, LAST)[:4]]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.update(vehicle, changed, actual_savings_eur=9.75)
        sim.hide(vehicle, hidden)
        gone = next(row for row in sim.truth(vehicle) if row["id"] == removed)
        sim.remove(vehicle, removed)
        clock.forward(days=1)
        before = clock.at
        second = await backfill(client, store, FIRST, LAST, now=clock)
        rows = {row["id"]: row for row in await store.query("SELECT * FROM sessions")}
        assert (second.new, second.changed, second.withdrawn) == (0, 1, 2)
        assert rows[changed]["actual_savings_eur"] == 9.75
        assert rows[changed]["changed_at"] > before > rows[changed]["first_seen_at"]
        assert rows[kept]["changed_at"] < rows[changed]["changed_at"]
        assert rows[kept]["withdrawn_at"] is None
        assert rows[kept]["fetched_at"] > rows[kept]["first_seen_at"]
        for row_id in (hidden, removed):
            assert rows[row_id]["withdrawn_at"] > rows[row_id]["fetched_at"]
            assert rows[row_id]["changed_at"] == rows[row_id]["withdrawn_at"]
        assert await held_by(store) == truth_of(sim, FIRST, LAST)

        sim.insert(vehicle, gone)
        before = rows[removed]["changed_at"]
        third = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        rows = {row["id"]: row for row in await store.query("SELECT * FROM sessions")}
        assert (third.new, third.changed, third.withdrawn) == (0, 1, 0)
        assert rows[removed]["withdrawn_at"] is None
        assert rows[removed]["changed_at"] > before
        assert rows[hidden]["withdrawn_at"] is not None


@pytest.mark.slow
async def test_runs_without_hidden_sessions_keep_stored_hidden_ones(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A run without hidden sessions withdraws no hidden one; a run with hidden ones reads the same days again."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, include_hidden=True, now=clock)
        idle = await backfill(client, store, FIRST, LAST, now=clock)
        assert idle.skipped == 12, "days read with hidden sessions are read without them"
        report = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        assert (report.done, report.withdrawn) == (12, 0)
        assert await held_by(store) == truth_of(sim, FIRST, LAST, include_hidden=True)
    async with SessionStore(":memory:") as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        assert (await plan_backfill(client, store, FIRST, LAST, include_hidden=True, now=clock)).windows == (
            (FIRST, LAST, 12),
        )
        await backfill(client, store, FIRST, LAST, include_hidden=True, now=clock)
        assert await held_by(store) == truth_of(sim, FIRST, LAST, include_hidden=True)


@pytest.mark.slow
async def test_an_unproven_read_withdraws_no_row_and_settles_no_day(path: Path, clock: Clock) -> None:
    """An unproven read withdraws no row and settles no day; a later proven read does both."""
    async with PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=20) as sim, client_of(sim) as client:
        async with SessionStore(path) as store:
            await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
            (vehicle,) = sim.vehicles
            removed = sim.truth(vehicle, FIRST, LAST)[0]["id"]
            sim.remove(vehicle, removed)
            sim.add_fault(Fault(kind="wrong_total", delta=7))
            report = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
            assert (report.unproven, report.withdrawn) == (1, 0)
            assert report.unproven_vehicles == (vehicle,)
            assert not report.is_clean
            assert len(await store.query("SELECT * FROM receipts WHERE completeness = 'unproven'")) == 1
            sim.clear_faults()
            report = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
            assert (report.unproven, report.withdrawn) == (0, 1)


async def test_an_unproven_first_read_is_stored_and_repeated(path: Path, clock: Clock) -> None:
    """Rows of an unproven first read are stored, and the next run reads the window again without duplicates."""
    async with PoderoSimulator(users=1, vehicles=2, sessions_per_vehicle=20) as sim, client_of(sim) as client:
        sim.add_fault(Fault(kind="wrong_total", delta=7))
        async with SessionStore(path) as store:
            report = await backfill(client, store, FIRST, LAST, now=clock)
            assert (report.unproven, report.missing) == (2, 60)
            assert await held_by(store) == truth_of(sim, FIRST, LAST)
            sim.clear_faults()
            report = await backfill(client, store, FIRST, LAST, now=clock)
            assert (report.done, report.new, report.missing) == (2, 0, 0)
            assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_session_that_was_removed_before_its_vehicle_moved_stays(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A session that the new user's list lacks stays with the old user, whose list shows nothing any more."""
    old = sim.vehicles[0]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        removed = sim.truth(old, FIRST, LAST)[0]["id"]
        sim.remove(sim.move_vehicle(old), removed)
        clock.forward(days=1)
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.is_clean, report.withdrawn) == (True, 0)
        held, truth = await held_by(store), truth_of(sim, FIRST, LAST)
        assert [number for _, number in held.keys() - truth.keys()] == [removed]
        assert truth.items() <= held.items()


@pytest.mark.slow
async def test_failures_are_stored_retried_and_removed(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If a vehicle fails, the others are read; each run retries it, and its failure is stored until it succeeds."""
    bad = sim.vehicles[4]
    sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=bad))
    async with SessionStore(path) as store:
        for _ in range(2):
            report = await backfill(client, store, FIRST, LAST, now=clock)
            assert report.finished
            assert not report.is_clean
            assert (report.failed, report.failures[0].vehicle_id) == (1, str(bad.vehicle_id))
            (failure,) = await store.query("SELECT * FROM failures")
            assert failure["kind"] == report.failures[0].kind == "NotFoundError"
            assert failure["message"].startswith("HTTP 404")
        assert (report.done, report.skipped) == (0, 11)
        sim.clear_faults()
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.done, report.failed) == (1, 0)
        assert await store.query("SELECT * FROM failures") == []
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_run_over_failed_vehicles_reads_only_these(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """`only_failed` reads the vehicles that failed, and the vehicles of users whose list failed; it lists no fleet."""
    sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=sim.vehicles[4]))
    sim.add_fault(Fault(kind="status", status=404, endpoint="vehicles", nth=1))
    async with SessionStore(path) as store:
        first = await backfill(client, store, FIRST, LAST, now=clock)
        assert first.failed == 2
        sim.clear_faults()
        before = sim.counts.requests.copy()
        report = await backfill(client, store, FIRST, LAST, only_failed=True, now=clock)
        assert (report.is_clean, report.done, report.skipped) == (True, 12 - first.done, 0)
        asked = sim.counts.requests - before
        assert (asked["users"], asked["vehicles"], asked["sessions"]) == (0, 1, report.done)
        assert await held_by(store) == truth_of(sim, FIRST, LAST)
        with pytest.raises(ValueError, match="only_failed"):
            await backfill(client, store, FIRST, LAST, only_failed=True, vehicles=sim.vehicles, now=clock)


@pytest.mark.slow
async def test_known_vehicles_of_a_user_that_cannot_be_listed_are_read(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If a user's vehicles cannot be listed, that is a failure, and those that the store knows are read."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.add_fault(Fault(kind="status", status=404, endpoint="vehicles", nth=1))
        report = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        assert (report.failed, report.vehicles, report.done, report.vanished) == (1, 12, 12, 0)
        assert report.failures[0].vehicle_id is None
        assert len(await store.query("SELECT * FROM failures WHERE vehicle_id IS NULL")) == 1
        await backfill(client, store, FIRST, LAST, now=clock)
        assert await store.query("SELECT * FROM failures") == []


@pytest.mark.leaping
@pytest.mark.slow
async def test_an_outage_ends_the_run_early(path: Path, clock: Clock) -> None:
    """An outage ends a run over a large fleet early with `ApiDownError`; the next call reads the rest."""
    retry = RetryPolicy(backoff_initial=0.001, backoff_max=0.002, max_attempts=3, budget=50)
    async with (
        PoderoSimulator(users=5, vehicles=300, sessions_per_vehicle=2) as sim,
        client_of(sim, retry=retry) as client,
    ):
        outage = Fault(kind="status", status=500, endpoint="sessions")
        sim.before_page = lambda asked: sim.add_fault(outage) if asked.number == 40 else None
        async with SessionStore(path) as store:
            with pytest.raises(ApiDownError, match="down") as raised:
                await backfill(client, store, FIRST, LAST, now=clock)
            report = raised.value.report
            assert not report.finished
            assert report.done >= 39
            assert report.done + report.failed < 200
            assert str(raised.value) == raised.value.reason
            sim.clear_faults()
            sim.before_page = None
            again = await backfill(client, store, FIRST, LAST, now=clock)
            assert again.finished
            assert again.skipped == report.done
            assert await store.query("SELECT * FROM failures") == []
            assert await held_by(store) == truth_of(sim, FIRST, LAST)


TWICE = RetryPolicy(max_attempts=2, backoff_initial=0.001)


@pytest.mark.parametrize("endpoint", ["sessions", "vehicles"])
async def test_an_outage_of_a_small_fleet_is_reported(path: Path, clock: Clock, endpoint: Any) -> None:
    """If every request for a small fleet fails with a server error, the run ends with `ApiDownError`."""
    down = Fault(kind="status", status=502, endpoint=endpoint)
    async with (
        PoderoSimulator(users=3, vehicles=3, sessions_per_vehicle=20, faults=[down]) as sim,
        client_of(sim, retry=TWICE) as client,
        SessionStore(path) as store,
    ):
        with pytest.raises(ApiDownError, match="every request failed") as raised:
            await backfill(client, store, FIRST, LAST, now=clock)
        report = raised.value.report
        assert (report.done, report.failed, report.finished) == (0, 3, True)
        assert len(await store.query("SELECT * FROM failures WHERE kind = 'ServerError'")) == 3
        sim.clear_faults()
        assert (await backfill(client, store, FIRST, LAST, now=clock)).is_clean
        assert await store.query("SELECT * FROM failures") == []
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


@pytest.mark.parametrize("endpoint", ["sessions", "vehicles"])
@pytest.mark.parametrize("status", [404, None])
async def test_partial_failures_are_not_an_outage(path: Path, clock: Clock, endpoint: Any, status: int | None) -> None:
    """Server errors beside a success or a 404 are failures of vehicles, not an outage."""
    async with (
        PoderoSimulator(users=3, vehicles=3, sessions_per_vehicle=20) as sim,
        client_of(sim, retry=TWICE) as client,
        SessionStore(path) as store,
    ):
        if status is not None:
            sim.add_fault(Fault(kind="status", status=status, endpoint=endpoint, nth=1))
        sim.add_fault(Fault(kind="status", status=500, endpoint=endpoint, nth=range(2, 9)))
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.finished, report.failed) == (True, 2 if status is None else 3)


async def test_failed_vehicle_lists_beside_a_complete_store_are_not_an_outage(path: Path, clock: Clock) -> None:
    """Failing vehicle lists are failures, not an outage, if the store needs no sessions."""
    async with (
        PoderoSimulator(users=3, vehicles=3, sessions_per_vehicle=20) as sim,
        client_of(sim, retry=TWICE) as client,
        SessionStore(path) as store,
    ):
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.add_fault(Fault(kind="status", status=500, endpoint="vehicles", nth={1, 2, 3, 4}))
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.finished, report.skipped, report.done) == (True, 3, 0)
        assert report.failed > 0


async def test_refused_credentials_end_the_run_and_keep_committed_rows(
    sim: PoderoSimulator, path: Path, clock: Clock
) -> None:
    """If credentials are refused, the run ends; a run with new credentials skips the committed vehicles."""
    async with client_of(sim) as client, SessionStore(path) as store:
        await client.vehicle_sessions(sim.vehicles[0].user_id, sim.vehicles[0].vehicle_id, FIRST, LAST)
        token = next(iter(sim.authorization_headers)).removeprefix("Bearer ")
        async with client_of(sim, credentials=StaticToken(token)) as brief:
            sim.before_page = lambda asked: sim.revoke_tokens() if asked.number == 8 else None
            with pytest.raises(AuthenticationError):
                await backfill(brief, store, FIRST, LAST, vehicles=sim.vehicles, now=clock)
        kept = len(await store.query("SELECT * FROM receipts"))
        assert kept > 0
        sim.before_page = None
        report = await backfill(client, store, FIRST, LAST, vehicles=sim.vehicles, now=clock)
        assert report.skipped == kept


@pytest.mark.slow
async def test_rejected_rows_are_stored_until_they_are_valid(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A rejected row is stored once, is not counted as withdrawn, and is removed as soon as it is valid."""
    vehicle = sim.vehicles[0]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        victim = sim.truth(vehicle, FIRST, LAST)[0]["id"]
        good = sim.truth(vehicle, FIRST, LAST)[0]["is_at_home"]
        sim.update(vehicle, victim, is_at_home="perhaps")
        report = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        assert (report.rejected, report.withdrawn) == (1, 0)
        (rejected,) = await store.query("SELECT * FROM rejected_items")
        assert (rejected["session_id"], rejected["path"], rejected["index"]) == (victim, "$.is_at_home", 0)
        assert '"perhaps"' in rejected["raw"]
        await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        assert len(await store.query("SELECT * FROM rejected_items")) == 1
        sim.update(vehicle, victim, is_at_home=good)
        await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        assert await store.query("SELECT * FROM rejected_items") == []


@pytest.mark.slow
async def test_a_rejected_row_without_an_id_prevents_withdrawals(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If a rejected row has no id, no row of its vehicle is withdrawn, since it might be any of them."""
    vehicle = sim.vehicles[0]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        sim.remove(vehicle, sim.truth(vehicle, FIRST, LAST)[1]["id"])
        sim.add_fault(Fault(kind="malformed_row", endpoint="sessions", vehicle=vehicle, field="id", nth=1))
        report = await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
        assert (report.rejected, report.withdrawn) == (1, 0)
        assert (await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)).withdrawn == 1


@pytest.mark.parametrize(
    "absurd",
    [
        {"reachable_soc_pct": 2**40},
        {"unplug_time": "0001-01-01T00:00:00+01:00"},
        {"charge_deadline": "9999-12-31T23:59:59-01:00"},
    ],
)
async def test_a_value_out_of_range_of_its_column_is_rejected(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, absurd: dict[str, Any]
) -> None:
    """If a column cannot store a value, its row alone is rejected, and its day is not settled."""
    vehicle = sim.vehicles[0]
    victim = sim.truth(vehicle, FIRST, LAST)[0]["id"]
    sim.update(vehicle, victim, **absurd)
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert report.rejected == 1
        (rejected,) = await store.query("SELECT * FROM rejected_items")
        assert rejected["session_id"] == victim
        (receipt,) = await store.query(
            "SELECT total, count FROM receipts WHERE vehicle_id = ?", [str(vehicle.vehicle_id)]
        )
        count = len(sim.truth(vehicle, FIRST, LAST))
        assert receipt == {"total": count, "count": count - 1}
        spans = await store.query("SELECT * FROM coverage WHERE vehicle_id = ?", [str(vehicle.vehicle_id)])
        assert not all(span["is_settled"] for span in spans)
        truth = truth_of(sim, FIRST, LAST)
        del truth[str(vehicle.vehicle_id), victim]
        assert await held_by(store) == truth


async def test_a_fleet_larger_than_a_slice_is_planned_completely(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A fleet that is planned in several slices is read completely."""
    small_slices = Limits(roster_slice=5, work_slice=5)
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, now=clock, limits=small_slices)
        assert report.done == 12
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_vehicle_that_is_listed_twice_is_read_once(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If a vehicle is given twice, it is read once."""

    async def listed() -> AsyncIterator[VehicleRef]:
        for vehicle in [*sim.vehicles[:3], *sim.vehicles[:3]]:
            yield vehicle

    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, vehicles=listed(), now=clock)
        assert (report.vehicles, report.done) == (3, 3)
        assert sim.counts.requests["sessions"] == 3


def test_a_rejected_row_nested_too_deeply_is_stored_without_its_value() -> None:
    """A rejected row that is nested too deeply for JSON is stored with its reason, without its value."""
    raw: Any = None
    for _ in range(100_000):
        raw = [raw]
    work_item = WorkItem(1, VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=2)), Window(FIRST, LAST))
    item = RejectedItem(index=0, path="$", reason="expected an object, got an array", raw=raw)
    batch = Batch(1)
    batch.add(work_item, fetched(work_item, rows_of([item])), datetime.now(UTC), None)
    (row,) = batch.tables()["arrow_rejected"].to_pylist()
    assert (row["reason"], row["raw"]) == (item.reason, '"nested too deeply"')


async def test_a_session_listed_by_two_vehicles_is_stored_once(path: Path, clock: Clock) -> None:
    """If the server lists a session for two vehicles, it is stored once."""
    one, other = (VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=number)) for number in (2, 3))
    shared = wire_row(1, plug_in_time="2026-06-10T08:00:00Z")
    rows = {one: [shared], other: [shared, wire_row(2, plug_in_time="2026-06-11T08:00:00Z")]}
    async with PoderoSimulator(rows=rows) as sim, client_of(sim) as client, SessionStore(path) as store:
        for _ in range(2):
            await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)
            assert {row_id for _, row_id in await held_by(store)} == {shared["id"], rows[other][1]["id"]}


@pytest.mark.slow
async def test_a_long_list_is_stored_completely(path: Path, clock: Clock) -> None:
    """All rows of a list that is stored in several slices are stored."""
    async with PoderoSimulator(users=1, vehicles=2, sessions_per_vehicle=1500) as sim, client_of(sim) as client:
        async with SessionStore(path) as store:
            report = await backfill(client, store, sim.first_day, sim.last_day, include_hidden=True, now=clock)
            assert report.new == 3000
            assert await held_by(store) == truth_of(sim, include_hidden=True)
            assert (await verify(client, store)).matching == 2


async def test_rejected_rows_of_a_long_list_are_stored_with_their_values(path: Path, clock: Clock) -> None:
    """Rows of a long list that the store rejects are stored with their raw values, and all others as sessions."""
    async with PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=1500) as sim, client_of(sim) as client:
        victims = [row["id"] for row in sim.truth(sim.vehicles[0], include_hidden=True)[100::600]]
        for victim in victims:
            sim.update(sim.vehicles[0], victim, reachable_soc_pct=2**40)
        async with SessionStore(path) as store:
            report = await backfill(client, store, sim.first_day, sim.last_day, include_hidden=True, now=clock)
            assert (report.new, report.rejected) == (1497, 3)
            rejected = await store.query("SELECT session_id, raw FROM rejected_items")
            assert {row["session_id"] for row in rejected} == set(victims)
            assert all(str(2**40) in row["raw"] for row in rejected)


@pytest.mark.slow
async def test_shards_together_are_the_fleet(sim: PoderoSimulator, client: PoderoClient, clock: Clock) -> None:
    """The shards of a fleet are disjoint, and together contain every session."""
    rows: dict[Any, Any] = {}
    for index in (1, 2, 3):
        async with SessionStore(":memory:") as store:
            await backfill(client, store, FIRST, LAST, shard=Shard(index, 3), now=clock)
            held = await held_by(store)
            assert not rows.keys() & held.keys()
            rows |= held
    assert rows == truth_of(sim, FIRST, LAST)


@pytest.mark.parametrize(
    ("first", "last", "options"),
    [
        (date(2026, 7, 3), date(2026, 7, 9), {}),
        (LAST, FIRST, {}),
        (FIRST, LAST, {"settle_days": -1}),
        (FIRST, LAST, {"settle_days": True}),
        (FIRST, LAST, {"settle_days": 40_000}),
        (FIRST, LAST, {"fresh_for": timedelta(hours=-1)}),
        (FIRST, LAST, {"fresh_for": 12}),
    ],
)
async def test_invalid_arguments_are_refused(
    sim: PoderoSimulator, client: PoderoClient, clock: Clock, first: date, last: date, options: dict[str, Any]
) -> None:
    """A future or reversed window, and an invalid setting, raise a `ValueError` without a request."""
    async with SessionStore(":memory:") as store:
        with pytest.raises(ValueError, match=r"happened|after|settle_days|fresh_for"):
            await backfill(client, store, first, last, **options, now=clock)
        assert sim.counts.total_requests == 0


async def test_progress_can_be_watched(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> None:
    """`Progress` shows the phase, the counts and the limit while the run goes on."""
    progress, seen = Progress(), []
    assert (progress.in_flight, progress.limit, progress.pauses) == (0, 0, 0)
    sim.before_page = lambda asked: seen.append(
        (progress.phase, progress.work_items, progress.in_flight > 0, progress.limit)
    )
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, progress=progress, now=clock)
    assert seen[0] == ("fetching", 12, True, 32)
    assert (progress.phase, progress.received, progress.committed.new) == ("ended", 12, progress.received_sessions)
    assert progress.pauses == 0


async def test_the_progress_is_logged(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """At each interval a line of the log says how far the run is, and none comes after its end."""
    caplog.set_level("INFO", "podero_async")
    sim.latency_s = 0.01
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, now=clock, limits=Limits(log_every_s=0.002))
        lines = [line for line in caplog.messages if line.startswith("backfill (")]
        await asyncio.sleep(0.02)
    assert any(line.startswith("backfill (discovering): ") for line in lines)
    assert any(
        re.match(r"backfill \(fetching\): 12 vehicles, \d+ of 12 windows read, \d+ sessions, 0", x) for x in lines
    )
    assert report.vehicles == 12
    assert [line for line in caplog.messages if line.startswith("backfill (")] == lines


async def test_a_batch_that_is_not_full_is_committed_after_the_maximum_wait(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A batch that is not full is committed after the maximum wait, even if a request hangs."""
    limits = Limits(max_wait_s=0.02)
    progress = Progress()
    sim.add_fault(Fault(kind="hang", endpoint="sessions", nth=12))
    async with SessionStore(path) as store:
        running = asyncio.create_task(backfill(client, store, FIRST, LAST, progress=progress, now=clock, limits=limits))
        async with asyncio.timeout(60):
            while progress.committed.new == 0:
                await asyncio.sleep(0.005)
        assert progress.received < 12
        running.cancel()
        await asyncio.wait([running])


async def test_a_store_that_fails_ends_the_run(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the store fails, the run ends with `StoreError`, and the next run completes it."""

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("podero_async.backfill.store.duckdb.columns.Batch.tables", broken)
    async with SessionStore(path) as store:
        with pytest.raises(StoreError, match="the disk is full"):
            await backfill(client, store, FIRST, LAST, now=clock)
        monkeypatch.undo()
        assert (await backfill(client, store, FIRST, LAST, now=clock)).finished
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_progress_counts_the_requests_of_a_discovery_as_they_are_made(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """While vehicles are discovered, the progress has the requests that were made until then."""
    progress, counts = Progress(), []
    sim.latency_s = 0.005
    async with SessionStore(path) as store:
        running = asyncio.create_task(backfill(client, store, FIRST, LAST, progress=progress, now=clock))
        while progress.phase in {"starting", "discovering"}:
            counts.append((progress.requests, len(sim.requests)))
            await asyncio.sleep(0.001)
        report = await running
    assert any(counted > 0 for counted, _ in counts)
    assert max(counted for counted, _ in counts) == 1 + len({vehicle.user_id for vehicle in sim.vehicles})
    assert report.requests == len(sim.requests) - 1  # a token

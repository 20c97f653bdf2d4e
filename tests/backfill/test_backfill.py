"""A backfill's promises, one by one, over a real server and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from podero_async import (
    AuthenticationError,
    Completeness,
    PoderoClient,
    RejectedItem,
    RetryPolicy,
    StaticToken,
    ThrottlePolicy,
    VehicleRef,
    VehicleSessions,
)
from podero_async._paging.window import Window
from podero_async.backfill import (
    ApiDownError,
    Progress,
    SessionStore,
    Shard,
    StoreError,
    backfill,
    plan_backfill,
    verify,
)
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb.columns import Batch, SessionColumns
from podero_async.testing import Fault, PageRequest, PoderoSimulator
from tests._support.clients import client_of, wire_row
from tests._support.expected_rows import held_by, truth_of, utc
from tests.backfill.conftest import Clock

FIRST, LAST = date(2026, 6, 1), date(2026, 6, 30)


async def test_a_fleet_is_stored_with_receipts(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A first run brings every session of every vehicle, each field as the API gave it."""
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, now=clock)
        truth = truth_of(sim, FIRST, LAST)
        assert await held_by(store) == truth
        assert (report.vehicles, report.done, report.verified, report.skipped, report.failed) == (12, 12, 12, 0, 0)
        assert (report.sessions, report.new, report.changed, report.withdrawn) == (len(truth), len(truth), 0, 0)
        assert report.finished
        assert report.is_clean
        assert not report.resumed
        assert report.requests == sim.counts.total_requests - sim.counts.requests["token"]
        receipts = await store.query("SELECT * FROM receipts")
        assert len(receipts) == 12
        assert {receipt["completeness"] for receipt in receipts} == {"verified"}
        assert sum(receipt["count"] for receipt in receipts) == len(truth)
        assert all(receipt["total"] == receipt["count"] and len(receipt["digest"]) == 32 for receipt in receipts)
        (row,) = await store.query("SELECT * FROM sessions LIMIT 1")
        assert row["first_seen_at"] == row["fetched_at"]
        assert row["changed_at"] is row["withdrawn_at"] is None


async def test_a_run_that_was_stopped_goes_on_where_it_stood(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed costs no request again, not even the fleet's discovery."""
    monkeypatch.setattr("podero_async.backfill.store.duckdb.columns._MAX_OUTCOMES", 2)
    stop = asyncio.Event()
    sim.before_page = lambda asked: stop.set() if asked.number == 7 else None
    async with SessionStore(path) as store:
        first = await backfill(client, store, FIRST, LAST, stop=stop, now=clock)
        assert not first.finished
        assert 0 < first.done < 12
        asked = sim.counts.requests.copy()
        plan = await plan_backfill(client, store, FIRST, LAST, now=clock)
        assert (plan.vehicles, plan.skipped, plan.least_requests) == (12, first.done, 12 - first.done)
        second = await backfill(client, store, FIRST, LAST, now=clock)
        assert second.finished
        assert second.resumed
        assert second.run_id == first.run_id
        assert second.skipped == first.done
        assert sim.counts.requests["sessions"] - asked["sessions"] == 12 - first.done
        assert sim.counts.requests["users"] == asked["users"]
        assert sim.counts.requests["vehicles"] == asked["vehicles"]
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_resumed_run_remembers_what_it_found_wrong(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was interrupted would end clean, although a user was not listed and a vehicle not proven."""
    monkeypatch.setattr("podero_async.backfill.store.duckdb.columns._MAX_OUTCOMES", 1)
    sim.add_fault(Fault(kind="status", status=404, endpoint="vehicles", nth=1))
    sim.add_fault(Fault(kind="wrong_total", delta=7, rate=1.0))
    stop = asyncio.Event()
    sim.before_page = lambda asked: stop.set() if asked.number == 30 else None
    one_by_one = client_of(sim, throttle=ThrottlePolicy(max_concurrency=1))
    async with SessionStore(path) as store:
        async with one_by_one:
            first = await backfill(one_by_one, store, FIRST, LAST, stop=stop, now=clock)
        assert not first.finished
        sim.clear_faults()
        sim.before_page = None
        second = await backfill(client, store, FIRST, LAST, now=clock)
        assert (second.finished, second.resumed) == (True, True)
        assert (second.failed, second.failures[0].vehicle_id) == (1, None)
        assert 0 < first.unproven == second.unproven < first.vehicles
        assert set(second.unproven_vehicles) == set(first.unproven_vehicles)
        assert not second.is_clean


@pytest.mark.parametrize("discovers", [False, True])
async def test_another_run_makes_nobody_forget_who_was_not_listed(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, discovers: bool
) -> None:
    """A fleet's run that goes on after another run would end clean without the vehicles of a user."""
    sim.add_fault(Fault(kind="status", status=404, endpoint="vehicles", nth=1))
    stop = asyncio.Event()
    sim.before_page = lambda asked: stop.set() if asked.number == 9 else None
    async with SessionStore(path) as store:
        assert not (await backfill(client, store, FIRST, LAST, stop=stop, now=clock)).finished
        sim.before_page = None
        await backfill(
            client,
            store,
            FIRST,
            LAST,
            vehicles=None if discovers else sim.vehicles[:1],
            include_hidden=discovers,
            now=clock,
        )
        fleet = await backfill(client, store, FIRST, LAST, now=clock)
        assert (fleet.finished, fleet.resumed, fleet.failed) == (True, True, 1)
        assert not fleet.is_clean
        await backfill(client, store, FIRST, LAST, vehicles=sim.vehicles[:1], now=clock)
        assert (await store.status()).failures == 1, "a run over given vehicles does not list users"
        assert (await backfill(client, store, FIRST, LAST, now=clock)).is_clean
        assert (await store.status()).failures == 0


async def test_a_stop_in_the_middle_of_a_long_list_counts_what_is_committed(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report of an interrupted run would count a vehicle that is not in the store."""
    stop = asyncio.Event()
    async with (
        PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=1_000, seed=5) as sim,
        client_of(sim) as client,
        SessionStore(path) as store,
    ):
        build = SessionColumns.of

        def stopping(rows: Any) -> SessionColumns:
            stop.set()
            return build(rows)

        monkeypatch.setattr(SessionColumns, "of", stopping)
        report = await backfill(client, store, sim.first_day, sim.last_day, stop=stop, now=clock)
        assert (report.finished, report.done, report.verified) == (False, 0, 0)
        assert (await store.status()).receipts == 0


async def test_a_stop_before_anything_was_read_ends_the_run(client: PoderoClient, path: Path, clock: Clock) -> None:
    """A signal during the discovery must not have to wait for it."""
    stop = asyncio.Event()
    stop.set()
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, stop=stop, now=clock)
        assert not report.finished
        assert report.done == 0


async def test_a_cancelled_run_leaves_nothing_behind_and_goes_on(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bot's or a scheduler's cancellation is a crash of the gentle kind."""
    monkeypatch.setattr("podero_async.backfill.store.duckdb.columns._MAX_OUTCOMES", 2)
    async with SessionStore(path) as store:
        running = asyncio.create_task(backfill(client, store, FIRST, LAST, now=clock))

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


async def test_a_finished_run_is_followed_by_one_that_refreshes(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """The same command after a finished run looks at the last days again, and at nothing else."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        windows: set[tuple[date, date]] = set()
        sim.before_page = lambda asked: windows.add((asked.from_date, asked.to_date))
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert not report.resumed
        assert windows == {(LAST - timedelta(days=6), LAST)}
        assert report.unchanged == len(truth_of(sim, LAST - timedelta(days=6), LAST))
        idle = await backfill(client, store, FIRST, LAST, refresh_days=0, now=clock)
        assert (idle.done, idle.skipped) == (0, 12)
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_wider_window_costs_what_is_new(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Adding a month before, or a night behind, must not read the year again; nor may a new vehicle miss a day."""
    middle = date(2026, 6, 10), date(2026, 6, 20)
    async with SessionStore(path) as store:
        await backfill(client, store, *middle, vehicles=sim.vehicles[:11], now=clock)
        windows: dict[VehicleRef, set[tuple[date, date]]] = {}
        sim.before_page = lambda asked: windows.setdefault(asked.vehicle, set()).add((asked.from_date, asked.to_date))
        plan = await plan_backfill(client, store, FIRST, LAST, vehicles=sim.vehicles, refresh_days=3, now=clock)
        report = await backfill(client, store, FIRST, LAST, vehicles=sim.vehicles, refresh_days=3, now=clock)
        assert windows.pop(sim.vehicles[11]) == {(FIRST, LAST)}
        assert len(windows) == 11
        for asked in windows.values():
            assert asked == {(FIRST, date(2026, 6, 9)), (date(2026, 6, 18), LAST)}
        assert plan.least_requests == report.requests == 23
        assert plan.windows[0] == (FIRST, date(2026, 6, 9), 11)
        assert plan.seconds_at(10) == 2.3
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_hole_between_held_days_is_filled(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Two months that were fetched apart must not hide the one between them."""
    async with SessionStore(path) as store:
        await backfill(client, store, date(2026, 6, 1), date(2026, 6, 5), now=clock)
        await backfill(client, store, date(2026, 6, 6), date(2026, 6, 9), refresh_days=0, now=clock)
        await backfill(client, store, date(2026, 6, 20), date(2026, 6, 25), refresh_days=0, now=clock)
        windows: set[tuple[date, date]] = set()
        sim.before_page = lambda asked: windows.add((asked.from_date, asked.to_date))
        await backfill(client, store, FIRST, LAST, refresh_days=0, now=clock)
        assert windows == {(date(2026, 6, 10), date(2026, 6, 19)), (date(2026, 6, 26), LAST)}
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_rows_are_withdrawn_within_the_days_that_were_read_and_no_others(path: Path, clock: Clock) -> None:
    """The last minute of the last day was read, the first of the next was not."""
    vehicle = VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=2))
    times = "2026-06-09T23:59:59Z", "2026-06-10T00:00:00Z", "2026-06-12T23:59:59Z", "2026-06-13T00:00:00Z"
    rows = [wire_row(number, plug_in_time=time) for number, time in enumerate(times)]
    async with PoderoSimulator(rows={vehicle: rows}) as sim, client_of(sim) as client, SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        for row in rows:
            sim.remove(vehicle, row["id"])
        report = await backfill(client, store, date(2026, 6, 10), date(2026, 6, 12), refresh_days=3, now=clock)
        assert report.withdrawn == 2
        assert {row_id for _, row_id in await held_by(store)} == {rows[0]["id"], rows[3]["id"]}


async def test_a_day_that_was_not_over_is_read_again(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """`--to today` every night must not take a half day for a whole one."""
    clock.at = utc(2026, 6, 29, 12)
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, date(2026, 6, 29), refresh_days=0, now=clock)
        windows: set[tuple[date, date]] = set()
        sim.before_page = lambda asked: windows.add((asked.from_date, asked.to_date))
        clock.forward(days=1)
        await backfill(client, store, FIRST, LAST, refresh_days=0, now=clock)
        assert windows == {(date(2026, 6, 29), LAST)}
        windows.clear()
        await backfill(client, store, LAST, LAST, refresh_days=0, now=clock)
        assert windows == {(LAST, LAST)}, "a window that is today alone holds nothing"


async def test_an_unfinished_run_is_not_resumed_on_a_day_that_has_more_to_show(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window that reaches into the future means more tomorrow: vehicles that were done must be read again."""
    monkeypatch.setattr("podero_async.backfill.store.duckdb.columns._MAX_OUTCOMES", 2)
    stop = asyncio.Event()
    sim.before_page = lambda asked: stop.set() if asked.number == 7 else None
    future = date(2027, 1, 1)
    async with SessionStore(path) as store:
        first = await backfill(client, store, FIRST, future, stop=stop, now=clock)
        clock.forward(days=1)
        second = await backfill(client, store, FIRST, future, now=clock)
        assert not second.resumed
        assert second.done == 12
        assert 0 < first.done < 12
        assert len((await store.status()).runs) == 1, "what was given up is forgotten"


async def test_changed_hidden_removed_and_returning_rows(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """An analyst must see what changed, when, and which sessions the server took back, but lose none of them."""
    vehicle = sim.vehicles[0]
    kept, changed, hidden, removed = [row["id"] for row in sim.truth(vehicle, FIRST, LAST)[:4]]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.update(vehicle, changed, actual_savings_eur=9.75)
        sim.hide(vehicle, hidden)
        gone = next(row for row in sim.truth(vehicle) if row["id"] == removed)
        sim.remove(vehicle, removed)
        clock.forward(days=1)
        second = await backfill(client, store, FIRST, LAST, now=clock)
        rows = {row["id"]: row for row in await store.query("SELECT * FROM sessions")}
        assert (second.new, second.changed, second.withdrawn) == (0, 1, 2)
        assert rows[changed]["actual_savings_eur"] == 9.75
        assert rows[changed]["changed_at"] == rows[changed]["fetched_at"] > rows[changed]["first_seen_at"]
        assert rows[kept]["changed_at"] is rows[kept]["withdrawn_at"] is None
        assert rows[kept]["fetched_at"] > rows[kept]["first_seen_at"]
        for row_id in (hidden, removed):
            assert rows[row_id]["withdrawn_at"] > rows[row_id]["fetched_at"]
            assert rows[row_id]["changed_at"] is None
        assert await held_by(store) == truth_of(sim, FIRST, LAST)

        sim.insert(vehicle, gone)
        third = await backfill(client, store, FIRST, LAST, now=clock)
        rows = {row["id"]: row for row in await store.query("SELECT * FROM sessions")}
        assert (third.new, third.changed, third.withdrawn) == (0, 0, 0)
        assert rows[removed]["withdrawn_at"] is None
        assert rows[removed]["changed_at"] is None
        assert rows[hidden]["withdrawn_at"] is not None


async def test_rows_known_as_hidden_are_not_withdrawn_by_a_read_that_leaves_them_out(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A store that was filled with hidden rows must survive a nightly run without them, and the other way round."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, include_hidden=True, now=clock)
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert report.withdrawn == 0
        assert report.sessions == len(truth_of(sim, date(2026, 6, 24), LAST)), "held with the hidden is held without"
        assert await held_by(store) == truth_of(sim, FIRST, LAST, include_hidden=True)
    async with SessionStore(":memory:") as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        assert (await plan_backfill(client, store, FIRST, LAST, include_hidden=True, now=clock)).windows == (
            (FIRST, LAST, 12),
        )
        await backfill(client, store, FIRST, LAST, include_hidden=True, now=clock)
        assert await held_by(store) == truth_of(sim, FIRST, LAST, include_hidden=True)


async def test_an_unproven_read_withdraws_nothing_and_holds_nothing(path: Path, clock: Clock) -> None:
    """A read that may have missed rows is no reason to call them withdrawn, nor its days complete."""
    async with PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=20) as sim, client_of(sim) as client:
        async with SessionStore(path) as store:
            await backfill(client, store, FIRST, LAST, refresh_days=40, now=clock)
            (vehicle,) = sim.vehicles
            removed = sim.truth(vehicle, FIRST, LAST)[0]["id"]
            sim.remove(vehicle, removed)
            sim.add_fault(Fault(kind="wrong_total", delta=7))
            report = await backfill(client, store, FIRST, LAST, refresh_days=40, now=clock)
            assert (report.unproven, report.withdrawn) == (1, 0)
            assert report.unproven_vehicles == (vehicle,)
            assert not report.is_clean
            assert (
                len(await store.query("SELECT * FROM receipts WHERE completeness = 'unproven' AND held_to IS NULL"))
                == 1
            )
            sim.clear_faults()
            report = await backfill(client, store, FIRST, LAST, refresh_days=40, now=clock)
            assert (report.unproven, report.withdrawn) == (0, 1)


async def test_a_first_read_that_is_unproven_is_made_whole_later(path: Path, clock: Clock) -> None:
    """Rows of an unproven read are stored, and its whole window is asked for again, without doubling them."""
    async with PoderoSimulator(users=1, vehicles=2, sessions_per_vehicle=20) as sim, client_of(sim) as client:
        sim.add_fault(Fault(kind="wrong_total", delta=7))
        async with SessionStore(path) as store:
            await backfill(client, store, FIRST, LAST, refresh_days=0, now=clock)
            assert await held_by(store) == truth_of(sim, FIRST, LAST)
            sim.clear_faults()
            report = await backfill(client, store, FIRST, LAST, refresh_days=0, now=clock)
            assert (report.done, report.new) == (2, 0)
            assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_failures_are_kept_tried_again_and_removed(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """One vehicle's failure must neither stop the others nor be forgotten."""
    bad = sim.vehicles[4]
    sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=bad))
    async with SessionStore(path) as store:
        for _ in range(2):
            report = await backfill(client, store, FIRST, LAST, refresh_days=0, now=clock)
            assert report.finished
            assert not report.is_clean
            assert (report.failed, report.failures[0].vehicle_id) == (1, str(bad.vehicle_id))
            (failure,) = await store.query("SELECT * FROM failures")
            assert failure["kind"] == report.failures[0].kind == "NotFoundError"
            assert failure["message"].startswith("HTTP 404")
        assert (report.done, report.skipped) == (0, 11)
        sim.clear_faults()
        report = await backfill(client, store, FIRST, LAST, refresh_days=0, now=clock)
        assert (report.done, report.failed) == (1, 0)
        assert await store.query("SELECT * FROM failures") == []
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_user_that_cannot_be_listed_is_a_failure_and_its_known_vehicles_are_read(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A user's hiccup at night must not cost a day of its vehicles."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.add_fault(Fault(kind="status", status=404, endpoint="vehicles", nth=1))
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.failed, report.vehicles, report.done) == (1, 12, 12)
        assert report.failures[0].vehicle_id is None
        assert len(await store.query("SELECT * FROM failures WHERE vehicle_id IS NULL")) == 1
        await backfill(client, store, FIRST, LAST, now=clock)
        assert await store.query("SELECT * FROM failures") == []


@pytest.mark.leaping
@pytest.mark.usefixtures("store_without_thread")
async def test_an_api_that_is_down_ends_the_run_at_once(path: Path, clock: Clock) -> None:
    """Ten thousand vehicles must not fail one by one; what was read stays, and the same call goes on later."""
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
            assert again.resumed
            assert again.finished
            assert again.skipped == report.done
            assert await store.query("SELECT * FROM failures") == []
            assert await held_by(store) == truth_of(sim, FIRST, LAST)


TWICE = RetryPolicy(max_attempts=2, backoff_initial=0.001)


@pytest.mark.parametrize("endpoint", ["sessions", "vehicles"])
async def test_an_api_that_is_down_for_a_small_fleet_says_so(path: Path, clock: Clock, endpoint: Any) -> None:
    """A partner with three vehicles would be told of three bad vehicles, or of none at all, when the API is down."""
    down = Fault(kind="status", status=502, endpoint=endpoint)
    async with (
        PoderoSimulator(users=3, vehicles=3, sessions_per_vehicle=20, faults=[down]) as sim,
        client_of(sim, retry=TWICE) as client,
        SessionStore(path) as store,
    ):
        with pytest.raises(ApiDownError, match="all that was tried failed") as raised:
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
async def test_an_api_that_answers_somebody_is_not_down(
    path: Path, clock: Clock, endpoint: Any, status: int | None
) -> None:
    """A vehicle or a user that the server cannot serve would pass for an outage, and a scheduler wait for its end."""
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


async def test_a_list_of_vehicles_that_fails_beside_a_fleet_that_is_held_is_no_outage(path: Path, clock: Clock) -> None:
    """A night with nothing to read and one user's hiccup would be called an outage."""
    async with (
        PoderoSimulator(users=3, vehicles=3, sessions_per_vehicle=20) as sim,
        client_of(sim, retry=TWICE) as client,
        SessionStore(path) as store,
    ):
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.add_fault(Fault(kind="status", status=500, endpoint="vehicles", nth={1, 2, 3, 4}))
        report = await backfill(client, store, FIRST, LAST, refresh_days=0, now=clock)
        assert (report.finished, report.skipped, report.done) == (True, 3, 0)
        assert report.failed > 0


async def test_refused_credentials_end_the_run_and_keep_what_came(
    sim: PoderoSimulator, path: Path, clock: Clock
) -> None:
    """A token that dies on the way is the caller's to renew; what was received before is not thrown away."""
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
        assert report.resumed
        assert report.skipped == kept


async def test_rejected_rows_are_kept_never_withdrawn_and_dropped_once_they_can_be_read(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A row that the server broke must not be taken for one that the server removed."""
    vehicle = sim.vehicles[0]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        victim = sim.truth(vehicle, FIRST, LAST)[0]["id"]
        good = sim.truth(vehicle, FIRST, LAST)[0]["is_at_home"]
        sim.update(vehicle, victim, is_at_home="perhaps")
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.rejected, report.withdrawn) == (1, 0)
        (rejected,) = await store.query("SELECT * FROM rejected_items")
        assert (rejected["session_id"], rejected["path"], rejected["index"]) == (victim, "$.is_at_home", 0)
        assert '"perhaps"' in rejected["raw"]
        await backfill(client, store, FIRST, LAST, now=clock)
        assert len(await store.query("SELECT * FROM rejected_items")) == 1
        sim.update(vehicle, victim, is_at_home=good)
        await backfill(client, store, FIRST, LAST, now=clock)
        assert await store.query("SELECT * FROM rejected_items") == []


async def test_a_rejected_row_without_an_id_withdraws_nothing_of_its_vehicle(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Where a row cannot be told from the others, any of them may be the one that still shows."""
    vehicle = sim.vehicles[0]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.remove(vehicle, sim.truth(vehicle, FIRST, LAST)[1]["id"])
        sim.add_fault(Fault(kind="malformed_row", endpoint="sessions", vehicle=vehicle, field="id", nth=1))
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.rejected, report.withdrawn) == (1, 0)
        assert (await backfill(client, store, FIRST, LAST, now=clock)).withdrawn == 1


@pytest.mark.parametrize(
    "absurd",
    [
        {"reachable_soc_pct": 2**40},
        {"unplug_time": "0001-01-01T00:00:00+01:00"},
        {"charge_deadline": "9999-12-31T23:59:59-01:00"},
    ],
)
async def test_a_value_that_no_column_holds_becomes_a_rejected_row(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, absurd: dict[str, Any]
) -> None:
    """One absurd value must not sink a batch of thousands of good rows, nor every query that meets it."""
    vehicle = sim.vehicles[0]
    victim = sim.truth(vehicle, FIRST, LAST)[0]["id"]
    sim.update(vehicle, victim, **absurd)
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert report.rejected == 1
        (rejected,) = await store.query("SELECT * FROM rejected_items")
        assert rejected["session_id"] == victim
        (receipt,) = await store.query(
            "SELECT total, count, held_to FROM receipts WHERE vehicle_id = ?", [str(vehicle.vehicle_id)]
        )
        count = len(sim.truth(vehicle, FIRST, LAST))
        assert receipt == {"total": count, "count": count - 1, "held_to": None}, "or nobody would ask for it again"
        truth = truth_of(sim, FIRST, LAST)
        del truth[str(vehicle.vehicle_id), victim]
        assert await held_by(store) == truth


async def test_a_session_that_moved_to_another_vehicle_is_held_once(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A user who connects a car anew may get a new vehicle with the old sessions: none may count twice."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        before = clock.at
        old = sim.vehicles[0]
        rows = sim.truth(old, include_hidden=True)
        for row in rows:
            sim.remove(old, row["id"])
        sim.add_vehicle(old.user_id, rows=rows)
        clock.forward(days=1)
        await backfill(client, store, FIRST, LAST, now=clock)
        assert await held_by(store) == truth_of(sim, FIRST, LAST)
        moved = await store.query("SELECT * FROM sessions WHERE changed_at IS NOT NULL")
        assert len(moved) == len([row for row in rows if not row["is_hidden"] and row["plug_in_time"] >= "2026-06-01"])
        assert all(row["first_seen_at"] <= before < row["changed_at"] for row in moved)


async def test_a_fleet_larger_than_a_piece_is_planned_whole(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roster and the tasks travel in pieces; none may fall between two of them."""
    monkeypatch.setattr("podero_async.backfill._planner._ROSTER_PIECE", 5)
    monkeypatch.setattr("podero_async.backfill._backfill._TASKS_AT_ONCE", 5)
    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert report.done == 12
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_a_vehicle_that_is_listed_twice_is_read_once(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Lists that people write hold doubles."""

    async def listed() -> AsyncIterator[VehicleRef]:
        for vehicle in [*sim.vehicles[:3], *sim.vehicles[:3]]:
            yield vehicle

    async with SessionStore(path) as store:
        report = await backfill(client, store, FIRST, LAST, vehicles=listed(), now=clock)
        assert (report.vehicles, report.done) == (3, 3)
        assert sim.counts.requests["sessions"] == 3


def test_a_row_too_deep_to_be_written_is_rejected_all_the_same() -> None:
    """A row that only a thread's short stack could read would end the run."""
    raw: Any = None
    for _ in range(5000):
        raw = [raw]
    task = WorkItem(1, VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=2)), Window(FIRST, LAST))
    item = RejectedItem(index=0, path="$", reason="expected an object, got an array", raw=raw)
    whole = VehicleSessions(
        vehicle=task.vehicle,
        from_date=FIRST,
        to_date=LAST,
        sessions=[],
        completeness=Completeness.VERIFIED,
        total=1,
        rejected=[item],
    )
    batch = Batch(1, LAST)
    batch.add(task, whole, [], [], datetime.now(UTC))
    (row,) = batch.tables()["arrow_rejected"].to_pylist()
    assert (row["reason"], row["raw"]) == (item.reason, '"nested too deeply"')


async def test_a_session_that_moved_to_a_vehicle_read_alone_is_held_once(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """The old vehicle need not be read again for its sessions to be found elsewhere."""
    old = sim.vehicles[0]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, vehicles=[old], now=clock)
        new = sim.add_vehicle(rows=sim.truth(old))
        await backfill(client, store, FIRST, LAST, vehicles=[new], now=clock)
        held = await held_by(store)
        assert {vehicle for vehicle, _ in held} == {str(new.vehicle_id)}
        assert len(held) == len(sim.truth(new, FIRST, LAST))


async def test_a_session_that_two_vehicles_show_is_held_once(path: Path, clock: Clock) -> None:
    """A server that contradicts itself must not make a session count twice, nor stop the run."""
    one, other = (VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=number)) for number in (2, 3))
    shared = wire_row(1, plug_in_time="2026-06-10T08:00:00Z")
    rows = {one: [shared], other: [shared, wire_row(2, plug_in_time="2026-06-11T08:00:00Z")]}
    async with PoderoSimulator(rows=rows) as sim, client_of(sim) as client, SessionStore(path) as store:
        for _ in range(2):
            await backfill(client, store, FIRST, LAST, refresh_days=30, now=clock)
            assert {row_id for _, row_id in await held_by(store)} == {shared["id"], rows[other][1]["id"]}


async def test_a_long_list_is_stored_whole(path: Path, clock: Clock) -> None:
    """A vehicle of years goes into the store in many pieces, none of which may be lost."""
    async with PoderoSimulator(users=1, vehicles=2, sessions_per_vehicle=1500) as sim, client_of(sim) as client:
        async with SessionStore(path) as store:
            report = await backfill(client, store, sim.first_day, sim.last_day, include_hidden=True, now=clock)
            assert report.new == 3000
            assert await held_by(store) == truth_of(sim, include_hidden=True)
            assert (await verify(client, store)).matching == 2


async def test_what_cannot_be_stored_in_a_long_list_is_kept_beside_it(path: Path, clock: Clock) -> None:
    """One absurd number among thousands must cost that row, and no other."""
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


async def test_shares_together_are_the_fleet(sim: PoderoSimulator, client: PoderoClient, clock: Clock) -> None:
    """Three tasks with three stores must bring each vehicle exactly once."""
    rows: dict[Any, Any] = {}
    for index in (1, 2, 3):
        async with SessionStore(":memory:") as store:
            await backfill(client, store, FIRST, LAST, shard=Shard(index, 3), now=clock)
            held = await held_by(store)
            assert not rows.keys() & held.keys()
            rows |= held
    assert rows == truth_of(sim, FIRST, LAST)


@pytest.mark.parametrize(
    ("first", "last", "refresh_days"),
    [(date(2026, 7, 3), date(2026, 7, 9), 7), (LAST, FIRST, 7), (FIRST, LAST, -1), (FIRST, LAST, True)],
)
async def test_arguments_that_mean_nothing_are_refused(
    sim: PoderoSimulator, client: PoderoClient, clock: Clock, first: date, last: date, refresh_days: int
) -> None:
    """A window in the future would be an empty success, night after night."""
    async with SessionStore(":memory:") as store:
        with pytest.raises(ValueError, match=r"happened|after|refresh_days"):
            await backfill(client, store, first, last, refresh_days=refresh_days, now=clock)
        assert sim.counts.total_requests == 0


async def test_progress_can_be_watched(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> None:
    """A live display needs figures while the run goes on, not only at its end."""
    progress, seen = Progress(), []
    assert (progress.in_flight, progress.limit, progress.pauses) == (0, 0, 0)
    sim.before_page = lambda asked: seen.append(
        (progress.phase, progress.tasks, progress.in_flight > 0, progress.limit)
    )
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, progress=progress, now=clock)
    assert seen[0] == ("fetching", 12, True, 32)
    assert (progress.phase, progress.received, progress.committed.new) == ("ended", 12, progress.received_sessions)
    assert progress.pauses == 0


async def test_an_outcome_waits_a_second_at_most_for_its_commit(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow fetch must not keep what it has in memory: the batch is committed though it is not full."""
    monkeypatch.setattr("podero_async.backfill._writer._MAX_WAIT_S", 0.02)
    progress = Progress()
    sim.add_fault(Fault(kind="hang", seconds=0.3, endpoint="sessions", nth=12))
    committed_early = asyncio.Event()

    async def watch() -> None:
        while progress.committed.new == 0:
            await asyncio.sleep(0.005)
        if progress.received < 12:
            committed_early.set()

    async with SessionStore(path) as store:
        watching = asyncio.create_task(watch())
        await backfill(client, store, FIRST, LAST, progress=progress, now=clock)
        await watching
    assert committed_early.is_set()


async def test_a_store_that_fails_ends_the_run(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch whose rows go nowhere must not go on."""

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("podero_async.backfill.store.duckdb.columns.Batch.tables", broken)
    async with SessionStore(path) as store:
        with pytest.raises(StoreError, match="No space left"):
            await backfill(client, store, FIRST, LAST, now=clock)
        monkeypatch.undo()
        assert (await backfill(client, store, FIRST, LAST, now=clock)).finished
        assert await held_by(store) == truth_of(sim, FIRST, LAST)

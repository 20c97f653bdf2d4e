"""Coverage over many nights: a day is settled only when no session of it can still come."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from podero_async import PoderoClient, ThrottlePolicy, VehicleRef
from podero_async.backfill import SessionStore, backfill, verify
from podero_async.backfill._values import Limits
from podero_async.testing import Fault, PageRequest, PoderoSimulator
from tests._support.clients import client_of, wire_row
from tests._support.expected_rows import held_by, truth_of, utc
from tests.backfill.conftest import Clock

START = date(2026, 1, 1)
VEHICLES = [VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=number)) for number in (2, 3, 4)]
SETTLE_DAYS = 3


@pytest.fixture
def clock() -> Clock:
    return Clock(utc(2026, 1, 2, 2))


@pytest.fixture
async def sim(clock: Clock) -> AsyncIterator[PoderoSimulator]:
    """Serve three vehicles without sessions."""
    rows: dict[VehicleRef, list[dict[str, Any]]] = {vehicle: [] for vehicle in VEHICLES}
    async with PoderoSimulator(rows=rows, clock=clock.timestamp, token_lifetime_s=10**9) as running:
        yield running


def row_of(number: int, plugged_in: datetime, unplugged: datetime | None) -> dict[str, object]:
    end = None if unplugged is None else unplugged.isoformat()
    return wire_row(
        number,
        plug_in_time=plugged_in.isoformat(),
        unplug_time=end,
        is_hidden=False,
        hidden_reason=None,
        target_reachable=None,
        reachable_soc_pct=None,
    )


def charge_all(sim: PoderoSimulator) -> None:
    """Give each vehicle a session on the first day: a single read that shows no session settles nothing."""
    for number, vehicle in enumerate(VEHICLES):
        sim.insert(vehicle, row_of(100 + number, utc(2026, 1, 1, 1), utc(2026, 1, 1, 5)))


async def nights(client: PoderoClient, store: SessionStore, clock: Clock, number: int) -> None:
    """Run a job of yesterday alone each night, as Airflow does."""
    for _ in range(number):
        yesterday = clock.at.date() - timedelta(days=1)
        report = await backfill(client, store, yesterday, yesterday, settle_days=SETTLE_DAYS, now=clock)
        assert report.is_clean
        clock.forward(days=1)


@pytest.mark.slow
async def test_a_nightly_job_of_yesterday_stores_overnight_sessions(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A job that asks for yesterday alone stores the sessions that are listed later, at one request a vehicle and night."""
    pages: Counter[VehicleRef] = Counter()
    sim.before_page = lambda asked: pages.update([asked.vehicle])
    async with SessionStore(path) as store:
        for number in range(7):
            plugged_in = clock.at.replace(hour=18) - timedelta(days=1)
            await nights(client, store, clock, 1)
            for index, vehicle in enumerate(VEHICLES):  # listed after the night's run
                unplugged = plugged_in + timedelta(hours=13, days=index)
                sim.insert(vehicle, row_of(10 * number + index, plugged_in, unplugged))
        await nights(client, store, clock, 1)
        assert await held_by(store) == truth_of(sim)
        assert len(await held_by(store)) == 21
        assert set(pages.values()) == {8}


@pytest.mark.slow
async def test_a_day_settles_after_its_time(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A day is provisional until three days after its end, settles within a week after that, and is read no more."""
    charge_all(sim)
    windows: list[PageRequest] = []
    async with SessionStore(path) as store:
        await nights(client, store, clock, SETTLE_DAYS + 1)
        days = await store.days(START, START, now=clock)
        assert (days.settled, days.provisional) == (0, 3)
        asked = sim.counts.requests["current"]
        await nights(client, store, clock, 6)
        assert (await store.days(START, START, now=clock)).settled == 3
        assert sim.counts.requests["current"] - asked == 3, "each vehicle asks once a week"
        sim.before_page = windows.append
        await nights(client, store, clock, 1)
        assert all(asked.from_date > START for asked in windows)


@pytest.mark.slow
async def test_a_car_that_stays_plugged_in_is_waited_for(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """The day of a current session, and all later days, stay provisional until the session was listed."""
    charge_all(sim)
    vehicle, plugged_in = VEHICLES[0], utc(2026, 1, 3, 16)
    async with SessionStore(path) as store:
        await nights(client, store, clock, 2)
        sim.set_current(vehicle, row_of(1, plugged_in, None))
        clock.forward(days=20)
        await nights(client, store, clock, 2)
        before, after = (START, date(2026, 1, 2)), (date(2026, 1, 3), date(2026, 1, 3))
        assert (await store.days(*before, now=clock)).settled == 3 * 2
        days = await store.days(*after, now=clock)
        assert (days.settled, days.provisional, days.missing) == (2, 1, 0), "the day lies between days that were read"
        sim.set_current(vehicle, None)
        sim.insert(vehicle, row_of(1, plugged_in, clock.at - timedelta(hours=1)))
        await backfill(client, store, START, clock.at.date(), settle_days=SETTLE_DAYS, now=clock)
        assert await held_by(store) == truth_of(sim)
        assert (await store.days(*after, now=clock)).settled == 3


@pytest.mark.slow
async def test_a_day_with_a_session_that_shows_no_end_is_provisional(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A session without an end keeps its day provisional at any age; the day is read once a week until there is an end."""
    charge_all(sim)
    vehicle, plugged_in, whole = VEHICLES[0], utc(2026, 1, 5, 16), (START, date(2026, 1, 10))
    row_id = sim.insert(vehicle, row_of(1, plugged_in, None))["id"]
    pages: list[PageRequest] = []
    async with SessionStore(path) as store:
        clock.at = utc(2026, 3, 1, 2)
        await backfill(client, store, *whole, now=clock)
        days = await store.days(*whole, now=clock)
        assert (days.settled, days.provisional) == (3 * 10 - 1, 1)
        sim.before_page = pages.append
        for _ in range(7):
            clock.forward(days=1)
            await backfill(client, store, *whole, now=clock)
        assert [(page.from_date, page.to_date) for page in pages] == [(plugged_in.date(), plugged_in.date())]
        sim.update(vehicle, row_id, unplug_time="2026-01-06T07:00:00Z")
        clock.forward(days=7)
        report = await backfill(client, store, *whole, now=clock)
        assert (report.settled, report.provisional) == (3 * 10, 0)
        assert await held_by(store) == truth_of(sim)


async def test_without_the_current_session_days_stay_provisional(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """If the current session cannot be asked for, the read counts, its days stay provisional, and one warning is logged."""
    sim.add_fault(Fault(kind="status", status=404, endpoint="current"))
    clock.at = utc(2026, 6, 1, 2)
    async with SessionStore(path) as store:
        with caplog.at_level(logging.WARNING, "podero_async"):
            report = await backfill(client, store, START, date(2026, 1, 31), now=clock)
        assert (report.is_clean, report.settled, report.provisional) == (True, 0, 3 * 31)
        assert len([record for record in caplog.records if "no day was settled" in record.message]) == 1
        sim.clear_faults()
        clock.forward(days=7)
        report = await backfill(client, store, START, date(2026, 1, 31), now=clock)
        assert (report.settled, report.provisional) == (3 * 31, 0)


async def test_a_clock_that_is_ahead_settles_nothing_early(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If the clock of the process is a year ahead of the server's, a read counts at the server's time."""
    ahead = Clock(clock.at + timedelta(days=365))
    async with SessionStore(path) as store:
        report = await backfill(client, store, START, START, now=ahead)
        assert (report.settled, report.provisional) == (0, 3)
        (newest,) = await store.query("SELECT max(read_at) AS read_at FROM coverage")
        assert newest["read_at"] <= clock.at + timedelta(seconds=2)
        sim.insert(VEHICLES[0], row_of(1, utc(2026, 1, 1, 18), utc(2026, 1, 2, 7)))
        clock.forward(days=1)
        await backfill(client, store, START, START, now=clock)
        assert await held_by(store) == truth_of(sim)


@pytest.mark.slow
async def test_a_vehicle_that_failed_is_read_when_it_is_back(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A nightly job of yesterday alone reads all days for which a vehicle failed, however long it was away."""
    dead = VEHICLES[0]
    for number in range(45):
        sim.insert(dead, row_of(number, utc(2026, 1, 1, 18) + timedelta(days=number), utc(2026, 3, 1)))
    async with SessionStore(path) as store:
        await nights(client, store, clock, 1)
        sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=dead))
        for _ in range(3):
            clock.forward(days=14)
            yesterday = clock.at.date() - timedelta(days=1)
            report = await backfill(client, store, yesterday, yesterday, now=clock)
            assert report.failed == 1
        (failure,) = await store.query("SELECT * FROM failures")
        assert failure["first_failed_at"] < failure["failed_at"]
        sim.clear_faults()
        await nights(client, store, clock, 1)
        assert await held_by(store) == truth_of(sim, None, clock.at.date() - timedelta(days=2))
        assert await store.query("SELECT * FROM failures") == []


@pytest.mark.slow
async def test_short_nights_read_every_vehicle_in_turn(path: Path, clock: Clock) -> None:
    """If a night is too short for the fleet, vehicles that were never read come first, then those read longest ago."""
    vehicles = [VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=number)) for number in range(2, 14)]
    rows: dict[VehicleRef, list[dict[str, Any]]] = {vehicle: [] for vehicle in vehicles}
    async with (
        PoderoSimulator(rows=rows, clock=clock.timestamp, token_lifetime_s=10**9) as sim,
        client_of(sim, throttle=ThrottlePolicy(max_concurrency=1)) as client,
        SessionStore(path) as store,
    ):
        order: list[int] = []
        for _ in range(7):
            stop, asked = asyncio.Event(), Counter[VehicleRef]()

            def count(page: PageRequest, asked: Counter[VehicleRef] = asked, stop: asyncio.Event = stop) -> None:
                asked[page.vehicle] += 1
                if len(asked) == 10:
                    stop.set()

            sim.before_page = count
            report = await backfill(
                client, store, START, clock.at.date(), stop=stop, now=clock, limits=Limits(max_batch_outcomes=1)
            )
            assert 2 <= report.done < 10
            read = await store.query(
                "SELECT vehicle_id FROM receipts WHERE run_id = ? ORDER BY fetched_at", [report.run_id]
            )
            order += [UUID(row["vehicle_id"]).int for row in read]
            clock.forward(days=1)
    turns = list(range(2, 14)) * 6
    assert order == turns[: len(order)]
    assert len(order) >= 12


async def test_lists_that_are_empty_for_a_night_settle_no_day(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If the first read returns nothing by a fault of the API, it settles no day, and a later run stores the sessions."""
    sim.insert(VEHICLES[0], row_of(1, utc(2026, 1, 1, 18), utc(2026, 1, 2, 7)))
    clock.forward(days=30)
    sim.add_fault(Fault(kind="empty_list", endpoint="sessions"))
    async with SessionStore(path) as store:
        report = await backfill(client, store, START, clock.at.date(), settle_days=SETTLE_DAYS, now=clock)
        assert (report.is_clean, report.settled, report.sessions) == (True, 0, 0)
        sim.clear_faults()
        clock.forward(days=7)
        report = await backfill(client, store, START, clock.at.date(), settle_days=SETTLE_DAYS, now=clock)
        assert await held_by(store) == truth_of(sim)
        assert report.settled > 0, "a second read without a session says that there is none"


@pytest.mark.slow
async def test_a_vehicle_that_moves_takes_its_provisional_days_along(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A session that is listed after its vehicle moved to another user is stored, though each job reads only yesterday."""
    charge_all(sim)
    async with SessionStore(path) as store:
        await nights(client, store, clock, 2)
        moved = sim.move_vehicle(VEHICLES[0])
        sim.insert(moved, row_of(1, utc(2026, 1, 2, 18), utc(2026, 1, 4, 1)))
        await nights(client, store, clock, 1)
        assert await held_by(store) == truth_of(sim)
        days = await store.days(START, START, now=clock)
        assert (days.provisional, days.missing) == (3, 0)


@pytest.mark.slow
async def test_a_user_that_leaves_a_shared_vehicle_leaves_its_sessions_to_the_other(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If two users list a vehicle and one lists it no longer, the sessions of settled days become the other's."""
    charge_all(sim)
    pair, other = VEHICLES[0], sim.share_vehicle(VEHICLES[0])
    async with SessionStore(path) as store:
        clock.forward(days=SETTLE_DAYS)
        await backfill(client, store, START, START, settle_days=SETTLE_DAYS, now=clock)
        await nights(client, store, clock, 10)
        find = "SELECT user_id FROM sessions WHERE vehicle_id = ?"
        ((owner,),) = [row.values() for row in await store.query(find, [str(pair.vehicle_id)])]
        leaves, stays = (pair, other) if owner == str(pair.user_id) else (other, pair)
        sim.remove_vehicle(leaves)
        await nights(client, store, clock, 2)
        assert await store.query(find, [str(pair.vehicle_id)]) == [{"user_id": str(stays.user_id)}]
        assert (await verify(client, store, include_provisional=True, now=clock)).is_clean


@pytest.mark.parametrize(("ahead", "is_clean"), [(-10, True), (0, True), (2, False)])
async def test_a_clock_that_is_days_ahead_is_an_alarm(path: Path, clock: Clock, ahead: int, is_clean: bool) -> None:
    """If the clock is days ahead of the server's, a run that reads only such days is not clean, and says why."""
    start = clock.at
    rows: dict[VehicleRef, list[dict[str, Any]]] = {vehicle: [] for vehicle in VEHICLES}
    async with (
        PoderoSimulator(rows=rows, clock=start.timestamp, token_lifetime_s=10**9) as sim,
        client_of(sim) as client,
    ):
        async with SessionStore(path) as store:
            clock.forward(days=ahead)
            yesterday = clock.at.date() - timedelta(days=1)
            report = await backfill(client, store, yesterday, yesterday, now=clock)
    assert report.is_clean == is_clean
    assert all("is ahead of the server's" in alarm for alarm in report.alarms)

"""The figures of a report: they equal `summarize` and the store's own counts, and show how residents charge."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest

from podero_async import ChargingSession, SessionTotals, VehicleSessions, summarize
from podero_async.backfill import SessionStore, backfill
from podero_async.report import HoursPluggedIn, Report, build_report
from podero_async.report._figures import By
from podero_async.report._sections import sections_of
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of, wire_row
from tests._support.real_sessions import for_each_report_file, read_reports, rows_by_vehicle
from tests._support.sql_rows import execute
from tests.conftest import small_fleet

VIENNA = ZoneInfo("Europe/Vienna")
Outcomes = list[VehicleSessions]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcomes]:
    """Fill a store, and return it with the outcomes of the same fleet."""
    path = tmp_path_factory.mktemp("filled") / "fleet.duckdb"

    async def fill() -> Outcomes:
        async with small_fleet() as sim, client_of(sim) as client, SessionStore(path) as store:
            await backfill(client, store, sim.first_day, sim.last_day)
            async with client.fetch_fleet(sim.first_day, sim.last_day) as fetch:
                return [outcome async for outcome in fetch if isinstance(outcome, VehicleSessions)]

    return path, asyncio.run(fill())


@pytest.fixture
async def fleet(filled: tuple[Path, Outcomes], tmp_path: Path) -> AsyncIterator[tuple[SessionStore, Outcomes]]:
    """Open a copy of the filled store."""
    path, outcomes = filled
    async with SessionStore(shutil.copy(path, tmp_path)) as store:
        yield store, outcomes


def approximately(totals: dict[Any, SessionTotals]) -> dict[Any, Any]:
    """Allow for another order of the sums."""
    return {
        key: {
            name: pytest.approx(number, rel=1e-12) if isinstance(number, float) else number
            for name, number in attrs.asdict(value).items()
        }
        for key, value in totals.items()
    }


def of_months(report: Report) -> dict[date, Any]:
    return {each.month: attrs.asdict(each.totals) for each in report.months}


def of_groups(report: Report) -> dict[str | None, Any]:
    return {each.name if report.by == "customer" else each.key: attrs.asdict(each.totals) for each in report.savings}


async def test_the_figures_equal_those_of_summarize(fleet: tuple[SessionStore, Outcomes]) -> None:
    """Sums of all sessions, of months in a time zone, outcomes, customers and vehicles equal those of the fetched fleet."""
    store, outcomes = fleet
    report = await build_report(store, time_zone="Europe/Vienna")
    assert attrs.asdict(report.totals) == approximately(summarize(outcomes))[()]
    assert of_months(report) == approximately(summarize(outcomes, "month", time_zone=VIENNA))
    assert report.outcomes == {name: totals.sessions for name, totals in summarize(outcomes, "session_outcome").items()}
    of_customers = summarize(outcomes, "external_user_id")
    assert of_groups(report) == approximately(of_customers)
    assert (report.vehicles, report.customers) == (len(outcomes), len(of_customers))

    by_vehicle = await build_report(store, by="vehicle")
    of_vehicles = {str(key): totals for key, totals in summarize(outcomes, "vehicle_id").items()}
    assert of_groups(by_vehicle) == approximately(of_vehicles)

    sessions = [session for outcome in outcomes for session in outcome.sessions]
    local = [session.plug_in_time.astimezone(VIENNA) for session in sessions]
    assert report.at_home == sum(session.is_at_home for session in sessions)
    assert sum(each.sessions for each in report.weeks) == len(sessions)
    for weekday, counts in enumerate(report.arrivals):
        assert list(counts) == [sum(at.weekday() == weekday and at.hour == hour for at in local) for hour in range(24)]


async def test_a_period_has_the_days_of_the_time_zone(fleet: tuple[SessionStore, Outcomes]) -> None:
    """With first and last day, those sessions count that were plugged in on these days by the clocks of the time zone."""
    store, outcomes = fleet
    sessions = [session for outcome in outcomes for session in outcome.sessions]
    days = sorted({session.plug_in_time.astimezone(VIENNA).date() for session in sessions})
    first, last = days[10], days[-10]
    report = await build_report(store, first, last, time_zone="Europe/Vienna")

    def is_within(session: ChargingSession) -> bool:
        return first <= session.plug_in_time.astimezone(VIENNA).date() <= last

    assert attrs.asdict(report.totals) == approximately(summarize([each for each in sessions if is_within(each)]))[()]
    assert (report.from_date, report.to_date) == (first, last)


async def test_days_by_state_are_those_of_the_store(fleet: tuple[SessionStore, Outcomes]) -> None:
    """The spans of the coverage add up to the store's counts, also where reads with hidden sessions overlap others;
    days after today and vehicles that have gone do not count.
    """
    store, _ = fleet
    (first,) = await store.query("SELECT min(from_date) AS day, max(to_date) AS last FROM coverage")
    await execute(
        store,
        f"""
        INSERT INTO coverage BY NAME SELECT * REPLACE (true AS include_hidden, DATE '{first["day"]}' + 5 AS from_date,
            DATE '{first["last"]}' - 2 AS to_date, hash(vehicle_id) % 2 = 0 AS is_settled) FROM coverage
            WHERE hash(vehicle_id) % 3 > 0;
        DELETE FROM coverage WHERE NOT include_hidden AND hash(vehicle_id) % 5 = 0;
        UPDATE vehicles SET gone_since = now() WHERE vehicle_id = (SELECT max(vehicle_id) FROM vehicles);
        """,
    )
    for today in (date(2030, 1, 1), first["last"] - timedelta(days=20)):
        now = partial(datetime.combine, today, time(12), UTC)
        report = await build_report(store, first["day"], first["last"], now=now)
        counted = await store.days(first["day"], first["last"], now=now)
        assert report.days == counted
        assert counted.missing > 0
        spans = report.coverage
        assert all((after.from_date - before.to_date).days == 1 for before, after in pairwise(spans))


async def test_nights_end_at_the_local_midnight() -> None:
    """A session counts as one of the night if it was still plugged in at the midnight after its plug-in by local clocks,
    also in the nights in which clocks change; its hours are those that have passed.
    """
    times = {
        "2026-03-28T21:30:00Z": "2026-03-28T22:59:00Z",  # to 23:59 in Vienna
        "2026-03-28T22:30:00Z": "2026-03-29T05:30:00Z",  # from 23:30 to 7:30: seven hours, as the clock was set forward
        "2026-10-24T22:10:00Z": "2026-10-25T22:30:00Z",  # from 0:10 to 23:30: 24 hours on one day
        "2026-10-25T22:10:00Z": "2026-10-25T23:00:00Z",  # to midnight
        "2026-10-26T22:10:00Z": None,
    }
    rows = [wire_row(number, plug_in_time=start, unplug_time=end) for number, (start, end) in enumerate(times.items())]
    async with PoderoSimulator(users=0, vehicles=0) as sim, client_of(sim) as client, SessionStore(":memory:") as store:
        sim.add_vehicle(rows=rows)
        await backfill(
            client, store, date(2026, 3, 1), date(2026, 10, 31), now=lambda: datetime(2026, 12, 1, tzinfo=UTC)
        )
        report = await build_report(store, time_zone="Europe/Vienna")
    assert [each for each in report.plugged_in if each.overnight or each.same_day] == [
        HoursPluggedIn(hours=0, overnight=1, same_day=0),
        HoursPluggedIn(hours=1, overnight=0, same_day=1),
        HoursPluggedIn(hours=7, overnight=1, same_day=0),
        HoursPluggedIn(hours=24, overnight=0, same_day=1),
    ]
    assert report.without_end == 1


@pytest.mark.parametrize(
    ("by", "troubles"),
    [
        ("customer", [("a", 2, 0, 0), ("b", 0, 1, 3)]),
        ("vehicle", [("2", 0, 1, 3), ("3", 1, 0, 0), ("65", 1, 0, 0)]),
        ("price-zone", [("AT", 1, 1, 3), (None, 1, 0, 0)]),
    ],
)
async def test_troubles_are_counted_by_kind(by: By, troubles: list[tuple[Any, ...]], path: Path) -> None:
    """Failed and unproven reads and unreadable sessions of the period count for the customer, vehicle or price zone;
    a vehicle list that failed counts for its customer.
    """
    user, vehicle, day = "printf('%032x', 100 + {0})::UUID", "printf('%032x', {0})::UUID", "DATE '2026-01-05'"
    a, b = user.format(1), user.format(2)
    async with SessionStore(path) as store:
        await execute(
            store,
            f"""
            INSERT INTO users BY NAME SELECT unnest([{a}, {b}]) AS user_id, unnest(['a', 'b']) AS external_user_id,
                now() AS first_seen_at;
            INSERT INTO vehicles BY NAME SELECT {a} AS user_id, {vehicle.format(3)} AS vehicle_id, 'AT' AS price_zone,
                now() AS first_seen_at UNION ALL SELECT {b}, {vehicle.format(2)}, 'AT', now();
            INSERT INTO failures BY NAME SELECT 1 AS run_id, unnest([{a}, {a}, {b}, {b}]) AS user_id,
                unnest([{vehicle.format(3)}, NULL, {vehicle.format(2)}, {vehicle.format(2)}]) AS vehicle_id,
                unnest([{day}, NULL, {day}, {day} - 60]) AS from_date, from_date + 9 AS to_date,
                unnest(['ServerError', 'ServerError', 'CompletenessError', 'ServerError']) AS kind,
                '' AS message, false AS include_hidden, now() AS first_failed_at, now() AS failed_at;
            INSERT INTO rejected_items BY NAME SELECT {b} AS user_id, {vehicle.format(2)} AS vehicle_id,
                {day} AS from_date, {day} AS to_date, false AS include_hidden, unnest([0, 1, 2]) AS "index",
                '$' AS path, '' AS reason, '' AS raw, now() AS fetched_at;
            """,
        )
        report = await build_report(store, date(2026, 1, 1), date(2026, 1, 31), by=by)
    found = [
        (
            each.name if by == "customer" else f"{UUID(each.key).int:x}" if by == "vehicle" and each.key else each.key,
            *(each.failed, each.unproven, each.rejected),
        )
        for each in report.troubles
    ]
    assert found == troubles
    assert report.troubled == len(report.troubles)


async def test_withdrawn_sessions_are_left_out(fleet: tuple[SessionStore, Outcomes]) -> None:
    """A session that the server has withdrawn is in no figure; a hidden one in the store counts, and is counted."""
    store, outcomes = fleet
    sessions = sorted((session for outcome in outcomes for session in outcome.sessions), key=lambda each: each.id)
    await execute(store, f"UPDATE sessions SET withdrawn_at = now() WHERE id = '{sessions[0].id}'")
    await execute(store, f"UPDATE sessions SET is_hidden = true WHERE id = '{sessions[1].id}'")
    report = await build_report(store)
    assert attrs.asdict(report.totals) == approximately(summarize(sessions[1:]))[()]
    assert report.hidden == 1
    assert sum(map(sum, report.arrivals)) == sum(report.outcomes.values()) == len(sessions) - 1


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
async def test_times_of_wrong_clocks_are_within_the_calendar(fleet: tuple[SessionStore, Outcomes], zone: str) -> None:
    """Sessions at both ends of the calendar, which may lie beyond it in the time zone, count in the months of `summarize`."""
    store, outcomes = fleet
    sessions = sorted((session for outcome in outcomes for session in outcome.sessions), key=lambda each: each.id)
    ends = [datetime(1, 1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, 22, tzinfo=UTC)]
    for number, moment in enumerate(ends):
        sessions[number] = attrs.evolve(sessions[number], plug_in_time=moment)
        await execute(
            store,
            f"UPDATE sessions SET plug_in_time = '{moment.isoformat()}' WHERE id = '{sessions[number].id}'",
        )
    report = await build_report(store, time_zone=zone)
    assert of_months(report) == approximately(summarize(sessions, "month", time_zone=ZoneInfo(zone)))
    assert "January 1" in report.to_html()


@for_each_report_file
async def test_a_report_shows_how_residents_charge(report_file: Path, path: Path) -> None:
    """On weekdays, most residents plug in between 15 and 17 hours local time, and mostly for 9 to 15 hours, overnight."""
    reports = read_reports(report_file)
    async with PoderoSimulator(rows=rows_by_vehicle(reports)) as sim, client_of(sim) as client:
        async with SessionStore(path) as store:
            await backfill(client, store, date(2018, 12, 1), date(2020, 2, 29))
            report = await build_report(store, time_zone="Europe/Oslo")
    oslo = [line.plug_in.astimezone(ZoneInfo("Europe/Oslo")) for line in reports]
    assert report.totals.sessions == len(reports)
    assert report.totals.energy_charged_kwh == pytest.approx(sum(line.energy_kwh for line in reports))
    assert report.without_end == sum(line.plug_out is None for line in reports)
    assert report.arrivals[2][16] == sum(at.weekday() == 2 and at.hour == 16 for at in oslo)
    if len(reports) > 1_000:
        sections = sections_of(report)
        assert "On weekdays most cars arrive from 15:00 to 17:00" in sections["arrivals"].finding
        assert "last past midnight, most often for 9 to 15 hours" in sections["hours-plugged-in"].finding
        stays = [each for each in report.plugged_in if 9 <= each.hours < 15]
        assert sum(each.overnight for each in stays) > 0.9 * sum(each.overnight + each.same_day for each in stays)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_zone": "Mars/Base"}, "unknown time zone 'Mars/Base'"),
        ({"by": "garage"}, "cannot list by 'garage'; use one of customer, vehicle, price-zone"),
        (
            {"from_date": date(2026, 2, 1), "to_date": date(2026, 1, 1)},
            "from_date must not be after to_date",
        ),
    ],
)
async def test_wrong_arguments_are_refused(options: dict[str, Any], message: str, path: Path) -> None:
    """An unknown time zone or grouping, and days in the wrong order, are a `ValueError` that names the value."""
    async with SessionStore(path) as store:
        with pytest.raises(ValueError, match=message):
            await build_report(store, **options)


async def test_an_empty_store_has_an_empty_report(path: Path) -> None:
    """A store without any session has a report, and a page."""
    async with SessionStore(path, read_only=True) as store:
        report = await build_report(store)
    assert (report.totals, report.from_date, report.coverage) == (SessionTotals(), None, ())
    assert "No days yet" in report.to_html()

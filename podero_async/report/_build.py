"""`build_report`: runs the queries, one after the other, and makes a report of their rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any, get_args

import attrs

from podero_async import _validation as arguments
from podero_async._summary import SessionTotals
from podero_async.backfill import QueryError, SessionStore
from podero_async.report import _queries as queries
from podero_async.report._figures import (
    By,
    CoveredDays,
    GroupSavings,
    GroupTrouble,
    HoursPluggedIn,
    MonthTotals,
    Report,
    WeekCount,
)

__all__ = ["build_report"]

_Row = dict[str, Any]
_TOTALS = [field.name for field in attrs.fields(SessionTotals)]
_OF_ALL, _OF_MONTH, _OF_WEEK, _OF_HOUR = 0b111, 0b011, 0b101, 0b110
"""The sets of `TIMES`: a bit is set if the rows are not grouped by the month, the week, or the weekday."""
_WEEKDAYS, _HOURS = 7, 24
_PARAMETER = re.compile(r"\$(from|to|zone)\b")


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def build_report(
    store: SessionStore,
    from_date: date | None = None,
    to_date: date | None = None,
    *,
    time_zone: str = "UTC",
    by: By = "customer",
    now: Callable[[], datetime] = _utc_now,
) -> Report:
    """Query the figures of a store: sums, months, weeks, hours, outcomes, customers and coverage.

    Each figure is SQL over the store, and equals the one that `summarize` computes from the same sessions. Memory does not
    grow with the sessions. Open the store with `read_only=True`: a backfill that writes to it between two queries
    makes a report of both states. If the caller is cancelled, the current query ends soon.

    Args:
        store: The open store.
        from_date: First day of plug-ins, in the time zone; None begins with the first one.
        to_date: Last day of plug-ins, inclusive; None ends with the last one.
        time_zone: The time zone of days, hours, weeks and months: an IANA name (`Europe/Vienna`).
        by: What to list by savings and by troubles: `customer`, `vehicle` or `price-zone`.
        now: Returns the time, since the coverage ends today; for tests.

    Raises:
        ValueError: The days are in the wrong order, or a name is unknown.
        StoreError: The store cannot be read.
    """
    if by not in get_args(By):
        raise ValueError(f"cannot list by {by!r}; use one of {', '.join(get_args(By))}")
    arguments.instance("time_zone", time_zone, str, "an IANA name")
    arguments.days(date.min if from_date is None else from_date, date.max if to_date is None else to_date)
    ask = _Queries(store, {"from": from_date, "to": to_date, "zone": time_zone})
    await ask.check_zone()
    figures = _figures_of_times(times := await ask.rows(queries.TIMES))
    figures |= _figures_of_groups(await ask.rows(queries.groups_of(by)), await ask.rows(queries.troubles_of(by)))
    figures |= _figures_of_hours(await ask.rows(queries.HOURS))
    (known,) = await ask.rows(queries.PERIOD)
    covered = from_date or known["from_date"], to_date or known["to_date"]
    days = [row for row in times if row["set"] == _OF_ALL]
    return Report(
        from_date=from_date or min(filter(None, (covered[0], days[0]["first_day"])), default=None),
        to_date=to_date or max(filter(None, (covered[1], days[0]["last_day"])), default=None),
        time_zone=time_zone,
        by=by,
        read_at=known["read_at"],
        vehicles=(await ask.rows(queries.count_of("vehicle_id")))[0]["number"],
        customers=(await ask.rows(queries.count_of("user_id")))[0]["number"],
        outcomes={row["outcome"]: row["sessions"] for row in await ask.rows(queries.OUTCOMES)},
        coverage=await _coverage(ask, *covered, now().astimezone(UTC).date()),
        **figures,
    )


async def _coverage(ask: _Queries, first: date | None, last: date | None, today: date) -> tuple[CoveredDays, ...]:
    if first is None or last is None or first > min(last, today):
        return ()
    rows = await ask.rows(queries.COVERAGE, **{"from": first, "to": min(last, today)})
    return tuple(_joined(rows))


@attrs.frozen
class _Queries:
    """The queries over a store, with the values that stand for `$from`, `$to` and `$zone` in them."""

    _store: SessionStore
    _values: dict[str, Any]

    async def rows(self, sql: str, **values: Any) -> list[_Row]:
        known = self._values | values
        names = list(dict.fromkeys(_PARAMETER.findall(sql)))
        numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
        return await self._store.query(numbered, [known[each] for each in names])

    async def check_zone(self) -> None:
        try:
            await self.rows(queries.ZONE)
        except QueryError as error:
            raise ValueError(f"unknown time zone {self._values['zone']!r}") from error


def _figures_of_times(rows: Sequence[_Row]) -> _Row:
    """Return the fields of a report that come from the query `TIMES`."""
    of_all = next(row for row in rows if row["set"] == _OF_ALL)
    months, weeks, hours = ([row for row in rows if row["set"] == each] for each in (_OF_MONTH, _OF_WEEK, _OF_HOUR))
    arrivals = [[0] * _HOURS for _ in range(_WEEKDAYS)]
    for row in hours:
        arrivals[row["weekday"] - 1][row["hour"]] = row["sessions"]
    return {
        "totals": _totals(of_all),
        "expected_savings_of_known_eur": of_all["expected_of_known"],
        "at_home": of_all["at_home"],
        "hidden": of_all["hidden"],
        "months": tuple(MonthTotals(month=row["month"], totals=_totals(row)) for row in months),
        "weeks": tuple(WeekCount(week=row["week"], sessions=row["sessions"]) for row in weeks),
        "arrivals": tuple(map(tuple, arrivals)),
    }


def _figures_of_hours(rows: Sequence[_Row]) -> _Row:
    """Return the fields of a report that come from the query `HOURS`."""
    of = {row["hours"]: row for row in rows}
    nothing = {"overnight": 0, "sessions": 0}
    counts = [(hours, of.get(hours, nothing)) for hours in range(_HOURS + 1)]
    return {
        "plugged_in": tuple(
            HoursPluggedIn(hours=hours, overnight=row["overnight"], same_day=row["sessions"] - row["overnight"])
            for hours, row in counts
        ),
        "without_end": of.get(None, nothing)["sessions"],
    }


def _figures_of_groups(groups: Sequence[_Row], troubles: Sequence[_Row]) -> _Row:
    """Return the fields of a report that come from the queries of groups and of troubles."""
    return {
        "savings": tuple(GroupSavings(**_name(row), totals=_totals(row)) for row in groups),
        "troubles": tuple(
            GroupTrouble(**_name(row), failed=row["failed"], unproven=row["unproven"], rejected=row["rejected"])
            for row in troubles
        ),
        "troubled": troubles[0]["troubled"] if troubles else 0,
    }


def _name(row: _Row) -> _Row:
    return {"key": row["key"], "name": row["name"]}


def _totals(row: _Row) -> SessionTotals:
    return SessionTotals(**{name: row[name] for name in _TOTALS})


def _joined(rows: Sequence[_Row]) -> Iterator[CoveredDays]:
    """Yield the spans of days; adjoining days with the same counts are one span."""
    counts = [(row["settled"], row["read"] - row["settled"], row["vehicles"] - row["read"]) for row in rows]
    for (settled, provisional, missing), same in groupby(range(len(rows)), counts.__getitem__):
        first, *_, last = [*same] * 2
        yield CoveredDays(
            from_date=rows[first]["from_date"],
            to_date=rows[last]["to_date"],
            settled=settled,
            provisional=provisional,
            missing=missing,
        )

"""The work of a run: the days that each vehicle of the roster needs, as work items in order."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]

from podero_async._paging.window import Window
from podero_async.backfill._alarms import Unread
from podero_async.backfill._coverage import (
    DayCounts,
    KnownDays,
    count_days,
    final_day,
    needs_of,
    stale_limits,
    unread_days,
)
from podero_async.backfill._report import BackfillPlan
from podero_async.backfill._values import RunSettings, WorkItem
from podero_async.backfill.store.duckdb.retention import KEPT_FROM
from podero_async.models import VehicleRef

__all__ = ["count_roster_days", "draft_run", "next_work", "plan_work"]

_PAIR = "user_id, vehicle_id"
_MAX_CLOCK_ERROR = timedelta(minutes=10)

# The known days of a vehicle are one text without times. Most vehicles have the same text, so few texts are planned.
_KNOWN = f"""
CREATE OR REPLACE TEMP TABLE known AS
WITH spans AS (
    SELECT {_PAIR}, from_date, to_date, CASE
        WHEN is_settled THEN 's'
        WHEN read_at > CASE WHEN to_date <= $old_day THEN $old_since ELSE $fresh_since END AND read_at <= $now THEN 'f'
        ELSE 'p'
    END AS state
    FROM coverage SEMI JOIN roster USING ({_PAIR}) WHERE include_hidden OR NOT $include_hidden
    UNION ALL
    SELECT {_PAIR}, from_date, to_date, 'm'
    FROM failures SEMI JOIN roster USING ({_PAIR}) WHERE $include_hidden OR NOT include_hidden
    UNION ALL
    SELECT r.user_id, r.vehicle_id, s.plug_in_time::DATE, s.plug_in_time::DATE, 'a'
    FROM sessions s JOIN roster r USING ({_PAIR}) WHERE s.absent_at IS NOT NULL AND s.plug_in_time IS NOT NULL
), texts AS (
    SELECT {_PAIR}, string_agg(state || from_date || '/' || to_date, ' ' ORDER BY from_date, to_date, state) AS days
    FROM spans GROUP BY {_PAIR}
)
SELECT {_PAIR}, coalesce(days, '') AS days FROM roster LEFT JOIN texts USING ({_PAIR})
"""
# The vehicles of a group ask for their current session on the same day of the week.
_GROUP = "('0x' || right(vehicle_id::VARCHAR, 4))::INTEGER % 7"
_DISTINCT = f'SELECT DISTINCT days, {_GROUP} AS "group" FROM known'
_NEEDS = pa.schema(
    [
        ("days", pa.string()),
        ("group", pa.int32()),
        ("from_date", pa.date32()),
        ("to_date", pa.date32()),
        ("asks_current", pa.bool_()),
    ]
)
# Vehicles that were never tried come first, then those whose last attempt was longest ago. Within an hour they are ordered
# by vehicle, so that the vehicles of a batch lie close together in the table of sessions.
_WORK = f"""
CREATE OR REPLACE TEMP TABLE work AS
WITH tries AS (
    SELECT {_PAIR}, date_trunc('hour', max(moment)) AS tried_at FROM (
        SELECT {_PAIR}, read_at AS moment FROM coverage
        UNION ALL SELECT {_PAIR}, failed_at FROM failures WHERE vehicle_id IS NOT NULL
    ) GROUP BY {_PAIR}
)
SELECT (row_number() OVER (ORDER BY tried_at NULLS FIRST, vehicle_id, user_id, from_date))::INTEGER AS number,
    {_PAIR}, greatest(from_date, {KEPT_FROM}) AS from_date, to_date, asks_current
FROM (SELECT *, {_GROUP} AS "group" FROM known) JOIN arrow_needs USING (days, "group") LEFT JOIN tries USING ({_PAIR})
"""


def plan_work(con: duckdb.DuckDBPyConnection, settings: RunSettings) -> tuple[int, int, int]:
    """Fill the table `work` with the work items; return the number of vehicles, of items, and of vehicles without one."""
    con.execute("CREATE OR REPLACE TEMP TABLE roster AS SELECT DISTINCT * FROM roster")
    _find_known(con, settings)
    final = final_day(settings.started, settings.settle_days)
    today = settings.started.astimezone(UTC).date()
    window = (settings.window.from_date, settings.window.to_date)
    needs: list[tuple[Any, ...]] = []
    for days, group in con.execute(_DISTINCT).fetchall():
        found = needs_of(KnownDays.parse(days), window, today=today, final=final, group=group)
        needs += [(days, group, need.from_date, need.to_date, need.asks_current) for need in found]
    columns = zip(*needs, strict=True) if needs else [()] * len(_NEEDS)
    con.register("arrow_needs", pa.table([list(column) for column in columns], schema=_NEEDS))
    con.execute(_WORK)
    con.unregister("arrow_needs")
    vehicles, items, needing = con.execute(
        f"SELECT (SELECT count(*) FROM known), count(*), count(DISTINCT ({_PAIR})) FROM work"
    ).fetchall()[0]
    return vehicles, items, vehicles - needing


def draft_run(con: duckdb.DuckDBPyConnection, settings: RunSettings) -> BackfillPlan:
    """Return the plan of a run over the roster."""
    vehicles, items, skipped = plan_work(con, settings)
    ((asking,),) = con.execute("SELECT count(*) FILTER (asks_current) FROM work").fetchall()
    windows = con.execute("SELECT from_date, to_date, count(*) FROM work GROUP BY ALL ORDER BY 3 DESC, 1").fetchall()
    return BackfillPlan(vehicles=vehicles, skipped=skipped, least_requests=items + asking, windows=tuple(windows))


def next_work(con: duckdb.DuckDBPyConnection, include_hidden: bool, after: int, limit: int) -> list[WorkItem]:
    """Return the work items after a number, in order."""
    rows = con.execute(
        f"SELECT number, {_PAIR}, from_date, to_date, asks_current FROM work"
        " WHERE number > $after AND number <= $after + $limit ORDER BY number",
        {"after": after, "limit": limit},
    ).fetchall()
    return [
        WorkItem(
            number,
            VehicleRef(user_id=user_id, vehicle_id=vehicle_id),
            Window(first, last, include_hidden),
            asks_current=asks_current,
        )
        for number, user_id, vehicle_id, first, last, asks_current in rows
    ]


def count_roster_days(con: duckdb.DuckDBPyConnection, settings: RunSettings) -> tuple[DayCounts, Unread]:
    """Count the vehicle-days of the roster in the window: by state, and those that are missing without a failure."""
    _find_known(con, settings)
    counts, unread = DayCounts(), Unread()
    first, last = settings.window.from_date, settings.window.to_date
    # By the server's clock, a day may begin some minutes later.
    last_begun = min(last, (settings.started.astimezone(UTC) - _MAX_CLOCK_ERROR).date())
    for days, vehicles in con.execute("SELECT days, count(*) FROM known GROUP BY days").fetchall():
        known = KnownDays.parse(days)
        counts += count_days(known, (first, last)).times(vehicles)
        if lacking := unread_days(known, (first, last_begun)):
            unread = Unread(unread.days + lacking * vehicles, unread.vehicles + vehicles)
    return counts, unread


def _find_known(con: duckdb.DuckDBPyConnection, settings: RunSettings) -> None:
    final = final_day(settings.started, settings.settle_days)
    fresh_since, old_since, old_day = stale_limits(settings.started, settings.fresh_for, final)
    values = {"include_hidden": settings.window.include_hidden, "now": settings.started}
    con.execute(_KNOWN, values | {"fresh_since": fresh_since, "old_since": old_since, "old_day": old_day})

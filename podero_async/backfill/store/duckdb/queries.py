"""The queries of a store: its status, its runs, the days and sessions for a verification, and users' SQL."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import attrs
import duckdb

from podero_async._paging.window import Window
from podero_async.backfill._coverage import DayCounts, KnownDays, count_days
from podero_async.backfill._report import FailedVehicle
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store._status import Coverage, RunStatus, StoreStatus
from podero_async.backfill.store.duckdb.schema import check_version, owner_of
from podero_async.models import VehicleRef

__all__ = ["count_window", "read_rows", "read_runs", "read_status", "sample_windows", "stored_ids"]

_MAX_LISTED = 100
_ALL = 2**62


def read_rows(con: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """Run a query and return its rows."""
    found = con.sql(sql, params=list(values or ()))
    if found is None:
        raise duckdb.InvalidInputException("no query: the statement returns no rows")
    rows: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
    return rows


_COUNTS = """
SELECT * FROM (
    SELECT count(*) AS sessions, count(withdrawn_at) AS withdrawn, count(absent_at) AS absent,
        count(*) FILTER (is_hidden) AS hidden, min(plug_in_time) AS first_plug_in, max(plug_in_time) AS last_plug_in
    FROM sessions
), (
    SELECT count(DISTINCT vehicle_id) AS vehicles FROM (
        SELECT vehicle_id FROM coverage UNION ALL SELECT vehicle_id FROM vehicles
    )
), (SELECT count(*) AS gone FROM vehicles WHERE gone_since IS NOT NULL),
(SELECT max(read_at) AS fetched_at FROM coverage),
(SELECT count(*) AS rejected FROM rejected_items), (SELECT count(*) AS failures FROM failures)
"""
_COVERAGE = f"""
SELECT from_date, to_date, include_hidden, is_settled, count(*) AS vehicles FROM coverage
GROUP BY ALL ORDER BY vehicles DESC, from_date, to_date LIMIT {_MAX_LISTED}
"""
_RUNS = """
SELECT * REPLACE (CASE WHEN alarms = '' THEN [] ELSE string_split(alarms, chr(10)) END AS alarms)
FROM runs ORDER BY run_id DESC LIMIT $limit
"""
_FAILURES = f"""
SELECT user_id, vehicle_id, kind, message FROM failures ORDER BY vehicle_id LIMIT {_MAX_LISTED}
"""
# A vehicle that has gone is not counted, since its days can be read no more.
_PRESENT_DAYS = """
SELECT days, count(*) FROM (
    SELECT coalesce(string_agg(
        CASE WHEN is_settled THEN 's' ELSE 'p' END || from_date || '/' || to_date, ' ' ORDER BY from_date, to_date
    ), '') AS days
    FROM (
        SELECT user_id, vehicle_id FROM coverage UNION SELECT user_id, vehicle_id FROM vehicles
    ) ANTI JOIN (FROM vehicles WHERE gone_since IS NOT NULL) USING (user_id, vehicle_id)
    LEFT JOIN (FROM coverage WHERE include_hidden OR NOT $include_hidden) USING (user_id, vehicle_id)
    GROUP BY user_id, vehicle_id
) GROUP BY days
"""


def read_status(con: duckdb.DuckDBPyConnection, path: str, now: datetime) -> StoreStatus:
    """Return a summary of the store; the days of a vehicle are counted from its first known one to today."""
    (counts,) = read_rows(con, _COUNTS)
    owner = owner_of(con)
    return StoreStatus(
        path=path,
        schema_version=check_version(con, path),
        org_id=owner.org_id if owner else None,
        origin=owner.origin if owner else None,
        failed_vehicles=tuple(FailedVehicle(**row) for row in read_rows(con, _FAILURES)),
        coverage=tuple(Coverage(**row) for row in read_rows(con, _COVERAGE)),
        runs=tuple(read_runs(con, 10)),
        **attrs.asdict(count_window(con, None, now.astimezone(UTC).date())),
        **counts,
    )


def read_runs(con: duckdb.DuckDBPyConnection, limit: int | None) -> list[RunStatus]:
    """Return the newest runs, the newest first."""
    rows = con.execute(_RUNS, {"limit": _ALL if limit is None else limit})
    names = [column[0] for column in rows.description or ()]
    return [RunStatus(**dict(zip(names, row, strict=True))) for row in rows.fetchall()]


def count_window(con: duckdb.DuckDBPyConnection, window: Window | None, today: date) -> DayCounts:
    """Count the vehicle-days of a window by state, up to today, for all vehicles that are not gone.

    Without a window, the days of a vehicle are those from its first known one on.
    """
    counts = DayCounts()
    found = con.execute(_PRESENT_DAYS, {"include_hidden": window is not None and window.include_hidden}).fetchall()
    for days, vehicles in found:
        known = KnownDays.parse(days)
        if window is not None:
            first, last = window.from_date, min(window.to_date, today)
        elif known.first is None:
            continue
        else:
            first, last = known.first, today
        counts += count_days(known, (first, last)).times(vehicles)
    return counts


# --- verification ---

_WINDOWS = """
SELECT user_id, vehicle_id, include_hidden, min(from_date), max(to_date) FROM (
    SELECT *, sum(CASE WHEN from_date <= covered_to + 1 THEN 0 ELSE 1 END) OVER by_key AS island FROM (
        SELECT *, lag(to_date) OVER by_key AS covered_to
        FROM coverage SEMI JOIN drawn USING (user_id, vehicle_id)
        WINDOW by_key AS (PARTITION BY user_id, vehicle_id, include_hidden ORDER BY from_date)
    ) WINDOW by_key AS (PARTITION BY user_id, vehicle_id, include_hidden ORDER BY from_date)
) GROUP BY user_id, vehicle_id, include_hidden, island ORDER BY vehicle_id, user_id, include_hidden, min(from_date)
"""
_PRESENT = """
SELECT DISTINCT user_id, vehicle_id
FROM coverage ANTI JOIN (FROM vehicles WHERE gone_since IS NOT NULL) USING (user_id, vehicle_id)
"""
_LIVE = """
SELECT id FROM sessions WHERE vehicle_id = $vehicle AND user_id = $user AND withdrawn_at IS NULL
AND plug_in_time >= $first AND plug_in_time < $last::DATE + 1 AND ($include_hidden OR NOT is_hidden)
"""


def sample_windows(con: duckdb.DuckDBPyConnection, sample: int | None) -> list[WorkItem]:
    """Return the days that were read of each vehicle; of at most `sample` vehicles, drawn at random."""
    drawn = _PRESENT if sample is None else f"FROM ({_PRESENT}) USING SAMPLE {int(sample)} ROWS"
    con.execute(f"CREATE OR REPLACE TEMP TABLE drawn AS {drawn}")
    return [
        WorkItem(number, VehicleRef(user_id=user_id, vehicle_id=vehicle_id), Window(first, last, hidden))
        for number, (user_id, vehicle_id, hidden, first, last) in enumerate(con.execute(_WINDOWS).fetchall())
    ]


def stored_ids(con: duckdb.DuckDBPyConnection, item: WorkItem) -> set[UUID]:
    """Return the ids of the stored sessions of a window, without withdrawn ones."""
    values = {
        "vehicle": item.vehicle.vehicle_id,
        "user": item.vehicle.user_id,
        "first": item.window.from_date,
        "last": item.window.to_date,
        "include_hidden": item.window.include_hidden,
    }
    return {row[0] for row in con.execute(_LIVE, values).fetchall()}

"""The queries of a store: its status, its runs, the days and sessions for a verification, and users' SQL."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import attrs
import duckdb
import pyarrow as pa  # type: ignore[import-untyped]

from podero_async._paging.window import Window
from podero_async.backfill._coverage import DayCounts, KnownDays, count_days
from podero_async.backfill._report import FailedVehicle
from podero_async.backfill.store._status import Coverage, RunStatus, StoreStatus
from podero_async.backfill.store.duckdb.retention import kept_from
from podero_async.backfill.store.duckdb.schema import check_version, owner_of

__all__ = ["count_window", "python_values", "read_rows", "read_runs", "read_status", "relation_of"]

_MAX_LISTED = 100
_ALL = 2**62


def read_rows(con: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """Run a query and return its rows."""
    table = relation_of(con, sql, values).to_arrow_table()
    columns = python_values(table)
    return [dict(zip(table.column_names, row, strict=True)) for row in columns]


def relation_of(
    con: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] | None = None
) -> duckdb.DuckDBPyRelation:
    """Return the result of a query, which is not computed yet.

    A statement before it, such as a SET, must not return rows, since they would be lost.
    """
    for statement in con.extract_statements(sql)[:-1]:
        if duckdb.ExpectedResultType.NOTHING not in statement.expected_result_type:
            raise duckdb.InvalidInputException(
                f"only the last statement may return rows or change them, so run this one alone: {statement.query.strip()}"
            )
    found: duckdb.DuckDBPyRelation | None = con.sql(sql, params=list(values or ()))
    if found is None:
        raise duckdb.InvalidInputException("no query: the statement returns no rows")
    return found


def python_values(table: pa.Table | pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Return the rows of a table, which may have several columns of the same name."""
    # Arrow would look for UTC in a time zone database, which Windows and minimal containers do not have.
    try:
        columns = [column.cast(_python_type(column.type)).to_pylist() for column in table.columns]
    except (OverflowError, ValueError) as error:  # a year after 9999, for example
        raise duckdb.ConversionException(f"a value of the query has no counterpart in Python: {error}") from error
    return list(zip(*columns, strict=True))


def _python_type(kind: pa.DataType) -> pa.DataType:
    """Return a type whose times have the offset +00:00 instead of the name of a time zone, and no nanoseconds."""
    if pa.types.is_timestamp(kind):
        # Arrow converts nanoseconds to a type of pandas, and fails if pandas is not installed.
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit, "+00:00" if kind.tz else None)
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_python_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_python_type(field.type)) for field in kind])
    return kind


_COUNTS = """
SELECT * FROM (
    SELECT count(*) AS sessions, count(withdrawn_at) AS withdrawn, count(absent_at) AS absent,
        count(*) FILTER (is_hidden) AS hidden, min(plug_in_time) AS first_plug_in, max(plug_in_time) AS last_plug_in
    FROM sessions
), (
    SELECT count(DISTINCT vehicle_id) AS vehicles FROM (
        SELECT vehicle_id FROM coverage UNION ALL SELECT vehicle_id FROM vehicles
    )
), (SELECT count(*) AS gone FROM vehicles WHERE gone_since IS NOT NULL), (
    SELECT count(*) AS unread FROM (FROM vehicles WHERE gone_since IS NULL) ANTI JOIN coverage USING (user_id, vehicle_id)
),
(SELECT max(read_at) AS fetched_at FROM coverage),
(SELECT count(*) AS rejected FROM rejected_items), (SELECT count(*) AS failures FROM failures)
"""
_COVERAGE = f"""
SELECT from_date, to_date, include_hidden, is_settled, count(*) AS vehicles FROM coverage
GROUP BY ALL ORDER BY vehicles DESC, from_date, to_date LIMIT {_MAX_LISTED}
"""
_RUNS = """
SELECT * REPLACE (CASE WHEN alarms = '' THEN [] ELSE string_split(alarms, chr(10)) END AS alarms)
FROM runs ORDER BY run_id DESC LIMIT ?
"""
_FAILURES = f"""
SELECT user_id, vehicle_id, kind, message FROM failures ORDER BY vehicle_id NULLS FIRST LIMIT {_MAX_LISTED}
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
        kept_from=kept_from(con),
        **attrs.asdict(count_window(con, None, now.astimezone(UTC).date())),
        **counts,
    )


def read_runs(con: duckdb.DuckDBPyConnection, limit: int | None) -> list[RunStatus]:
    """Return the newest runs, the newest first."""
    return [RunStatus(**row) for row in read_rows(con, _RUNS, [_ALL if limit is None else limit])]


def count_window(con: duckdb.DuckDBPyConnection, window: Window | None, today: date) -> DayCounts:
    """Count the vehicle-days of a window by state, without erased days and up to today, for all vehicles that are not gone.

    Without a window, the days of a vehicle are those from its first known one on.
    """
    counts, since = DayCounts(), kept_from(con) or date.min
    found = con.execute(_PRESENT_DAYS, {"include_hidden": window is not None and window.include_hidden}).fetchall()
    for days, vehicles in found:
        known = KnownDays.parse(days)
        if window is not None:
            first, last = max(window.from_date, since), min(window.to_date, today)
        elif known.first is None:
            continue
        else:
            first, last = known.first, today
        counts += count_days(known, (first, last)).times(vehicles)
    return counts

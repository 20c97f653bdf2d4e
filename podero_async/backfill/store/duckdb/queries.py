"""The queries of a store: its status, its stored days, the receipts and sessions for a verification, and users' SQL."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]

from podero_async._paging.window import Window
from podero_async.backfill._report import FailedVehicle
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store._status import Coverage, RunStatus, StoreStatus
from podero_async.backfill.store.duckdb.schema import check_version, owner_of
from podero_async.models import VehicleRef

__all__ = ["read_rows", "read_status", "sample_receipts", "stored_ids", "stored_spans"]

_MAX_LISTED = 100


def read_rows(con: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """Run a query and return its rows."""
    found = con.sql(sql, params=list(values or ()))
    if found is None:
        raise duckdb.InvalidInputException("no query: the statement returns no rows")
    table = found.to_arrow_table()
    # Arrow would look for UTC in a time zone database, which Windows and minimal containers do not have.
    fields = [field.with_type(_at_offset(field.type)) for field in table.schema]
    try:
        rows: list[dict[str, Any]] = table.cast(pa.schema(fields)).to_pylist()
    except (OverflowError, ValueError) as error:  # a year after 9999, for example
        raise duckdb.ConversionException(f"a value of the query has no counterpart in Python: {error}") from error
    return rows


def _at_offset(kind: pa.DataType) -> pa.DataType:
    """Return a type whose times have the offset +00:00 instead of the name of a time zone."""
    if pa.types.is_timestamp(kind) and kind.tz:
        return pa.timestamp(kind.unit, "+00:00")
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_at_offset(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_at_offset(field.type)) for field in kind])
    return kind


def stored_spans(receipts: str, key: str) -> str:
    """Return a query for the stored days by key; spans that overlap or adjoin are joined.

    Args:
        receipts: A table, or a FROM clause up to its WHERE.
        key: The columns of the key.
    """
    by_key = f"PARTITION BY {key} ORDER BY from_date, held_to"
    return f"""
SELECT {key}, min(from_date) AS from_date, max(held_to) AS held_to FROM (
    SELECT *, sum(CASE WHEN from_date <= held_before + 1 THEN 0 ELSE 1 END) OVER ({by_key}) AS island FROM (
        SELECT {key}, from_date, held_to,
            max(held_to) OVER ({by_key} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS held_before
        FROM (SELECT {key}, from_date, held_to FROM {receipts} WHERE held_to IS NOT NULL)
    )
) GROUP BY {key}, island
"""


_COUNTS = """
SELECT * FROM (
    SELECT count(*) AS sessions, count(withdrawn_at) AS withdrawn, count(*) FILTER (is_hidden) AS hidden,
        min(plug_in_time) AS first_plug_in, max(plug_in_time) AS last_plug_in FROM sessions
), (
    SELECT count(*) AS receipts, count(DISTINCT vehicle_id) AS vehicles, max(fetched_at) AS fetched_at,
        count(*) FILTER (completeness = 'verified') AS verified, count(*) FILTER (completeness = 'repaired') AS repaired,
        count(*) FILTER (completeness = 'unproven') AS unproven FROM receipts
), (SELECT count(*) AS rejected FROM rejected_items), (SELECT count(*) AS failures FROM failures)
"""
_COVERAGE = f"""
SELECT from_date, held_to, include_hidden, count(*) AS vehicles
FROM ({stored_spans("receipts", "user_id, vehicle_id, include_hidden")})
GROUP BY ALL ORDER BY vehicles DESC, from_date LIMIT {_MAX_LISTED}
"""
_RUNS = """
SELECT run_id, from_date, to_date, include_hidden, vehicles, started_at, finished_at, (
    SELECT count(*) FROM tasks t
    WHERE t.run_id = runs.run_id AND NOT EXISTS (FROM receipts r WHERE r.run_id = t.run_id AND r.task = t.task)
) AS "left" FROM runs ORDER BY run_id DESC LIMIT 10
"""
_FAILURES = f"""
SELECT user_id, vehicle_id, kind, message FROM failures ORDER BY vehicle_id LIMIT {_MAX_LISTED}
"""


def read_status(con: duckdb.DuckDBPyConnection, path: str) -> StoreStatus:
    """Return a summary of the store."""
    (counts,) = read_rows(con, _COUNTS)
    owner = owner_of(con)
    return StoreStatus(
        path=path,
        schema_version=check_version(con, path),
        org_id=owner.org_id if owner else None,
        origin=owner.origin if owner else None,
        failed_vehicles=tuple(FailedVehicle(**row) for row in read_rows(con, _FAILURES)),
        coverage=tuple(Coverage(**row) for row in read_rows(con, _COVERAGE)),
        runs=tuple(RunStatus(**row) for row in read_rows(con, _RUNS)),
        **counts,
    )


# --- verification ---

_RECEIPTS = """
SELECT rowid, user_id, vehicle_id, from_date, to_date, include_hidden, digest FROM (
    SELECT rowid, *, row_number() OVER (
        PARTITION BY user_id, vehicle_id, from_date, to_date, include_hidden ORDER BY fetched_at DESC, rowid DESC
    ) AS age FROM receipts
) WHERE age = 1
"""
_LIVE = """
SELECT id FROM sessions WHERE vehicle_id = $vehicle AND user_id = $user AND withdrawn_at IS NULL
AND plug_in_time >= $first AND plug_in_time < $last::DATE + 1 AND ($include_hidden OR NOT is_hidden)
"""


def sample_receipts(con: duckdb.DuckDBPyConnection, sample: int | None) -> list[tuple[WorkItem, str]]:
    """Return the newest receipt of each window with its digest; at most `sample` of them, drawn at random."""
    drawn = _RECEIPTS if sample is None else f"FROM ({_RECEIPTS}) USING SAMPLE {int(sample)} ROWS"
    return [
        (WorkItem(number, VehicleRef(user_id=user_id, vehicle_id=vehicle_id), Window(first, last, hidden)), digest)
        for number, user_id, vehicle_id, first, last, hidden, digest in con.execute(drawn).fetchall()
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

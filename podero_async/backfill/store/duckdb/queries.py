"""What the store says of itself: rows of a query, its status, and what a verification compares."""

# ruff: noqa: S608 - all that is put into SQL text is written in these rooms; values are bound

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import attrs
import duckdb

from podero_async._paging.window import Window
from podero_async.backfill._report import FailedVehicle
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb.coverage import spans_held
from podero_async.backfill.store.duckdb.owner import owner_of
from podero_async.backfill.store.duckdb.schema import SCHEMA_VERSION
from podero_async.models import VehicleRef

__all__ = ["Coverage", "RunStatus", "StoreStatus", "held_ids", "read_rows", "read_status", "sample_receipts"]

_MAX_LISTED = 100


@attrs.frozen(kw_only=True)
class Coverage:
    """Days that were read, and of how many vehicles."""

    from_date: date
    held_to: date
    """The last day that was over when it was read."""
    include_hidden: bool
    vehicles: int


@attrs.frozen(kw_only=True)
class RunStatus:
    """A run, as the store remembers it."""

    run_id: int
    from_date: date
    to_date: date
    include_hidden: bool
    vehicles: int
    started_at: datetime
    finished_at: datetime | None
    left: int
    """Windows of vehicles still to be read; of a finished run none."""


@attrs.frozen(kw_only=True)
class StoreStatus:
    """What a store holds."""

    path: str
    schema_version: int
    org_id: str | None
    origin: str | None
    """Whom it is for; None before the first backfill."""
    vehicles: int
    sessions: int
    """All rows, the withdrawn and hidden ones included."""
    withdrawn: int
    hidden: int
    first_plug_in: datetime | None
    last_plug_in: datetime | None
    fetched_at: datetime | None
    """When the newest receipt was written."""
    receipts: int
    verified: int
    repaired: int
    unproven: int
    """Receipts by their verdict."""
    rejected: int
    failures: int
    failed_vehicles: tuple[FailedVehicle, ...]
    """The first hundred of them."""
    coverage: tuple[Coverage, ...]
    """Which days are held of how many vehicles; the hundred most frequent."""
    runs: tuple[RunStatus, ...]
    """The newest ten, the newest first."""


def read_rows(con: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """Run one query."""
    found = con.sql(sql, params=list(values or ()))
    if found is None:
        raise duckdb.InvalidInputException("no query: this SQL has no rows to return")
    rows: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
    return rows


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
FROM ({spans_held("receipts", "user_id, vehicle_id, include_hidden")})
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
    """Sum up what the store holds."""
    (counts,) = read_rows(con, _COUNTS)
    owner = owner_of(con)
    return StoreStatus(
        path=path,
        schema_version=SCHEMA_VERSION,
        org_id=owner.org_id if owner else None,
        origin=owner.origin if owner else None,
        failed_vehicles=tuple(FailedVehicle(**row) for row in read_rows(con, _FAILURES)),
        coverage=tuple(Coverage(**row) for row in read_rows(con, _COVERAGE)),
        runs=tuple(RunStatus(**row) for row in read_rows(con, _RUNS)),
        **counts,
    )


# --- verification ----------------------------------------------------------------------------------------------------

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
    """Draw receipts, the newest of each window, with their digests."""
    drawn = _RECEIPTS if sample is None else f"FROM ({_RECEIPTS}) USING SAMPLE {int(sample)} ROWS"
    return [
        (WorkItem(number, VehicleRef(user_id=user_id, vehicle_id=vehicle_id), Window(first, last, hidden)), digest)
        for number, user_id, vehicle_id, first, last, hidden, digest in con.execute(drawn).fetchall()
    ]


def held_ids(con: duckdb.DuckDBPyConnection, task: WorkItem) -> set[UUID]:
    """Return the ids of the sessions that the store takes for a window's."""
    values = {
        "vehicle": task.vehicle.vehicle_id,
        "user": task.vehicle.user_id,
        "first": task.window.from_date,
        "last": task.window.to_date,
        "include_hidden": task.window.include_hidden,
    }
    return {row[0] for row in con.execute(_LIVE, values).fetchall()}

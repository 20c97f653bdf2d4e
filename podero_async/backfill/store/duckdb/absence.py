"""Absence: stored sessions that a proven read of their day did not return, until a wider read confirms it.

1. A batch sets `absent_at` on such rows, and clears it on rows that return. Neither is a visible change.
2. At the end of a run, `absent_share` counts the rows that should have been returned, and the absent ones among them.
3. `confirming_items` are reads of all covered days of these vehicles, under each of their users.
4. `conclude` withdraws the rows that are still absent.

Only reads under the row's own user show that it is absent. If the user has the vehicle no longer, the row stays, as all rows
of vehicles that have left do: another user may be shown the sessions of the own time only. A row that the API does show
under another user moves there.
"""

# ruff: noqa: S608 - the SQL is composed of constants of this module; values are bound

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import duckdb

from podero_async._paging.window import Window
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb.changes import commit_time
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.backfill.store.duckdb.retention import KEPT_FROM
from podero_async.models import VehicleRef

__all__ = ["PRESENT", "absent_share", "conclude", "confirming_items", "find_absent", "start"]

PRESENT = """(
    SELECT user_id, vehicle_id FROM roster
    UNION ALL SELECT user_id, vehicle_id FROM vehicles WHERE gone_since IS NULL AND last_seen_at IS NOT NULL
)"""
"""The users of a vehicle: those of the run, and those of the last discovery, since a run may read only some vehicles."""

_START = """
CREATE OR REPLACE TEMP TABLE suspects (id UUID, user_id UUID, vehicle_id UUID, day DATE, absent_at TIMESTAMPTZ);
CREATE OR REPLACE TEMP TABLE confirming (number INTEGER, user_id UUID, vehicle_id UUID, from_date DATE, to_date DATE);
"""
# --- in a batch ---

_FIND = """
CREATE OR REPLACE TEMP TABLE absent AS
SELECT r.work_item, s.plug_in_time::DATE AS day, s.rowid AS pos, s.absent_at IS NULL AS is_new
FROM sessions s JOIN arrow_reads r ON s.vehicle_id = r.vehicle_id AND s.user_id = r.user_id
  AND s.plug_in_time >= r.from_date::TIMESTAMPTZ AND s.plug_in_time < (r.to_date + 1)::TIMESTAMPTZ
WHERE s.withdrawn_at IS NULL AND (r.include_hidden OR NOT s.is_hidden) AND r.completeness <> 'unproven'
  AND s.rowid NOT IN (SELECT pos FROM found)
"""
# The server still has a row that could not be read; without an id, it may be any row of the read.
_MAYBE_REJECTED = """
CREATE OR REPLACE TEMP TABLE maybe_rejected AS
SELECT pos FROM absent WHERE work_item IN (SELECT work_item FROM arrow_rejected WHERE session_id IS NULL)
UNION SELECT rowid FROM sessions WHERE id IN (SELECT session_id FROM arrow_rejected)
"""
_KEEP_REJECTED = "DELETE FROM absent WHERE pos IN (SELECT pos FROM maybe_rejected)"
_CLEAR_REJECTED = """
UPDATE sessions SET absent_at = NULL
WHERE rowid IN (SELECT pos FROM maybe_rejected) AND absent_at IS NOT NULL
"""
_MARK = "UPDATE sessions SET absent_at = $at WHERE rowid IN (SELECT pos FROM absent WHERE is_new)"


def find_absent(con: duckdb.DuckDBPyConnection, at: datetime, *, has_rejected: bool) -> None:
    """Fill the table `absent` (work_item, day) with the rows that the reads of a batch had to return, and mark them."""
    ((found,),) = con.execute(_FIND).fetchall()
    if has_rejected:
        con.execute(_MAYBE_REJECTED)
        con.execute(_KEEP_REJECTED)
        con.execute(_CLEAR_REJECTED)
    if found:
        con.execute(_MARK, {"at": at})


# --- at the end of a run ---

_SHARE = """
SELECT count(*) FILTER (absent_at IS NOT NULL), count(*) FROM sessions s
SEMI JOIN (FROM receipts WHERE run_id = $run AND completeness <> 'unproven') w
  ON s.vehicle_id = w.vehicle_id AND s.user_id = w.user_id AND (w.include_hidden OR NOT s.is_hidden)
  AND s.plug_in_time >= w.from_date::TIMESTAMPTZ AND s.plug_in_time < (w.to_date + 1)::TIMESTAMPTZ
WHERE s.withdrawn_at IS NULL
"""
_SUSPECTS = """
INSERT INTO suspects
SELECT id, user_id, vehicle_id, plug_in_time::DATE, absent_at FROM sessions
SEMI JOIN roster USING (user_id, vehicle_id) WHERE absent_at IS NOT NULL AND ($include_hidden OR NOT is_hidden)
"""
_CONFIRMING = f"""
INSERT INTO confirming
SELECT $first - 1 + row_number() OVER (ORDER BY vehicle_id, user_id), user_id, vehicle_id, from_date, to_date FROM (
    SELECT DISTINCT user_id, vehicle_id FROM {PRESENT} SEMI JOIN suspects USING (vehicle_id)
) JOIN (
    SELECT vehicle_id, greatest(min(from_date), {KEPT_FROM}) AS from_date, max(to_date) AS to_date FROM (
        SELECT vehicle_id, day - 1 AS from_date, day + 1 AS to_date FROM suspects
        UNION ALL SELECT vehicle_id, from_date, to_date FROM coverage SEMI JOIN suspects USING (vehicle_id)
    ) GROUP BY vehicle_id
) USING (vehicle_id)
"""
_WITHDRAW = """
UPDATE sessions s SET withdrawn_at = $at, changed_at = $at, absent_at = NULL FROM suspects x
-- A row that a confirming read returned has another `absent_at`, even if a second one did not return it.
WHERE s.id = x.id AND s.absent_at = x.absent_at AND x.vehicle_id NOT IN (
    SELECT vehicle_id FROM confirming WHERE number NOT IN (SELECT unnest($done::INTEGER[]))
)
"""
_COUNT_INTO_RUN = "UPDATE runs SET sessions_withdrawn = sessions_withdrawn + $withdrawn WHERE run_id = $run"


def start(con: duckdb.DuckDBPyConnection) -> None:
    """Forget the suspects of an earlier run."""
    con.execute(_START)


def absent_share(con: duckdb.DuckDBPyConnection, run_id: int) -> tuple[int, int]:
    """Return the number of absent rows, and of all live rows, in the windows of the run's proven reads."""
    ((absent, live),) = con.execute(_SHARE, {"run": run_id}).fetchall()
    return int(absent), int(live)


def confirming_items(con: duckdb.DuckDBPyConnection, include_hidden: bool, first_number: int) -> list[WorkItem]:
    """Return the reads that confirm the absence of the absent rows: all covered days of a vehicle, under each of its users.

    Only rows whose own user is in the roster with the vehicle are confirmed. Rows that become absent later are not withdrawn by this run.
    """
    with transaction(con):
        con.execute(_START)
        con.execute(_SUSPECTS, {"include_hidden": include_hidden})
        con.execute(_CONFIRMING, {"first": first_number})
    found = con.execute("FROM confirming ORDER BY number").fetchall()
    return [
        WorkItem(
            number,
            VehicleRef(user_id=user, vehicle_id=vehicle),
            Window(first, last, include_hidden),
            is_confirming=True,
        )
        for number, user, vehicle, first, last in found
    ]


def conclude(con: duckdb.DuckDBPyConnection, run_id: int, done_numbers: Collection[int], at: datetime) -> int:
    """Withdraw the rows that are still absent after all confirming reads of their vehicle; return their number.

    Args:
        con: The connection.
        run_id: The run, which counts them.
        done_numbers: The confirming items that were proven, or had no such vehicle to read.
        at: The time.
    """
    values = {"at": commit_time(con, at), "done": list(done_numbers)}
    with transaction(con):
        ((withdrawn,),) = con.execute(_WITHDRAW, values).fetchall()
        con.execute(_COUNT_INTO_RUN, {"run": run_id, "withdrawn": withdrawn})
    return int(withdrawn)

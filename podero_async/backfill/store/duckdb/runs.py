"""Runs and their work items: planned once, stored, and read in order until every vehicle was tried."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import attrs
import duckdb

from podero_async._paging.window import Window
from podero_async.backfill._report import BackfillPlan, FailedVehicle, Findings
from podero_async.backfill._values import Run, RunSettings, WorkItem
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.backfill.store.duckdb.roster import find_needs
from podero_async.models import VehicleRef

__all__ = ["draft_run", "findings_of", "finish_run", "next_work", "open_work", "resume_run", "start_run"]

_PAIR = "user_id, vehicle_id"
_UNFINISHED = """
FROM runs WHERE from_date = $from_date AND to_date = $to_date AND include_hidden = $include_hidden
  AND refresh_days = $refresh_days AND scope = $scope AND finished_at IS NULL
  AND (started_at >= $today OR to_date < started_at::DATE)
"""
_LEFT = """
FROM tasks t WHERE t.run_id = $run AND NOT EXISTS (FROM receipts r WHERE r.run_id = $run AND r.task = t.task)
"""
_SUPERSEDED = (
    "SELECT run_id FROM runs WHERE finished_at IS NULL AND include_hidden = $include_hidden AND scope = $scope"
)
_WORK = f"""
SELECT (row_number() OVER (ORDER BY vehicle_id, user_id, n.from_date))::INTEGER AS task, {_PAIR}, n.from_date, n.to_date
FROM holdings JOIN needs n USING (days) ORDER BY task
"""
# A rejected row has the same time as the receipt of its read.
_REJECTED_BEFORE = f"""
SELECT count(*) FROM rejected_items
SEMI JOIN (FROM receipts WHERE run_id = ?) USING ({_PAIR}, from_date, to_date, include_hidden, fetched_at)
"""
_DROP_UNLISTED = """
DELETE FROM failures
WHERE vehicle_id IS NULL AND run_id NOT IN (SELECT run_id FROM runs WHERE finished_at IS NULL)
"""
_BY_WINDOW = "GROUP BY ALL ORDER BY 3 DESC, 1"


def _values(settings: RunSettings) -> dict[str, Any]:
    return attrs.asdict(settings.window) | {"refresh_days": settings.refresh_days, "scope": settings.scope}


def resume_run(con: duckdb.DuckDBPyConnection, settings: RunSettings, today: date) -> Run | None:
    """Return the unfinished run with these settings, if it started today or its window had ended when it started."""
    since = datetime(today.year, today.month, today.day, tzinfo=UTC)
    found = con.execute(
        f"SELECT run_id, vehicles {_UNFINISHED} ORDER BY run_id DESC LIMIT 1", _values(settings) | {"today": since}
    ).fetchall()
    if not found:
        return None
    ((run_id, vehicles),) = found
    left, unread = con.execute(f"SELECT count(*), count(DISTINCT ({_PAIR})) {_LEFT}", {"run": run_id}).fetchall()[0]
    return Run(run_id, vehicles, left, vehicles - unread, resumed=True)


def findings_of(con: duckdb.DuckDBPyConnection, run_id: int) -> Findings:
    """Return the problems that earlier calls of a run found."""
    users = con.execute(
        "SELECT user_id::VARCHAR, kind, message FROM failures WHERE run_id = ? AND vehicle_id IS NULL", [run_id]
    ).fetchall()
    vehicles = con.execute(
        f"SELECT DISTINCT {_PAIR} FROM receipts WHERE run_id = ? AND completeness = 'unproven'", [run_id]
    ).fetchall()
    ((rejected,),) = con.execute(_REJECTED_BEFORE, [run_id]).fetchall()
    return Findings(
        [FailedVehicle(user_id=user, vehicle_id=None, kind=kind, message=text) for user, kind, text in users],
        [VehicleRef(user_id=user, vehicle_id=vehicle) for user, vehicle in vehicles],
        rejected,
    )


def start_run(con: duckdb.DuckDBPyConnection, settings: RunSettings, now: datetime) -> Run:
    """Store a new run over the roster; older unfinished runs of the same scope are discarded."""
    values = _values(settings)
    with transaction(con):
        vehicles, skipped = find_needs(con, settings)
        old = {name: values[name] for name in ("include_hidden", "scope")}
        con.execute(f"DELETE FROM tasks WHERE run_id IN ({_SUPERSEDED})", old)
        con.execute(f"DELETE FROM runs WHERE run_id IN ({_SUPERSEDED})", old)
        ((run_id,),) = con.execute(
            "SELECT coalesce(max(run_id), 0) + 1 FROM (SELECT run_id FROM runs UNION ALL SELECT run_id FROM receipts)"
        ).fetchall()
        con.execute(
            "INSERT INTO runs VALUES ($run, $from_date, $to_date, $include_hidden, $refresh_days, $scope, $vehicles,"
            " $now, NULL)",
            values | {"run": run_id, "vehicles": vehicles, "now": now},
        )
        con.execute(f"INSERT INTO tasks BY NAME SELECT $run AS run_id, * FROM ({_WORK})", {"run": run_id})
        if settings.is_of_fleet:  # the fleet was discovered again
            con.execute(_DROP_UNLISTED)
        con.execute(
            "INSERT INTO failures SELECT $run, user_id, NULL, NULL, NULL, $include_hidden, kind, message, $now FROM unlisted",
            {"run": run_id, "include_hidden": settings.window.include_hidden, "now": now},
        )
        ((items,),) = con.execute("SELECT count(*) FROM tasks WHERE run_id = ?", [run_id]).fetchall()
    return Run(run_id, vehicles, items, skipped, resumed=False)


def open_work(con: duckdb.DuckDBPyConnection, run_id: int) -> None:
    """Number the work items that have no receipt yet, so that loading the next ones always costs the same."""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE todo AS SELECT row_number() OVER (ORDER BY task) AS position, * {_LEFT} ORDER BY task",
        {"run": run_id},
    )


def next_work(con: duckdb.DuckDBPyConnection, include_hidden: bool, after: int, limit: int) -> list[WorkItem]:
    """Return the work items after a position, in order."""
    rows = con.execute(
        "SELECT task, user_id, vehicle_id, from_date, to_date FROM todo"
        " WHERE position > $after AND position <= $after + $limit ORDER BY position",
        {"after": after, "limit": limit},
    ).fetchall()
    return [
        WorkItem(number, VehicleRef(user_id=user_id, vehicle_id=vehicle_id), Window(first, last, include_hidden))
        for number, user_id, vehicle_id, first, last in rows
    ]


def draft_run(con: duckdb.DuckDBPyConnection, settings: RunSettings, unfinished: Run | None) -> BackfillPlan:
    """Return the rest of an unfinished run, or the plan of a new run over the roster."""
    if unfinished:
        vehicles, skipped = unfinished.vehicles, unfinished.skipped
        found = con.execute(f"SELECT from_date, to_date, count(*) {_LEFT} {_BY_WINDOW}", {"run": unfinished.run_id})
    else:
        vehicles, skipped = find_needs(con, settings)
        found = con.execute(f"SELECT from_date, to_date, count(*) FROM holdings JOIN needs USING (days) {_BY_WINDOW}")
    windows = tuple(found.fetchall())
    requests = sum(vehicles for *_, vehicles in windows)
    return BackfillPlan(vehicles=vehicles, skipped=skipped, least_requests=requests, windows=windows)


# A discarded run did not look for moved sessions, so the search goes back to the start of the last finished run.
_SINCE = "coalesce((SELECT max(started_at) FROM runs WHERE finished_at IS NOT NULL), '-infinity'::TIMESTAMPTZ)"
_TWICE = f"""
CREATE OR REPLACE TEMP TABLE twice AS
SELECT id, min(first_seen_at) AS first_seen_at, max(first_seen_at) AS again_at FROM sessions
WHERE id IN (SELECT id FROM sessions WHERE first_seen_at >= {_SINCE}) GROUP BY id HAVING count(*) > 1
"""
_DROP_OLDER = "DELETE FROM sessions s USING twice t WHERE s.id = t.id AND s.first_seen_at < t.again_at"
_KEEP_NEWER = """
UPDATE sessions s SET first_seen_at = t.first_seen_at, changed_at = t.again_at FROM twice t WHERE s.id = t.id
"""


def finish_run(con: duckdb.DuckDBPyConnection, run_id: int, now: datetime) -> None:
    """Close a run after every vehicle was tried.

    A session that moved to another vehicle during the run is stored twice: its older row is deleted.
    """
    run = {"run": run_id}
    with transaction(con):
        con.execute(_TWICE)
        con.execute(_DROP_OLDER)
        con.execute(_KEEP_NEWER)
        con.execute("DELETE FROM tasks WHERE run_id = $run", run)
        con.execute("UPDATE runs SET finished_at = $now WHERE run_id = $run", run | {"now": now})

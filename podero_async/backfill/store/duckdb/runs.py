"""Runs: which windows of which vehicles are still to be read. Planned once, kept in the store, worked off in order.

A run is its window, its settings and its vehicles. It is finished when every vehicle was tried; until then the same
call goes on with it.
"""

# ruff: noqa: S608 - all that is put into SQL text is written in these rooms; values are bound

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import duckdb

from podero_async._paging.window import Window
from podero_async.backfill._report import FailedVehicle
from podero_async.backfill._values import Draft, Run, RunSettings, WorkItem, days_needed
from podero_async.backfill.store.duckdb.columns import unlisted_table, vehicles_table
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.backfill.store.duckdb.coverage import spans_held
from podero_async.models import VehicleFailure, VehicleRef

__all__ = [
    "add_to_roster",
    "clear_roster",
    "draft_run",
    "found_before",
    "next_tasks",
    "open_tasks",
    "resume_run",
    "roster_digest",
    "start_run",
]


# --- the roster: the vehicles that the next run is about ----------------------------------------------------------

_PAIR = "user_id, vehicle_id"


def clear_roster(con: duckdb.DuckDBPyConnection) -> None:
    """Begin a new roster."""
    con.execute("CREATE OR REPLACE TEMP TABLE roster (user_id UUID, vehicle_id UUID)")
    con.execute("CREATE OR REPLACE TEMP TABLE unlisted (user_id UUID, kind VARCHAR, message VARCHAR)")


def add_to_roster(con: duckdb.DuckDBPyConnection, vehicles: list[VehicleRef], failures: list[VehicleFailure]) -> None:
    """Add vehicles; of a user whose vehicles could not be listed, those that the store knows."""
    con.register("arrow_vehicles", vehicles_table(vehicles))
    con.execute("INSERT INTO roster FROM arrow_vehicles")
    if failures:
        con.register("arrow_unlisted", unlisted_table(failures))
        con.execute("INSERT INTO unlisted FROM arrow_unlisted")
        con.execute(
            f"INSERT INTO roster SELECT DISTINCT {_PAIR} FROM receipts SEMI JOIN arrow_unlisted USING (user_id)"
        )


def roster_digest(con: duckdb.DuckDBPyConnection) -> str:
    """Return a text that tells one roster from another, whatever its order."""
    count, mixed = con.execute(
        f"SELECT count(*), bit_xor(hash({_PAIR})) FROM (SELECT DISTINCT {_PAIR} FROM roster)"
    ).fetchall()[0]
    return f"{count} vehicles, {mixed or 0:016x}"


# --- which days of them are missing ---------------------------------------------------------------------------------

# Of each vehicle the days that it holds, as one text: vehicles mostly hold the same days, so few texts are planned.
_HELD = f"(FROM receipts SEMI JOIN roster USING ({_PAIR}) WHERE include_hidden OR NOT $include_hidden)"
_HOLDINGS = f"""
CREATE OR REPLACE TEMP TABLE holdings AS
WITH texts AS (
    SELECT {_PAIR}, string_agg(from_date || '/' || held_to, ' ' ORDER BY from_date) AS days
    FROM ({spans_held(_HELD, _PAIR)}) GROUP BY {_PAIR}
)
SELECT DISTINCT {_PAIR}, coalesce(days, '') AS days FROM roster LEFT JOIN texts USING ({_PAIR})
"""
_TASKS = f"""
SELECT (row_number() OVER (ORDER BY vehicle_id, user_id, n.from_date))::INTEGER AS task, {_PAIR}, n.from_date, n.to_date
FROM holdings JOIN needs n USING (days) ORDER BY task
"""


def _find_needs(con: duckdb.DuckDBPyConnection, settings: RunSettings) -> tuple[int, int]:
    """Fill `holdings` and `needs`; return how many vehicles there are, and how many need nothing."""
    window = (settings.window.from_date, settings.window.to_date)
    con.execute(_HOLDINGS, {"include_hidden": settings.window.include_hidden})
    con.execute("CREATE OR REPLACE TEMP TABLE needs (days VARCHAR, from_date DATE, to_date DATE)")
    for (days,) in con.execute("SELECT DISTINCT days FROM holdings").fetchall():
        held = [_parse_days(span) for span in days.split()]
        for need in days_needed(window, held, settings.refresh_days):
            con.execute("INSERT INTO needs VALUES (?, ?, ?)", [days, *need])
    vehicles, idle = con.execute(
        "SELECT count(*), count(*) FILTER (days NOT IN (SELECT days FROM needs)) FROM holdings"
    ).fetchall()[0]
    return int(vehicles), int(idle)


def _parse_days(text: str) -> tuple[date, date]:
    start, _, end = text.partition("/")
    return date.fromisoformat(start), date.fromisoformat(end)


# --- runs ------------------------------------------------------------------------------------------------------------

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
# A rejected row was stored with the receipt of the read that brought it, at the same moment.
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
    return {
        "from_date": settings.window.from_date,
        "to_date": settings.window.to_date,
        "include_hidden": settings.window.include_hidden,
        "refresh_days": settings.refresh_days,
        "scope": settings.scope,
    }


def resume_run(con: duckdb.DuckDBPyConnection, settings: RunSettings, today: date) -> Run | None:
    """Find a run that the same call left unfinished: today, or on any day where its window lay in the past then.

    Of a window that reached into the day of its run, another day has more to show: that is a run of its own.
    """
    since = datetime(today.year, today.month, today.day, tzinfo=UTC)
    found = con.execute(
        f"SELECT run_id, vehicles {_UNFINISHED} ORDER BY run_id DESC LIMIT 1", _values(settings) | {"today": since}
    ).fetchall()
    if not found:
        return None
    ((run_id, vehicles),) = found
    left, users = con.execute(f"SELECT count(*), count(DISTINCT ({_PAIR})) {_LEFT}", {"run": run_id}).fetchall()[0]
    return Run(run_id, vehicles, left, vehicles - users, resumed=True)


def found_before(con: duckdb.DuckDBPyConnection, run_id: int) -> tuple[list[FailedVehicle], list[VehicleRef], int]:
    """Return what an interrupted call of a run found wrong for good.

    That is users not listed, vehicles left unproven, and how many rows could not be read.
    """
    users = con.execute(
        "SELECT user_id::VARCHAR, kind, message FROM failures WHERE run_id = ? AND vehicle_id IS NULL", [run_id]
    ).fetchall()
    vehicles = con.execute(
        f"SELECT DISTINCT {_PAIR} FROM receipts WHERE run_id = ? AND completeness = 'unproven'", [run_id]
    ).fetchall()
    ((rejected,),) = con.execute(_REJECTED_BEFORE, [run_id]).fetchall()
    failures = [FailedVehicle(user_id=user, vehicle_id=None, kind=kind, message=words) for user, kind, words in users]
    return failures, [VehicleRef(user_id=user, vehicle_id=vehicle) for user, vehicle in vehicles], rejected


def start_run(con: duckdb.DuckDBPyConnection, settings: RunSettings, now: datetime) -> Run:
    """Plan a run over the roster. What the same call left of an older one is given up."""
    values = _values(settings)
    with transaction(con):
        vehicles, idle = _find_needs(con, settings)
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
        con.execute(f"INSERT INTO tasks BY NAME SELECT $run AS run_id, * FROM ({_TASKS})", {"run": run_id})
        if settings.is_of_fleet:  # which was listed anew
            con.execute(_DROP_UNLISTED)
        con.execute(
            "INSERT INTO failures SELECT $run, user_id, NULL, NULL, NULL, $include_hidden, kind, message, $now FROM unlisted",
            {"run": run_id, "include_hidden": settings.window.include_hidden, "now": now},
        )
        ((tasks,),) = con.execute("SELECT count(*) FROM tasks WHERE run_id = ?", [run_id]).fetchall()
    return Run(run_id, vehicles, tasks, idle, resumed=False)


def open_tasks(con: duckdb.DuckDBPyConnection, run_id: int) -> None:
    """Lay out the tasks that have no receipt yet, so that looking for the next ones costs the same however many."""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE todo AS SELECT row_number() OVER (ORDER BY task) AS place, * {_LEFT} ORDER BY task",
        {"run": run_id},
    )


def next_tasks(con: duckdb.DuckDBPyConnection, include_hidden: bool, after: int, limit: int) -> list[WorkItem]:
    """Return the tasks at the places behind one, in order."""
    rows = con.execute(
        "SELECT task, user_id, vehicle_id, from_date, to_date FROM todo"
        " WHERE place > $after AND place <= $after + $limit ORDER BY place",
        {"after": after, "limit": limit},
    ).fetchall()
    return [
        WorkItem(number, VehicleRef(user_id=user_id, vehicle_id=vehicle_id), Window(first, last, include_hidden))
        for number, user_id, vehicle_id, first, last in rows
    ]


def draft_run(con: duckdb.DuckDBPyConnection, settings: RunSettings, unfinished: Run | None) -> Draft:
    """Say what a run would read: what is left of an unfinished one, or a new one over the roster. Nothing is changed."""
    if unfinished:
        vehicles, idle = unfinished.vehicles, unfinished.skipped
        found = con.execute(f"SELECT from_date, to_date, count(*) {_LEFT} {_BY_WINDOW}", {"run": unfinished.run_id})
    else:
        vehicles, idle = _find_needs(con, settings)
        found = con.execute(f"SELECT from_date, to_date, count(*) FROM holdings JOIN needs USING (days) {_BY_WINDOW}")
    return Draft(vehicles, idle, tuple(found.fetchall()))

"""The transactions that store what was fetched: one batch, and the end of a run.

What a batch costs depends on the batch. To find the rows that the store holds of its vehicles, only those groups of
rows are looked at whose span of vehicle ids meets the batch's; batches come in the order of these ids.
"""

# ruff: noqa: S608 - all that is put into SQL text is written in these rooms; values are bound

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb

from podero_async.backfill._report import Written
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS

__all__ = ["finish_run", "write_batch"]

_CONTENT = ["user_id", "vehicle_id", *(name for name in SESSION_COLUMNS if name != "id")]
_IS_CHANGED = " OR ".join(f"s.{name} IS DISTINCT FROM i.{name}" for name in _CONTENT)
_SET = ", ".join(f"{name} = i.{name}" for name in _CONTENT)
_COLUMNS = ", ".join(f"i.{name}" for name in SESSION_COLUMNS)
_NEAR = "s.vehicle_id BETWEEN $low AND $high"

_INCOMING = """
CREATE OR REPLACE TEMP TABLE incoming AS
SELECT {distinct} r.user_id, r.vehicle_id, {columns}, r.fetched_at
FROM arrow_sessions i JOIN arrow_reads r USING (task)
"""
_HAS_DOUBLES = "SELECT count(DISTINCT id) < count(*) FROM arrow_sessions"
_KNOWN = """
SELECT count(*), min(vehicle_id), max(vehicle_id) FROM receipts
WHERE vehicle_id BETWEEN (SELECT min(vehicle_id) FROM arrow_reads) AND (SELECT max(vehicle_id) FROM arrow_reads)
  AND vehicle_id IN (SELECT vehicle_id FROM arrow_reads)
"""
_HELD = f"""
CREATE OR REPLACE TEMP TABLE held AS
SELECT s.id, ({_IS_CHANGED}) AS is_changed FROM sessions s JOIN incoming i USING (id) WHERE {_NEAR}
"""
_UPDATE_CHANGED = f"""
UPDATE sessions s SET {_SET}, fetched_at = i.fetched_at, changed_at = i.fetched_at, withdrawn_at = NULL
FROM incoming i WHERE s.id = i.id AND {_NEAR} AND i.id IN (SELECT id FROM held WHERE is_changed)
"""
_UPDATE_SEEN = f"""
UPDATE sessions s SET fetched_at = i.fetched_at, withdrawn_at = NULL
FROM incoming i WHERE s.id = i.id AND {_NEAR} AND i.id IN (SELECT id FROM held WHERE NOT is_changed)
"""
_WITHDRAW = f"""
UPDATE sessions s SET withdrawn_at = r.fetched_at FROM arrow_reads r
WHERE {_NEAR} AND s.vehicle_id = r.vehicle_id AND s.user_id = r.user_id AND s.withdrawn_at IS NULL
  AND s.plug_in_time >= r.from_date AND s.plug_in_time < r.to_date + 1 AND (r.include_hidden OR NOT s.is_hidden)
  AND r.completeness <> 'unproven' AND NOT EXISTS (FROM incoming i WHERE i.id = s.id)
  -- A row that could not be read still shows; where it has no id, it may be any row.
  AND NOT EXISTS (FROM arrow_rejected j WHERE j.task = r.task AND j.session_id IS NULL)
  AND NOT EXISTS (FROM arrow_rejected j WHERE j.session_id = s.id)
"""
_INSERT = """
INSERT INTO sessions BY NAME SELECT *, fetched_at AS first_seen_at FROM incoming i
"""
_INSERT_UNHELD = f"{_INSERT} ANTI JOIN held USING (id)"
_RECEIPTS = """
INSERT INTO receipts BY NAME
SELECT $run AS run_id, left(sha256(coalesce(ids, '')), 32) AS digest, r.* REPLACE (
    coalesce(stored, 0) AS count,
    -- A row that could not be read is asked for again, until it can be.
    CASE WHEN task IN (SELECT task FROM arrow_rejected) THEN NULL ELSE held_to END AS held_to
)
FROM arrow_reads r LEFT JOIN (
    SELECT task, count(*) AS stored, string_agg(id::VARCHAR, '' ORDER BY id::VARCHAR) AS ids
    FROM arrow_sessions GROUP BY task
) USING (task)
"""
_DROP_REJECTED = """
DELETE FROM rejected_items j USING arrow_reads r
WHERE j.vehicle_id = r.vehicle_id AND j.user_id = r.user_id AND r.completeness <> 'unproven'
  AND ((r.from_date <= j.from_date AND r.to_date >= j.to_date AND (r.include_hidden OR NOT j.include_hidden))
       OR j.session_id IN (SELECT id FROM incoming))
"""
_REJECTED = """
INSERT INTO rejected_items BY NAME
SELECT r.user_id, r.vehicle_id, r.from_date, r.to_date, r.include_hidden, j.* EXCLUDE (task), r.fetched_at
FROM arrow_rejected j JOIN arrow_reads r USING (task)
"""
_DROP_FAILURES = """
DELETE FROM failures f USING {attempts} a
WHERE f.vehicle_id = a.vehicle_id AND f.user_id = a.user_id AND f.include_hidden = a.include_hidden
  AND a.from_date <= f.from_date AND a.to_date >= f.to_date
"""
_FAILURES = "INSERT INTO failures BY NAME SELECT $run AS run_id, * FROM arrow_failures"


def write_batch(con: duckdb.DuckDBPyConnection, batch: Batch) -> Written:
    """Store a batch, all of it or nothing."""
    tables = batch.tables()
    for name, table in tables.items():
        con.register(name, table)
    with transaction(con):
        written = _write_sessions(con)
        con.execute(_RECEIPTS, {"run": batch.run_id})
        if _any(con, "rejected_items"):
            con.execute(_DROP_REJECTED)
        con.execute(_REJECTED)
        if _any(con, "failures"):
            con.execute(_DROP_FAILURES.format(attempts="arrow_reads"))
            con.execute(_DROP_FAILURES.format(attempts="arrow_failures"))
        con.execute(_FAILURES, {"run": batch.run_id})
    return Written(*written, tables["arrow_rejected"].num_rows)


def _write_sessions(con: duckdb.DuckDBPyConnection) -> tuple[int, int, int, int]:
    ((has_doubles,),) = con.execute(_HAS_DOUBLES).fetchall()
    # Sorting out doubles costs as much as all the rest, and there are next to never any.
    con.execute(_INCOMING.format(distinct="DISTINCT ON (i.id)" if has_doubles else "", columns=_COLUMNS))
    known, low, high = con.execute(_KNOWN).fetchall()[0]
    if not known:  # nothing of these vehicles was ever stored: there is nothing to compare with
        return _count(con, _INSERT), 0, 0, 0
    near = {"low": low, "high": high}
    con.execute(_HELD, near)
    changed = _count(con, _UPDATE_CHANGED, near)
    unchanged = _count(con, _UPDATE_SEEN, near)
    withdrawn = _count(con, _WITHDRAW, near)
    return _count(con, _INSERT_UNHELD), changed, unchanged, withdrawn


def _count(con: duckdb.DuckDBPyConnection, statement: str, values: dict[str, Any] | None = None) -> int:
    return int(con.execute(statement, values).fetchall()[0][0])


def _any(con: duckdb.DuckDBPyConnection, table: str) -> bool:
    return bool(con.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall())


# A run that was given up looked for no moved sessions: whatever came since the last one that did may be there twice.
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
    """Close a run of which every vehicle was tried.

    A session that the server moved from one vehicle to another was stored a second time: the older row goes.
    """
    run = {"run": run_id}
    with transaction(con):
        con.execute(_TWICE)
        con.execute(_DROP_OLDER)
        con.execute(_KEEP_NEWER)
        con.execute("DELETE FROM tasks WHERE run_id = $run", run)
        con.execute("UPDATE runs SET finished_at = $now WHERE run_id = $run", run | {"now": now})

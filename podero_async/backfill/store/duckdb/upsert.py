"""The upsert: the transaction that stores a batch as sessions, receipts, failures and rejected rows.

A stored row of a vehicle in the batch is updated or withdrawn, a new one is inserted. The cost depends on the size of the
batch, not of the store: DuckDB skips a group of rows if its vehicle ids lie outside the range of the batch, and
batches arrive in the order of these ids.
"""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from typing import Any

import duckdb

from podero_async.backfill._report import Written
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS

__all__ = ["write_batch"]

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
_HAS_DUPLICATES = "SELECT count(DISTINCT id) < count(*) FROM arrow_sessions"
_KNOWN = """
SELECT count(*), min(vehicle_id), max(vehicle_id) FROM receipts
WHERE vehicle_id BETWEEN (SELECT min(vehicle_id) FROM arrow_reads) AND (SELECT max(vehicle_id) FROM arrow_reads)
  AND vehicle_id IN (SELECT vehicle_id FROM arrow_reads)
"""
_STORED = f"""
CREATE OR REPLACE TEMP TABLE stored AS
SELECT s.id, ({_IS_CHANGED}) AS is_changed FROM sessions s JOIN incoming i USING (id) WHERE {_NEAR}
"""
_UPDATE_CHANGED = f"""
UPDATE sessions s SET {_SET}, fetched_at = i.fetched_at, changed_at = i.fetched_at, withdrawn_at = NULL
FROM incoming i WHERE s.id = i.id AND {_NEAR} AND i.id IN (SELECT id FROM stored WHERE is_changed)
"""
_UPDATE_SEEN = f"""
UPDATE sessions s SET fetched_at = i.fetched_at, withdrawn_at = NULL
FROM incoming i WHERE s.id = i.id AND {_NEAR} AND i.id IN (SELECT id FROM stored WHERE NOT is_changed)
"""
_WITHDRAW = f"""
UPDATE sessions s SET withdrawn_at = r.fetched_at FROM arrow_reads r
WHERE {_NEAR} AND s.vehicle_id = r.vehicle_id AND s.user_id = r.user_id AND s.withdrawn_at IS NULL
  AND s.plug_in_time >= r.from_date AND s.plug_in_time < r.to_date + 1 AND (r.include_hidden OR NOT s.is_hidden)
  AND r.completeness <> 'unproven' AND NOT EXISTS (FROM incoming i WHERE i.id = s.id)
  -- The server still has a row that could not be read; without an id, it may be any row of the vehicle.
  AND NOT EXISTS (FROM arrow_rejected j WHERE j.task = r.task AND j.session_id IS NULL)
  AND NOT EXISTS (FROM arrow_rejected j WHERE j.session_id = s.id)
"""
_INSERT = """
INSERT INTO sessions BY NAME SELECT *, fetched_at AS first_seen_at FROM incoming i
"""
_INSERT_NEW = f"{_INSERT} ANTI JOIN stored USING (id)"
_RECEIPTS = """
INSERT INTO receipts BY NAME
SELECT $run AS run_id, left(sha256(coalesce(ids, '')), 32) AS digest, r.* REPLACE (
    coalesce(stored, 0) AS count,
    -- A window with a row that could not be read stays missing, so that the next run reads it again.
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
    """Store a batch in one transaction."""
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
    """Write the sessions of the batch; return how many are new, changed, unchanged and withdrawn.

    1. If the store has a session with other fields, the row is updated and gets `changed_at`.
    2. If the store has the same session, only `fetched_at` is updated. In both cases `withdrawn_at` is cleared.
    3. If a proven read lacks a stored session of its window, the row gets `withdrawn_at`.
    4. If the store does not have a session, a row is inserted.
    """
    ((has_duplicates,),) = con.execute(_HAS_DUPLICATES).fetchall()
    # Removing duplicates costs as much as the rest of the transaction, and they are rare.
    con.execute(_INCOMING.format(distinct="DISTINCT ON (i.id)" if has_duplicates else "", columns=_COLUMNS))
    # If no vehicle of the batch has a receipt, the store has no sessions of these vehicles: all rows are inserted.
    known, low, high = con.execute(_KNOWN).fetchall()[0]
    if not known:
        return _count(con, _INSERT), 0, 0, 0
    near = {"low": low, "high": high}
    con.execute(_STORED, near)
    changed = _count(con, _UPDATE_CHANGED, near)
    unchanged = _count(con, _UPDATE_SEEN, near)
    withdrawn = _count(con, _WITHDRAW, near)
    return _count(con, _INSERT_NEW), changed, unchanged, withdrawn


def _count(con: duckdb.DuckDBPyConnection, statement: str, values: dict[str, Any] | None = None) -> int:
    return int(con.execute(statement, values).fetchall()[0][0])


def _any(con: duckdb.DuckDBPyConnection, table: str) -> bool:
    return bool(con.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall())

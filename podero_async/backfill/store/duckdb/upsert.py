"""The upsert: the transaction that stores a batch as sessions, receipts, failures, rejected rows and coverage.

The ids of the batch are looked up in the whole table, so that no id is stored twice, whichever vehicle returns it. That is
one scan of the column of ids; everything else reads only the groups of rows that contain a row or a vehicle of the batch.
"""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb

from podero_async.backfill._report import Written
from podero_async.backfill.store.duckdb import coverage
from podero_async.backfill.store.duckdb.absence import PRESENT, find_absent
from podero_async.backfill.store.duckdb.changes import commit_time
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.backfill.store.duckdb.retention import kept_from
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS, claim

__all__ = ["CONTENT_DIFFERS", "FIND_STORED", "write_batch"]

_CONTENT = [name for name in SESSION_COLUMNS if name != "id"]
CONTENT_DIFFERS = " OR ".join(f"s.{name} IS DISTINCT FROM i.{name}" for name in _CONTENT)
_SET = ", ".join(f"{name} = i.{name}" for name in ("user_id", "vehicle_id", *_CONTENT, "fetched_at"))
_COLUMNS = ", ".join(f"i.{name}" for name in SESSION_COLUMNS)
_UNKNOWN = {
    "incoming": ", i.unknown_fields",
    "differ": " OR s.unknown_fields IS DISTINCT FROM i.unknown_fields",
    "set": ", unknown_fields = i.unknown_fields",
    "insert": ", unknown_fields",
}
"""What the statements contain in addition if a run keeps unknown fields. Without it, those that are stored stay."""
_NO_UNKNOWN = dict.fromkeys(_UNKNOWN, "")

FIND_STORED = """
CREATE OR REPLACE TEMP TABLE found AS SELECT s.rowid AS pos, s.id FROM sessions s SEMI JOIN arrow_sessions USING (id)
"""
# If reads of one batch return the same session, the last read counts.
_DISTINCT, _LAST = "DISTINCT ON (i.id)", "ORDER BY i.id, r.fetched_at DESC, work_item DESC"
_INCOMING = f"""
SELECT {{distinct}} {_COLUMNS}{{incoming}}, r.user_id, r.vehicle_id, r.fetched_at{{flags}}
FROM arrow_sessions i JOIN arrow_reads r USING (work_item) {{stored}} {{last}}
"""
_FLAGS = f""", s.pos, s.user_id AS own_user_id, s.absent_at IS NOT NULL AS is_absent,
    s.user_id <> r.user_id AND s.vehicle_id = r.vehicle_id AND NOT is_absent AND s.withdrawn_at IS NULL AS may_keep_user,
    (s.vehicle_id <> r.vehicle_id OR s.withdrawn_at IS NOT NULL OR {CONTENT_DIFFERS}{{differ}}) AS differs,
    (differs OR s.user_id <> r.user_id) AS is_changed
"""
_STORED = "LEFT JOIN (SELECT s.*, pos FROM sessions s JOIN found f ON s.rowid = f.pos) s ON s.id = i.id"
# If two users list a vehicle, its rows keep their user while the reads of this user return them.
_KEEP_USER = f"""
UPDATE incoming SET user_id = own_user_id, is_changed = differs FROM {PRESENT} p
WHERE may_keep_user AND p.user_id = own_user_id AND p.vehicle_id = incoming.vehicle_id
"""
_COUNT = """
SELECT count(*) FILTER (is_changed), count(*) FILTER (NOT is_changed), count(*) FILTER (is_absent AND NOT is_changed),
    count(*) FILTER (may_keep_user)
FROM incoming WHERE pos IS NOT NULL
"""
_UPDATE_CHANGED = f"""
UPDATE sessions s SET {_SET}{{set}}, changed_at = $at, absent_at = NULL, withdrawn_at = NULL
FROM incoming i WHERE s.rowid = i.pos AND i.is_changed
"""
_UPDATE_SEEN = (
    "UPDATE sessions s SET fetched_at = i.fetched_at FROM incoming i WHERE s.rowid = i.pos AND NOT i.is_changed"
)
_CLEAR_ABSENT = """
UPDATE sessions SET absent_at = NULL WHERE rowid IN (SELECT pos FROM incoming WHERE is_absent AND NOT is_changed)
"""
_INSERT = f"""
INSERT INTO sessions BY NAME SELECT user_id, vehicle_id, {", ".join(SESSION_COLUMNS)}{{insert}}, fetched_at,
    fetched_at AS first_seen_at, $at AS changed_at
FROM {{rows}}
"""

_RECEIPTS = """
INSERT INTO receipts BY NAME
SELECT $run AS run_id, r.* EXCLUDE (work_item, settle_to, is_confirming) REPLACE (coalesce(stored, 0) AS count)
FROM arrow_reads r LEFT JOIN (SELECT work_item, count(*) AS stored FROM arrow_sessions GROUP BY work_item) USING (work_item)
"""
_DROP_REJECTED = """
DELETE FROM rejected_items j USING arrow_reads r
WHERE j.vehicle_id = r.vehicle_id AND j.user_id = r.user_id AND r.completeness <> 'unproven'
  AND ((r.from_date <= j.from_date AND r.to_date >= j.to_date AND (r.include_hidden OR NOT j.include_hidden))
       OR j.session_id IN (SELECT id FROM arrow_sessions))
"""
# The window of a row is its day, if that is known: a window that has moved on replaces the row if it has this day.
_NEW_REJECTED = """
CREATE OR REPLACE TEMP TABLE new_rejected AS
SELECT r.user_id, r.vehicle_id, coalesce(j.day, r.from_date) AS from_date, coalesce(j.day, r.to_date) AS to_date,
    r.include_hidden, j.* EXCLUDE (work_item, day), r.fetched_at, least(r.fetched_at, o.since) AS first_rejected_at
FROM arrow_rejected j JOIN arrow_reads r USING (work_item) LEFT JOIN (
    SELECT vehicle_id, coalesce(session_id::VARCHAR, raw) AS name, min(coalesce(first_rejected_at, fetched_at)) AS since
    FROM rejected_items GROUP BY ALL
) o ON o.vehicle_id = r.vehicle_id AND o.name = coalesce(j.session_id::VARCHAR, j.raw)
"""
_REJECTED = "INSERT INTO rejected_items BY NAME FROM new_rejected"
_SAME_VEHICLE = "f.vehicle_id = a.vehicle_id AND f.user_id = a.user_id AND (a.include_hidden OR NOT f.include_hidden)"
_DROP_FAILURES = f"""
DELETE FROM failures f USING arrow_reads a
WHERE {_SAME_VEHICLE} AND a.from_date <= f.from_date AND a.to_date >= f.to_date AND a.completeness <> 'unproven'
"""
_SHARES_DAYS = f"{_SAME_VEHICLE} AND f.from_date <= a.to_date AND f.to_date >= a.from_date"
# The window of a nightly run moves, or adjoins the one of the night before. The failure that replaces others has their
# days, too.
_NEW_FAILURES = f"""
CREATE OR REPLACE TEMP TABLE new_failures AS
SELECT $run AS run_id, a.* REPLACE (
    least(a.from_date, (SELECT min(f.from_date) FROM failures f WHERE {_SHARES_DAYS})) AS from_date,
    greatest(a.to_date, (SELECT max(f.to_date) FROM failures f WHERE {_SHARES_DAYS})) AS to_date
), least(failed_at, (
    SELECT min(f.first_failed_at) FROM failures f
    WHERE {_SAME_VEHICLE} AND f.from_date <= a.to_date + 1 AND f.to_date >= a.from_date - 1
)) AS first_failed_at FROM arrow_failures a
"""
_REPLACE_FAILURES = f"""
DELETE FROM failures f USING arrow_failures a WHERE {_SHARES_DAYS}
"""
_FAILURES = "INSERT INTO failures BY NAME FROM new_failures"
_COUNTS = (
    "done",
    "failed",
    "unproven",
    "requests",
    "retries",
    "sessions_new",
    "sessions_changed",
    "sessions_unchanged",
    "rejected",
)
_COUNT_INTO_RUN = f"UPDATE runs SET {', '.join(f'{name} = {name} + ${name}' for name in _COUNTS)} WHERE run_id = $run"


def write_batch(con: duckdb.DuckDBPyConnection, batch: Batch, at: datetime) -> Written:
    """Store a batch in one transaction.

    Args:
        con: The connection. Its temp table `roster` has the vehicles of the run.
        batch: The batch.
        at: The time, from which the time of the commit follows.
    """
    tables = batch.tables(kept_from(con))
    for name, table in tables.items():
        con.register(name, table)
    rejected, failures = tables["arrow_rejected"].num_rows, tables["arrow_failures"].num_rows
    at = commit_time(con, at)
    with transaction(con):
        has_stored = _count(con, FIND_STORED) > 0
        find_absent(con, at, has_rejected=rejected > 0)
        rows = _write_sessions(con, batch, at, has_stored=has_stored)
        written = Written(*rows, rejected=rejected)
        con.execute(_RECEIPTS, {"run": batch.run_id})
        if rejected:
            con.execute(_NEW_REJECTED)
        if _any(con, "rejected_items"):
            con.execute(_DROP_REJECTED)
        if rejected:
            con.execute(_REJECTED)
        if _any(con, "failures"):
            con.execute(_DROP_FAILURES)
        if failures:
            con.execute(_NEW_FAILURES, {"run": batch.run_id})
            con.execute(_REPLACE_FAILURES)
            con.execute(_FAILURES)
        coverage.record(con)
        _count_into_run(con, batch, written)
        if batch.owner and batch.done:
            claim(con, batch.owner)
    return written


def _count_into_run(con: duckdb.DuckDBPyConnection, batch: Batch, written: Written) -> None:
    """Add the batch to the counts of its run, so that a run that is killed shows them."""
    rows = (written.new, written.changed, written.unchanged, written.rejected)
    values = (batch.done, batch.failed, batch.unproven, batch.requests, batch.retries, *rows)
    con.execute(_COUNT_INTO_RUN, dict(zip(_COUNTS, values, strict=True)) | {"run": batch.run_id})


def _write_sessions(
    con: duckdb.DuckDBPyConnection, batch: Batch, at: datetime, *, has_stored: bool
) -> tuple[int, int, int]:
    """Write the sessions of the batch; return how many are new, changed and unchanged.

    1. If the store does not have a session, a row is inserted.
    2. If the stored row differs in a field, its vehicle or its user, or is withdrawn, it is updated and gets `changed_at`.
       Unknown fields count if the run keeps them.
    3. If the store has the same session, only `fetched_at` is updated.
    """
    unknown = _UNKNOWN if batch.keep_unknown else _NO_UNKNOWN
    distinct = {"distinct": _DISTINCT, "last": _LAST} if batch.has_duplicates else {"distinct": "", "last": ""}
    if not has_stored:
        incoming = _INCOMING.format(**distinct, **unknown, flags="", stored="")
        return _count(con, _INSERT.format(**unknown, rows=f"({incoming})"), {"at": at}), 0, 0
    incoming = _INCOMING.format(**distinct, **unknown, flags=_FLAGS.format(**unknown), stored=_STORED)
    con.execute(f"CREATE OR REPLACE TEMP TABLE incoming AS {incoming}")
    changed, unchanged, returned, other_users = con.execute(_COUNT).fetchall()[0]
    if other_users:
        con.execute(_KEEP_USER)
        changed, unchanged, returned, _ = con.execute(_COUNT).fetchall()[0]
    if changed:
        con.execute(_UPDATE_CHANGED.format(**unknown), {"at": at})
    if unchanged:
        con.execute(_UPDATE_SEEN)
    if returned:
        con.execute(_CLEAR_ABSENT)
    return _count(con, _INSERT.format(**unknown, rows="incoming WHERE pos IS NULL"), {"at": at}), changed, unchanged


def _count(con: duckdb.DuckDBPyConnection, statement: str, values: dict[str, Any] | None = None) -> int:
    return int(con.execute(statement, values).fetchall()[0][0])


def _any(con: duckdb.DuckDBPyConnection, table: str) -> bool:
    return bool(con.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall())

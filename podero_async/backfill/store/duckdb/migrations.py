"""The migrations: statements that turn a store of one schema version into one of the next version."""

from __future__ import annotations

import duckdb

from podero_async.backfill.errors import StoreError
from podero_async.backfill.store.duckdb.comments import add_comments
from podero_async.backfill.store.duckdb.schema import SCHEMA_VERSION, add_store_id, create_data_tables

__all__ = ["migrate"]

_SAME_TABLES_SINCE = 3
"""The oldest schema version with today's tables and columns. A store that is read only need not be migrated from it."""

_COMPLETE = "ALTER TABLE rejected_items ADD COLUMN IF NOT EXISTS first_rejected_at TIMESTAMPTZ"
"""The first stores of the current version do not have this column."""


def migrate(con: duckdb.DuckDBPyConnection, path: str, version: int) -> None:
    """Bring an older store to the current schema version in one transaction.

    Raises:
        StoreError: The store is open for reading only, and its tables differ from the current ones.
    """
    (is_read_only,) = con.execute(
        "SELECT readonly FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchall()[0]
    if version == SCHEMA_VERSION and not is_read_only:
        con.execute(_COMPLETE)
    if version == SCHEMA_VERSION:
        return
    if is_read_only and version >= _SAME_TABLES_SINCE:
        return
    if is_read_only:
        raise StoreError(
            f"store schema version {version} is older than {SCHEMA_VERSION}: open the store once for writing to migrate it",
            path,
        )
    con.execute("SET TimeZone = 'UTC'")
    con.execute("BEGIN")
    for step in _STEPS[version:]:
        step(con)
    con.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [str(SCHEMA_VERSION)])
    con.execute("COMMIT")


def _add_withdrawn_at(con: duckdb.DuckDBPyConnection) -> None:
    """Version 0 (prototypes) deleted withdrawn sessions."""
    con.execute("ALTER TABLE sessions ADD COLUMN withdrawn_at TIMESTAMPTZ")


def _keep(_: duckdb.DuckDBPyConnection) -> None:
    """Versions 1 and 2 differ in a value that version 3 does not use."""


_OLD_TABLES = ("sessions", "receipts", "failures", "rejected_items", "runs")
# A session that moved to another vehicle in a run that was interrupted may be stored twice.
_SESSIONS = """
INSERT INTO sessions BY NAME
SELECT * REPLACE (greatest(coalesce(changed_at, first_seen_at), withdrawn_at) AS changed_at) FROM old_sessions
QUALIFY id NOT IN (SELECT id FROM old_sessions GROUP BY id HAVING count(*) > 1)
    OR row_number() OVER (PARTITION BY id ORDER BY first_seen_at DESC, fetched_at DESC) = 1
"""
# Runs that were given up have receipts, but no record.
_RUNS = """
INSERT INTO runs BY NAME
WITH reads AS (
    SELECT run_id, min(from_date) AS from_date, max(to_date) AS to_date, bool_or(include_hidden) AS include_hidden,
        min(fetched_at) AS started_at, count(DISTINCT (user_id, vehicle_id)) AS vehicles, count(*) AS done,
        count(*) FILTER (completeness = 'unproven') AS unproven, sum(requests) AS requests
    FROM old_receipts GROUP BY run_id
)
SELECT run_id, coalesce(o.from_date, r.from_date) AS from_date, coalesce(o.to_date, r.to_date) AS to_date,
    coalesce(o.include_hidden, r.include_hidden) AS include_hidden, coalesce(o.scope, 'unknown') AS scope,
    coalesce(o.vehicles, r.vehicles) AS vehicles, coalesce(o.started_at, r.started_at) AS started_at, o.finished_at,
    coalesce(r.done, 0) AS done, coalesce(r.unproven, 0) AS unproven, coalesce(r.requests, 0) AS requests,
    coalesce(f.failed, 0) AS failed
FROM old_runs o FULL JOIN reads r USING (run_id)
LEFT JOIN (SELECT run_id, count(*) AS failed FROM old_failures GROUP BY run_id) f USING (run_id) ORDER BY run_id
"""
# The days that were read according to the receipts. No receipt says which read of a day was the last, so a span of days gets
# its oldest time: no day seems newer than it is.
_COVERAGE = """
INSERT INTO coverage BY NAME
WITH islands AS (
    SELECT *, sum(CASE WHEN from_date <= before + 1 THEN 0 ELSE 1 END) OVER by_key AS island FROM (
        SELECT *, max(held_to) OVER (by_key ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
        FROM old_receipts WHERE held_to IS NOT NULL
        WINDOW by_key AS (PARTITION BY user_id, vehicle_id, include_hidden ORDER BY from_date, held_to)
    ) WINDOW by_key AS (PARTITION BY user_id, vehicle_id, include_hidden ORDER BY from_date, held_to)
)
SELECT user_id, vehicle_id, include_hidden, min(from_date) AS from_date, max(held_to) AS to_date, false AS is_settled,
    min(fetched_at) AS read_at
FROM islands GROUP BY user_id, vehicle_id, include_hidden, island ORDER BY vehicle_id, user_id, from_date
"""


def _store_coverage(con: duckdb.DuckDBPyConnection) -> None:
    """Version 2 derived the days that a store holds from all receipts, and called a day held when it was over.

    1. The receipts become coverage. All days are provisional, since version 2 did not ask for the current session, which
       may be listed under an old day later. The next run reads each vehicle's stored days once more.
    2. Runs become records; their work items go.
    3. A session without a change gets the time at which it was first seen as `changed_at`.
    4. Users and vehicles are unknown until the next discovery.
    """
    for name in _OLD_TABLES:
        con.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
    create_data_tables(con)
    con.execute(_SESSIONS)
    con.execute("INSERT INTO rejected_items BY NAME FROM old_rejected_items")
    con.execute("INSERT INTO failures BY NAME SELECT *, failed_at AS first_failed_at FROM old_failures")
    con.execute(_RUNS)
    con.execute(_COVERAGE)
    con.execute("INSERT INTO receipts BY NAME SELECT * EXCLUDE (task, held_to) FROM old_receipts")
    for name in (*_OLD_TABLES, "tasks"):
        con.execute(f"DROP TABLE {'tasks' if name == 'tasks' else f'old_{name}'}")
    add_store_id(con)
    add_comments(con)


_STEPS = [_add_withdrawn_at, _keep, _store_coverage]
"""The migration from version `n` to `n + 1` is at index `n`."""

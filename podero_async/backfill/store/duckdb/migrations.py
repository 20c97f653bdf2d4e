"""The migrations: statements that turn a store of one schema version into one of the next version."""

from __future__ import annotations

import duckdb

from podero_async.backfill._values import FLEET
from podero_async.backfill.errors import StoreError
from podero_async.backfill.store.duckdb.roster import scope_of_pairs
from podero_async.backfill.store.duckdb.schema import SCHEMA_VERSION

__all__ = ["migrate"]

_SAME_TABLES_SINCE = 1
"""The oldest schema version with today's tables and columns. A store that is read only need not be migrated from it."""


def migrate(con: duckdb.DuckDBPyConnection, path: str, version: int) -> None:
    """Bring an older store to the current schema version in one transaction.

    Raises:
        StoreError: The store is open for reading only, and its tables differ from the current ones.
    """
    if version == SCHEMA_VERSION:
        return
    (is_read_only,) = con.execute(
        "SELECT readonly FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchall()[0]
    if is_read_only and version >= _SAME_TABLES_SINCE:
        return
    if is_read_only:
        raise StoreError(
            f"store schema version {version} is older than {SCHEMA_VERSION}: open the store once for writing to migrate it",
            path,
        )
    con.execute("BEGIN")
    for step in _STEPS[version:]:
        step(con)
    con.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [str(SCHEMA_VERSION)])
    con.execute("COMMIT")


def _add_withdrawn_at(con: duckdb.DuckDBPyConnection) -> None:
    """Version 0 (prototypes) deleted withdrawn sessions."""
    con.execute("ALTER TABLE sessions ADD COLUMN withdrawn_at TIMESTAMPTZ")


def _rewrite_scopes(con: duckdb.DuckDBPyConnection) -> None:
    """Version 1 stored DuckDB's own hash of a list of vehicles, which may change between releases of DuckDB.

    If the work items of an unfinished run name all its vehicles, the run gets the new digest and can be resumed. If not,
    the run is deleted: the next call plans it again, and the receipts say which days were read.
    """
    unfinished = con.execute(
        "SELECT run_id, vehicles, scope FROM runs WHERE finished_at IS NULL AND NOT starts_with(scope, ?)", [FLEET]
    ).fetchall()
    for run_id, vehicles, scope in unfinished:
        ((named,),) = con.execute(
            "SELECT count(DISTINCT (user_id, vehicle_id)) FROM tasks WHERE run_id = ?", [run_id]
        ).fetchall()
        if named == vehicles:
            _, separator, shard = scope.partition(", share ")
            new_scope = scope_of_pairs(con, "tasks WHERE run_id = ?", run_id) + separator + shard
            con.execute("UPDATE runs SET scope = ? WHERE run_id = ?", [new_scope, run_id])
        else:
            con.execute("DELETE FROM tasks WHERE run_id = ?", [run_id])
            con.execute("DELETE FROM runs WHERE run_id = ?", [run_id])


_STEPS = [_add_withdrawn_at, _rewrite_scopes]
"""The migration from version `n` to `n + 1` is at index `n`."""

"""The store's tables for a copy in another database: their columns, their state, and their rows as Arrow streams."""

# ruff: noqa: S608 - the SQL is composed of constants and quoted names; values are bound

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar
from uuid import UUID

import attrs
import duckdb
import pyarrow as pa  # type: ignore[import-untyped]

from podero_async.backfill.store._tables import ArrowStream, Column, StoreState, StoreTables, Table
from podero_async.backfill.store.duckdb.changes import NEWEST_CHANGE
from podero_async.backfill.store.duckdb.connection import transaction, translated
from podero_async.backfill.store.duckdb.interruptible import Interruptible
from podero_async.backfill.store.duckdb.queries import relation_of
from podero_async.backfill.store.duckdb.retention import kept_from
from podero_async.backfill.store.duckdb.snapshot import quoted_name

__all__ = ["ReadTables"]

T = TypeVar("T")

_KEYS = {
    "users": ("user_id",),
    "vehicles": ("user_id", "vehicle_id"),
    "coverage": ("user_id", "vehicle_id", "include_hidden", "from_date"),
    "sessions": ("id",),
}
_LEFT_OUT = {("sessions", "fetched_at"), ("sessions", "absent_at")}
"""Columns that change although `changed_at` does not."""

_COLUMNS = """
SELECT table_name, column_name, data_type, c.comment, t.comment FROM duckdb_columns() c
JOIN duckdb_tables() t USING (database_name, schema_name, table_name)
WHERE database_name = current_database() AND schema_name = 'main' ORDER BY table_name, column_index
"""
_STATE = f"""
SELECT ({NEWEST_CHANGE}), count(*), coalesce(sum(epoch_us(changed_at)), 0) FROM sessions
"""
_USERS_WITH_SESSIONS = "SELECT DISTINCT user_id::BLOB AS user_id FROM sessions"
# The driver writes 16 bytes as a uuid. PostgreSQL refuses the character NUL in texts.
_FORMS = {
    "UUID": "{0}::BLOB AS {0}",
    "VARCHAR": "replace({0}::VARCHAR, chr(0), chr(65533)) AS {0}",
    **dict.fromkeys(("BIGINT", "BOOLEAN", "DATE", "DOUBLE", "INTEGER", "TIMESTAMP WITH TIME ZONE"), "{0}"),
}
"""The columns' types, and their forms in a stream. A column of another type is read as text."""
_BATCH_ROWS = 16_384


@attrs.define(kw_only=True)
class ReadTables(Interruptible[T]):
    """Calls a function with one consistent state of the tables, in the thread of the store."""

    read: Callable[[StoreTables], T]
    on_cancel: Callable[[], object]

    def cancel(self) -> bool:
        """Cancel the operation, and tell the function."""
        self.on_cancel()
        return super().cancel()

    def work(self, con: duckdb.DuckDBPyConnection) -> T:
        """Return the result of the function."""
        with translated(self.target), transaction(con):
            tables = _Tables(self, con)
            try:
                return self.read(tables)
            except Exception as error:
                if tables.error is not None:  # the reader of a stream reports it in words of its own
                    raise tables.error from error
                raise


class _Tables:
    """The tables of a store within one transaction."""

    def __init__(self, operation: ReadTables[T], con: duckdb.DuckDBPyConnection) -> None:
        self._operation = operation
        self._con = con
        self.error: Exception | None = None
        meta = dict(con.execute("SELECT key, value FROM meta").fetchall())
        change, sessions, checksum = operation.execute(con, _STATE)[0]
        self.state = StoreState(
            store_id=UUID(meta["store_id"]),
            org_id=meta.get("organization"),
            origin=meta.get("origin"),
            kept_from=kept_from(con),
            change=change,
            sessions=sessions,
            checksum=checksum,
        )
        columns: dict[str, list[Column]] = {name: [] for name in _KEYS}
        comments = {}
        for table, column, kind, comment, comments[table] in con.execute(_COLUMNS).fetchall():
            if table in columns and (table, column) not in _LEFT_OUT:
                columns[table].append(Column(column, kind if kind in _FORMS else "VARCHAR", comment))
        self.tables = tuple(Table(name, _KEYS[name], tuple(columns[name]), comments[name]) for name in _KEYS)

    def rows_of(self, table: Table, after: int | None) -> ArrowStream:
        forms = [_FORMS[column.kind].format(quoted_name(column.name)) for column in table.columns]
        where = "" if after is None else f" WHERE epoch_us(changed_at) > {after:d}"
        return self._stream(f"SELECT {', '.join(forms)} FROM {table.name}{where}")

    def users_with_sessions(self) -> ArrowStream:
        return self._stream(_USERS_WITH_SESSIONS)

    def _stream(self, sql: str) -> ArrowStream:
        reader = relation_of(self._con, sql).to_arrow_reader(_BATCH_ROWS)
        stream: ArrowStream = pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader))
        return stream

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            while True:
                with self._operation.interrupted(self._con):
                    batch = next(reader, None)
                if batch is None:
                    return
                yield batch
        except Exception as error:
            self.error = error
            raise

"""The rows of a query: all at once, or a few at a time, so that memory does not grow with the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import duckdb
import pyarrow as pa  # type: ignore[import-untyped]

from podero_async.backfill.store.duckdb.connection import checked_query
from podero_async.backfill.store.duckdb.interruptible import Interruptible
from podero_async.backfill.store.duckdb.queries import python_values, read_rows, relation_of

__all__ = ["NextRows", "Query", "RowStream"]


@attrs.define(kw_only=True)
class Query(Interruptible[list[dict[str, Any]]]):
    """A query that returns all its rows at once."""

    sql: str
    values: Sequence[Any] | None

    def work(self, con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
        """Return the rows."""
        with checked_query(self.target), self.interrupted(con):
            return read_rows(con, self.sql, self.values)


@attrs.define
class RowStream:
    """A query that is running on a connection of its own."""

    sql: str
    max_rows: int
    columns: list[str] = attrs.field(factory=list, init=False)
    _cursor: duckdb.DuckDBPyConnection | None = attrs.field(default=None, init=False)
    _reader: pa.RecordBatchReader = attrs.field(default=None, init=False)

    def cursor_of(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """Return the connection of the query."""
        if self._cursor is None:
            self._cursor = con.cursor()
            self._cursor.execute("SET TimeZone = 'UTC'")
        return self._cursor

    def read(self, cursor: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
        """Return the next rows, or an empty list at the end."""
        if self._reader is None:
            self._reader = relation_of(cursor, self.sql).to_arrow_reader(self.max_rows)
            self.columns = self._reader.schema.names
        for batch in self._reader:
            if batch.num_rows:
                return python_values(batch)
        return []

    def close(self, _: duckdb.DuckDBPyConnection) -> None:
        """End the query."""
        if self._cursor is not None:
            self._cursor.close()


@attrs.define(kw_only=True)
class NextRows(Interruptible[list[tuple[Any, ...]]]):
    """Reads the next rows of a query."""

    stream: RowStream

    def work(self, con: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
        """Return the rows."""
        cursor = self.stream.cursor_of(con)
        with checked_query(self.target), self.interrupted(cursor):
            return self.stream.read(cursor)

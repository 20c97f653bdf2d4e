"""The tables of a store as a copy in another database reads them: their shape, their state, and their rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Protocol
from uuid import UUID

import attrs

__all__ = ["ArrowStream", "Column", "StoreState", "StoreTables", "Table"]


@attrs.frozen
class Column:
    """A column of a table."""

    name: str
    kind: str
    """The type in DuckDB."""
    comment: str | None


@attrs.frozen
class Table:
    """A table, without the columns that change at each read: every other change of a session moves its `changed_at`."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    comment: str | None


@attrs.frozen(kw_only=True)
class StoreState:
    """The state of a store, by which a copy of its sessions is compared with it."""

    store_id: UUID
    org_id: str | None
    origin: str | None
    kept_from: date | None
    """The first day that the store keeps; None if no day was erased."""
    change: int
    """The number of the newest change, which grows with each commit: `changed_at` in microseconds."""
    sessions: int
    checksum: int
    """The sum of the numbers of all sessions' last changes."""


class ArrowStream(Protocol):
    """Rows that any library of Arrow reads a batch at a time."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the stream."""


class StoreTables(Protocol):
    """One consistent state of the tables. Read a stream to its end before the next one begins."""

    @property
    def state(self) -> StoreState:
        """The state of the store."""

    @property
    def tables(self) -> Sequence[Table]:
        """The tables `users`, `vehicles`, `coverage` and `sessions`."""

    def rows_of(self, table: Table, after: int | None) -> ArrowStream:
        """Return the rows of a table; of sessions, only those that changed after a number, unless it is None.

        Ids have 16 bytes. The character NUL of a text is replaced by U+FFFD.
        """

    def users_with_sessions(self) -> ArrowStream:
        """Return the ids of the users that have sessions."""

"""Publishing: the changes of a store, in one transaction of the target."""

from __future__ import annotations

import logging

import attrs

from podero_async.backfill import SessionStore, StoreError
from podero_async.backfill.store import Column, StoreTables, SupportsTables, Table
from podero_async.publish import _sql as sql
from podero_async.publish._target import Target, checked_url
from podero_async.publish.errors import StoreRestoredError, TargetError

__all__ = ["Published", "publish"]

_LOG = logging.getLogger("podero_async")
_USER = Column("user_id", "UUID", None)


@attrs.frozen(kw_only=True)
class Published:
    """The result of publishing: the number of rows that were added or changed in the target, by table."""

    sessions: int
    users: int
    vehicles: int
    coverage: int
    removed: int
    """Rows that were removed, such as those of a forgotten user or of erased days."""
    is_full: bool
    """Whether all rows were compared, as the first time, instead of those that had changed."""


async def publish(store: SessionStore, url: str, *, full: bool = False, drop_others: bool = False) -> Published:
    """Bring the schema `podero` of a PostgreSQL database to the state of a store, in one transaction.

    Only sessions that have changed since the last time are sent; of the other tables, all rows are sent, and those that
    differ are written. The transaction also stores the number of the newest change, so a call that fails, is cancelled or
    killed leaves the target as it was or as it shall be, and the same call again does the rest. Operations of the store
    wait until the call ends.

    Args:
        store: The open store, or a snapshot of it; reading suffices.
        url: `postgresql://user@host/database?sslmode=verify-full`, without a password. libpq takes all that is not in it
            from its environment variables, and the password from `PGPASSWORD` or `~/.pgpass`.
        full: Whether to compare all sessions, which also replaces the rows of a store that was restored from a copy.
        drop_others: Whether to remove the rows of all other stores, such as those of shards that were merged into this one.

    Raises:
        ConfigurationError: The URL is not one of PostgreSQL or has a password, or the extra `postgres` is not installed.
        StoreRestoredError: The store is not a later state of the published one.
        StoreError: The store cannot be read.
        TargetError: The target cannot be reached, read or written.
    """
    target, backend = Target(checked_url(url)), store.backend
    if not isinstance(backend, SupportsTables):
        raise StoreError("this kind of store cannot be published", store.path)

    def run(tables: StoreTables) -> Published:
        with target:
            return _Publishing(store.path, tables, target, full).run(drop_others=drop_others)

    return await backend.read_tables(run, target.cancel)


@attrs.define
class _Publishing:
    path: str
    tables: StoreTables
    target: Target
    is_full: bool
    change: int = attrs.field(default=0, init=False)
    sessions: int = attrs.field(default=0, init=False)
    """The target's rows of the store."""
    checksum: int = attrs.field(default=0, init=False)
    removed: int = attrs.field(default=0, init=False)

    def run(self, *, drop_others: bool) -> Published:
        for statement in sql.START:
            self.target.execute(statement)
        if self.target.execute(sql.LOCK_AT_ONCE) != [(True,)]:
            _LOG.info("another process publishes to this database: waiting for its end")
            self.target.execute(sql.LOCK)
        self._create_tables()
        self._read_watermark()
        written = {
            table.name: self._write_sessions(table) if table.name == "sessions" else self._write_all(table)
            for table in self.tables.tables
        }
        if drop_others:
            for name in (*written, "stores"):
                self.removed += self.target.execute(sql.delete_others(self.tables.state, name))[0][0]
        self.target.execute(sql.write_watermark(self.tables.state, sql.shape_of(self.tables.tables)))
        self.target.commit()
        return Published(**written, removed=self.removed, is_full=self.is_full)

    def _create_tables(self) -> None:
        """Create the missing tables and columns. A role without the right to do so can publish if nothing is missing."""
        found: dict[str, dict[str, str]] = {}
        for table, column, kind in self.target.execute(sql.COLUMNS):
            found.setdefault(table, {})[column] = kind
        if foreign := sql.foreign_tables(self.tables.tables, found):
            raise TargetError(f"the schema podero has tables of another origin: {', '.join(foreign)}")
        if differing := [text for table in self.tables.tables for text in sql.compare(table, found)]:
            raise TargetError(f"columns of the schema podero have another type: {', '.join(differing)}")
        for statement in sql.creation(self.tables.tables, found):
            self.target.execute(statement)

    def _read_watermark(self) -> None:
        """Take up the state of the last time, unless all rows shall be, or must be, compared."""
        state = self.tables.state
        found = self.target.execute(sql.read_watermark(state.store_id))
        if not found:
            self.is_full = True
            return
        self.change, self.sessions, checksum, shape = found[0]
        self.checksum = int(checksum)
        if self.change > state.change and not self.is_full:
            raise StoreRestoredError(
                f"the target has change {self.change} of the store, which is at {state.change}: publish the newest store or"
                " snapshot or, if it was restored from a copy, run once with --full (full=True) to replace its rows",
                self.path,
            )
        self.is_full |= shape != sql.shape_of(self.tables.tables)  # existing rows need the values of new columns

    def _write_sessions(self, table: Table) -> int:
        state = self.tables.state
        if self.is_full:
            written = self._write_all(table)
            self._measure()
        else:
            self._copy(table, self.change)
            replaced, old, staged, new = self.target.execute(sql.measure_replaced(state, table))[0]
            written = self.target.execute(sql.upsert(state, table))[0][0]
            self.sessions += staged - replaced
            self.checksum += int(new) - int(old)
            if not self._is_equal():
                self._remove_forgotten()
        if not self._is_equal():
            raise StoreRestoredError(
                f"the target's {self.sessions} sessions differ from the {state.sessions} of the store: if it was restored from a"
                " copy, run once with --full (full=True) to replace its rows",
                self.path,
            )
        return written

    def _is_equal(self) -> bool:
        return (self.sessions, self.checksum) == (self.tables.state.sessions, self.tables.state.checksum)

    def _measure(self) -> None:
        self.sessions, checksum = self.target.execute(sql.measure(self.tables.state))[0]
        self.checksum = int(checksum)

    def _remove_forgotten(self) -> None:
        """Remove the sessions of erased days, and of users that have none in the store any more: it has forgotten them."""
        self.target.execute(sql.create_staging(sql.STAGED_USERS, [_USER]))
        self.target.copy(sql.STAGED_USERS, self.tables.users_with_sessions())
        removed, checksum = self.target.execute(sql.delete_forgotten(self.tables.state))[0]
        self.removed += removed
        self.sessions -= removed
        self.checksum -= int(checksum)

    def _write_all(self, table: Table) -> int:
        """Compare all rows of a table, remove those that the store does not have, and write those that differ."""
        self._copy(table, None)
        self.removed += self.target.execute(sql.delete_missing(self.tables.state, table))[0][0]
        written: int = self.target.execute(sql.upsert(self.tables.state, table))[0][0]
        return written

    def _copy(self, table: Table, after: int | None) -> None:
        self.target.execute(sql.create_staging(sql.staging_of(table), table.columns))
        copied = self.target.copy(sql.staging_of(table), self.tables.rows_of(table, after))
        _LOG.info("copied %d rows of %s", copied, table.name)

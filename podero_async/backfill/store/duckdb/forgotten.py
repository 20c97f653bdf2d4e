"""Forgetting a user, or old days: the store's file is written anew without their rows, so that no byte of them remains."""

# ruff: noqa: S608 - the SQL is composed of constants and quoted names; values are bound

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import attrs
import duckdb

from podero_async.backfill._forgotten import ForgottenUsers
from podero_async.backfill.errors import StoreError
from podero_async.backfill.store.duckdb.changes import NEWEST_CHANGE
from podero_async.backfill.store.duckdb.connection import translated
from podero_async.backfill.store.duckdb.files import remove_leftovers, replace, unfinished
from podero_async.backfill.store.duckdb.interruptible import Interruptible
from podero_async.backfill.store.duckdb.retention import kept_from, kept_rows
from podero_async.backfill.store.duckdb.snapshot import attached, quoted_name, quoted_text

__all__ = ["Forget", "forgotten_users"]

_TABLES = """
SELECT table_name, bool_or(column_name = 'user_id') FROM duckdb_columns()
WHERE database_name = current_database() AND table_name IN (
    SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()
) GROUP BY table_name ORDER BY table_name
"""
# If two users list a vehicle, the erased rows were those of both: the days of the other one must be read again.
_UNSETTLE = """
UPDATE {copy}.coverage SET is_settled = false, read_at = '1970-01-01 00:00:00+00'
WHERE vehicle_id IN (SELECT vehicle_id FROM {name}.sessions WHERE user_id = ?)
"""
_DATABASE = "SELECT database_name, readonly FROM duckdb_databases() WHERE database_name = current_database()"
_PARKED = "podero_async_parked"


def forgotten_users(con: duckdb.DuckDBPyConnection) -> ForgottenUsers:
    """Return the users that runs leave out."""
    ((store_id,),) = con.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchall()
    found = con.execute("SELECT salt, list(user_hash) FROM forgotten GROUP BY salt").fetchall()
    return ForgottenUsers(store_id, {salt: frozenset(hashes) for salt, hashes in found})


@attrs.define(kw_only=True)
class Forget(Interruptible[int]):
    """Erases a user or all days before a day. If the operation fails or is cancelled, the store is unchanged.

    A DELETE would leave the rows in the file's bytes, so the other rows are copied to a new file, which replaces it. It
    remembers a hash of the user's id, and the latest day of all calls.
    """

    store: Path
    user_id: UUID | None = None
    before: date | None = None

    def work(self, con: duckdb.DuckDBPyConnection) -> int:
        """Write the file anew, and return the number of sessions that were left out."""
        with translated(self.target):
            ((name, is_read_only),) = con.execute(_DATABASE).fetchall()
            if is_read_only or not self.store.is_file():
                raise StoreError("rows can be erased only from a file that is open for writing", self.target)
            ((before,),) = con.execute("SELECT count(*) FROM sessions").fetchall()
            con.execute("FORCE CHECKPOINT")  # the log belongs to the old file
            with unfinished(self.store) as made:
                with attached(self, con, made, self.store) as copy:
                    self._copy_others(con, quoted_name(name), copy)
                self.check()
                remove_leftovers(self.store, older_than_s=0, but=made)
                _switch(con, made, self.store, quoted_name(name))
            ((after,),) = con.execute("SELECT count(*) FROM sessions").fetchall()
        return int(before - after)

    def _copy_others(self, con: duckdb.DuckDBPyConnection, name: str, copy: str) -> None:
        first_day = max(filter(None, (self.before, kept_from(con))), default=None)
        self.execute(con, f"COPY FROM DATABASE {name} TO {copy} (SCHEMA)")
        for table, has_user in self.execute(con, _TABLES):
            rows = kept_rows(table, f"{name}.{quoted_name(table)}", first_day)
            values = [self.user_id] if has_user and self.user_id is not None else []
            if values:
                rows = f"FROM ({rows}) WHERE user_id IS DISTINCT FROM ?"
            self.execute(con, f"INSERT INTO {copy}.{quoted_name(table)} {rows}", values)
        newest = self.execute(con, NEWEST_CHANGE)[0]
        self.execute(con, f"DELETE FROM {copy}.meta WHERE key IN ('newest_change', 'merged_at', 'kept_from')")
        self.execute(con, f"INSERT INTO {copy}.meta VALUES ('newest_change', ?)", newest)
        if first_day is not None:
            self.execute(con, f"INSERT INTO {copy}.meta VALUES ('kept_from', ?)", [str(first_day)])
        if self.user_id is not None:
            self._remember_user(con, name, copy, self.user_id)

    def _remember_user(self, con: duckdb.DuckDBPyConnection, name: str, copy: str, user_id: UUID) -> None:
        forgotten = forgotten_users(con)
        self.execute(con, _UNSETTLE.format(name=name, copy=copy), [user_id])
        if user_id not in forgotten:
            values = [forgotten.hash_of(user_id), forgotten.store_id, datetime.now(UTC)]
            self.execute(con, f"INSERT INTO {copy}.forgotten VALUES (?, ?, ?)", values)


def _switch(con: duckdb.DuckDBPyConnection, made: Path, store: Path, name: str) -> None:
    """Put the new file in the place of the store's file, and go on with it.

    The old file is locked until it has lost its name, so that no other process writes to it in between.
    """
    con.execute(f"ATTACH ':memory:' AS {_PARKED}; USE {_PARKED}")
    detach = f"DETACH {name}"
    if os.name == "posix":
        replace(made, store)
        con.execute(detach)
    else:  # an open file cannot be replaced
        con.execute(detach)
        replace(made, store)
    con.execute(f"ATTACH {quoted_text(store)} AS {name}; USE {name}; DETACH {_PARKED}")

"""Snapshots: copies of a store for readers, which DuckDB itself makes."""

# ruff: noqa: S608 - the SQL is composed of constants and quoted names

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import duckdb

from podero_async.backfill.errors import StoreError, StoreInUseError
from podero_async.backfill.store.duckdb.connection import STORAGE_VERSION, is_written_here, translated
from podero_async.backfill.store.duckdb.files import (
    check_name,
    check_replaceable,
    is_database,
    keep_access,
    replace,
    unfinished,
)
from podero_async.backfill.store.duckdb.interruptible import Interruptible

__all__ = ["Snapshot", "attached", "check_snapshot", "has_mark", "quoted_name", "quoted_text"]

_COPY = "podero_async_copy"
"""The name under which the new file is attached; the store's own name is that of its file."""


@attrs.define(kw_only=True)
class Snapshot(Interruptible[int]):
    """A copy of the current store, which replaces the previous snapshot; processes that have that one open keep reading it.

    The open file is never copied by hand: closing any descriptor of it would drop DuckDB's lock.
    """

    store: Path

    def work(self, con: duckdb.DuckDBPyConnection) -> int:
        """Write the snapshot, and return its size in bytes."""
        with translated(self.target):
            check_name(self.target)
            path = Path(self.target).resolve()
            _check_target(path, self.store, self.target)
            ((name,),) = self.execute(con, "SELECT current_database()")
            with unfinished(path) as made:
                with attached(self, con, made, path) as copy:
                    self.execute(con, f"COPY FROM DATABASE {quoted_name(name)} TO {copy}")
                    self.execute(con, f"DELETE FROM {copy}.meta WHERE key = 'snapshot_at'")
                    at = datetime.now(UTC).isoformat()
                    self.execute(con, f"INSERT INTO {copy}.meta VALUES ('snapshot_at', ?)", [at])
                self.check()
                size = made.stat().st_size
                replace(made, path)
            return size


def check_snapshot(target: str, store: Path) -> None:
    """Check that a snapshot can be written to a target; nothing is left there."""
    with translated(target):
        check_name(target)
        path = Path(target).resolve()
        _check_target(path, store, target)
        with unfinished(path) as made:
            made.touch()  # a real write, since permissions do not show a read-only file system, for example


def _check_target(path: Path, store: Path, shown: str) -> None:
    """Check that nothing but an older snapshot is replaced."""
    if not path.parent.is_dir():
        raise StoreError("no such directory for the snapshot", shown)
    check_replaceable(path, store, shown)
    if path.exists() and not has_mark(path, "snapshot_at", shown):
        raise StoreError("the file in the way of the snapshot is not a snapshot", shown)


@contextmanager
def attached(operation: Interruptible[Any], con: duckdb.DuckDBPyConnection, made: Path, path: Path) -> Iterator[str]:
    """Attach a new database file for a target, and yield its name; at the end of the block, all of it is on the disk."""
    version = f"STORAGE_VERSION '{STORAGE_VERSION}'"
    operation.execute(con, f"ATTACH {quoted_text(made)} AS {_COPY} (READ_WRITE, {version})")
    try:
        keep_access(made, path)  # before it has rows, which others must not read
        yield _COPY
        operation.execute(con, f"CHECKPOINT {_COPY}")
    finally:
        with suppress(duckdb.Error):
            con.execute(f"DETACH {_COPY}")


def has_mark(path: Path, key: str, shown: str) -> bool:
    """Return whether a file is a store with a key in its table `meta`."""
    if is_written_here(path) or not path.is_file() or not is_database(path):
        return False
    with duckdb.connect() as con:
        try:
            con.execute(f"ATTACH {quoted_text(path)} AS before (READ_ONLY)")
            return bool(con.execute("FROM before.meta WHERE key = ?", [key]).fetchall())
        except duckdb.Error as error:
            if "Could not set lock" in str(error):
                raise StoreInUseError("another process writes to the file that is to be replaced", shown) from error
            return False


def quoted_text(path: Path) -> str:
    """Return a path as an SQL string literal."""
    return "'" + str(path).replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """Return a name of SQL, which may have any characters."""
    return '"' + name.replace('"', '""') + '"'

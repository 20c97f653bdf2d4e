"""The connection to a store's file: how it is created, opened and closed, and how DuckDB's errors are translated."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import duckdb

from podero_async.backfill.errors import NotAStoreError, StoreError, StoreFullError, StoreInUseError
from podero_async.backfill.store.duckdb.migrations import migrate
from podero_async.backfill.store.duckdb.schema import check_version, create_tables

__all__ = ["check_name", "close_store", "open_store", "transaction", "translated"]

_Options = dict[str, str | bool | int | float | list[str]]

_OPTIONS: _Options = {
    # All necessary extensions are built in: DuckDB must not download any.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "threads": 2,
}
_READABLE_SINCE: _Options = {"storage_compatibility_version": "v1.0.0"}
"""Tools that read stores come with other releases of DuckDB; the format is kept for the life of the file."""
_MEMORY = ":memory:"
_MAGIC = slice(8, 12)
_PID = re.compile(r"\bPID ([1-9]\d*)")  # 0 if the process runs in another container

_open_here: set[Path] = set()
"""Paths of open stores: DuckDB would open a file twice in one process."""
_open_here_lock = threading.Lock()


def open_store(path: str, *, read_only: bool, memory_limit_mb: int) -> duckdb.DuckDBPyConnection:
    """Open a store; create it if it does not exist.

    Raises:
        StoreError: The store cannot be opened. It is unchanged.
    """
    check_name(path)
    options = _OPTIONS | {"memory_limit": f"{memory_limit_mb}MB"}
    if path == _MEMORY:
        con = duckdb.connect(path, config=options)
        create_tables(con)
    else:
        with _claimed(path), translated(path):
            if not Path(path).exists():
                if read_only:
                    raise StoreError("no such store", path)
                _create(path, options)
            con = _connect(path, options, read_only=read_only)
    # Days are UTC days in every local time zone.
    con.execute("SET TimeZone = 'UTC'")
    return con


def close_store(con: duckdb.DuckDBPyConnection, resolved: Path) -> None:
    """Close a store, given the path that was resolved when it was opened; DuckDB merges its log into the file."""
    try:
        con.close()
    finally:
        _release(resolved)


def check_name(path: str) -> None:
    """Check that DuckDB can open a path.

    Raises:
        StoreError: The path is empty or not valid UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise StoreError("the path is not valid UTF-8", path) from None
    if not path:
        raise StoreError("the path is empty", repr(path))


@contextmanager
def _claimed(path: str) -> Iterator[None]:
    """Reserve the path in this process; if the block fails, release it."""
    resolved = Path(path).resolve()
    with _open_here_lock:
        if resolved in _open_here:
            raise StoreInUseError("the store is already open in this process", path)
        _open_here.add(resolved)
    with ExitStack() as undo:
        undo.callback(_release, resolved)
        yield
        undo.pop_all()


def _release(resolved: Path) -> None:
    with _open_here_lock:
        _open_here.discard(resolved)


def _create(path: str, options: _Options) -> None:
    """Create a store under another name and link it: if the process is killed, no incomplete store is left."""
    if not Path(path).resolve().parent.is_dir():
        raise StoreError("no such directory for the store", path)
    unfinished = Path(f"{path}.{os.getpid()}.new")
    unfinished.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(unfinished), config=options | _READABLE_SINCE) as con:
            create_tables(con)
            con.execute("CHECKPOINT")  # closing would not report a full disk
        with suppress(FileExistsError):  # another process has created the store
            os.link(unfinished, path)
    finally:
        for leftover in (unfinished, Path(f"{unfinished}.wal")):
            leftover.unlink(missing_ok=True)


def _connect(path: str, options: _Options, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    if Path(path).is_dir():
        raise NotAStoreError("a directory, not a store", path)
    with Path(path).open("rb") as file:
        if file.read(_MAGIC.stop)[_MAGIC] != b"DUCK":  # DuckDB would open SQLite files and overwrite empty ones
            raise NotAStoreError("not a store of charging sessions", path)
    con = duckdb.connect(path, read_only=read_only, config=options)
    with ExitStack() as undo:
        undo.callback(con.close)
        migrate(con, path, check_version(con, path))
        undo.pop_all()
    return con


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit the statements of the block, or roll all of them back if it fails."""
    con.execute("BEGIN")
    with ExitStack() as undo:
        undo.callback(_roll_back, con)
        yield
        con.execute("COMMIT")
        undo.pop_all()


def _roll_back(con: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):
        con.execute("ROLLBACK")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise errors of the database and the disk as `StoreError`."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        raise (StoreFullError if is_full else StoreError)(error.strerror or str(error), path) from error
    except duckdb.Error as error:
        raise _translate(error, path) from error


def _translate(error: duckdb.Error, path: str) -> StoreError:
    message = str(error)
    if "Could not set lock" in message or "being used by another process" in message:
        found = _PID.search(message)
        pid = f" (PID {found[1]})" if found else ""
        return StoreInUseError(f"another process{pid} has the store open", path)
    is_full = any(sign in message for sign in ("No space left", "File too large", "Disk quota", "disk is full"))
    return (StoreFullError if is_full else StoreError)(message.partition("\n")[0], path)

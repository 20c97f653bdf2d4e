"""The connection to a store's file: how it is created, opened and closed, and how DuckDB's errors are translated."""

from __future__ import annotations

import errno
import os
import re
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]

from podero_async.backfill.errors import NotAStoreError, QueryError, StoreError, StoreFullError, StoreInUseError
from podero_async.backfill.store.duckdb.comments import add_comments
from podero_async.backfill.store.duckdb.files import check_name, is_database, logs_of, remove_spilled, unfinished
from podero_async.backfill.store.duckdb.migrations import migrate
from podero_async.backfill.store.duckdb.schema import check_version, create_tables

__all__ = [
    "STORAGE_VERSION",
    "checked_query",
    "close_store",
    "is_open_here",
    "is_written_here",
    "open_store",
    "transaction",
    "translated",
]

STORAGE_VERSION = "v1.0.0"
"""The storage format of stores and snapshots, so that tools with DuckDB 1.0 or later can read them."""

_Options = dict[str, str | bool | int | float | list[str]]

_OPTIONS: _Options = {
    # All necessary extensions are built in: DuckDB must not download any.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "threads": 2,
    "storage_compatibility_version": STORAGE_VERSION,
}
_MEMORY = ":memory:"
_PID = re.compile(r"\bPID ([1-9]\d*)")  # 0 if the process runs in another container

_Finalizer: TypeAlias = "weakref.finalize[Any, duckdb.DuckDBPyConnection]"
"""Frees the path of a store that was dropped without being closed."""

_open_here: dict[Path, tuple[bool, _Finalizer | None]] = {}
"""Whether each open store is read only, by path, since DuckDB would open a file twice in one process."""
_open_here_lock = threading.RLock()  # the garbage collector may run a finalizer while the lock is held


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
        resolved = Path(path).resolve()  # DuckDB takes "fleet:" at the beginning of a name for an extension
        with _claimed(resolved, path, read_only=read_only), translated(path):
            if not resolved.exists():
                if read_only:
                    raise StoreError("no such store", path)
                _create(resolved, path, options)
            con = _connect(resolved, path, options, read_only=read_only)
            _free_when_dropped(con, resolved, read_only=read_only)
    # Days are UTC days in every local time zone.
    con.execute("SET TimeZone = 'UTC'")
    return con


def close_store(con: duckdb.DuckDBPyConnection, resolved: Path) -> str:
    """Close a store, given the path that was resolved when it was opened; DuckDB merges its log into the file.

    DuckDB reports no error if the disk has no space for that: the log stays, and the next writer merges it.

    Returns:
        A warning if the log is still there; otherwise an empty text.
    """
    is_written = is_written_here(resolved)
    try:
        con.close()
    finally:
        _release(resolved)
    log, *_ = logs_of(resolved)
    if not is_written or not log.exists():
        return ""
    return _UNMERGED.format(log=log, store=resolved.name, needed_mb=log.stat().st_size // 10**6 + _MERGE_MB)


def is_open_here(resolved: Path) -> bool:
    """Return whether this process has a store open."""
    with _open_here_lock:
        return resolved in _open_here


def is_written_here(resolved: Path) -> bool:
    """Return whether this process has a store open for writing."""
    with _open_here_lock:
        is_read_only, _ = _open_here.get(resolved, (True, None))
    return not is_read_only


@contextmanager
def _claimed(resolved: Path, path: str, *, read_only: bool) -> Iterator[None]:
    """Reserve the path in this process; if the block fails, release it."""
    with _open_here_lock:
        if resolved in _open_here:
            raise StoreInUseError("the store is already open in this process", path)
        _open_here[resolved] = read_only, None
    with ExitStack() as undo:
        undo.callback(_release, resolved)
        yield
        undo.pop_all()


def _release(resolved: Path) -> None:
    with _open_here_lock:
        _, finalizer = _open_here.pop(resolved, (True, None))
    if finalizer is not None:
        finalizer.detach()


def _free_when_dropped(con: duckdb.DuckDBPyConnection, resolved: Path, *, read_only: bool) -> None:
    finalizer = weakref.finalize(con, _free, resolved)
    finalizer.atexit = False
    with _open_here_lock:
        _open_here[resolved] = read_only, finalizer


def _free(resolved: Path) -> None:
    _release(resolved)
    warnings.warn(f"a store was not closed: {resolved}", ResourceWarning, stacklevel=2)


def _create(resolved: Path, path: str, options: _Options) -> None:
    """Create a store under another name and link it: if the process is killed, no incomplete store is left."""
    if not resolved.parent.is_dir():
        raise StoreError("no such directory for the store", path)
    for log in logs_of(resolved):
        if log.exists() and not resolved.exists():  # DuckDB would replay it over the new store
            raise StoreError("the log of a store that is gone: restore the store, or remove this file", str(log))
    with unfinished(resolved) as made:
        with duckdb.connect(str(made), config=options) as con:
            create_tables(con)
            with transaction(con):
                add_comments(con)
            con.execute("CHECKPOINT")  # closing would not report a full disk
        with suppress(FileExistsError):  # another process has created the store
            os.link(made, resolved)


def _connect(resolved: Path, path: str, options: _Options, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    if not resolved.is_file():
        raise NotAStoreError(f"a {'directory' if resolved.is_dir() else 'device or pipe'}, not a store", path)
    try:
        con = duckdb.connect(str(resolved), read_only=read_only, config=options)
    except duckdb.Error as error:
        problem = _translate(error, path)
        if isinstance(problem, StoreInUseError) or is_database(resolved):
            raise problem from error
        raise NotAStoreError("not a store of charging sessions", path) from error
    with ExitStack() as undo:
        undo.callback(con.close)
        if not read_only:
            remove_spilled(resolved)
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
    """Raise errors of the database, of Arrow and of the disk as `StoreError`."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StoreFullError(_FULL, path) from error
        raise StoreError(error.strerror or str(error), path) from error
    except duckdb.Error as error:
        raise _translate(error, path) from error
    except pa.ArrowException as error:
        raise StoreError(str(error).partition("\n")[0], path) from error


@contextmanager
def checked_query(path: str) -> Iterator[None]:
    """Raise the errors of a query itself as `QueryError`, with the hints of the database, such as names that exist."""
    try:
        yield
    except (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError) as error:
        message, _, _ = str(error).partition("\n\nLINE ")  # the query's own line follows
        raise QueryError(shorten(message, _MAX_REASON, placeholder=" ..."), path) from error


_MAX_REASON = 500
_MERGE_MB = 3  # a merge adds up to 2 MB more to the file than the log has
_UNMERGED = (
    "the newest rows are in {log}, since they could not be merged into {store}, probably because the disk is full:"
    " keep both files, free about {needed_mb} MB, and run any command that writes to the store"
)
_FULL = "the disk is full"
_FULL_SIGNS = ("No space left", "File too large", "Disk quota", "disk is full")
_IN_USE_SIGNS = ("Could not set lock", "being used by another process")


def _translate(error: duckdb.Error, path: str) -> StoreError:
    message = str(error)
    if any(sign in message for sign in _IN_USE_SIGNS):
        found = _PID.search(message)
        pid = f" (PID {found[1]})" if found else ""
        return StoreInUseError(f"another process{pid} has the store open", path)
    if "different configuration" in message:
        return StoreInUseError("this process has opened the file itself, such as with duckdb.connect", path)
    if any(sign in message for sign in _FULL_SIGNS):
        return StoreFullError(_FULL, path)
    return StoreError(message.partition("\n")[0], path)

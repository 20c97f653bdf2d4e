"""The store's file: how it comes to be, is opened and closed, and what the database's errors mean."""

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
from podero_async.backfill.store.duckdb.schema import check_version, create_tables, migrate

__all__ = ["check_name", "close_store", "open_store", "transaction", "translated"]

_Options = dict[str, str | bool | int | float | list[str]]

_OPTIONS: _Options = {
    # What is needed is built in; nothing is ever downloaded.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "threads": 2,
}
_MEMORY = ":memory:"
_MAGIC = slice(8, 12)
_PID = re.compile(r"\bPID ([1-9]\d*)")  # 0 where it runs in another container

_open_here: set[Path] = set()
"""The database itself lets one process open a file twice."""
_open_here_lock = threading.Lock()


def open_store(path: str, *, read_only: bool, memory_limit_mb: int) -> duckdb.DuckDBPyConnection:
    """Open a store, making it where there is none.

    Raises:
        StoreError: It cannot be opened; it is as it was.
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
    # Days are UTC days, wherever the process runs.
    con.execute("SET TimeZone = 'UTC'")
    return con


def close_store(con: duckdb.DuckDBPyConnection, resolved: Path) -> None:
    """Close a store, which lies where it lay when it was opened; the database merges its log into the file."""
    try:
        con.close()
    finally:
        _release(resolved)


def check_name(path: str) -> None:
    """Refuse a path that the database cannot be told.

    Raises:
        StoreError: It is not Unicode, or no path at all.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise StoreError("a path that is not UTF-8", path) from None
    if not path:
        raise StoreError("no path at all", repr(path))


@contextmanager
def _claimed(path: str) -> Iterator[None]:
    """Hold the path for this process from here on, unless what follows fails."""
    resolved = Path(path).resolve()
    with _open_here_lock:
        if resolved in _open_here:
            raise StoreInUseError("the store is open in this process already", path)
        _open_here.add(resolved)
    with ExitStack() as undo:
        undo.callback(_release, resolved)
        yield
        undo.pop_all()


def _release(resolved: Path) -> None:
    with _open_here_lock:
        _open_here.discard(resolved)


def _create(path: str, options: _Options) -> None:
    """Make a store beside its place, and put it there whole: a kill on the way leaves none."""
    if not Path(path).resolve().parent.is_dir():
        raise StoreError("no such directory for a store", path)
    unfinished = Path(f"{path}.{os.getpid()}.new")
    unfinished.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(unfinished), config=options) as con:
            create_tables(con)
            con.execute("CHECKPOINT")  # closing alone would tell nobody that there is no room for the tables
        with suppress(FileExistsError):  # somebody else was quicker
            os.link(unfinished, path)
    finally:
        for leftover in (unfinished, Path(f"{unfinished}.wal")):
            leftover.unlink(missing_ok=True)


def _connect(path: str, options: _Options, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    if Path(path).is_dir():
        raise NotAStoreError("a directory, not a store", path)
    with Path(path).open("rb") as file:
        if file.read(_MAGIC.stop)[_MAGIC] != b"DUCK":  # the database would take it for another format, or a new file
            raise NotAStoreError("not a store of charging sessions", path)
    con = duckdb.connect(path, read_only=read_only, config=options)
    with ExitStack() as undo:
        undo.callback(con.close)
        migrate(con, path, check_version(con, path))
        undo.pop_all()
    return con


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what is done within, or nothing of it."""
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
    """Raise what the database or the disk complains of as a `StoreError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        raise (StoreFullError if full else StoreError)(error.strerror or str(error), path) from error
    except duckdb.Error as error:
        raise _explained(error, path) from error


def _explained(error: duckdb.Error, path: str) -> StoreError:
    words = str(error)
    if "Could not set lock" in words or "being used by another process" in words:
        found = _PID.search(words)
        who = f" (PID {found[1]})" if found else ""
        return StoreInUseError(f"another process{who} has the store open", path)
    full = any(sign in words for sign in ("No space left", "File too large", "Disk quota", "disk is full"))
    return (StoreFullError if full else StoreError)(_first_line(error), path)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

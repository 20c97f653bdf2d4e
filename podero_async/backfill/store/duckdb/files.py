"""Files that are written beside their target and then replace it, and the rule that says what may be replaced."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from time import time

from podero_async.backfill.errors import StoreError

__all__ = [
    "check_name",
    "check_replaceable",
    "is_database",
    "keep_access",
    "logs_of",
    "remove_leftovers",
    "remove_spilled",
    "replace",
    "unfinished",
]

_MARK = ".podero_async-unfinished-"
_LEFTOVER_AGE_S = 12 * 3600
"""Files that a killed process left are older than this at the next night's run; files in use are younger."""
_MAGIC = slice(8, 12)


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


def is_database(path: Path) -> bool:
    """Return whether a file is a DuckDB database.

    Closing the file would drop the lock of a database that this process has open, so call this for other files only.
    """
    with path.open("rb") as file:
        return file.read(_MAGIC.stop)[_MAGIC] == b"DUCK"


def check_replaceable(path: Path, store: Path, shown: str) -> None:
    """Check that a target is neither the open store nor a log of a database.

    Raises:
        StoreError: The target must not be replaced.
    """
    if path in logs_of(store) or (path.exists() and store.exists() and path.samefile(store)):
        raise StoreError("this would replace the store itself", shown)
    logged = path.with_suffix("")
    if path.suffix == ".wal" and logged.is_file() and is_database(logged):
        raise StoreError("this would replace the log of a database", shown)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Yield a path beside the target for content that is not complete yet; at the end, a file there is removed.

    The name is random, since processes of two containers may have the same id.
    """
    remove_leftovers(path, older_than_s=_LEFTOVER_AGE_S)
    made = path.with_name(f"{path.name}{_MARK}{token_hex(4)}")
    try:
        yield made
    finally:
        for leftover in (made, *logs_of(made)):
            _remove(leftover)


def remove_leftovers(path: Path, *, older_than_s: float, but: Path | None = None) -> None:
    """Remove what killed processes left beside a target, but not the file that is in use."""
    latest = time() - older_than_s
    with suppress(OSError):
        for leftover in path.parent.iterdir():
            is_left = leftover.name.startswith(f"{path.name}{_MARK}") and leftover.stat().st_mtime <= latest
            if is_left and leftover != but:
                _remove(leftover)


def replace(made: Path, path: Path) -> None:
    """Put a complete file in the place of its target, durably, with the target's permissions and owner."""
    keep_access(made, path)
    # A log beside the target belongs to the file before: DuckDB would replay it over the new one without an error.
    for log in logs_of(path):
        log.unlink(missing_ok=True)
    made.replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def keep_access(made: Path, path: Path) -> None:
    """Give a new file or directory the permissions of its target, and the owner if this process may set it."""
    if not path.exists():
        return
    before, now = path.stat(), made.stat()
    if os.name == "posix" and (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
        with suppress(OSError):  # also EINVAL, for an id that a container does not know
            os.chown(made, before.st_uid, before.st_gid)
    if stat.S_IMODE(before.st_mode) != stat.S_IMODE(now.st_mode):
        made.chmod(stat.S_IMODE(before.st_mode))


def logs_of(path: Path) -> list[Path]:
    """Return the paths of a database's log, and of those that DuckDB writes during a checkpoint or a recovery."""
    return [path.with_name(f"{path.name}.wal{suffix}") for suffix in ("", ".checkpoint", ".recovery")]


def remove_spilled(path: Path) -> None:
    """Remove the rows that a killed process has moved from memory to the disk;
    this process must hold the database's lock.
    """
    folder = path.with_name(f"{path.name}.tmp")
    with suppress(OSError):
        for spilled in folder.glob("duckdb_temp_*"):
            spilled.unlink()
        folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""The export of the table of sessions to Parquet, CSV or JSON lines."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; the path is quoted

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import attrs
import duckdb

from podero_async.backfill.errors import StoreError
from podero_async.backfill.store._status import Exported
from podero_async.backfill.store.duckdb.connection import check_name, translated
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS

__all__ = ["Export"]

_OPTIONS = {
    "parquet": "FORMAT parquet, COMPRESSION zstd",
    "csv": "FORMAT csv, HEADER",
    "jsonl": "FORMAT json",
}
_SESSIONS = "SELECT * FROM sessions"
_TIMES = [
    *(name for name, kind in SESSION_COLUMNS.items() if kind == "TIMESTAMPTZ"),
    *("fetched_at", "first_seen_at", "changed_at", "withdrawn_at"),
]
_AS_TEXT = ", ".join(f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ') AS {name}" for name in _TIMES)


@attrs.define(kw_only=True)
class Export:
    """An export, which runs in the thread of the store and can be cancelled from the event loop."""

    target: str
    store: Path
    kind: str
    partition_by: str | None
    include_withdrawn: bool
    _is_cancelled: bool = attrs.field(default=False, init=False)
    _is_begun: bool = attrs.field(default=False, init=False)
    _running: duckdb.DuckDBPyConnection | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def cancel(self) -> bool:
        """Cancel the export; return whether it has begun, so that the caller must wait for its end.

        Call it again until the export has ended: a query that is just starting misses an interrupt.
        """
        with self._lock:
            self._is_cancelled = True
            if self._running is not None:
                self._running.interrupt()
            return self._is_begun

    def write(self, con: duckdb.DuckDBPyConnection) -> Exported:
        """Write the table; the target is replaced after the new content is complete."""
        with self._lock:
            self._check()
            self._is_begun = True
        if self.kind not in _OPTIONS:
            raise ValueError(f"format must be one of {', '.join(_OPTIONS)}, not {self.kind!r}")
        if self.partition_by not in {None, "month"}:
            raise ValueError(f"partition_by must be 'month' or None, not {self.partition_by!r}")
        with translated(self.target):
            return self._write_whole(con)

    def _write_whole(self, con: duckdb.DuckDBPyConnection) -> Exported:
        path = self._checked_target()
        unfinished = path.with_name(f"{path.name}.podero_async-unfinished")
        _remove(unfinished)  # left by an export that was killed
        try:
            rows = self._copy(con, unfinished)
            self._check()
            if unfinished.is_dir() and path.is_dir():
                path.rmdir()
            unfinished.replace(path)
        finally:
            _remove(unfinished)
        shown = Path(self.target)
        files = sorted(str(file) for file in shown.rglob("*") if file.is_file()) if path.is_dir() else [self.target]
        return Exported(rows=rows, files=tuple(files))

    def _checked_target(self) -> Path:
        """Return the real path of the target, after checking that it may be replaced."""
        check_name(self.target)
        named = Path(self.target)
        path = named.resolve()
        if not path.parent.is_dir():
            raise StoreError("no such directory for the export", self.target)
        if path == self.store.with_name(f"{self.store.name}.wal") or (
            path.exists() and self.store.exists() and path.samefile(self.store)
        ):
            raise StoreError("the export would replace the store itself", self.target)
        if path.is_dir() and (self.partition_by is None or any(path.iterdir())):
            raise StoreError("a directory is in the way of the export", self.target)
        if named.exists() and not path.is_dir() and (self.partition_by or not path.is_file()):
            kind = "a file" if path.is_file() else "a device or pipe"
            raise StoreError(f"{kind} is in the way of the export", self.target)
        return path

    def _check(self) -> None:
        if self._is_cancelled:
            raise StoreError("the export was cancelled", self.target)

    def _copy(self, con: duckdb.DuckDBPyConnection, target: Path) -> int:
        if self.partition_by:
            target.mkdir()
        statement = self._statement(target)
        try:
            with self._lock:
                self._check()
                self._running = con
            return int(con.execute(statement).fetchall()[0][0])
        finally:
            with self._lock:  # an interrupt must not reach a later query of another caller
                self._running = None

    def _statement(self, target: Path) -> str:
        columns = "*" if self.kind == "parquet" else f"* REPLACE ({_AS_TEXT})"
        source, options = _SESSIONS, _OPTIONS[self.kind]
        if not self.include_withdrawn:
            source += " WHERE withdrawn_at IS NULL"
        if self.partition_by:
            source = f"SELECT *, strftime(plug_in_time, '%Y-%m') AS month FROM ({source})"
            options += ", PARTITION_BY (month)"
        quoted = str(target).replace("'", "''")
        return f"COPY (SELECT {columns} FROM ({source})) TO '{quoted}' ({options})"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""The export of the table of sessions to Parquet, CSV or JSON lines."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; the path is quoted

from __future__ import annotations

import re
import stat
from datetime import datetime
from pathlib import Path

import attrs
import duckdb

from podero_async.backfill.errors import StoreError
from podero_async.backfill.store._status import Exported
from podero_async.backfill.store.duckdb.connection import is_open_here, translated
from podero_async.backfill.store.duckdb.files import check_name, check_replaceable, is_database, keep_access, unfinished
from podero_async.backfill.store.duckdb.interruptible import Interruptible

__all__ = ["Export"]

_OPTIONS = {
    "parquet": "FORMAT parquet, COMPRESSION zstd",
    "csv": "FORMAT csv, HEADER",
    "jsonl": "FORMAT json",
}
_COLUMNS = "SELECT column_name, column_type FROM (DESCRIBE sessions)"
_LEFT_OUT = {"absent_at"}
"""Columns that change although `changed_at` does not."""
_PARTITION = re.compile(r"month=\d{4}-\d{2}")
_PART = re.compile(r"data_\d+\.(parquet|csv|json)")


@attrs.define(kw_only=True)
class Export(Interruptible[Exported]):
    """An export, which replaces its target when the new content is complete. A pipe gets the content as it is written."""

    store: Path
    kind: str
    partition_by: str | None
    include_withdrawn: bool
    since: datetime | None
    overwrite: bool

    def work(self, con: duckdb.DuckDBPyConnection) -> Exported:
        """Write the table."""
        if self.kind not in _OPTIONS:
            raise ValueError(f"format must be one of {', '.join(_OPTIONS)}, not {self.kind!r}")
        if self.partition_by not in {None, "month"}:
            raise ValueError(f"partition_by must be 'month' or None, not {self.partition_by!r}")
        if self.since is not None and self.since.utcoffset() is None:
            raise ValueError(f"since must have a time zone: {self.since}")
        with translated(self.target):
            check_name(self.target)
            named = Path(self.target)
            if named.exists() and _is_stream(named) and not self.partition_by:
                return Exported(rows=self._copy(con, named), files=(self.target,))
            return self._write_whole(con, self._checked_target(named.resolve()))

    def _write_whole(self, con: duckdb.DuckDBPyConnection, path: Path) -> Exported:
        with unfinished(path) as made:
            if self.partition_by:
                made.mkdir()
            rows = self._copy(con, made)
            self.check()
            keep_access(made, path)
            if path.is_dir():
                _replace_directory(made, path)
            else:
                made.replace(path)
        shown = Path(self.target)
        files = sorted(str(file) for file in shown.rglob("*") if file.is_file()) if path.is_dir() else [self.target]
        return Exported(rows=rows, files=tuple(files))

    def _checked_target(self, path: Path) -> Path:
        """Return the real path of the target, after checking that it may be replaced."""
        if not path.parent.is_dir():
            raise StoreError("no such directory for the export", self.target)
        check_replaceable(path, self.store, self.target)
        if path.is_dir():
            self._check_directory(path)
        elif path.exists() and (self.partition_by or not path.is_file()):
            kind = "a file" if path.is_file() else "a device or pipe"
            raise StoreError(f"{kind} is in the way of the export", self.target)
        elif path.exists() and (is_open_here(path) or is_database(path)):
            raise StoreError("the export would replace a database", self.target)
        return path

    def _check_directory(self, path: Path) -> None:
        if self.partition_by is None:
            raise StoreError("a directory is in the way of the export", self.target)
        if not any(path.iterdir()):
            return
        if not self.overwrite:
            raise StoreError(
                "the directory of the export is not empty; overwrite replaces an earlier export", self.target
            )
        if not _is_export(path):
            raise StoreError("the directory has other files than those of an earlier export", self.target)

    def _copy(self, con: duckdb.DuckDBPyConnection, target: Path) -> int:
        statement = self._statement(con, target)
        if self.kind == "parquet":
            return int(self.execute(con, statement)[0][0])
        # To keep the order of the rows, DuckDB holds the text of many groups of rows, in buffers of 128 MiB.
        con.execute("SET preserve_insertion_order = false")
        try:
            return int(self.execute(con, statement)[0][0])
        finally:
            con.execute("RESET preserve_insertion_order")

    def _statement(self, con: duckdb.DuckDBPyConnection, target: Path) -> str:
        kinds = {name: kind for name, kind in self.execute(con, _COLUMNS) if name not in _LEFT_OUT}
        columns = ", ".join(self._column(name, kind) for name, kind in kinds.items())
        options = _OPTIONS[self.kind]
        if self.partition_by:
            columns += ", strftime(plug_in_time, '%Y-%m') AS month"
            options += ", PARTITION_BY (month)"
        conditions = ["withdrawn_at IS NULL"] * (not self.include_withdrawn)
        if self.since is not None:
            conditions.append(f"changed_at > TIMESTAMPTZ '{self.since.isoformat()}'")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        quoted = str(target).replace("'", "''")
        # A column name means the column of the table, not the text of the same name that is made of it here.
        return f"COPY (SELECT {columns} FROM (SELECT * FROM sessions{where})) TO '{quoted}' ({options})"

    def _column(self, name: str, kind: str) -> str:
        if kind == "UUID":  # many readers of Parquet take a UUID for 16 raw bytes, or refuse the file
            return f"{name}::VARCHAR AS {name}"
        if kind == "TIMESTAMP WITH TIME ZONE" and self.kind != "parquet":
            return f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ') AS {name}"
        return name


def _is_stream(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _is_export(path: Path) -> bool:
    """Return whether a directory contains nothing but the files of a partitioned export."""
    return all(
        part.is_dir() and _PARTITION.fullmatch(part.name) and all(_PART.fullmatch(file.name) for file in part.iterdir())
        for part in path.iterdir()
    )


def _replace_directory(made: Path, path: Path) -> None:
    with unfinished(path) as before:
        path.rename(before)
        try:
            made.rename(path)
        except OSError:
            before.rename(path)
            raise

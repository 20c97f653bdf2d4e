"""The export of the table of sessions to Parquet, CSV or JSON lines."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; the path is quoted

from __future__ import annotations

import os
import stat
import tempfile
from datetime import datetime
from pathlib import Path

import attrs
import duckdb

from podero_async.backfill.errors import StoreError
from podero_async.backfill.store._status import Exported
from podero_async.backfill.store.duckdb.connection import is_open_here, translated
from podero_async.backfill.store.duckdb.files import check_name, check_replaceable, is_database, keep_access, unfinished
from podero_async.backfill.store.duckdb.interruptible import Interruptible
from podero_async.backfill.store.duckdb.object_store import ObjectStore, is_object_address
from podero_async.backfill.store.duckdb.partitions import MANIFEST, Manifest, Partition, partitions_of

__all__ = ["Export"]

_OPTIONS = {
    "parquet": "FORMAT parquet, COMPRESSION zstd",
    "csv": "FORMAT csv, HEADER",
    "jsonl": "FORMAT json",
}
_COLUMNS = "SELECT column_name, column_type FROM (DESCRIBE sessions)"
_LEFT_OUT = {"absent_at"}
"""Columns that change although `changed_at` does not."""
_SUFFIXES = {"parquet": "parquet", "csv": "csv", "jsonl": "json"}


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
        if is_object_address(self.target):
            return self._write_objects(con)
        with translated(self.target):
            check_name(self.target)
            named = Path(self.target)
            if named.exists() and _is_stream(named) and not self.partition_by:
                return Exported.of(self._copy(con, named), self.target)
            path = self._checked_target(named.resolve())
            return self._write_directory(con, path) if self.partition_by else self._write_file(con, path)

    def _write_file(self, con: duckdb.DuckDBPyConnection, path: Path) -> Exported:
        with unfinished(path) as made:
            rows = self._copy(con, made)
            self.check()
            keep_access(made, path)
            made.replace(path)
        return Exported.of(rows, self.target)

    def _write_directory(self, con: duckdb.DuckDBPyConnection, path: Path) -> Exported:
        """Write a new directory, which shares the files of unchanged partitions with the one that it replaces."""
        written = []
        with unfinished(path) as made:
            made.mkdir()
            before, found = _manifest_of(path).files, self._partitions(con)
            states: dict[str, str | None] = {name: partition.state for name, partition in found.items()}
            if before != states or not (path / MANIFEST).exists():
                for name, partition in found.items():
                    (made / name).parent.mkdir()
                    if before.get(name) != partition.state or not _link(path / name, made / name):
                        self._copy(con, made / name, partition)
                        written.append(name)
                (made / MANIFEST).write_bytes(Manifest(states).text)
                self.check()
                keep_access(made, path)
                _replace_directory(made, path)
        return self._exported(found, written)

    def _write_objects(self, con: duckdb.DuckDBPyConnection) -> Exported:
        objects = ObjectStore(self.target)
        with translated(self.target), unfinished(_spool()) as spool:
            spool.mkdir(mode=0o700)
            file = spool / "part"
            if not self.partition_by:
                objects.check_names_object()
                rows = self._copy(con, file)
                self.check()
                objects.upload(file, "")
                return Exported.of(rows, self.target)
            manifest, found = self._checked_manifest(objects), self._partitions(con)
            changed = [name for name, each in found.items() if manifest.files.get(name) != each.state]
            vanished = [name for name in manifest.files if name not in found]
            if changed or vanished:
                # If the process is killed, the next export writes again what may differ from the manifest.
                manifest.files |= dict.fromkeys([*changed, *vanished])
                objects.write(MANIFEST, manifest.text)
                for name in changed:
                    self._copy(con, file, found[name])
                    self.check()
                    objects.upload(file, name)
                for name in vanished:
                    self.check()
                    objects.delete(name)
                objects.write(MANIFEST, Manifest({name: each.state for name, each in found.items()}).text)
        return self._exported(found, changed)

    def _exported(self, found: dict[str, Partition], written: list[str]) -> Exported:
        folder = self.target.rstrip("/")
        rows = sum(partition.rows for partition in found.values())
        files = {name: f"{folder}/{name}" for name in found}
        return Exported(rows=rows, files=tuple(files.values()), written=tuple(files[name] for name in written))

    def _checked_target(self, path: Path) -> Path:
        """Return the real path of the target, after checking that it may be replaced."""
        if not path.parent.is_dir():
            raise StoreError("no such directory for the export", self.target)
        check_replaceable(path, self.store, self.target)
        if path.is_dir():
            if self.partition_by is None:
                raise StoreError("a directory is in the way of the export", self.target)
            self._check_names(_names_in(path), _manifest_of(path))
        elif path.exists() and (self.partition_by or not path.is_file()):
            kind = "a file" if path.is_file() else "a device or pipe"
            raise StoreError(f"{kind} is in the way of the export", self.target)
        elif path.exists() and (is_open_here(path) or is_database(path)):
            raise StoreError("the export would replace a database", self.target)
        return path

    def _checked_manifest(self, objects: ObjectStore) -> Manifest:
        names = set(objects.names())
        manifest = (Manifest.parse(objects.read(MANIFEST)) if MANIFEST in names else None) or Manifest()
        self._check_names(names, manifest)
        # If an object was deleted, it is written again.
        return Manifest({name: state if name in names else None for name, state in manifest.files.items()})

    def _check_names(self, names: set[str], manifest: Manifest) -> None:
        """Check that all files of a directory are those of an earlier export, which may be replaced."""
        if names and not self.overwrite and not manifest.is_unfinished:
            raise StoreError(
                "the directory of the export is not empty; --overwrite (overwrite=True) replaces an earlier export",
                self.target,
            )
        if names - manifest.files.keys() - {MANIFEST}:
            raise StoreError("the directory has other files than those of an earlier export", self.target)

    def _partitions(self, con: duckdb.DuckDBPyConnection) -> dict[str, Partition]:
        rows = self._rows()
        statement = f"{self._select(con, rows)} {_OPTIONS[self.kind]}"
        return partitions_of(lambda query: self.execute(con, query), rows, statement, _SUFFIXES[self.kind])

    def _copy(self, con: duckdb.DuckDBPyConnection, target: Path, partition: Partition | None = None) -> int:
        select = self._select(con, self._rows(partition))
        quoted = str(target).replace("'", "''")
        statement = f"COPY ({select}) TO '{quoted}' ({_OPTIONS[self.kind]})"
        if self.kind == "parquet":
            return int(self.execute(con, statement)[0][0])
        # To keep the order of the rows, DuckDB holds the text of many groups of rows, in buffers of 128 MiB.
        con.execute("SET preserve_insertion_order = false")
        try:
            return int(self.execute(con, statement)[0][0])
        finally:
            con.execute("RESET preserve_insertion_order")

    def _rows(self, partition: Partition | None = None) -> str:
        conditions = ["withdrawn_at IS NULL"] * (not self.include_withdrawn)
        if self.since is not None:
            conditions.append(f"changed_at > TIMESTAMPTZ '{self.since.isoformat()}'")
        if partition is not None:
            conditions.append(partition.condition)
        return "SELECT * FROM sessions" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")

    def _select(self, con: duckdb.DuckDBPyConnection, rows: str) -> str:
        kinds = {name: kind for name, kind in self.execute(con, _COLUMNS) if name not in _LEFT_OUT}
        # A column name means the column of the table, not the text of the same name that is made of it here.
        return f"SELECT {', '.join(self._column(name, kind) for name, kind in kinds.items())} FROM ({rows})"

    def _column(self, name: str, kind: str) -> str:
        if kind == "UUID":  # many readers of Parquet take a UUID for 16 raw bytes, or refuse the file
            return f"{name}::VARCHAR AS {name}"
        if kind == "TIMESTAMP WITH TIME ZONE" and self.kind != "parquet":
            return f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ') AS {name}"
        return name


def _is_stream(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _spool() -> Path:
    """Return the path beside which files are made complete before they are uploaded."""
    return Path(tempfile.gettempdir()) / "podero_async-export"


def _names_in(path: Path) -> set[str]:
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}


def _manifest_of(path: Path) -> Manifest:
    file = path / MANIFEST
    return (Manifest.parse(file.read_bytes()) if file.is_file() else None) or Manifest()


def _link(before: Path, made: Path) -> bool:
    """Give an unchanged file a second name; return whether that is possible."""
    try:
        os.link(before, made)
    except OSError:
        return False
    return True


def _replace_directory(made: Path, path: Path) -> None:
    if not path.exists():
        made.rename(path)
        return
    with unfinished(path) as before:
        path.rename(before)
        try:
            made.rename(path)
        except OSError:
            before.rename(path)
            raise

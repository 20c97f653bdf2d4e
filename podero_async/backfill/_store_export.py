"""The table of sessions as files: Parquet, CSV, or JSON lines."""

# ruff: noqa: S608 - all that is put into SQL text is written in these rooms; values are bound

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import duckdb

from podero_async.backfill._errors import StoreError
from podero_async.backfill._store_schema import SESSION_COLUMNS

__all__ = ["Exported", "export_sessions"]

_OPTIONS = {
    "parquet": "FORMAT parquet, COMPRESSION zstd",
    "csv": "FORMAT csv, HEADER",
    "jsonl": "FORMAT json",
}
_TIMES = [
    *(name for name, kind in SESSION_COLUMNS.items() if kind == "TIMESTAMPTZ"),
    *("fetched_at", "first_seen_at", "changed_at", "withdrawn_at"),
]
_AS_TEXT = ", ".join(f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ') AS {name}" for name in _TIMES)


@attrs.frozen(kw_only=True)
class Exported:
    """What was written."""

    rows: int
    files: tuple[str, ...]


def export_sessions(
    con: duckdb.DuckDBPyConnection, target: str, kind: str, *, partition_by: str | None, include_withdrawn: bool
) -> Exported:
    """Write the table; the target is there whole, or not at all."""
    if kind not in _OPTIONS:
        raise ValueError(f"a format is {', '.join(_OPTIONS)}, not {kind!r}")
    if partition_by not in {None, "month"}:
        raise ValueError(f"a partition is month, not {partition_by!r}")
    path = Path(target)
    if path.is_dir() and (partition_by is None or any(path.iterdir())):
        raise StoreError("a directory that is in the way of the export", target)
    unfinished = path.with_name(f"{path.name}.unfinished")
    _remove(unfinished)
    try:
        rows = _copy(con, unfinished, kind, partition_by=partition_by, include_withdrawn=include_withdrawn)
        if unfinished.is_dir() and path.is_dir():
            path.rmdir()
        unfinished.replace(path)
    finally:
        _remove(unfinished)
    files = sorted(str(file) for file in path.rglob("*") if file.is_file()) if path.is_dir() else [target]
    return Exported(rows=rows, files=tuple(files))


def _copy(
    con: duckdb.DuckDBPyConnection, target: Path, kind: str, *, partition_by: str | None, include_withdrawn: bool
) -> int:
    columns = "*" if kind == "parquet" else f"* REPLACE ({_AS_TEXT})"
    where = "" if include_withdrawn else "WHERE withdrawn_at IS NULL"
    source = f"SELECT * FROM sessions {where}"
    options = _OPTIONS[kind]
    if partition_by:
        target.mkdir()
        source = f"SELECT *, strftime(plug_in_time, '%Y-%m') AS month FROM ({source})"
        options += ", PARTITION_BY (month)"
    quoted = str(target).replace("'", "''")
    return int(con.execute(f"COPY (SELECT {columns} FROM ({source})) TO '{quoted}' ({options})").fetchall()[0][0])


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""An export contains the rows of the store, and replaces its target only when it is complete."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from podero_async import PoderoClient
from podero_async.backfill import SessionStore, StoreError, backfill
from podero_async.backfill.store.duckdb import DuckDBBackend
from podero_async.backfill.store.duckdb.export import Export
from podero_async.testing import PoderoSimulator
from tests._support.expected_rows import FIRST, LAST, TIMES
from tests.backfill.conftest import AGAIN, Clock

STAMPS = {*TIMES, "fetched_at", "first_seen_at", "changed_at", "withdrawn_at"}
Row = dict[str, Any]


@pytest.fixture
async def store(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> Any:
    """Fill a store that contains a changed and a withdrawn row."""
    async with SessionStore(path) as opened:
        await backfill(client, opened, FIRST, LAST, include_hidden=True, now=clock)
        vehicle = sim.vehicles[0]
        rows = sim.truth(vehicle, FIRST, LAST)
        sim.update(vehicle, rows[0]["id"], session_outcome='new, "quoted"\nöutcome')
        sim.remove(vehicle, rows[1]["id"])
        await backfill(client, opened, FIRST, LAST, include_hidden=True, fresh_for=AGAIN, now=clock)
        yield opened


def by_id(rows: list[Row]) -> dict[str, Row]:
    return {str(row["id"]): row for row in rows}


def _plain(row: Row) -> Row:
    return {name: str(value) if name in {"id", "user_id", "vehicle_id"} else value for name, value in row.items()}


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None


def _by_pyarrow(path: Path) -> list[Row]:
    rows = pq.ParquetFile(path).read().to_pylist()
    return [_plain(row) for row in rows]


def _by_duckdb(path: Path) -> list[Row]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        rows: list[Row] = con.sql(f"SELECT * FROM read_parquet('{path}')").to_arrow_table().to_pylist()
        return rows


def _by_json(path: Path) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{name: _moment(value) if name in STAMPS else value for name, value in row.items()} for row in rows]


def _by_csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("kind", "read"), [("parquet", _by_pyarrow), ("parquet", _by_duckdb), ("jsonl", _by_json)])
async def test_a_file_read_back_equals_the_table(
    store: SessionStore, tmp_path: Path, kind: Any, read: Callable[[Path], list[Row]]
) -> None:
    """Parquet and JSON lines return every value of the table, to the last digit and microsecond."""
    target = tmp_path / f"out.{kind}"
    target.write_text("an older export")
    written = await store.export(target, kind)
    table = await store.query("SELECT * FROM sessions")
    assert written.rows == len(table) > 100
    assert written.files == (str(target),)
    assert by_id(read(target)) == by_id(table)
    assert {entry.name for entry in tmp_path.iterdir()} <= {target.name, "fleet.duckdb", "fleet.duckdb.wal"}


async def test_csv_read_back_equals_the_table(store: SessionStore, tmp_path: Path) -> None:
    """Every value in a CSV file reads back as the value of the table, including quotes and newlines."""
    await store.export(tmp_path / "out.csv", "csv")
    rows = by_id(_by_csv(tmp_path / "out.csv"))
    for row_id, row in by_id(await store.query("SELECT * FROM sessions")).items():
        for name, value in row.items():
            text = rows[row_id][name]
            if value is None:
                assert text == ""
            elif name in STAMPS:
                assert datetime.fromisoformat(text) == value
            elif isinstance(value, bool):
                assert text == str(value).lower()
            else:
                assert type(value)(text) == value
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        read = con.sql(
            f"SELECT id::VARCHAR AS id, plug_in_time FROM read_csv('{tmp_path / 'out.csv'}')"
        ).to_arrow_table()
    table = await store.query("SELECT id, plug_in_time FROM sessions")
    assert {row["id"]: row["plug_in_time"].timestamp() for row in read.to_pylist()} == {
        row["id"]: row["plug_in_time"].timestamp() for row in table
    }


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
async def test_the_partitions_by_month_add_up_to_the_table(store: SessionStore, tmp_path: Path, kind: Any) -> None:
    """Each session is written once, into the directory of its month."""
    target = tmp_path / "lake"
    target.mkdir()
    (tmp_path / "lake.podero_async-unfinished").mkdir()  # left by an export that was killed
    written = await store.export(target, kind, partition_by="month")
    assert written.rows == len(await store.query("SELECT * FROM sessions"))
    assert {Path(file).parent.name for file in written.files} == {"month=2026-06"}
    if kind == "parquet":
        read = [row for file in written.files for row in _by_pyarrow(Path(file))]
        assert by_id(read) == by_id(await store.query("SELECT * FROM sessions"))
        assert pa.types.is_timestamp(pq.read_schema(written.files[0]).field("plug_in_time").type)


async def test_withdrawn_sessions_can_be_left_out(store: SessionStore, tmp_path: Path) -> None:
    """With `include_withdrawn=False` the file has only the sessions that the server still returns."""
    all_rows = await store.export(tmp_path / "all.parquet")
    live = await store.export(tmp_path / "live.parquet", include_withdrawn=False)
    assert live.rows == all_rows.rows - 1


async def test_an_invalid_export_is_refused(store: SessionStore, tmp_path: Path) -> None:
    """An unknown format or an unsuitable target raises an error and leaves existing files unchanged."""
    with pytest.raises(ValueError, match="format"):
        await store.export(tmp_path / "x", "xlsx")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="month"):
        await store.export(tmp_path / "x", partition_by="day")  # type: ignore[arg-type]
    partitions: list[Literal["month"] | None] = [None, "month"]
    for partition_by in partitions:
        with pytest.raises(StoreError, match="in the way"):
            await store.export(tmp_path, partition_by=partition_by)
    with pytest.raises(StoreError, match=r"no such directory .*nowhere"):
        await store.export(tmp_path / "nowhere" / "x.parquet")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"a file is in the way.*file"):
        await store.export(tmp_path / "file", partition_by="month")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match=r"a device or pipe.*pipe"):
        await store.export(tmp_path / "pipe")
    for no_path in ("", "b\udcff.parquet"):
        with pytest.raises(StoreError, match="path"):
            await store.export(no_path)
    assert (tmp_path / "file").read_text() == "mine"


async def test_an_export_never_replaces_the_store(
    store: SessionStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that is the store, its log or a link to the store is refused."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(path)
    os.link(path, tmp_path / "other name")
    for target in (
        path,
        Path(path.name),
        tmp_path / "link",
        tmp_path / "other name",
        path.with_name(f"{path.name}.wal"),
    ):
        with pytest.raises(StoreError, match="replace the store itself"):
            await store.export(target)
    assert (await store.status()).sessions > 0


async def test_an_export_replaces_the_file_behind_a_link(store: SessionStore, tmp_path: Path) -> None:
    """The link stays a link, and the file that it points to gets the new content."""
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("yesterday's")
    link.symlink_to(real)
    (tmp_path / "real.csv.unfinished").write_text("mine")
    written = await store.export(link, "csv")
    assert written.files == (str(link),)
    assert link.is_symlink()
    assert len(real.read_text().splitlines()) > written.rows
    assert (tmp_path / "real.csv.unfinished").read_text() == "mine"


async def _execute(store: SessionStore, sql: str) -> None:
    assert isinstance(store.backend, DuckDBBackend)
    await store.backend.call(duckdb.DuckDBPyConnection.execute, sql)


def _files(folder: Path) -> dict[str, bytes]:
    """Read all files beside the store."""
    found = (path for path in folder.rglob("*") if not path.name.startswith("fleet.duckdb"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in found}


@pytest.mark.parametrize(("kind", "partition_by"), [("parquet", None), ("csv", None), ("jsonl", "month")])
async def test_a_cancelled_export_ends_at_once_and_leaves_its_target_unchanged(
    store: SessionStore, tmp_path: Path, kind: Any, partition_by: Any
) -> None:
    """A cancellation interrupts the query, removes the unfinished file and keeps the previous target."""
    target = tmp_path / "out"
    if partition_by:
        target.mkdir()
    else:
        target.write_text("yesterday's")
    before = _files(tmp_path)
    await _execute(
        store, "CREATE TEMP VIEW sessions AS SELECT s.* FROM fleet.main.sessions s, range(100_000)"
    )  # minutes
    exporting = asyncio.create_task(store.export(target, kind, partition_by=partition_by))
    while not (tmp_path / "out.podero_async-unfinished").exists():
        assert not exporting.done()
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert _files(tmp_path) == before
    await _execute(store, "DROP VIEW temp.sessions")
    written = await store.export(target, kind, partition_by=partition_by)
    assert written.rows == len(await store.query("SELECT * FROM sessions"))


@pytest.mark.parametrize("cycles", [0, 1, 2, None])
async def test_an_export_that_is_cancelled_before_its_start_or_at_its_end_writes_nothing(
    store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cycles: int | None
) -> None:
    """A cancellation 0 to 2 cycles of the event loop after the call, or after the query (None), leaves no file."""
    call, cancel = DuckDBBackend.call, Export.cancel
    copied, cancelled = threading.Event(), threading.Event()

    class Copying:
        """A connection that returns from a query when the export was cancelled."""

        def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
            self.interrupt = con.interrupt
            self.con = con

        def execute(self, sql: str) -> duckdb.DuckDBPyConnection:
            result = self.con.execute(sql)
            copied.set()
            assert cancelled.wait(5)
            return result

    async def calling(self: DuckDBBackend, work: Callable[..., Any], *arguments: Any) -> Any:
        if not isinstance(getattr(work, "__self__", None), Export):
            return await call(self, work, *arguments)
        return await call(self, lambda con: work(Copying(con)))

    def cancelling(self: Export) -> bool:
        is_begun = cancel(self)
        cancelled.set()
        return is_begun

    monkeypatch.setattr(DuckDBBackend, "call", calling)
    monkeypatch.setattr(Export, "cancel", cancelling)
    exporting = asyncio.create_task(store.export(tmp_path / "out.csv", "csv"))
    for _ in range(cycles or 0):
        await asyncio.sleep(0)
    if cycles is None:
        await asyncio.to_thread(copied.wait, 5)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert await store.query("SELECT 1 AS one") == [{"one": 1}]
    assert _files(tmp_path) == {}


async def test_a_cancelled_export_does_not_affect_the_query_before_it(store: SessionStore, tmp_path: Path) -> None:
    """An export that waits for a query of another task ends at once, and the query returns its rows."""
    querying = asyncio.create_task(store.query("SELECT count(*) AS n FROM range(20000000) t(a) WHERE hash(a) % 7 = 3"))
    await asyncio.sleep(0)
    exporting = asyncio.create_task(store.export(tmp_path / "out.csv", "csv"))
    await asyncio.sleep(0.02)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert not querying.done()
    ((count,),) = [row.values() for row in await querying]
    assert count > 2_000_000
    assert await store.query("SELECT 1 AS one") == [{"one": 1}]
    assert _files(tmp_path) == {}

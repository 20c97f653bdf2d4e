"""An export contains the rows of the store, and replaces its target only when it is complete."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import threading
from collections.abc import Callable, Sequence
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
from tests._support.sql_rows import execute, insert_sessions
from tests.backfill.conftest import AGAIN, Clock

STAMPS = {*TIMES, "fetched_at", "first_seen_at", "changed_at", "withdrawn_at"}
Row = dict[str, Any]
AFTER = "(SELECT max(changed_at) + INTERVAL 1 MICROSECOND FROM sessions)"
TABLE = "SELECT * EXCLUDE (absent_at) FROM sessions"  # an export leaves out `absent_at`, since no second read has confirmed it


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


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "read"), [("parquet", _by_pyarrow), ("parquet", _by_duckdb), ("jsonl", _by_json)])
async def test_a_file_read_back_equals_the_table(
    store: SessionStore, tmp_path: Path, kind: Any, read: Callable[[Path], list[Row]]
) -> None:
    """Parquet and JSON lines return every value of the table, to the last digit and microsecond."""
    target = tmp_path / f"out.{kind}"
    target.write_text("an older export")
    written = await store.export(target, kind)
    table = await store.query(TABLE)
    assert written.rows == len(table) > 100
    assert written.files == (str(target),)
    assert by_id(read(target)) == by_id(table)
    assert {entry.name for entry in tmp_path.iterdir()} <= {target.name, "fleet.duckdb", "fleet.duckdb.wal"}


@pytest.mark.slow
async def test_csv_read_back_equals_the_table(store: SessionStore, tmp_path: Path) -> None:
    """Every value in a CSV file reads back as the value of the table, including quotes and newlines."""
    await store.export(tmp_path / "out.csv", "csv")
    rows = by_id(_by_csv(tmp_path / "out.csv"))
    for row_id, row in by_id(await store.query(TABLE)).items():
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
async def test_the_partitions_by_month_add_up_to_the_table(store: SessionStore, tmp_path: Path, kind: Any) -> None:
    """Each session is written once, into the directory of its month."""
    target = tmp_path / "lake"
    target.mkdir()
    left = tmp_path / "lake.podero_async-unfinished-left"  # left by an export that was killed yesterday
    left.mkdir()
    os.utime(left, (0, 0))
    written = await store.export(target, kind, partition_by="month")
    assert written.rows == len(await store.query(TABLE))
    assert {Path(file).parent.name for file in written.files} == {"month=2026-06"}
    if kind == "parquet":
        read = [row for file in written.files for row in _by_pyarrow(Path(file))]
        assert by_id(read) == by_id(await store.query(TABLE))
        assert pa.types.is_timestamp(pq.read_schema(written.files[0]).field("plug_in_time").type)
    assert not left.exists()


@pytest.mark.slow
async def test_withdrawn_sessions_can_be_left_out(store: SessionStore, tmp_path: Path) -> None:
    """With `include_withdrawn=False` the file has only the sessions that the server still returns."""
    all_rows = await store.export(tmp_path / "all.parquet")
    live = await store.export(tmp_path / "live.parquet", include_withdrawn=False)
    assert live.rows == all_rows.rows - 1


@pytest.mark.slow
async def test_an_invalid_export_is_refused(store: SessionStore, tmp_path: Path) -> None:
    """An unknown format or an unsuitable target raises an error and leaves existing files unchanged."""
    with pytest.raises(ValueError, match="format"):
        await store.export(tmp_path / "x", "xlsx")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="month"):
        await store.export(tmp_path / "x", partition_by="day")  # type: ignore[arg-type]
    partitions: list[Literal["month"] | None] = [None, "month"]
    for partition_by in partitions:
        with pytest.raises(StoreError, match=r"in the way|not empty"):
            await store.export(tmp_path, partition_by=partition_by)
    with pytest.raises(StoreError, match=r"no such directory .*nowhere"):
        await store.export(tmp_path / "nowhere" / "x.parquet")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"a file is in the way.*file"):
        await store.export(tmp_path / "file", partition_by="month")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match=r"a device or pipe.*pipe"):
        await store.export(tmp_path / "pipe", partition_by="month")
    with pytest.raises(ValueError, match="time zone"):
        await store.export(tmp_path / "x", since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the mistake
    for no_path in ("", "b\udcff.parquet"):
        with pytest.raises(StoreError, match="path"):
            await store.export(no_path)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
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
        with pytest.raises(StoreError, match=r"replace the store itself|log of a database"):
            await store.export(target)
    assert (await store.status()).sessions > 0


@pytest.mark.slow
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


def _files(folder: Path) -> dict[str, bytes]:
    """Read all files beside the store."""
    found = (path for path in folder.rglob("*") if not path.name.startswith("fleet.duckdb"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in found}


@pytest.mark.slow
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
    await execute(
        store, "CREATE TEMP VIEW sessions AS SELECT s.* FROM fleet.main.sessions s, range(100_000)"
    )  # minutes
    exporting = asyncio.create_task(store.export(target, kind, partition_by=partition_by))
    while not any(tmp_path.glob("out.podero_async-unfinished-*")):
        assert not exporting.done()
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert _files(tmp_path) == before
    await execute(store, "DROP VIEW temp.sessions")
    written = await store.export(target, kind, partition_by=partition_by)
    assert written.rows == len(await store.query(TABLE))


@pytest.mark.slow
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

        def execute(self, sql: str, values: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
            result = self.con.execute(sql, list(values))
            if sql.startswith("COPY"):
                copied.set()
                assert cancelled.wait(60)
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
        await asyncio.to_thread(copied.wait, 60)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert await store.query("SELECT 1 AS one") == [{"one": 1}]
    assert _files(tmp_path) == {}


@pytest.mark.slow
async def test_a_cancelled_export_does_not_affect_the_query_before_it(store: SessionStore, tmp_path: Path) -> None:
    """An export that waits for a query of another task ends at once, and the query returns its rows."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    query = f"SELECT count(*) AS n FROM read_csv('{pipe}', header = false, auto_detect = false, columns = {{n: 'INT'}})"
    querying = asyncio.create_task(store.query(query))  # until the pipe ends
    await asyncio.sleep(0)
    exporting = asyncio.create_task(store.export(tmp_path / "out.csv", "csv"))
    await asyncio.sleep(0.02)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert not querying.done()
    await asyncio.to_thread(pipe.write_text, "1\n2\n")
    assert await querying == [{"n": 2}]
    assert await store.query("SELECT 1 AS one") == [{"one": 1}]
    pipe.unlink()
    assert _files(tmp_path) == {}


@pytest.mark.slow
async def test_an_export_never_replaces_a_database(store: SessionStore, tmp_path: Path) -> None:
    """Another store, open or closed, a snapshot and the log of another store are refused and unchanged."""
    async with SessionStore(tmp_path / "other.duckdb"):
        pass
    (tmp_path / "other.duckdb.wal").write_text("its log")
    await store.snapshot(tmp_path / "snapshot")
    before = _files(tmp_path)
    async with SessionStore(tmp_path / "open.duckdb"):
        for name in ("other.duckdb", "other.duckdb.wal", "snapshot", "open.duckdb"):
            with pytest.raises(StoreError, match=r"would replace (a|the log of a) database"):
                await store.export(tmp_path / name, overwrite=True)
    (tmp_path / "open.duckdb").unlink()
    assert _files(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
async def test_a_partitioned_export_can_be_repeated(store: SessionStore, tmp_path: Path, kind: Any) -> None:
    """With `overwrite`, the directory has the new partitions only; a directory with files of others is refused."""
    target = tmp_path / "lake"
    await store.export(target, kind, partition_by="month")
    with pytest.raises(StoreError, match="not empty"):
        await store.export(target, kind, partition_by="month")
    written = await store.export(target, kind, partition_by="month", overwrite=True)
    assert {part.name for part in target.iterdir()} == {"month=2026-06", "_podero_async.json"}
    assert (written.rows, written.written) == (len(await store.query(TABLE)), ())
    (target / "month=2019-01").mkdir()
    for name in ("mine.txt", "month=2026-06/mine.txt", "month=2019-01/data_0.parquet"):
        (target / name).write_text("mine")
        before = _files(tmp_path)
        with pytest.raises(StoreError, match="other files"):
            await store.export(target, kind, partition_by="month", overwrite=True)
        assert _files(tmp_path) == before
        (target / name).unlink()


@pytest.mark.slow
async def test_only_sessions_that_changed_since_a_time(
    sim: PoderoSimulator, client: PoderoClient, store: SessionStore, tmp_path: Path, clock: Clock
) -> None:
    """With `since`, the file has the sessions that were added, changed or withdrawn after that time."""
    before = clock.at
    clock.forward(hours=13)
    vehicle = sim.vehicles[1]
    rows = sim.truth(vehicle, FIRST, LAST)
    sim.update(vehicle, rows[0]["id"], energy_charged_kwh=1.25)
    added = sim.insert(vehicle, plug_in_time=datetime.fromisoformat(rows[1]["plug_in_time"]))
    await backfill(client, store, FIRST, LAST, include_hidden=True, now=clock)
    await store.export(tmp_path / "new.jsonl", "jsonl", since=before)
    assert {row["id"] for row in _by_json(tmp_path / "new.jsonl")} == {rows[0]["id"], added["id"]}


async def test_ids_are_text_in_each_format(store: SessionStore, tmp_path: Path) -> None:
    """A Parquet file and a CSV file join on their ids in every tool, since both have texts."""
    await store.export(tmp_path / "out.parquet")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert {str(schema.field(name).type) for name in ("id", "user_id", "vehicle_id")} == {"string"}
    await store.export(tmp_path / "out.csv", "csv")
    assert set(by_id(_by_csv(tmp_path / "out.csv"))) == {row["id"] for row in _by_pyarrow(tmp_path / "out.parquet")}


@pytest.mark.slow
async def test_a_pipe_gets_the_rows_as_they_are_written(store: SessionStore, tmp_path: Path) -> None:
    """The reader of a named pipe gets the same bytes that a file gets."""
    await store.export(tmp_path / "out.csv", "csv")
    os.mkfifo(tmp_path / "pipe")
    reading = asyncio.create_task(asyncio.to_thread((tmp_path / "pipe").read_bytes))
    written = await store.export(tmp_path / "pipe", "csv")
    assert await reading == (tmp_path / "out.csv").read_bytes()
    assert written.rows == len(await store.query(TABLE))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
async def test_an_export_takes_less_memory_than_its_rows(tmp_path: Path, kind: Any) -> None:
    """With buffers of 64 MB, 200,000 sessions are exported, which are far larger as text."""
    path, target = tmp_path / "large.duckdb", tmp_path / "out"
    async with SessionStore(path) as large:
        await insert_sessions(large, 200_000)
    async with SessionStore(path, read_only=True, memory_limit_mb=64) as large:
        assert (await large.export(target, kind)).rows == 200_000
    if kind != "parquet":
        assert target.stat().st_size > 70_000_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "csv"])
async def test_a_repeated_export_writes_only_the_months_that_changed(tmp_path: Path, kind: Any) -> None:
    """A month is written again if a row of it changed, came or went; the files of the others stay the same files.

    If all rows of a month went, its file goes, too; if nothing changed, the directory stays the same one.
    """
    target = tmp_path / "lake"

    async def export() -> list[str]:
        written = await many.export(target, kind, partition_by="month", overwrite=True)
        found = {str(file) for file in target.rglob("data_*")}
        assert set(written.files) == found
        count = "count(*)" if kind == "parquet" else "count(*)::BIGINT"
        (row,) = await many.query(f"SELECT {count} AS n FROM read_{kind}('{target}/*/data_0.{kind}')")
        assert row["n"] == written.rows == (await many.status()).sessions
        return sorted(Path(file).parent.name for file in written.written)

    async with SessionStore(":memory:") as many:
        await insert_sessions(many, 120, step_minutes=24 * 60)  # 2024-01-01 to 2024-04-29
        assert await export() == [f"month=2024-0{month}" for month in (1, 2, 3, 4)]
        files = {file.parent.name: file.stat().st_ino for file in target.rglob("data_*")}
        folder = target.stat().st_ino
        assert (await export(), target.stat().st_ino) == ([], folder)
        await execute(many, f"UPDATE sessions SET changed_at = {AFTER} WHERE plug_in_time = '2024-02-03'")
        assert await export() == ["month=2024-02"]
        moved = f"plug_in_time = '2024-03-31 12:00:00', changed_at = {AFTER}"
        await execute(many, f"UPDATE sessions SET {moved} WHERE plug_in_time = '2024-04-01'")
        assert await export() == ["month=2024-03", "month=2024-04"]
        await execute(many, "DELETE FROM sessions WHERE plug_in_time >= '2024-04-01'")
        assert await export() == []
        assert not (target / "month=2024-04").exists()
        assert (target / "month=2024-01" / f"data_0.{kind}").stat().st_ino == files["month=2024-01"]

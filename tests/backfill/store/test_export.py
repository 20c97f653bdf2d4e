"""What leaves the store is what is in it."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import threading
import time
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
from podero_async.testing import PoderoSimulator
from tests._support.expected_rows import FIRST, LAST, TIMES
from tests.backfill.conftest import Clock

STAMPS = {*TIMES, "fetched_at", "first_seen_at", "changed_at", "withdrawn_at"}
Row = dict[str, Any]


@pytest.fixture
async def store(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> Any:
    """Fill a store, with a changed and a withdrawn row in it."""
    async with SessionStore(path) as opened:
        await backfill(client, opened, FIRST, LAST, include_hidden=True, now=clock)
        vehicle = sim.vehicles[0]
        rows = sim.truth(vehicle, FIRST, LAST)
        sim.update(vehicle, rows[0]["id"], session_outcome='new, "quoted"\nöutcome')
        sim.remove(vehicle, rows[1]["id"])
        await backfill(client, opened, FIRST, LAST, include_hidden=True, now=clock)
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
    """Whoever analyses the export must see what the store holds, to the last digit and microsecond."""
    target = tmp_path / f"out.{kind}"
    target.write_text("an older export")
    written = await store.export(target, kind)
    table = await store.query("SELECT * FROM sessions")
    assert written.rows == len(table) > 100
    assert written.files == (str(target),)
    assert by_id(read(target)) == by_id(table)
    assert {entry.name for entry in tmp_path.iterdir()} <= {target.name, "fleet.duckdb", "fleet.duckdb.wal"}


async def test_csv_read_back_equals_the_table(store: SessionStore, tmp_path: Path) -> None:
    """The format without types must keep every value as text that reads back, quotes and newlines too."""
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
async def test_partitions_by_month_are_together_the_table(store: SessionStore, tmp_path: Path, kind: Any) -> None:
    """A lake of one directory a month must hold each session once, in its month."""
    target = tmp_path / "lake"
    target.mkdir()
    (tmp_path / "lake.podero_async-unfinished").mkdir()  # of an export that was killed
    written = await store.export(target, kind, partition_by="month")
    assert written.rows == len(await store.query("SELECT * FROM sessions"))
    assert {Path(file).parent.name for file in written.files} == {"month=2026-06"}
    if kind == "parquet":
        read = [row for file in written.files for row in _by_pyarrow(Path(file))]
        assert by_id(read) == by_id(await store.query("SELECT * FROM sessions"))
        assert pa.types.is_timestamp(pq.read_schema(written.files[0]).field("plug_in_time").type)


async def test_withdrawn_sessions_can_be_left_out(store: SessionStore, tmp_path: Path) -> None:
    """Sums over an export should be able to count what the server still shows, and no more."""
    all_rows = await store.export(tmp_path / "all.parquet")
    live = await store.export(tmp_path / "live.parquet", include_withdrawn=False)
    assert live.rows == all_rows.rows - 1


async def test_an_export_that_cannot_be_is_refused(store: SessionStore, tmp_path: Path) -> None:
    """A typing error must not replace a file, nor fill a directory that holds something else."""
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
    with pytest.raises(StoreError, match=r"what is no file.*pipe"):
        await store.export(tmp_path / "pipe")
    for no_path in ("", "b\udcff.parquet"):
        with pytest.raises(StoreError, match="path"):
            await store.export(no_path)
    assert (tmp_path / "file").read_text() == "mine"


async def test_an_export_never_replaces_the_store(
    store: SessionStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip in a command line would cost the store, and call it done."""
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
        with pytest.raises(StoreError, match="the store itself"):
            await store.export(target)
    assert (await store.status()).sessions > 0


async def test_an_export_goes_where_a_link_points(store: SessionStore, tmp_path: Path) -> None:
    """Whoever reads the file behind the link would read yesterday's for ever."""
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("yesterday's")
    link.symlink_to(real)
    (tmp_path / "real.csv.unfinished").write_text("mine")
    written = await store.export(link, "csv")
    assert written.files == (str(link),)
    assert link.is_symlink()
    assert len(real.read_text().splitlines()) > written.rows
    assert (tmp_path / "real.csv.unfinished").read_text() == "mine"


LONG = "SELECT sessions.* FROM sessions, range(8000)"


def _files(folder: Path) -> dict[str, bytes]:
    """Read all there is beside the store."""
    found = (path for path in folder.rglob("*") if not path.name.startswith("fleet.duckdb"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in found}


@pytest.mark.parametrize(("kind", "partition_by"), [("parquet", None), ("csv", None), ("jsonl", "month")])
async def test_an_export_that_is_cancelled_ends_at_once_and_leaves_what_was_there(
    store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, partition_by: Any
) -> None:
    """A timeout around an export would wait for its end all the same, or leave half a file in the place of a whole one."""
    target = tmp_path / "out"
    if partition_by:
        target.mkdir()
    else:
        target.write_text("yesterday's")
    before = _files(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("podero_async.backfill.store.duckdb.export._SESSIONS", LONG)
        exporting = asyncio.create_task(store.export(target, kind, partition_by=partition_by))
        while not (tmp_path / "out.podero_async-unfinished").exists():
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        since = time.monotonic()
        exporting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exporting
        assert time.monotonic() - since < 1
    assert _files(tmp_path) == before
    written = await store.export(target, kind, partition_by=partition_by)
    assert written.rows == len(await store.query("SELECT * FROM sessions"))


@pytest.mark.parametrize("turns", [0, 1, 2, None])
async def test_an_export_that_is_cancelled_before_it_began_or_at_its_end(
    store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int | None
) -> None:
    """A cancellation between two steps would go unheard, and the file appear all the same."""
    from podero_async.backfill.store.duckdb.export import Export  # noqa: PLC0415

    copy, give_up = Export._copy, Export.give_up
    copied, given_up = threading.Event(), threading.Event()

    def copying(self: Export, con: duckdb.DuckDBPyConnection, unfinished: Path) -> int:
        rows = copy(self, con, unfinished)
        copied.set()
        assert given_up.wait(5)
        return rows

    def giving_up(self: Export) -> bool:
        is_begun = give_up(self)
        given_up.set()
        return is_begun

    monkeypatch.setattr(Export, "_copy", copying)
    monkeypatch.setattr(Export, "give_up", giving_up)
    exporting = asyncio.create_task(store.export(tmp_path / "out.csv", "csv"))
    for _ in range(turns or 0):
        await asyncio.sleep(0)
    if turns is None:
        await asyncio.to_thread(copied.wait, 5)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert await store.query("SELECT 1 AS one") == [{"one": 1}]
    assert _files(tmp_path) == {}


async def test_an_export_that_is_cancelled_behind_a_query_neither_ends_it_nor_waits_for_it(
    store: SessionStore, tmp_path: Path
) -> None:
    """Another task's question to the same store would fail because an export was cancelled, or hold the canceller up."""
    asking = asyncio.create_task(store.query("SELECT count(*) AS n FROM range(20000000) t(a) WHERE hash(a) % 7 = 3"))
    await asyncio.sleep(0)
    exporting = asyncio.create_task(store.export(tmp_path / "out.csv", "csv"))
    await asyncio.sleep(0.02)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert not asking.done()
    ((count,),) = [row.values() for row in await asking]
    assert count > 2_000_000
    assert await store.query("SELECT 1 AS one") == [{"one": 1}]
    assert _files(tmp_path) == {}

"""Snapshots: consistent copies that others may hold open while the next one replaces them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import duckdb
import pytest

from podero_async import PoderoClient
from podero_async.backfill import SessionStore, StoreError, StoreFullError, backfill
from podero_async.backfill.store.duckdb import DuckDBBackend
from podero_async.testing import PoderoSimulator
from tests._support.expected_rows import FIRST, LAST, held_by
from tests.backfill.conftest import Clock
from tests.backfill.store.test_session_store import files_of_at_most


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of a snapshot that does not exist yet."""
    return tmp_path / "for readers.duckdb"


@pytest.mark.slow
async def test_a_snapshot_has_the_rows_of_the_store(
    client: PoderoClient, path: Path, target: Path, clock: Clock
) -> None:
    """A snapshot is a store with the same rows in every table, and no log beside it."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        size = await store.snapshot(target)
        assert size == target.stat().st_size
        assert not target.with_name(f"{target.name}.wal").exists()
        async with SessionStore(target, read_only=True) as snapshot:
            assert await held_by(snapshot) == await held_by(store)
            tables = await store.query("SELECT table_name AS name FROM duckdb_tables() WHERE NOT temporary")
            for name in {row["name"] for row in tables} - {"meta"}:
                assert await snapshot.query(f"FROM {name}") == await store.query(f"FROM {name}")
            assert (await snapshot.status()).sessions == (await store.status()).sessions > 0


@pytest.mark.slow
async def test_a_reader_keeps_the_snapshot_that_it_opened(
    sim: PoderoSimulator, client: PoderoClient, path: Path, target: Path, clock: Clock
) -> None:
    """While a reader holds a snapshot open, the next one replaces it; the reader sees the old rows until it opens again."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        await store.snapshot(target)
        with duckdb.connect(str(target), read_only=True) as reader:
            (before,) = reader.execute("SELECT count(*) FROM sessions").fetchall()
            for vehicle in sim.vehicles:
                sim.insert(vehicle, plug_in_time=clock.at)
            clock.forward(days=2)
            await backfill(client, store, FIRST, clock.at.date(), now=clock)
            await store.snapshot(target)
            assert reader.execute("SELECT count(*) FROM sessions").fetchall() == [before]
        async with SessionStore(target, read_only=True) as snapshot:
            assert await held_by(snapshot) == await held_by(store)
            assert len(await held_by(snapshot)) > before[0]


async def test_a_snapshot_replaces_nothing_but_a_snapshot(path: Path, target: Path, tmp_path: Path) -> None:
    """The store, its log, another store, any other file and a directory are refused and unchanged."""
    async with SessionStore(tmp_path / "other.duckdb"):
        pass
    (tmp_path / "text").write_text("mine")
    (tmp_path / "folder").mkdir()
    async with SessionStore(path) as store, SessionStore(tmp_path / "open.duckdb"):
        (tmp_path / "link").symlink_to(path)
        for name in (path.name, "link", f"{path.name}.wal", "other.duckdb", "open.duckdb", "text", "folder"):
            before = (tmp_path / name).read_bytes() if name in {"other.duckdb", "text"} else None
            for write in (store.check_snapshot, store.snapshot):
                with pytest.raises(StoreError, match=r"replace|not a snapshot"):
                    await write(tmp_path / name)
            assert before is None or (tmp_path / name).read_bytes() == before
        with pytest.raises(StoreError, match="no such directory"):
            await store.snapshot(tmp_path / "nowhere" / "x")
        with pytest.raises(StoreError, match="path is empty"):
            await store.snapshot("")
        await store.check_snapshot(target)
        assert not target.exists()
        await store.snapshot(target)
        before = target.read_bytes()
        await store.check_snapshot(target)
        assert target.read_bytes() == before
        await store.snapshot(target)


async def test_a_full_disk_keeps_the_snapshot_before(path: Path, target: Path) -> None:
    """If the disk is full, the older snapshot stays, no other file is left, and the store stays usable."""
    async with SessionStore(path) as store:
        await store.snapshot(target)
        before = target.read_bytes()
        assert isinstance(store.backend, DuckDBBackend)
        await store.backend.call(
            duckdb.DuckDBPyConnection.execute, "CREATE TABLE much AS SELECT uuid() AS a FROM range(200_000)"
        )
        with files_of_at_most(500_000), pytest.raises(StoreFullError, match=r"^the disk is full: "):
            await store.snapshot(target)
        assert target.read_bytes() == before
        assert await store.query("SELECT count(*) AS n FROM much") == [{"n": 200_000}]
    assert {file.name for file in path.parent.iterdir()} == {path.name, target.name}


async def test_a_cancelled_snapshot_keeps_the_one_before(path: Path, target: Path) -> None:
    """A cancellation ends the copy, and leaves the older snapshot and no other file."""
    async with SessionStore(path) as store:
        await store.snapshot(target)
        before = target.read_bytes()
        assert isinstance(store.backend, DuckDBBackend)
        await store.backend.call(
            duckdb.DuckDBPyConnection.execute, "CREATE TABLE much AS SELECT uuid() AS a FROM range(2_000_000)"
        )
        copying = asyncio.create_task(store.snapshot(target))
        while not any(path.parent.glob("*unfinished*")):
            assert not copying.done()
            await asyncio.sleep(0.001)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        assert target.read_bytes() == before
        assert not any(path.parent.glob("*unfinished*"))
        await store.snapshot(target)


async def test_a_store_in_memory_has_snapshots(target: Path) -> None:
    """A store in memory is copied to a file."""
    async with SessionStore(":memory:") as store:
        await store.snapshot(target)
    async with SessionStore(target, read_only=True) as snapshot:
        assert (await snapshot.status()).sessions == 0


@pytest.mark.slow
async def test_the_log_of_the_snapshot_before_is_not_replayed(
    sim: PoderoSimulator, client: PoderoClient, path: Path, target: Path, clock: Clock
) -> None:
    """If a reader that was killed has left a log beside a snapshot, the next snapshot shows the rows of the store."""
    log = target.with_name(f"{target.name}.wal")
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        await store.snapshot(target)
        before = target.read_bytes()
        with duckdb.connect(str(target)) as writer:
            writer.execute("UPDATE sessions SET energy_charged_kwh = -1")
            left = log.read_bytes()
        target.write_bytes(before)
        log.write_bytes(left)
        await store.snapshot(target)
        assert not log.exists()
        async with SessionStore(target, read_only=True) as snapshot:
            assert await held_by(snapshot) == await held_by(store)

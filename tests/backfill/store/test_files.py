"""The file of a store: its names, its format, other connections to it, and stores that are dropped or cancelled."""

from __future__ import annotations

import asyncio
import gc
import os
import struct
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import anyio
import duckdb
import pytest

from podero_async import PoderoClient
from podero_async.backfill import NotAStoreError, SessionStore, StoreError, StoreInUseError, backfill
from podero_async.backfill.store.duckdb.files import unfinished
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.commands import settings_of, whole_fleet
from tests._support.expected_rows import FIRST, LAST
from tests.backfill.conftest import Clock

_WITHOUT_TIME_ZONES = """
import asyncio, sys
sys.modules["pytz"] = sys.modules["tzdata"] = None
"""


def _storage_version(path: Path) -> int:
    with path.open("rb") as file:
        return int(struct.unpack_from("<Q", file.read(20), 12)[0])


def _run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
async def test_a_store_has_the_format_of_duckdb_1_0(client: PoderoClient, path: Path, clock: Clock) -> None:
    """A store and its snapshot have storage version 64, which DuckDB 1.0 reads, also after they were written again."""
    for _ in range(2):
        async with SessionStore(path) as store:
            await backfill(client, store, FIRST, LAST, now=clock)
            await store.snapshot(path.with_name("snapshot.duckdb"))
        clock.forward(days=1)
    assert _storage_version(path) == 64
    assert _storage_version(path.with_name("snapshot.duckdb")) == 64


@pytest.mark.parametrize(
    "name",
    [
        "fleet:2026.duckdb",
        "md:fleet",
        "s3:x",
        "x.csv",
        "x.parquet",
        "fleet?x=1",
        "temp.duckdb",
        "a'b\"c.db",
        "-",
        "sessions",
    ],
)
async def test_each_name_is_a_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A relative name that DuckDB would take for an extension, a URL or a table is the name of a file."""
    monkeypatch.chdir(tmp_path)
    async with SessionStore(name) as store:
        assert await store.query("SELECT sessions.id FROM sessions") == []
    async with SessionStore(name, read_only=True) as store:
        assert (await store.status()).path == name
        await store.snapshot("snapshot.duckdb")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([name, "snapshot.duckdb"])


async def test_a_link_to_a_store_that_does_not_exist_yet(tmp_path: Path) -> None:
    """The store is created where the link points to, and the link stays."""
    link = tmp_path / "link.duckdb"
    link.symlink_to("volume.duckdb")
    async with SessionStore(link):
        pass
    assert link.is_symlink()
    assert (tmp_path / "volume.duckdb").is_file()
    assert len(list(tmp_path.iterdir())) == 2


def test_unfinished_files_of_two_processes_have_different_names(tmp_path: Path) -> None:
    """Two processes with the same id, as in two containers, do not write to the same unfinished file."""
    with unfinished(tmp_path / "x") as one, unfinished(tmp_path / "x") as other:
        one.touch()
        other.touch()
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


async def test_a_store_beside_a_connection_of_ones_own(path: Path) -> None:
    """If the process has the file open with DuckDB itself, the store is refused, and the lock of that connection stays."""
    async with SessionStore(path):
        pass
    with duckdb.connect(str(path)) as mine:
        for read_only in (False, True):
            with pytest.raises(StoreInUseError, match=r"this process .* itself"):
                await SessionStore(path, read_only=read_only).__aenter__()
        other = await asyncio.to_thread(_run, "import duckdb, sys; duckdb.connect(sys.argv[1])", str(path))
        assert "Could not set lock" in other.stderr
        assert mine.execute("SELECT count(*) FROM sessions").fetchall() == [(0,)]


async def test_a_store_that_was_dropped_frees_its_path(path: Path) -> None:
    """A store that was dropped without being closed emits a warning, and its file can be opened again."""
    dropped = SessionStore(path)
    await dropped.__aenter__()
    await dropped.query("SELECT 1")

    with pytest.warns(ResourceWarning, match=r"not closed.*fleet\.duckdb") as warned:  # noqa: PT031
        del dropped  # and a collection may come at any time
        for _ in range(100):  # until the store's thread has let go of its last operation
            time.sleep(0.001)
            if warned:
                break
            gc.collect()
    async with SessionStore(path) as store:
        assert await store.query("SELECT 1 AS one") == [{"one": 1}]


@pytest.mark.parametrize("pages", [0, 1, 5, 10])
async def test_a_cancelled_scope_of_anyio_leaves_the_store_closed(path: Path, pages: int) -> None:
    """When a scope of anyio, which cancels every await again, has ended, the store can be opened at once."""
    async with PoderoSimulator(users=4, vehicles=12, sessions_per_vehicle=30) as sim, client_of(sim) as client:
        with anyio.CancelScope() as scope:
            sim.before_page = lambda _: scope.cancel() if len(sim.requests) > pages else None
            async with SessionStore(path) as store:
                await backfill(client, store, sim.first_day, sim.last_day)
        assert scope.cancelled_caught
        async with SessionStore(path) as store:
            assert (await store.status()).schema_version


async def test_a_cancelled_export_under_anyio_leaves_nothing(path: Path, tmp_path: Path) -> None:
    """A scope of anyio that is cancelled during an export ends the query, and no file is left."""
    slow = "CREATE TEMP VIEW sessions AS SELECT s.* FROM main.sessions s"
    async with SessionStore(path) as store:
        await store.query(f"{slow}; SELECT 1")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.export(tmp_path / "out.csv", "csv")
    async with SessionStore(path):
        assert not list(tmp_path.glob("out*"))


@pytest.mark.slow
async def test_no_time_zone_database_is_needed(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Without tzdata and pytz, as on Windows, the status, queries and all commands work, and times are UTC."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
    code = f"""{_WITHOUT_TIME_ZONES}
from podero_async.backfill import SessionStore
async def main():
    async with SessionStore(sys.argv[1]) as store:
        print((await store.status()).fetched_at.isoformat())
        (row,) = await store.query("SELECT t, [t] AS ts, {{'t': t}} AS s FROM (SELECT max(read_at) AS t FROM coverage)")
        print(row["t"].isoformat(), row["ts"][0].isoformat(), row["s"]["t"].isoformat())
asyncio.run(main())
"""
    done = await asyncio.to_thread(_run, code, str(path), PYTHONTZPATH="")
    assert done.stderr == ""
    moments = done.stdout.split()
    assert len(moments) == 4
    assert len(set(moments)) == 1
    assert moments[0].endswith("+00:00")
    code = f"{_WITHOUT_TIME_ZONES}\nfrom podero_async.cli import main\nsys.exit(main())"
    clock.at = datetime.now(UTC)  # of the commands
    settings = settings_of(sim)
    for argv in (
        [*whole_fleet(sim, path), "--settle-days=36500", "--fresh-for=0", f"--snapshot={path}.copy"],
        ["verify", f"--store={path}", "--all"],
        ["runs", f"--store={path}"],
        ["status", f"--store={path}", f"--from={FIRST}", f"--to={LAST}"],
        ["export", f"--store={path}", f"--output={path}.csv", "--format=csv"],
        ["forget", f"--store={path}", f"--user={sim.vehicles[0].user_id}"],
    ):
        done = await asyncio.to_thread(_run, code, *argv, PYTHONTZPATH="", **settings)
        assert (done.returncode, done.stderr) == (0, ""), argv


@pytest.mark.parametrize(
    "value",
    [
        "TIMESTAMPTZ '20000-01-01 00:00:00Z'",
        "TIMESTAMP_NS '2026-01-01 00:00:00.123456789'",
        "[TIMESTAMP_NS '2026-01-01 00:00:00.123456789']",
        "TIME_NS '01:02:03.123456789'",
    ],
)
async def test_a_value_that_python_does_not_have_is_a_store_error(path: Path, value: str) -> None:
    """If a value of a query cannot be converted, the store raises `StoreError`, and the next query works."""
    async with SessionStore(path) as store:
        with pytest.raises(StoreError, match="no counterpart in Python"):
            await store.query(f"SELECT {value} AS value")
        assert await store.query("SELECT 1 AS one") == [{"one": 1}]


async def test_a_device_or_pipe_is_not_a_store(tmp_path: Path) -> None:
    """A pipe is refused at once, although opening it would wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAStoreError, match="device or pipe"):
        await SessionStore(tmp_path / "pipe").__aenter__()


async def test_the_log_of_a_store_that_is_gone_is_not_replayed(new_path: Path) -> None:
    """If a store was removed and its log was not, no store is created, and the error names the log."""
    log = new_path.with_name(f"{new_path.name}.wal")
    log.write_bytes(b"rows")
    with pytest.raises(StoreError, match=r"log of a store that is gone.*wal"):
        await SessionStore(new_path).__aenter__()
    assert (log.read_bytes(), new_path.exists()) == (b"rows", False)


async def test_rows_that_a_killed_process_moved_to_the_disk_are_removed(path: Path) -> None:
    """DuckDB's temporary files of a killed process are removed when the store is opened for writing, and others stay."""
    folder = path.with_name(f"{path.name}.tmp")
    async with SessionStore(path):
        folder.mkdir()
        for name in ("duckdb_temp_1_0_storage_DEFAULT-0.tmp", "mine"):
            (folder / name).write_bytes(b"rows")
    async with SessionStore(path, read_only=True):
        assert len(list(folder.iterdir())) == 2
    async with SessionStore(path):
        assert [file.name for file in folder.iterdir()] == ["mine"]
    (folder / "mine").unlink()
    async with SessionStore(path):
        assert not folder.exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
async def test_files_that_are_replaced_keep_their_permissions(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A store, a snapshot and an export that only their owner may read stay so when they are written anew."""
    snapshot, table, months = (path.with_name(name) for name in ("snapshot.duckdb", "table.csv", "months"))
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        for mode in (None, 0o600):
            for file in (path, snapshot, table, months):
                if mode is not None:
                    file.chmod(mode | 0o100 * file.is_dir())
            await store.forget(sim.vehicles[0].user_id)
            await store.snapshot(snapshot)
            await store.export(table, "csv")
            await store.export(months, partition_by="month", overwrite=True)
    assert [file.stat().st_mode & 0o777 for file in (path, snapshot, table, months)] == [0o600, 0o600, 0o600, 0o700]

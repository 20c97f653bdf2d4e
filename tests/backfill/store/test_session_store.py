"""The file of a store: how it is opened in every state, and the errors that its callers get."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import duckdb
import pytest

from podero_async import ConfigurationError, PoderoClient
from podero_async._paging.window import Window
from podero_async.backfill import (
    ApiDownError,
    DayCounts,
    NotAStoreError,
    Progress,
    QueryError,
    SessionStore,
    StoreError,
    StoreFullError,
    StoreInUseError,
    backfill,
)
from podero_async.backfill._values import StoreOwner
from podero_async.backfill.store.duckdb.connection import translated
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS
from podero_async.models import ChargingSession
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of
from tests.backfill.conftest import Clock

OWNER = StoreOwner("org", "https://example.org")


def test_the_table_has_the_fields_of_a_session() -> None:
    """Each field of `ChargingSession` has a column, in the same order."""
    assert list(SESSION_COLUMNS) == [field.name for field in attrs.fields(ChargingSession)]


async def test_a_store_in_use_by_another_process_is_refused(path: Path) -> None:
    """If a process has the store open, another one gets `StoreInUseError` with its id, for reading and for writing."""
    code = f"import duckdb; con = duckdb.connect({str(path)!r}); print('open', flush=True); input()"
    async with SessionStore(path):
        pass
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        for read_only in (False, True):
            with pytest.raises(StoreInUseError) as refused:
                async with SessionStore(path, read_only=read_only):
                    pass
            assert str(refused.value) == f"another process (PID {other.pid}) has the store open: {path}"
        other.communicate(b"\n")
    async with SessionStore(path):
        pass


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('Could not set lock on file "/x": Conflicting lock is held in PID 17.', "another process (PID 17) has"),
        ('Could not set lock on file "/x": Conflicting lock is held in PID 0.', "another process has"),
        (
            "Cannot open file, it is being used by another process.\n\nFile is open in\na.exe (PID 17)",
            "another process (PID 17) has",
        ),
        ('Could not set lock on file "/PID1": Resource temporarily unavailable', "another process has"),
    ],
)
def test_an_error_names_the_process_that_has_the_store_open(message: str, reason: str) -> None:
    """The error names the process if DuckDB's message contains its id."""
    with pytest.raises(StoreInUseError, match=re.escape(f"{reason} the store open: /x")), translated("/x"):
        raise duckdb.IOException(message)


async def test_a_store_that_is_open_in_this_process_is_refused(path: Path) -> None:
    """A second `SessionStore` of the same file gets `StoreInUseError`, although DuckDB itself would open it."""
    async with SessionStore(path) as store:
        with pytest.raises(StoreInUseError, match="this process"):
            await SessionStore(path.parent / ".." / path.parent.name / path.name).__aenter__()
        with pytest.raises(RuntimeError, match="open already"):
            await store.__aenter__()
        assert (await store.status()).sessions == 0


async def test_a_store_can_be_opened_again_after_the_directory_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store with a relative path is released even if the process has changed its directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    async with SessionStore("fleet.duckdb"):
        monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    async with SessionStore("fleet.duckdb") as store:
        assert (await store.status()).sessions == 0


@pytest.mark.parametrize("name", ["fleet:2026.duckdb", "md:fleet", "s3:fleet.duckdb", "fleet*[1]?x=1.duckdb"])
async def test_a_relative_name_is_always_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A name that DuckDB would take for an extension, a service or a pattern is a file of the working directory."""
    monkeypatch.chdir(tmp_path)
    for read_only in (False, True):
        async with SessionStore(name, read_only=read_only) as store:
            assert await store.query("SELECT count(*) AS n FROM sessions") == [{"n": 0}]
    assert [path.name for path in tmp_path.iterdir()] == [name]


async def test_a_store_that_is_not_open_raises_an_error(path: Path) -> None:
    """If the store is not open, its operations raise `StoreError`."""
    store = SessionStore(path)
    with pytest.raises(StoreError, match="not open"):
        await store.status()
    async with store:
        await store.status()
    await store.aclose()
    with pytest.raises(StoreError, match="not open"):
        await store.query("SELECT 1")
    assert repr(store) == f"SessionStore({str(path)!r})"


def _empty(path: Path) -> None:
    path.touch()


def _text(path: Path) -> None:
    path.write_text("user_id,vehicle_id\n" * 500)


def _sqlite(path: Path) -> None:
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    con.close()


def _other_database(path: Path) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE mine AS SELECT 42 AS answer")


def _other_meta(path: Path) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE meta (a INTEGER, b INTEGER, c INTEGER)")
        con.execute("INSERT INTO meta VALUES (1, 2, 3)")


def _directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_empty, _text, _sqlite, _other_database, _other_meta, _directory])
async def test_a_file_that_is_not_a_store_is_refused_and_unchanged(new_path: Path, make: object) -> None:
    """If the file is not a store, opening raises `NotAStoreError` and leaves the file unchanged."""
    make(new_path)  # type: ignore[operator]
    before = new_path.read_bytes() if new_path.is_file() else b""
    with pytest.raises(NotAStoreError):
        await SessionStore(new_path).__aenter__()
    assert (new_path.read_bytes() if new_path.is_file() else b"") == before
    assert [entry.name for entry in new_path.parent.iterdir()] == [new_path.name]


async def test_a_store_that_cannot_be_created_or_found_is_an_error(new_path: Path) -> None:
    """Opening raises `StoreError` if the directory, or the store for reading, is missing, or if the path is invalid."""
    with pytest.raises(StoreError, match="no such directory"):
        await SessionStore(new_path / "deeper" / "fleet.duckdb").__aenter__()
    with pytest.raises(StoreError, match="no such store"):
        await SessionStore(new_path, read_only=True).__aenter__()
    for no_path in ("", "b\udcff.duckdb"):
        with pytest.raises(StoreError, match="path"):
            await SessionStore(no_path).__aenter__()
    assert not new_path.exists()


async def test_readers_share_a_store_and_cannot_write(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A store that is open for reading returns its rows and refuses a backfill."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
    async with SessionStore(path, read_only=True) as reader:
        assert await held_by(reader) == truth_of(sim, FIRST, LAST)
        with pytest.raises(StoreError, match="read-only"):
            await backfill(client, reader, FIRST, LAST, now=clock)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
async def test_a_full_disk_ends_the_run_and_keeps_the_store_consistent(path: Path, clock: Clock) -> None:
    """The store contains whole batches only, and when the disk has space, the same call completes it."""
    async with PoderoSimulator(users=10, vehicles=150, sessions_per_vehicle=150) as sim, client_of(sim) as client:
        first, last = sim.first_day, sim.last_day
        truth = truth_of(sim, first, last)
        async with SessionStore(path) as store:
            await backfill(client, store, first, last, vehicles=sim.vehicles[:20], now=clock)
            before = await held_by(store)
        with files_of_at_most(path.stat().st_size + 100_000), pytest.raises(StoreFullError):
            async with SessionStore(path) as store:
                await backfill(client, store, first, last, vehicles=sim.vehicles, now=clock)
        async with SessionStore(path) as store:
            done = {row["vehicle_id"] for row in await store.query("SELECT vehicle_id FROM receipts")}
            held = await held_by(store)
            assert held == {key: row for key, row in truth.items() if key[0] in done}, "whole batches, or none"
            assert before.keys() <= held.keys() < truth.keys()
            await backfill(client, store, first, last, vehicles=sim.vehicles, now=clock)
            assert await held_by(store) == truth


@pytest.mark.parametrize("most_bytes", [4096, 16_000, 64_000, 256_000])
async def test_a_disk_too_full_for_a_new_store_leaves_no_file(new_path: Path, most_bytes: int) -> None:
    """If the disk is full during the creation of a store, no file is left."""
    with files_of_at_most(most_bytes), pytest.raises(StoreFullError):
        await SessionStore(new_path).__aenter__()
    assert list(new_path.parent.iterdir()) == []


async def test_an_interrupted_creation_is_repeated(new_path: Path) -> None:
    """A file that a killed process left during the creation a day ago is removed."""
    left = new_path.with_name(f"{new_path.name}.podero_async-unfinished-left")
    left.write_bytes(b"half a header")
    os.utime(left, (0, 0))
    async with SessionStore(new_path) as store:
        assert (await store.status()).schema_version == 3
    assert [entry.name for entry in new_path.parent.iterdir()] == [new_path.name]


@pytest.mark.slow
async def test_a_store_is_readable_for_older_releases_of_duckdb(client: PoderoClient, path: Path, clock: Clock) -> None:
    """The storage version of a store is that of DuckDB 1.0, and stays so when it is written to."""
    for _ in range(2):
        async with SessionStore(path) as store:
            await backfill(client, store, FIRST, LAST, now=clock)
        assert int.from_bytes(path.read_bytes()[12:20], "little") == 64


async def test_two_processes_that_create_a_store_get_the_same_one(
    new_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another process creates the store first, its file is opened instead of replaced."""
    async with SessionStore(new_path) as store:
        await store.query(
            "INSERT INTO meta VALUES ('organization', ?), ('origin', ?) RETURNING key", attrs.astuple(OWNER)
        )
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: self != new_path and exists(self))  # not created yet at this time
    async with SessionStore(new_path) as store:
        assert await store.backend.owner() == OWNER


@pytest.mark.parametrize("missing", ["duckdb", "pyarrow"])
async def test_a_missing_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """If a package is missing, the error names it and the extra that installs it."""
    for name in [name for name in sys.modules if name.startswith("podero_async.backfill.store.duckdb")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=rf"{missing}.*podero_async\[backfill\]"):
        await SessionStore(path).__aenter__()


@pytest.mark.slow
def test_importing_the_package_does_not_need_the_extra() -> None:
    """Importing the package loads neither DuckDB nor Arrow."""
    code = "import sys, podero_async.backfill; print(sorted({'duckdb', 'pyarrow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


async def test_a_wrong_query_is_a_store_error(path: Path) -> None:
    """If a query is invalid or returns no rows, `StoreError` is raised."""
    async with SessionStore(path) as store:
        with pytest.raises(StoreError, match="nowhere"):
            await store.query("SELECT * FROM nowhere")
        for no_query in ("", "-- a remark"):
            with pytest.raises(StoreError, match="no query"):
                await store.query(no_query)
        assert await store.query("SELECT ? AS one", [1]) == [{"one": 1}]


@pytest.mark.parametrize("lost", ["SELECT 1 AS one", "DELETE FROM sessions", "FROM sessions"])
async def test_no_rows_of_a_query_are_dropped(path: Path, lost: str) -> None:
    """If a statement before the last one returns or changes rows, none is run; a setting may come first."""
    async with SessionStore(path) as store:
        for both in (f"{lost}; SELECT 2 AS two", f"SET TimeZone = 'Asia/Tokyo'; {lost}; SELECT 2 AS two"):
            with pytest.raises(QueryError, match=f"only the last statement .*: {re.escape(lost)};"):
                await store.query(both)
        assert await store.query("SELECT current_setting('TimeZone') AS zone") == [{"zone": "UTC"}]
        found = await store.query("SET TimeZone = 'Asia/Tokyo'; SELECT hour(TIMESTAMPTZ '2026-01-01 00:00Z') AS hour;")
        assert found == [{"hour": 9}]


async def test_a_backend_need_not_support_queries_and_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the backend of a store has no SQL or no export, the store raises `StoreError` for them."""
    monkeypatch.setattr(SessionStore, "backend", object())
    store = SessionStore("x")
    with pytest.raises(StoreError, match="no SQL queries"):
        await store.query("SELECT 1")
    with pytest.raises(StoreError, match="no export"):
        await store.export("y")


async def test_a_store_closes_after_a_cancelled_query(path: Path) -> None:
    """After the caller of a query was cancelled, the store is usable, and can be closed and opened again."""
    async with SessionStore(path) as store:
        slow = asyncio.create_task(store.query("SELECT count(*) FROM range(3000000) t(a) WHERE hash(a) % 7 = 3"))
        await asyncio.sleep(0)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await store.query("SELECT 1 AS one") == [{"one": 1}]
    async with SessionStore(path):
        pass


def test_errors_pickle() -> None:
    """Errors keep their arguments when they are pickled."""
    report = Progress().report(Window(FIRST, LAST), None, DayCounts(), finished=False, seconds=0.0)
    for error in (StoreFullError("disk full", "/x"), ApiDownError("down", report)):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.args) == (type(error), str(error), error.args)

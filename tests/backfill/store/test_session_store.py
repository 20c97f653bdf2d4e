"""The store's file: every state it can be found in, and what a caller is told."""

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
from podero_async.backfill import (
    ApiDownError,
    NotAStoreError,
    Progress,
    SessionStore,
    StoreError,
    StoreFullError,
    StoreInUseError,
    StoreTooNewError,
    backfill,
)
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS
from podero_async.models import ChargingSession
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of
from tests.backfill.conftest import Clock


def test_the_table_has_the_fields_of_a_session() -> None:
    """A field that the model gains must not be lost on its way into the store."""
    assert list(SESSION_COLUMNS) == [field.name for field in attrs.fields(ChargingSession)]


async def test_a_store_in_use_by_another_process_is_refused(path: Path) -> None:
    """Two jobs that overlap must not spoil each other's work; and who is in the way must be told in plain words."""
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
    ("words", "said"),
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
def test_whoever_has_the_store_open_is_named_where_that_is_known(words: str, said: str) -> None:
    """An operator would hunt for a process that is not there, or learn of none."""
    from podero_async.backfill.store.duckdb.connection import translated  # noqa: PLC0415

    with pytest.raises(StoreInUseError, match=re.escape(f"{said} the store open: /x")), translated("/x"):
        raise duckdb.IOException(words)


async def test_a_store_that_is_open_in_this_process_is_refused(path: Path) -> None:
    """The database itself would let both in."""
    async with SessionStore(path) as store:
        with pytest.raises(StoreInUseError, match="this process"):
            await SessionStore(path.parent / ".." / path.parent.name / path.name).__aenter__()
        with pytest.raises(RuntimeError, match="open already"):
            await store.__aenter__()
        assert (await store.status()).sessions == 0


async def test_a_process_that_goes_elsewhere_can_open_its_store_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that changes its directory would be told until its end that it has the store open."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    async with SessionStore("fleet.duckdb"):
        monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    async with SessionStore("fleet.duckdb") as store:
        assert (await store.status()).sessions == 0


async def test_a_store_is_not_used_before_or_after_it_is_open(path: Path) -> None:
    """A forgotten `async with` should say so."""
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
async def test_a_file_that_is_no_store_is_refused_and_not_touched(path: Path, make: object) -> None:
    """A mistyped path must not cost anybody a file."""
    make(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(NotAStoreError):
        await SessionStore(path).__aenter__()
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_a_store_that_cannot_be_made_or_found_is_an_error(path: Path) -> None:
    """A missing mount must not become a store somewhere else, nor a status of nothing."""
    with pytest.raises(StoreError, match="no such directory"):
        await SessionStore(path / "deeper" / "fleet.duckdb").__aenter__()
    with pytest.raises(StoreError, match="no such store"):
        await SessionStore(path, read_only=True).__aenter__()
    for no_path in ("", "b\udcff.duckdb"):
        with pytest.raises(StoreError, match="path"):
            await SessionStore(no_path).__aenter__()
    assert not path.exists()


async def test_readers_share_a_store_and_cannot_write(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """A status or an export must not change the store."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
    async with SessionStore(path, read_only=True) as reader:
        assert await held_by(reader) == truth_of(sim, FIRST, LAST)
        with pytest.raises(StoreError, match="read-only"):
            await backfill(client, reader, FIRST, LAST, now=clock)


def _set_version(path: Path, version: str, *statements: str) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [version])
        for statement in statements:
            con.execute(statement)


async def test_an_older_store_is_migrated(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> None:
    """An upgrade of the library must not cost a fleet's history."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
    _set_version(path, "0", "ALTER TABLE sessions DROP COLUMN withdrawn_at")
    with pytest.raises(StoreError, match="version 0: open it once for writing"):
        await SessionStore(path, read_only=True).__aenter__()
    async with SessionStore(path) as store:
        assert await held_by(store) == truth_of(sim, FIRST, LAST)
        assert (await backfill(client, store, FIRST, LAST, now=clock)).is_clean
        assert (await store.query("SELECT value FROM meta WHERE key = 'schema_version'")) == [{"value": "1"}]


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    """Half a migration would be a store that no release can read."""
    async with SessionStore(path):
        pass
    _set_version(path, "0")  # its table has the column that the migration adds
    with pytest.raises(StoreError, match="withdrawn_at"):
        await SessionStore(path).__aenter__()
    with duckdb.connect(str(path)) as con:
        assert con.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall() == [("0",)]


@pytest.mark.parametrize(("version", "error"), [("2", StoreTooNewError), ("x", NotAStoreError)])
async def test_a_newer_store_is_refused(path: Path, version: str, error: type[StoreError]) -> None:
    """An old release must not write into what it does not understand."""
    async with SessionStore(path):
        pass
    _set_version(path, version)
    with pytest.raises(error):
        await SessionStore(path).__aenter__()


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_ends_the_run_and_spoils_nothing(path: Path, clock: Clock) -> None:
    """A disk that fills up at night must leave the store as the last batch left it, and go on once there is room."""
    async with PoderoSimulator(users=10, vehicles=200, sessions_per_vehicle=60) as sim, client_of(sim) as client:
        first, last = sim.first_day, sim.last_day
        truth = truth_of(sim, first, last)
        async with SessionStore(path) as store:
            await backfill(client, store, first, last, vehicles=sim.vehicles[:20], now=clock)
            before = await held_by(store)
        with _files_of_at_most(path.stat().st_size + 100_000), pytest.raises(StoreFullError):
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
async def test_a_disk_too_full_for_a_new_store_leaves_none(path: Path, most_bytes: int) -> None:
    """A store of half a header would be refused ever after, and called something else."""
    with _files_of_at_most(most_bytes), pytest.raises(StoreFullError):
        await SessionStore(path).__aenter__()
    assert list(path.parent.iterdir()) == []


async def test_what_an_interrupted_creation_left_is_no_store(path: Path) -> None:
    """A process that is killed while it makes the file must not leave one that cannot be opened."""
    path.with_name(f"{path.name}.{os.getpid()}.new").write_bytes(b"half a header")
    async with SessionStore(path) as store:
        assert (await store.status()).schema_version == 1
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_two_that_make_a_store_at_once_get_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower of two tasks must not replace the store that the other writes to."""
    async with SessionStore(path) as store:
        await store.query("SELECT 1")
    content = path.read_bytes()
    from podero_async.backfill.store.duckdb import connection as _store_file  # noqa: PLC0415

    _store_file._create(str(path), _store_file._OPTIONS)
    assert path.read_bytes() == content


@pytest.mark.parametrize("missing", ["duckdb", "pyarrow"])
async def test_a_missing_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Who installed only the core must be told what to install."""
    for name in [name for name in sys.modules if name.startswith("podero_async.backfill.store.duckdb.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=rf"{missing}.*podero_async\[backfill\]"):
        await SessionStore(path).__aenter__()


def test_importing_the_package_does_not_need_the_extra() -> None:
    """A bot that only reads must not load a database."""
    code = "import sys, podero_async.backfill; print(sorted({'duckdb', 'pyarrow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


async def test_a_wrong_query_is_a_store_error(path: Path) -> None:
    """Callers map one tree of errors."""
    async with SessionStore(path) as store:
        with pytest.raises(StoreError, match="nowhere"):
            await store.query("SELECT * FROM nowhere")
        for no_query in ("", "-- a remark"):
            with pytest.raises(StoreError, match="no query"):
                await store.query(no_query)
        assert await store.query("SELECT ? AS one", [1]) == [{"one": 1}]


async def test_a_cancelled_caller_leaves_a_store_that_closes(path: Path) -> None:
    """Whoever gives up waiting must not leave the file locked."""
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
    """Schedulers carry them between processes."""
    report = Progress().report(
        from_date=FIRST, to_date=LAST, include_hidden=False, run_id=1, resumed=False, finished=False, seconds=0.0
    )
    for error in (StoreFullError("no room", "/x"), ApiDownError("down", report)):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.args) == (type(error), str(error), error.args)

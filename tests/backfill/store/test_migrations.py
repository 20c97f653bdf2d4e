"""The migrations of a store: an older store keeps its rows, and an interrupted run of its release is resumed."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import duckdb
import pytest

from podero_async import PoderoClient, ThrottlePolicy
from podero_async.backfill import NotAStoreError, SessionStore, Shard, StoreError, StoreTooNewError, backfill
from podero_async.backfill._values import Limits
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of
from tests.backfill.conftest import Clock


def _set_version(path: Path, version: str, *statements: str) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [version])
        for statement in statements:
            con.execute(statement)


async def test_an_older_store_is_migrated(sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock) -> None:
    """A store of version 0 keeps its rows, and is migrated when it is opened for writing."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
    _set_version(path, "0", "ALTER TABLE sessions DROP COLUMN withdrawn_at")
    with pytest.raises(StoreError, match=r"version 0 .*once for writing"):
        await SessionStore(path, read_only=True).__aenter__()
    async with SessionStore(path) as store:
        assert await held_by(store) == truth_of(sim, FIRST, LAST)
        assert (await backfill(client, store, FIRST, LAST, now=clock)).is_clean
        assert (await store.query("SELECT value FROM meta WHERE key = 'schema_version'")) == [{"value": "2"}]


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    """If a statement of a migration fails, the store keeps its version."""
    async with SessionStore(path):
        pass
    _set_version(path, "0")  # the migration would add a column that exists
    with pytest.raises(StoreError, match="withdrawn_at"):
        await SessionStore(path).__aenter__()
    with duckdb.connect(str(path)) as con:
        assert con.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall() == [("0",)]


def _as_version_1(path: Path) -> None:
    """Turn a store into one of version 1, in which DuckDB's `hash` identified a list of vehicles."""
    with duckdb.connect(str(path)) as con:
        ((run_id, scope),) = con.execute("SELECT run_id, scope FROM runs WHERE finished_at IS NULL").fetchall()
        if not scope.startswith("the fleet"):
            count, mixed = con.execute(
                "SELECT count(*), bit_xor(hash(user_id, vehicle_id))"
                " FROM (SELECT DISTINCT user_id, vehicle_id FROM tasks WHERE run_id = ?)",
                [run_id],
            ).fetchall()[0]
            _, separator, shard = scope.partition(", share ")
            scope = f"{count} vehicles, {mixed:016x}{separator}{shard}"
            con.execute("UPDATE runs SET scope = ? WHERE run_id = ?", [scope, run_id])
    _set_version(path, "1")


async def test_a_store_of_version_1_can_be_read_without_a_migration(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Status, queries and exports work with an older store that is open for reading only, and leave it as it is."""
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
    _set_version(path, "1")
    content = path.read_bytes()
    async with SessionStore(path, read_only=True) as store:
        status = await store.status()
        assert (status.schema_version, status.vehicles) == (1, len(sim.vehicles))
        assert await held_by(store) == truth_of(sim, FIRST, LAST)
    assert path.read_bytes() == content


@pytest.mark.parametrize("shard", [None, Shard(1, 2)])
@pytest.mark.parametrize("is_listed", [True, False])
async def test_an_unfinished_run_of_version_1_is_resumed(
    sim: PoderoSimulator, path: Path, clock: Clock, is_listed: bool, shard: Shard | None
) -> None:
    """After the migration, the same call resumes its run over the fleet or a list, with or without a shard."""
    vehicles, stop = sim.vehicles if is_listed else None, asyncio.Event()
    one_batch_each = Limits(max_batch_outcomes=1)
    sim.before_page = lambda page: stop.set() if page.number == 4 else None
    async with client_of(sim, throttle=ThrottlePolicy(max_concurrency=1)) as client:
        call = partial(backfill, client, from_date=FIRST, to_date=LAST, vehicles=vehicles, shard=shard, now=clock)
        async with SessionStore(path) as store:
            first = await call(store, stop=stop, limits=one_batch_each)
        _as_version_1(path)
        async with SessionStore(path) as store:
            requests = sim.counts.requests["sessions"]
            second = await call(store)
    assert (first.finished, second.finished, second.resumed) == (False, True, True)
    assert (second.run_id, second.skipped) == (first.run_id, first.done)
    assert sim.counts.requests["sessions"] - requests == second.vehicles - first.done > 0


async def test_a_run_of_version_1_without_work_for_all_its_vehicles_is_planned_again(
    sim: PoderoSimulator, path: Path, clock: Clock
) -> None:
    """If a list cannot be identified by the work items, its run is discarded; the next call reads the missing days."""
    stop = asyncio.Event()
    sim.before_page = lambda page: stop.set() if page.number == 7 else None
    async with client_of(sim, throttle=ThrottlePolicy(max_concurrency=1)) as client:
        call = partial(backfill, client, from_date=FIRST, to_date=LAST, refresh_days=0, now=clock)
        async with SessionStore(path) as store:
            await call(store, vehicles=sim.vehicles[:4])
            first = await call(store, vehicles=sim.vehicles, stop=stop, limits=Limits(max_batch_outcomes=1))
        _as_version_1(path)
        async with SessionStore(path) as store:
            second = await call(store, vehicles=sim.vehicles)
            assert await held_by(store) == truth_of(sim, FIRST, LAST)
    assert (first.finished, second.finished, second.resumed) == (False, True, False)
    assert (second.done, second.skipped) == (8 - first.done, 4 + first.done)


@pytest.mark.parametrize(("version", "error"), [("3", StoreTooNewError), ("x", NotAStoreError)])
async def test_a_newer_store_is_refused(path: Path, version: str, error: type[StoreError]) -> None:
    """If the schema version is newer or unknown, the store is not opened."""
    async with SessionStore(path):
        pass
    _set_version(path, version)
    with pytest.raises(error):
        await SessionStore(path).__aenter__()

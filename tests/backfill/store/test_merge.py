"""The merge of the stores of shards: one store with all sessions, coverage and history, as one backfill would fill it."""

from __future__ import annotations

import asyncio
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from podero_async import PoderoClient
from podero_async.backfill import (
    Bounds,
    ForeignStoreError,
    NotAStoreError,
    SessionStore,
    Shard,
    StoreError,
    StoreInUseError,
    backfill,
    merge_stores,
)
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of
from tests._support.expected_rows import FIRST, LAST, assert_equal, held_by, truth_of
from tests._support.old_store import create_old_store
from tests.backfill.conftest import AGAIN, Clock

SHARDS = 3
OVERLAPS = """
SELECT count(*) AS n FROM coverage a JOIN coverage b ON a.user_id = b.user_id AND a.vehicle_id = b.vehicle_id
AND a.include_hidden = b.include_hidden AND a.from_date < b.from_date AND b.from_date <= a.to_date
"""
ALL = Bounds(max_vanished=1, max_withdrawn=1)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"{number}.duckdb" for number in range(1, SHARDS + 1)]


async def fill(client: PoderoClient, paths: list[Path], clock: Clock, **options: Any) -> None:
    """Run a backfill of each shard."""
    for number, path in enumerate(paths, 1):
        async with SessionStore(path) as store:
            await backfill(client, store, FIRST, LAST, shard=Shard(number, SHARDS), now=clock, **options)


async def rows_of(path: Path, query: str) -> list[dict[str, Any]]:
    async with SessionStore(path, read_only=True) as store:
        return await store.query(query)


@pytest.mark.slow
async def test_a_merged_store_goes_on_as_one(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """The merge equals the store of one backfill, so the next backfill of the fleet reads nothing and changes nothing."""
    await fill(client, paths, clock)
    merged = await merge_stores(new_path, paths)
    assert (merged.stores, merged.vehicles, merged.doubled) == (SHARDS, 12, 0)
    await assert_equal(new_path, truth_of(sim, FIRST, LAST))
    whole = new_path.with_name("whole.duckdb")
    async with SessionStore(whole) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
    for table in (
        "SELECT * EXCLUDE (read_at) FROM coverage",
        "SELECT * EXCLUDE (first_seen_at, last_seen_at) FROM users",
        "SELECT * EXCLUDE (first_seen_at, last_seen_at) FROM vehicles",
        "SELECT * EXCLUDE (since) FROM ownership",
        "SELECT * EXCLUDE (run_id, fetched_at, digest) FROM receipts",
        "SELECT * EXCLUDE (fetched_at, first_seen_at, changed_at) FROM live_sessions",
        "SELECT key, value FROM meta WHERE key IN ('organization', 'origin', 'schema_version', 'format')",
    ):
        assert await rows_of(new_path, f"FROM ({table}) ORDER BY ALL") == await rows_of(
            whole, f"FROM ({table}) ORDER BY ALL"
        )
    served = sim.counts.requests["sessions"]
    async with SessionStore(new_path) as store:
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.is_clean, report.skipped, report.vanished) == (True, 12, 0)
        assert sim.counts.requests["sessions"] == served
        clock.forward(days=1)
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.is_clean, report.new, report.changed, report.withdrawn) == (True, 0, 0, 0)


@pytest.mark.slow
async def test_the_history_is_kept_in_the_order_of_time(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """Runs are numbered by their start; receipts, failures and rejected rows keep their run."""
    sim.add_fault(Fault(kind="status", status=404, nth=2, endpoint="sessions"))
    sim.add_fault(Fault(kind="malformed_row", field="energy_charged_kwh", nth=4, endpoint="sessions"))
    for _ in range(2):
        await fill(client, paths, clock, fresh_for=AGAIN)
        clock.forward(days=1)
    await merge_stores(new_path, paths)
    runs = await rows_of(new_path, "SELECT run_id, scope, started_at, failed FROM runs ORDER BY run_id")
    assert [row["run_id"] for row in runs] == list(range(1, 2 * SHARDS + 1))
    assert [row["scope"] for row in runs] == [f"the fleet, shard {number}/{SHARDS}" for number in (1, 2, 3)] * 2
    assert [row["started_at"] for row in runs] == sorted(row["started_at"] for row in runs)
    reads = "SELECT scope, vehicle_id FROM receipts JOIN runs USING (run_id) ORDER BY ALL"
    parts = [row for each in paths for row in await rows_of(each, reads)]
    assert await rows_of(new_path, reads) == sorted(parts, key=lambda row: (row["scope"], row["vehicle_id"]))
    for table in ("failures", "rejected_items"):
        count = f"SELECT count(*) AS n FROM {table}"
        assert (await rows_of(new_path, count))[0]["n"] == sum([(await rows_of(each, count))[0]["n"] for each in paths])
    (newest,) = await rows_of(new_path, "SELECT value::BIGINT AS at FROM meta WHERE key = 'newest_change'")
    assert newest["at"] == max(
        (await rows_of(new_path, "SELECT epoch_us(max(changed_at)) AS at FROM sessions"))[0].values()
    )


@pytest.mark.slow
async def test_a_vehicle_that_changed_its_shard_is_there_once(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """If a vehicle moves to another shard, its sessions are its new user's in any order of the stores; both users stay."""
    await fill(client, paths, clock)
    vehicle = sim.vehicles[0]
    shard_of = {
        user: next(n for n in range(1, 4) if Shard(n, SHARDS).holds(user)) for user in {v.user_id for v in sim.vehicles}
    }
    other = next(user for user, shard in shard_of.items() if shard != shard_of[vehicle.user_id])
    clock.forward(days=1)
    moved = sim.move_vehicle(vehicle, other)
    removed = sim.truth(moved, FIRST, LAST)[0]["id"]
    sim.remove(moved, removed)
    for _ in range(2):
        await fill(client, paths, clock, bounds=ALL)
        clock.forward(days=1)
    for store in (paths, paths[::-1]):
        merged = await merge_stores(new_path, store, overwrite=True)
        assert merged.doubled > 20
        async with SessionStore(new_path) as opened:
            held = await held_by(opened)
            users = await opened.query(
                "SELECT DISTINCT user_id FROM live_sessions WHERE vehicle_id = ? AND id <> ?",
                [vehicle.vehicle_id, removed],
            )
            assert users == [{"user_id": str(other)}]
            owners = await opened.query(
                "SELECT user_id FROM ownership WHERE vehicle_id = ? ORDER BY since", [vehicle.vehicle_id]
            )
            assert [row["user_id"] for row in owners] == [str(vehicle.user_id), str(other)]
        assert held.keys() - {(str(vehicle.vehicle_id), removed)} == truth_of(sim, FIRST, LAST).keys()
    async with SessionStore(new_path) as opened:
        await backfill(client, opened, FIRST, LAST, bounds=ALL, now=clock)
        held = await held_by(opened)
    assert held.keys() - {(str(vehicle.vehicle_id), removed)} == truth_of(sim, FIRST, LAST).keys()


@pytest.mark.slow
async def test_an_older_copy_reopens_no_ownership(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """A store merged with an older copy of itself has the owners of each vehicle, and their times, that it had alone."""
    owners = "SELECT user_id, since, until FROM ownership ORDER BY vehicle_id, since"
    newer, older, *_ = paths
    for moves in (False, True):
        if moves:
            shutil.copy(newer, older)
            clock.forward(days=1)
            vehicle = sim.vehicles[0]
            sim.move_vehicle(vehicle, next(user for user in sim.external_ids if user != vehicle.user_id))
        async with SessionStore(newer) as store:
            await backfill(client, store, FIRST, LAST, now=clock)
    for stores in ([newer, older], [older, newer]):
        await merge_stores(new_path, stores, overwrite=True)
        assert await rows_of(new_path, owners) == await rows_of(newer, owners)


@pytest.mark.slow
async def test_overlapping_stores_are_read_again_where_they_differ(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """A day that two stores have read is settled only if it is so in both, and spans stay disjoint."""
    middle = date(2026, 6, 20)
    for each, settle_days, last in zip(paths[:2], (5, 20), (middle, LAST), strict=True):
        async with SessionStore(each) as store:
            await backfill(client, store, FIRST, last, settle_days=settle_days, now=clock)
        clock.forward(hours=1)
    merged = await merge_stores(new_path, paths[:2])
    assert merged.doubled == len(truth_of(sim, FIRST, middle))
    spans = "SELECT * EXCLUDE (read_at) FROM coverage ORDER BY ALL"
    assert await rows_of(new_path, spans) == await rows_of(paths[1], spans)
    (overlaps,) = await rows_of(new_path, OVERLAPS)
    assert overlaps["n"] == 0
    states = "SELECT bool_or(is_settled) AS one, bool_and(is_settled) AS every FROM coverage"
    assert await rows_of(new_path, states) == [{"one": True, "every": False}]
    await assert_equal(new_path, truth_of(sim, FIRST, LAST))


@pytest.mark.slow
async def test_forgotten_users_stay_forgotten(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """A user that one store has forgotten is not in the merged one, even if another store has it, and not fetched again."""
    await fill(client, paths, clock)
    whole = new_path.with_name("whole.duckdb")
    async with SessionStore(whole) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
    user = sim.vehicles[0].user_id
    shard = next(number for number in range(SHARDS) if Shard(number + 1, SHARDS).holds(user))
    async with SessionStore(paths[shard]) as store:
        assert await store.forget(user)
    await merge_stores(new_path, [whole, *paths])
    async with SessionStore(new_path) as store:
        for _ in range(2):
            for table in ("sessions", "coverage", "users", "vehicles", "ownership", "receipts"):
                assert await store.query(f"SELECT 1 FROM {table} WHERE user_id = ?", [user]) == []
            await backfill(client, store, FIRST, LAST, fresh_for=timedelta(), now=clock)
        assert {UUID(row["user_id"]) for row in await store.query("FROM users")} == {
            v.user_id for v in sim.vehicles
        } - {user}
        await store.forget(sim.vehicles[1].user_id)
        assert len(await store.query("FROM forgotten")) == 2


@pytest.mark.slow
async def test_erased_days_stay_erased(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """The latest day before which one of the stores has erased days holds for the merged store, and for its next run."""
    await fill(client, paths, clock)
    day = date(2026, 6, 15)
    for path, before in zip(paths, (day - timedelta(days=3), day), strict=False):
        async with SessionStore(path) as store:
            assert await store.forget_before(before) > 0
    merged = await merge_stores(new_path, paths)
    kept = truth_of(sim, day, LAST)
    assert merged.sessions == len(kept)
    await assert_equal(new_path, kept)
    async with SessionStore(new_path) as store:
        assert (await store.status(clock)).kept_from == day
        assert (await store.query("SELECT min(from_date) AS first FROM coverage")) == [{"first": day}]
        assert (await backfill(client, store, FIRST, LAST, now=clock)).requests == 1 + 6, "the users and their vehicles"
        assert await held_by(store) == kept


@pytest.mark.slow
async def test_nothing_but_an_untouched_merge_is_replaced(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """An existing file is replaced only on request, and only if it is a merge that no backfill or `forget` has changed."""
    await fill(client, paths, clock)
    await merge_stores(new_path, paths)
    with pytest.raises(StoreError, match="in the way"):
        await merge_stores(new_path, paths)
    await merge_stores(new_path, paths, overwrite=True)
    for change in ("backfill", "forget"):
        async with SessionStore(new_path) as store:
            if change == "backfill":
                await backfill(client, store, FIRST, LAST, now=clock)
            else:
                await store.forget(UUID(int=1))
        before = new_path.read_bytes()
        with pytest.raises(StoreError, match="changed since"):
            await merge_stores(new_path, paths, overwrite=True)
        assert new_path.read_bytes() == before
        new_path.unlink()
        await merge_stores(new_path, paths)
    for target in (*paths, new_path.with_suffix(".txt")):
        target.touch()
        with pytest.raises(StoreError):
            await merge_stores(target, paths, overwrite=True)
    assert {file.name for file in new_path.parent.iterdir()} == {
        new_path.name,
        "fleet.txt",
        *(each.name for each in paths),
    }


@pytest.mark.slow
async def test_stores_that_do_not_fit_are_refused(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """A missing, old, foreign, repeated or open store, or another file, is named in the error, and nothing is written."""
    await fill(client, paths[:2], clock)
    old, foreign, other = (new_path.with_name(f"{name}.duckdb") for name in ("old", "foreign", "other"))
    create_old_store(old, 2, {})
    other.write_text("no database")
    async with PoderoSimulator(users=1, vehicles=1) as elsewhere, client_of(elsewhere) as another:
        async with SessionStore(foreign) as store:
            await backfill(another, store, FIRST, LAST)
    for more, kind, said in (
        (new_path.with_name("nowhere"), StoreError, "no such store"),
        (old, StoreError, "open it once for writing"),
        (foreign, ForeignStoreError, str(elsewhere.org_id)),
        (other, NotAStoreError, "not a store"),
        (paths[0], StoreError, "given twice"),
    ):
        with pytest.raises(kind, match=said):
            await merge_stores(new_path, [*paths[:2], more])
    async with SessionStore(paths[1]):
        with pytest.raises(StoreInUseError):
            await merge_stores(new_path, paths[:2])
    with pytest.raises(ValueError, match="no store"):
        await merge_stores(new_path, [])
    assert not new_path.exists()
    assert not [file for file in new_path.parent.iterdir() if "unfinished" in file.name]


@pytest.mark.slow
async def test_a_cancelled_merge_leaves_nothing(
    sim: PoderoSimulator, client: PoderoClient, paths: list[Path], new_path: Path, clock: Clock
) -> None:
    """A merge that is cancelled at any time leaves no incomplete file and no open store."""
    await fill(client, paths[:2], clock)
    for ms in (0, 1, 5, 20, 40):
        merging = asyncio.create_task(merge_stores(new_path, paths[:2]))
        await asyncio.sleep(ms / 1000)
        merging.cancel()
        await asyncio.wait([merging])
        if new_path.exists():  # it was complete before it was cancelled
            new_path.unlink()
        assert {file.name for file in new_path.parent.iterdir()} == {each.name for each in paths[:2]}
    assert (await merge_stores(new_path, paths[:2])).sessions > 0

"""A forgotten user leaves no byte in the file of a store, and is not fetched again."""

from __future__ import annotations

import asyncio
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import duckdb
import pytest

from podero_async import PoderoClient
from podero_async.backfill import SessionStore, StoreError, StoreFullError, backfill, verify
from podero_async.backfill.store.duckdb import DuckDBBackend
from podero_async.backfill.store.duckdb.files import replace
from podero_async.testing import Fault, PoderoSimulator
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of
from tests._support.store_bytes import count_found
from tests.backfill.conftest import Clock
from tests.backfill.store.test_session_store import files_of_at_most


def _ids_of(sim: PoderoSimulator, user: UUID) -> set[UUID]:
    vehicles = [vehicle for vehicle in sim.vehicles if vehicle.user_id == user]
    rows = [row for vehicle in vehicles for row in sim.truth(vehicle, include_hidden=True)]
    return {user, *(vehicle.vehicle_id for vehicle in vehicles), *(UUID(row["id"]) for row in rows)}


@pytest.mark.slow
async def test_no_byte_of_a_forgotten_user_remains(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """After `forget`, no file has an id of the user or of the user's vehicles and sessions; all other rows stay."""
    user = sim.vehicles[0].user_id
    mine, others = _ids_of(sim, user), _ids_of(sim, sim.vehicles[-1].user_id)
    sim.add_fault(Fault(kind="malformed_row", field="energy_charged_kwh", nth=1, endpoint="sessions"))
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, include_hidden=True, now=clock)
        sim.add_fault(Fault(kind="status", status=404, rate=1.0, endpoint="sessions"))
        clock.forward(days=1)
        await backfill(client, store, FIRST, LAST, vehicles=sim.vehicles[:1], include_hidden=True, now=clock)
        sim.clear_faults()
        before = await held_by(store)
    assert count_found(path, mine) == len(mine)
    assert b"customer_1" in path.read_bytes()
    async with SessionStore(path) as store:
        erased = await store.forget(str(user))
        after = await held_by(store)
        assert erased == len(before) - len(after) > 0
        assert {key: row for key, row in before.items() if UUID(key[0]) not in mine} == after
        for table in (
            "sessions",
            "coverage",
            "users",
            "vehicles",
            "ownership",
            "receipts",
            "failures",
            "rejected_items",
            "live_sessions",
        ):
            assert await store.query(f"SELECT 1 FROM {table} WHERE user_id = ?", [user]) == []
        assert count_found(path, mine) == 0
    assert count_found(path, mine) == 0
    assert b"customer_1" not in path.read_bytes()
    assert count_found(path, others) == len(others)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
async def test_a_forgotten_user_is_not_fetched_again(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Later runs leave the user out, whether discovered, listed or failed; the store, its lock and later runs work."""
    user = sim.vehicles[0].user_id
    mine = _ids_of(sim, user)
    others = [vehicle for vehicle in sim.vehicles if vehicle.user_id != user]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        await store.forget(user)
        await store.forget(user)
        other = "import duckdb, sys; duckdb.connect(sys.argv[1])"
        assert "Could not set lock" in (await _python(other, str(path)))
        for vehicles in (None, sim.vehicles, sim.vehicles[:1]):
            clock.forward(days=1)
            report = await backfill(client, store, FIRST, LAST, vehicles=vehicles, now=clock)
            assert report.is_clean, report.alarms
            assert report.vehicles == len([each for each in vehicles or sim.vehicles if each.user_id != user])
        sim.add_fault(Fault(kind="status", status=404, rate=1.0, endpoint="vehicles"))
        clock.forward(days=1)
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.clear_faults()
        assert (await store.query("SELECT count(*) AS n FROM forgotten")) == [{"n": 1}]
        assert (await verify(client, store)).is_clean
    async with SessionStore(path) as store:
        truth = truth_of(sim, FIRST, LAST)
        assert await held_by(store) == {key: row for key, row in truth.items() if UUID(key[0]) not in mine}
        assert {UUID(key[0]) for key in await held_by(store)} == {vehicle.vehicle_id for vehicle in others}
    assert count_found(path, mine) == 0


@pytest.mark.slow
async def test_the_log_of_a_killed_run_is_erased_too(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """Rows that are in the log beside the store, since its last writer was killed, are erased with the others."""
    mine = _ids_of(sim, sim.vehicles[0].user_id)
    copy = path.parent / "copy" / path.name
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        copy.parent.mkdir()
        for name in (path.name, f"{path.name}.wal"):  # what a kill leaves; this store is not written to any more
            copy.with_name(name).write_bytes(path.with_name(name).read_bytes())
    assert copy.with_name(f"{path.name}.wal").stat().st_size > 0
    left = copy.with_name(f"{copy.name}.podero_async-unfinished-left")
    left.write_bytes(sim.vehicles[0].user_id.bytes)
    async with SessionStore(copy) as store:
        assert await store.forget(sim.vehicles[0].user_id) > 0
    assert count_found(copy, mine) == 0


@pytest.mark.slow
async def test_a_kill_just_after_the_replacement_leaves_a_store_without_the_user(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file's log does not outlive the old file, so the new file is complete from its first moment."""
    mine = _ids_of(sim, sim.vehicles[0].user_id)
    killed = path.parent / "killed"

    def replace_and_copy(made: Path, target: Path) -> None:
        replace(made, target)
        shutil.copytree(path.parent, killed, ignore=lambda _, names: {"killed"} & set(names))

    monkeypatch.setattr("podero_async.backfill.store.duckdb.forgotten.replace", replace_and_copy)
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        assert path.with_name(f"{path.name}.wal").exists()
        await store.forget(sim.vehicles[0].user_id)
        rows = await held_by(store)
    assert count_found(killed / path.name, mine) == 0
    async with SessionStore(killed / path.name) as store:
        assert await held_by(store) == rows


@pytest.mark.slow
async def test_another_user_of_a_vehicle_keeps_the_sessions(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If two users list a vehicle and one is forgotten,
    the next backfill stores the sessions of the settled days as the other's.
    """
    vehicle = sim.vehicles[0]
    shared = sim.share_vehicle(vehicle)
    clock.forward(days=40)
    async with SessionStore(path) as store:
        for _ in range(2):
            await backfill(client, store, FIRST, LAST, now=clock)
            clock.forward(days=1)
        before = await _users_of(store, vehicle.vehicle_id)
        (owner,) = set(before.values())
        other = {str(vehicle.user_id), str(shared.user_id)} - {owner}
        await store.forget(owner)
        await backfill(client, store, LAST, LAST, now=clock)
        assert await _users_of(store, vehicle.vehicle_id) == dict.fromkeys(before, *other)


@pytest.mark.slow
async def test_changes_after_a_user_was_forgotten_are_newer_than_all_before(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """If a row of the forgotten user had the newest `changed_at`, from a clock that was ahead,
    later changes still follow it.
    """
    first, last = sim.vehicles[0], sim.vehicles[-1]
    find = "SELECT max(changed_at) AS newest FROM sessions"
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, vehicles=[last], now=clock)
        await backfill(client, store, FIRST, LAST, vehicles=[first], now=lambda: clock() + timedelta(days=400))
        ((newest,),) = [row.values() for row in await store.query(find)]
        await store.forget(first.user_id)
    sim.insert(last, plug_in_time=clock.at - timedelta(hours=1))
    clock.forward(days=1)
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, clock.at.date(), now=clock)
        assert (await store.query(find))[0]["newest"] > newest


async def _users_of(store: SessionStore, vehicle_id: UUID) -> dict[str, str]:
    rows = await store.query("SELECT id, user_id FROM sessions WHERE vehicle_id = ?", [str(vehicle_id)])
    return {row["id"]: row["user_id"] for row in rows}


async def test_a_store_that_cannot_forget_is_unchanged(path: Path, sim: PoderoSimulator) -> None:
    """`forget` refuses a store in memory or open for reading, and an invalid id."""
    user = sim.vehicles[0].user_id
    async with SessionStore(":memory:") as store:
        with pytest.raises(StoreError, match="open for writing"):
            await store.forget(user)
    async with SessionStore(path) as store:
        with pytest.raises(ValueError, match="user_id"):
            await store.forget("somebody")
    async with SessionStore(path, read_only=True) as store:
        with pytest.raises(StoreError, match="open for writing"):
            await store.forget(user)


@pytest.mark.slow
@pytest.mark.parametrize("erases", ["a user", "days"])
async def test_a_full_disk_or_a_cancellation_leaves_the_store_as_it_was(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, erases: str
) -> None:
    """If the disk is full or the caller is cancelled, nothing is erased, no other file is left, and the store works."""

    async def erase(store: SessionStore) -> int:
        return await (store.forget_before(LAST) if erases == "days" else store.forget(sim.vehicles[0].user_id))

    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        assert isinstance(store.backend, DuckDBBackend)
        await store.backend.call(
            duckdb.DuckDBPyConnection.execute,
            "CREATE TABLE much AS SELECT uuid() AS a FROM range(1_000_000); CHECKPOINT",
        )
        before = await held_by(store)
        with files_of_at_most(1_000_000), pytest.raises(StoreFullError):
            await erase(store)
        assert await held_by(store) == before
        erasing = asyncio.create_task(erase(store))
        while not any(path.parent.glob("*unfinished*")):
            assert not erasing.done()
            await asyncio.sleep(0.001)
        erasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await erasing
        assert await held_by(store) == before
        assert not any(path.parent.glob("*unfinished*"))
        assert await erase(store) > 0


async def _python(code: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    return err.decode()

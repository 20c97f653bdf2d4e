"""The migrations of a store: what an older release stored becomes coverage,
records of runs, and sessions with their times.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest

from podero_async import PoderoClient
from podero_async.backfill import NotAStoreError, SessionStore, StoreError, StoreTooNewError, backfill
from podero_async.testing import PoderoSimulator
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of, utc
from tests._support.old_store import create_old_store
from tests.backfill.conftest import Clock

USER, VEHICLE = UUID(int=1), UUID(int=2)
READ_AT = utc(2026, 3, 10, 2)


def receipt(task: int, first: date, last: date, held_to: date | None, at: datetime, **more: Any) -> dict[str, Any]:
    return {
        "run_id": 1,
        "task": task,
        "user_id": USER,
        "vehicle_id": VEHICLE,
        "from_date": first,
        "to_date": last,
        "include_hidden": False,
        "completeness": "verified",
        "total": 1,
        "count": 1,
        "digest": "0" * 32,
        "requests": 2,
        "held_to": held_to,
        "fetched_at": at,
        **more,
    }


def session(number: int, plugged_in: datetime, **more: Any) -> dict[str, Any]:
    return {
        "user_id": USER,
        "vehicle_id": VEHICLE,
        "id": UUID(int=number),
        "plug_in_time": plugged_in,
        "unplug_time": plugged_in + timedelta(hours=8),
        "is_hidden": False,
        "session_outcome": "optimized",
        "fetched_at": READ_AT,
        "first_seen_at": READ_AT - timedelta(days=2),
        **more,
    }


def run(run_id: int, finished_at: datetime | None) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "from_date": date(2026, 1, 1),
        "to_date": date(2026, 3, 9),
        "include_hidden": False,
        "refresh_days": 7,
        "scope": "the fleet",
        "vehicles": 1,
        "started_at": READ_AT,
        "finished_at": finished_at,
    }


async def spans_of(store: SessionStore) -> list[tuple[str, str, bool]]:
    rows = await store.query(
        "SELECT from_date::VARCHAR AS first, to_date::VARCHAR AS last, is_settled FROM coverage ORDER BY ALL"
    )
    return [(row["first"][5:], row["last"][5:], row["is_settled"]) for row in rows]


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_receipts_become_coverage(new_path: Path, version: int) -> None:
    """Days that were read are provisional at any age, since older releases did not ask for the current session."""
    day = date(2026, 1, 1)
    reads = [
        receipt(1, day, date(2026, 1, 31), date(2026, 1, 31), utc(2026, 2, 10, 2)),
        receipt(2, date(2026, 1, 25), date(2026, 2, 9), date(2026, 2, 8), utc(2026, 2, 10, 2)),
        receipt(3, date(2026, 1, 20), date(2026, 2, 1), date(2026, 2, 1), READ_AT),
        receipt(4, date(2026, 3, 1), date(2026, 3, 9), date(2026, 3, 8), READ_AT),
        receipt(5, date(2026, 2, 20), date(2026, 2, 25), None, READ_AT, completeness="unproven"),
    ]
    create_old_store(new_path, version, {"receipts": reads, "runs": [run(1, READ_AT)]})
    async with SessionStore(new_path) as store:
        assert await spans_of(store) == [("01-01", "02-08", False), ("03-01", "03-08", False)]
        (newest,) = await store.query("SELECT max(read_at) AS read_at FROM coverage")
        assert newest["read_at"] == READ_AT
        assert len(await store.query("SELECT * FROM receipts")) == 5
        assert (await store.status()).schema_version == 3


async def test_sessions_keep_their_times(new_path: Path) -> None:
    """A session without a change gets its first time as `changed_at`;
    withdrawals count as changes; none is stored twice.
    """
    seen, changed, withdrawn = READ_AT - timedelta(days=2), READ_AT - timedelta(days=1), READ_AT - timedelta(hours=1)
    plugged_in = utc(2026, 1, 5, 18)
    rows = [
        session(1, plugged_in),
        session(2, plugged_in, changed_at=changed),
        session(3, plugged_in, changed_at=changed, withdrawn_at=withdrawn),
        session(4, plugged_in),
        session(4, plugged_in, vehicle_id=UUID(int=9), first_seen_at=READ_AT),
        session(5, utc(2026, 1, 6, 18), unplug_time=None),
    ]
    reads = [receipt(1, date(2026, 1, 1), date(2026, 1, 31), date(2026, 1, 31), READ_AT)]
    create_old_store(new_path, 2, {"sessions": rows, "receipts": reads})
    async with SessionStore(new_path) as store:
        found = await store.query("SELECT id, vehicle_id, changed_at, absent_at FROM sessions ORDER BY id")
        assert [UUID(row["id"]).int for row in found] == [1, 2, 3, 4, 5]
        assert [row["changed_at"] for row in found] == [seen, changed, withdrawn, READ_AT, seen]
        assert UUID(found[3]["vehicle_id"]).int == 9, "the vehicle to which it moved"
        assert all(row["absent_at"] is None for row in found)
        assert await spans_of(store) == [("01-01", "01-31", False)]


async def test_runs_become_records(new_path: Path) -> None:
    """Interrupted runs stay as records without an end, and runs that were given up are found by their receipts."""
    day, owner = date(2026, 1, 1), [{"key": "organization", "value": "org"}, {"key": "origin", "value": "https://api"}]
    reads = [receipt(task, day, day, day, READ_AT, run_id=task) for task in (1, 2, 3)]
    failure = {
        "run_id": 2,
        "user_id": USER,
        "vehicle_id": VEHICLE,
        "from_date": day,
        "to_date": day,
        "include_hidden": False,
        "kind": "ServerError",
        "message": "HTTP 500",
        "failed_at": READ_AT,
    }
    tasks = [{"run_id": 2, "task": 1, "user_id": USER, "vehicle_id": VEHICLE, "from_date": day, "to_date": day}]
    runs = [run(1, READ_AT), run(2, None)]
    create_old_store(
        new_path, 1, {"receipts": reads, "runs": runs, "tasks": tasks, "failures": [failure], "meta": owner}
    )
    async with SessionStore(new_path) as store:
        found = await store.runs()
        assert [(each.run_id, each.finished_at, each.done, each.failed, each.requests) for each in found] == [
            (3, None, 1, 0, 2),
            (2, None, 1, 1, 2),
            (1, READ_AT, 1, 0, 2),
        ]
        (stored,) = await store.query("SELECT first_failed_at, failed_at FROM failures")
        assert stored["first_failed_at"] == stored["failed_at"] == READ_AT
        assert (await store.status()).org_id == "org"


async def test_a_migrated_store_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    """The tables and columns of a migrated store, in order, are those of a new one, and it has an id of its own."""
    columns = (
        "SELECT table_name, column_index, column_name, data_type, is_nullable FROM duckdb_columns()"
        " WHERE database_name = current_database() ORDER BY ALL"
    )
    found = []
    for name in ("old", "new"):
        path = tmp_path / f"{name}.duckdb"
        if name == "old":
            create_old_store(path, 2, {})
        async with SessionStore(path) as store:
            tables = await store.query(columns)
            meta = {row["key"]: row["value"] for row in await store.query("SELECT * FROM meta")}
            assert len(meta["store_id"]) == 32
            found.append(tables)
    assert found[0] == found[1]


async def test_a_run_after_a_migration_reads_what_is_not_settled(
    sim: PoderoSimulator, client: PoderoClient, new_path: Path, clock: Clock
) -> None:
    """After the migration, a run reads the provisional days again and knows its sessions."""
    at = utc(2026, 7, 1, 2)
    reads = [
        receipt(number, FIRST, LAST, LAST, at, user_id=vehicle.user_id, vehicle_id=vehicle.vehicle_id)
        for number, vehicle in enumerate(sim.vehicles)
    ]
    create_old_store(new_path, 2, {"receipts": reads, "runs": [run(1, at)]})
    async with SessionStore(new_path) as store:
        report = await backfill(client, store, FIRST, LAST, now=clock)
        assert (report.run_id, report.done, report.missing, report.is_clean) == (2, 12, 0, True)
        assert await held_by(store) == truth_of(sim, FIRST, LAST)


async def test_an_old_store_is_not_migrated_while_it_is_read_only(new_path: Path) -> None:
    """An older store that is opened for reading only is refused, with what to do, and is unchanged."""
    create_old_store(new_path, 2, {})
    content = new_path.read_bytes()
    with pytest.raises(StoreError, match=r"version 2 .*once for writing"):
        await SessionStore(new_path, read_only=True).__aenter__()
    assert new_path.read_bytes() == content


async def test_a_migration_that_fails_changes_nothing(new_path: Path) -> None:
    """If a statement of a migration fails, the store keeps its version and its tables."""
    create_old_store(new_path, 2, {"receipts": [receipt(1, FIRST, LAST, LAST, READ_AT)]})
    with duckdb.connect(str(new_path)) as con:
        con.execute("DROP TABLE tasks")  # the migration drops it
    with pytest.raises(StoreError, match="tasks"):
        await SessionStore(new_path).__aenter__()
    with duckdb.connect(str(new_path)) as con:
        assert con.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall() == [("2",)]
        assert con.execute("SELECT count(held_to) FROM receipts").fetchall() == [(1,)]


@pytest.mark.parametrize(("version", "error"), [("4", StoreTooNewError), ("x", NotAStoreError)])
async def test_a_newer_store_is_refused(path: Path, version: str, error: type[StoreError]) -> None:
    """If the schema version is newer or unknown, the store is not opened."""
    async with SessionStore(path):
        pass
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [version])
    with pytest.raises(error):
        await SessionStore(path).__aenter__()


async def test_a_store_without_a_newer_column_gets_it_when_it_is_written(path: Path) -> None:
    """The first stores of this version lack a column: a writer adds it, and a reader leaves it out."""
    async with SessionStore(path):
        pass
    with duckdb.connect(str(path)) as con:
        con.execute("ALTER TABLE rejected_items DROP COLUMN first_rejected_at")
    for read_only in (True, False):
        async with SessionStore(path, read_only=read_only) as store:
            columns = {row["column_name"] for row in await store.query("DESCRIBE rejected_items")}
            assert ("first_rejected_at" not in columns) == read_only

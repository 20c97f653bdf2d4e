"""If an error or a kill ends a transaction between two of its statements, the store is unchanged.

The batch and the store contain every kind of row. Afterwards the same call completes the store.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import duckdb
import pytest

from podero_async import PoderoClient
from podero_async.backfill import BackfillReport, SessionStore, StoreError, backfill
from podero_async.backfill.store.duckdb import DuckDBBackend
from podero_async.backfill.store.duckdb.absence import conclude
from podero_async.backfill.store.duckdb.runs import end_run, start_run
from podero_async.backfill.store.duckdb.upsert import write_batch
from podero_async.backfill.store.duckdb.vehicles import record_fleet
from podero_async.testing import Fault, PoderoSimulator
from tests._support.backfill_process import ROOT
from tests._support.clients import client_of
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of
from tests._support.kill_process import Breaking, Operation, replaced
from tests.backfill.conftest import Clock

TABLES = (
    "sessions",
    "receipts",
    "failures",
    "rejected_items",
    "coverage",
    "runs",
    "users",
    "vehicles",
    "ownership",
    "meta",
    "forgotten",
)
BATCH_TABLES = TABLES[:5]

State = dict[str, list[tuple[Any, ...]]]


def _state(con: duckdb.DuckDBPyConnection, tables: Iterable[str] = TABLES) -> State:
    return {table: con.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall() for table in tables}


def _fail() -> None:
    raise duckdb.IOException("IO Error: injected")


@attrs.define
class Fleet:
    """Five vehicles with sessions that change after a store was filled."""

    sim: PoderoSimulator
    client: PoderoClient
    clock: Clock
    broken: list[tuple[Any, str]] = attrs.field(factory=list)

    async def backfill(self, store: SessionStore) -> BackfillReport:
        return await backfill(self.client, store, FIRST, LAST, fresh_for=timedelta(0), now=self.clock)

    async def fill(self, path: Path) -> None:
        """Create a store with a vehicle that failed and a row that could not be read."""
        self._break_a_row(0)
        self.sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=self.sim.vehicles[1]))
        async with SessionStore(path) as store:
            report = await self.backfill(store)
        assert (report.failed, report.rejected) == (1, 1)

    def change(self) -> None:
        """Change, remove, insert, break and move rows; let the failed vehicle recover and another one fail."""
        self.mend()
        one, other, failing = self.sim.vehicles[2:5]
        changed, removed, moved = self.sim.truth(one, FIRST, LAST)[:3]
        self.sim.update(one, changed["id"], actual_savings_eur=12.5)
        self.sim.remove(one, removed["id"])
        self.sim.remove(one, moved["id"])
        self.sim.insert(other, moved)
        self._break_a_row(3)
        self.sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=failing))

    def _break_a_row(self, vehicle: int) -> None:
        ref = self.sim.vehicles[vehicle]
        row = self.sim.insert(ref, self.sim.truth(ref, FIRST, LAST)[-1] | {"id": str(UUID(int=vehicle))})
        self.sim.update(ref, row["id"], is_at_home="perhaps")
        self.broken.append((ref, row["id"]))

    def mend(self) -> None:
        self.sim.clear_faults()
        while self.broken:
            vehicle, row_id = self.broken.pop()
            self.sim.update(vehicle, row_id, is_at_home=True)

    async def complete(self, path: Path) -> None:
        self.mend()
        async with SessionStore(path) as store:
            report = await self.backfill(store)
            assert report.is_clean, report.alarms
            assert await held_by(store) == truth_of(self.sim, FIRST, LAST)
            assert await store.query("FROM failures UNION ALL BY NAME FROM rejected_items") == []


@asynccontextmanager
async def _fleet(clock: Clock) -> AsyncIterator[Fleet]:
    async with PoderoSimulator(users=5, vehicles=5, sessions_per_vehicle=12, seed=4) as sim, client_of(sim) as client:
        yield Fleet(sim, client, clock)


async def _statements(fleet: Fleet, path: Path, operation: Operation) -> list[str]:
    """Run a backfill over a copy of the store, and return the statements of the operation."""
    recording = _Failing(operation, None)
    shutil.copy(path, path.with_name("copy"))
    async with SessionStore(path.with_name("copy")) as store:
        with replaced(operation, recording):
            report = await fleet.backfill(store)
    assert min(report.new, report.changed, report.unchanged, report.withdrawn, report.rejected, report.failed) > 0
    return recording.statements


@attrs.define
class _Failing:
    """An operation that fails at a statement, and records the state of the store before it."""

    operation: Operation
    at: int | None
    statements: list[str] = attrs.field(factory=list)
    before: State = attrs.field(factory=dict)

    def __call__(self, con: Any, *arguments: Any, **options: Any) -> Any:
        if self.before:  # the batch of the confirming reads
            return self.operation(con, *arguments, **options)
        self.before = _state(con)
        return self.operation(Breaking(con, self.at, _fail, self.statements), *arguments, **options)


async def _prove_a_failure(fleet: Fleet, store: SessionStore, operation: Operation, at: int) -> None:
    failing = _Failing(operation, at)
    with replaced(operation, failing), pytest.raises(StoreError, match="injected"):
        await fleet.backfill(store)
    assert failing.before
    assert isinstance(store.backend, DuckDBBackend)
    assert await store.backend.call(_state) == failing.before, f"statement {at}: {failing.statements[at - 1]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "operation",
    [
        write_batch,
        conclude,
        record_fleet,
        pytest.param(start_run, marks=pytest.mark.soak),
        pytest.param(end_run, marks=pytest.mark.soak),
    ],
)
async def test_a_transaction_that_fails_at_any_statement_changes_nothing(
    tmp_path: Path, clock: Clock, operation: Operation, record_property: Callable[..., None]
) -> None:
    """After an error at any statement, nothing of the transaction is stored, and the same call completes the store."""
    path = tmp_path / "fleet.duckdb"
    async with _fleet(clock) as fleet:
        await fleet.fill(path)
        fleet.change()
        statements = await _statements(fleet, path, operation)
        assert "BEGIN" in statements[:6]
        assert statements[-1] == "COMMIT"
        for at in range(1, len(statements) + 1):
            async with SessionStore(path) as store:
                await _prove_a_failure(fleet, store, operation, at)
        await fleet.complete(path)
    record_property("figure", f"{operation.__name__}: {len(statements)} statements, 0 left half a transaction")


# --- kills -----------------------------------------------------------------------------------------------------------


async def _kill_at(fleet: Fleet, path: Path, at: int) -> None:
    sim = fleet.sim
    origin = (path, sim.base_url, sim.org_id, sim.client_id, sim.client_secret)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests._support.kill_process"),
        *map(str, (*origin, FIRST, LAST, fleet.clock().isoformat(), at)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert await process.wait() == -signal.SIGKILL


async def _prove_a_kill(folder: Path, clock: Clock, at: int | None) -> int:
    """Kill a process at a statement of its batch, or at the commit; complete the store; return the number of statements."""
    path = folder / "fleet.duckdb"
    async with _fleet(clock) as fleet:
        await fleet.fill(path)
        with duckdb.connect(str(path)) as con:
            before = _state(con, BATCH_TABLES)
        fleet.change()
        statements = await _statements(fleet, path, write_batch)
        at = at or len(statements)
        await _kill_at(fleet, path, at)
        with duckdb.connect(str(path)) as con:
            is_unchanged = _state(con, BATCH_TABLES) == before
        assert is_unchanged is (at <= len(statements)), f"killed at {at} of {statements}"
        await fleet.complete(path)
    return len(statements)


@pytest.mark.slow
async def test_a_kill_before_the_commit_leaves_nothing_of_the_batch(tmp_path: Path, clock: Clock) -> None:
    """A process that is killed just before the commit leaves nothing of the batch,
    and the same call completes the store.
    """
    await _prove_a_kill(tmp_path, clock, None)


@pytest.mark.soak
async def test_a_kill_at_any_statement_leaves_nothing_of_the_batch(
    tmp_path: Path, clock: Clock, record_property: Callable[..., None]
) -> None:
    """A kill at any statement leaves nothing of the batch; a kill after the commit leaves all of it."""
    at, kills = 1, 2
    while at <= kills:
        (folder := tmp_path / str(at)).mkdir()
        kills = await _prove_a_kill(folder, clock, at) + 1
        at += 1
    record_property(
        "figure", f"{kills} kills, one at each of {kills - 1} statements and one after: 0 left half a batch"
    )

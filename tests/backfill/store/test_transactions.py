"""A transaction that ends between two of its statements, by an error or by a kill, leaves the store as it was before.

The batch that is written has every kind of content, over a store that holds every kind already; then the same call goes on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import duckdb
import pytest

from podero_async import PoderoClient
from podero_async.backfill import BackfillReport, SessionStore, StoreError, backfill
from podero_async.testing import Fault, PoderoSimulator
from tests._support.backfill_process import ROOT
from tests._support.clients import client_of
from tests._support.expected_rows import FIRST, LAST, held_by, truth_of
from tests._support.kill_process import Breaking
from tests.backfill.conftest import Clock

TABLES = "sessions", "receipts", "failures", "rejected_items", "runs", "tasks", "meta"
BATCH_TABLES = TABLES[:4]
STEPS = {
    "start": "podero_async.backfill.store.duckdb.runs.start_run",
    "batch": "podero_async.backfill._writer.write_batch",
    "end": "podero_async.backfill.store.duckdb.upsert.finish_run",
}

State = dict[str, list[tuple[Any, ...]]]


def _state(con: duckdb.DuckDBPyConnection, tables: Iterable[str] = TABLES) -> State:
    return {table: con.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall() for table in tables}


def _fail() -> None:
    raise duckdb.IOException("IO Error: injected")


@attrs.define
class Fleet:
    """Five vehicles, and what has become of them since a store was filled."""

    sim: PoderoSimulator
    client: PoderoClient
    clock: Clock
    broken: list[tuple[Any, str]] = attrs.field(factory=list)

    async def backfill(self, store: SessionStore) -> BackfillReport:
        return await backfill(self.client, store, FIRST, LAST, refresh_days=60, now=self.clock)

    async def fill(self, path: Path) -> None:
        """Make a store with a vehicle that failed and a row that could not be read."""
        self._break_a_row(0)
        self.sim.add_fault(Fault(kind="status", status=404, endpoint="sessions", vehicle=self.sim.vehicles[1]))
        async with SessionStore(path) as store:
            report = await self.backfill(store)
        assert (report.failed, report.rejected) == (1, 1)

    def change(self) -> None:
        """Let rows be changed, removed, inserted, broken and moved; let what failed go well, and another fail."""
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

    async def go_on_to_the_truth(self, path: Path, *, run_id: int | None = None) -> BackfillReport:
        self.mend()
        async with SessionStore(path) as store:
            report = await self.backfill(store)
            if run_id is not None:
                assert (report.resumed, report.run_id) == (True, run_id)
            assert report.is_clean
            # A row that a batch before had rejected is not read again by the run that goes on.
            await self.backfill(store)
            assert await held_by(store) == truth_of(self.sim, FIRST, LAST)
            assert await store.query("FROM failures UNION ALL BY NAME FROM rejected_items") == []
        return report


@asynccontextmanager
async def _fleet(clock: Clock) -> AsyncIterator[Fleet]:
    async with PoderoSimulator(users=5, vehicles=5, sessions_per_vehicle=12, seed=4) as sim, client_of(sim) as client:
        yield Fleet(sim, client, clock)


async def _statements(fleet: Fleet, path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let a transaction pass over a copy of the store, and return what it says."""
    passing = _Step(step, None, monkeypatch)
    shutil.copy(path, path.with_name("copy"))
    async with SessionStore(path.with_name("copy")) as store:
        report = await fleet.backfill(store)
    assert min(report.new, report.changed, report.unchanged, report.withdrawn, report.rejected, report.failed) > 0
    return passing.said


class _Step:
    """A step of a backfill that fails at a statement, and sees to it that nothing is left of it."""

    def __init__(self, step: str, at: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
        target = STEPS[step]
        module, _, name = target.rpartition(".")
        real = getattr(sys.modules[module], name)
        self.said: list[str] = []
        self.before: State = {}

        def breaking(con: Any, *arguments: Any) -> Any:
            self.before = _state(con)
            monkeypatch.undo()
            wrapped = Breaking(con, at, _fail, self.said)
            return real(wrapped, *arguments)

        monkeypatch.setattr(target, breaking)


async def _fails_at(fleet: Fleet, store: SessionStore, step: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = _Step(step, at, monkeypatch)
    with pytest.raises(StoreError, match="injected"):
        await fleet.backfill(store)
    assert failing.before
    assert await store.call(_state) == failing.before, f"statement {at}: {failing.said[at - 1]}"


@pytest.mark.parametrize(
    "step", ["batch", pytest.param("start", marks=pytest.mark.soak), pytest.param("end", marks=pytest.mark.soak)]
)
async def test_a_step_that_fails_at_any_statement_leaves_nothing_of_it(
    tmp_path: Path, clock: Clock, step: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[..., None]
) -> None:
    """A disk that fails between two statements would leave a receipt without its sessions, or sessions without it."""
    path = tmp_path / "fleet.duckdb"
    async with _fleet(clock) as fleet:
        await fleet.fill(path)
        fleet.change()
        said = await _statements(fleet, path, step, monkeypatch)
        assert (said[0], said[-1]) == ("BEGIN", "COMMIT")
        async with SessionStore(path) as store:
            for at in range(1, len(said) + 1):
                await _fails_at(fleet, store, step, at, monkeypatch)
        await fleet.go_on_to_the_truth(path, run_id=None if step == "start" else 2)
    record_property("figure", f"{step}: {len(said)} statements, 0 left half a transaction")


# --- kills -----------------------------------------------------------------------------------------------------------


async def _killed_at(fleet: Fleet, path: Path, at: int) -> None:
    sim = fleet.sim
    origin = (path, sim.base_url, sim.org_id, sim.client_id, sim.client_secret)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests._support.kill_process"),
        *map(str, (*origin, FIRST, LAST, fleet.clock().isoformat(), at)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert await process.wait() == -signal.SIGKILL


async def _prove_a_kill(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, at: int | None) -> list[str]:
    """Kill a process at a statement of its batch, None being the commit, and go on; return what the batch says."""
    path = tmp_path / "fleet.duckdb"
    async with _fleet(clock) as fleet:
        await fleet.fill(path)
        with duckdb.connect(str(path)) as con:
            before = _state(con, BATCH_TABLES)
        fleet.change()
        said = await _statements(fleet, path, "batch", monkeypatch)
        at = at or len(said)
        await _killed_at(fleet, path, at)
        with duckdb.connect(str(path)) as con:
            assert (_state(con, BATCH_TABLES) == before) is (at <= len(said)), f"killed at {at} of {said}"
        await fleet.go_on_to_the_truth(path, run_id=2)
    return said


async def test_a_kill_before_the_commit_leaves_nothing_of_the_batch(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed while it writes would leave half a batch, and the next night build upon it."""
    await _prove_a_kill(tmp_path, clock, monkeypatch, None)


@pytest.mark.soak
async def test_a_kill_at_any_statement_leaves_nothing_of_the_batch(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, record_property: Callable[..., None]
) -> None:
    """The same at every statement; and a kill right after the commit leaves all of it."""
    at, most = 1, 2
    while at <= most:
        (folder := tmp_path / str(at)).mkdir()
        most = len(await _prove_a_kill(folder, clock, monkeypatch, at)) + 1
        at += 1
    record_property("figure", f"{most} kills, one at each of {most - 1} statements and one after: 0 left half a batch")

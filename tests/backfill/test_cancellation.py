"""A backfill that is stopped at any of its steps leaves nothing but a store that is right; the same call completes it."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from podero_async import ThrottlePolicy, VehicleRef
from podero_async.backfill import BackfillReport, SessionStore, backfill
from podero_async.testing import Fault, PoderoSimulator
from tests._support.cancel_points import WAYS, Steps, Sweep, Way, by_cancelling, by_ctrl_c, calm, left_open
from tests._support.clients import client_of
from tests._support.expected_rows import Rows, assert_equal, held_by, truth_of
from tests.backfill.conftest import Clock

ROOT = Path(__file__).parents[2]


async def awaited(work: Coroutine[Any, Any, object]) -> None:
    await work


async def test_a_stop_at_every_step_leaves_a_store_that_goes_on(
    path: Path, clock: Clock, record_property: Callable[[str, object], None]
) -> None:
    """A job that is cancelled at the wrong moment would leave a task, or a store that misses sessions."""
    sweep, vehicles, one_by_one = Sweep(), 0, ThrottlePolicy(max_concurrency=1)
    async with PoderoSimulator(users=1, vehicles=400, sessions_per_vehicle=2, seed=3) as sim:
        async with client_of(sim, throttle=one_by_one) as client, SessionStore(path) as store:

            async def bring(vehicle: VehicleRef) -> BackfillReport:
                return await backfill(client, store, sim.first_day, sim.last_day, vehicles=[vehicle], now=clock)

            await bring(sim.vehicles[0])
            before = await calm()
            for steps in sweep:
                vehicles += 1  # each makes a run of its own, in one store: to open one takes ten times as long
                await by_cancelling(awaited(bring(sim.vehicles[vehicles])), steps)
                assert steps.left() == []
                report = await bring(sim.vehicles[vehicles])
                assert report.is_clean
                assert await left_open(before) == (0, 0)
        await assert_equal(path, first_of(truth_of(sim), sim.vehicles[: vehicles + 1]))
    assert list(path.parent.iterdir()) == [path]
    record_property("figure", sweep.figure)


async def test_a_stop_while_a_store_is_opened_or_closed_leaves_it_closed(path: Path) -> None:
    """A job that is cancelled as it begins could not open its store again, until its process ends."""

    async def opened() -> None:
        async with SessionStore(path):
            pass

    before = await calm()
    for steps in Sweep(longest_s=1.0):  # a file is opened and closed as quickly as the disk lets it
        await by_cancelling(opened(), steps)
        assert await left_open(before) == (0, 0)
        await opened()
        assert list(path.parent.iterdir()) == [path]
        path.unlink()


def first_of(rows: Rows, vehicles: list[VehicleRef]) -> Rows:
    names = {str(vehicle.vehicle_id) for vehicle in vehicles}
    return {key: row for key, row in rows.items() if key[0] in names}


@attrs.define
class Program:
    """Opens a store and brings a fleet into it, beside a server that does what servers do."""

    sim: PoderoSimulator
    path: Path
    clock: Clock
    left_at: float = 0.0
    """When the backfill was left; a file is closed as quickly as the disk lets it."""

    async def run(self) -> None:
        self.sim.clear_faults()
        for fault in (
            Fault(kind="status", status=503, endpoint="vehicles", nth=1),
            Fault(kind="reset", endpoint="sessions", nth=2),
            Fault(kind="token_revoked", endpoint="sessions", nth=4),
        ):
            self.sim.add_fault(fault)
        await self.go_on()

    async def go_on(self) -> None:
        throttle = ThrottlePolicy(max_concurrency=2)
        async with client_of(self.sim, throttle=throttle) as client, SessionStore(self.path) as store:
            try:
                report = await backfill(client, store, self.sim.first_day, self.sim.last_day, now=self.clock)
            finally:
                self.left_at = asyncio.get_running_loop().time()
        assert report.is_clean

    async def prove(self, steps: Steps) -> None:
        """Fail where anything is left, or the store does not open and go on."""
        assert steps.ended_at - steps.acted_at < 1 or not steps.was_stopped
        steps.ended_at = max(steps.acted_at, self.left_at)
        assert steps.left(of_others=True) == []
        assert [*self.path.parent.iterdir()] in ([], [self.path])
        await self.go_on()
        await assert_equal(self.path, truth_of(self.sim))
        self.path.unlink()


def served(vehicles: int) -> PoderoSimulator:
    """Serve a fleet with one long list in it."""
    sim = PoderoSimulator(users=2, vehicles=vehicles - 1, sessions_per_vehicle=5, seed=3)
    sim.add_vehicle(sim.vehicles[0].user_id, sessions=300)
    return sim


def fleet_size(soak_scale: float) -> int:
    return max(2, round(4 * math.sqrt(soak_scale)))  # for more steps, and each takes longer


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit often."""
    monkeypatch.setattr("podero_async.backfill.store.duckdb.columns._MAX_OUTCOMES", 2)


@pytest.mark.soak
@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("way", WAYS)
async def test_a_stop_at_every_step_of_a_fleets_backfill(
    way: Way, path: Path, clock: Clock, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The same with a fleet that is discovered, from the store's opening to its closing, in all the ways."""
    sweep = Sweep()
    async with served(fleet_size(soak_scale)) as sim:
        program = Program(sim, path, clock)
        before = await calm()
        for steps in sweep:
            await way(program.run(), steps)
            assert await left_open(before) == (0, 0)
            await program.prove(steps)
    record_property("figure", sweep.figure)


@pytest.mark.soak
@pytest.mark.usefixtures("small_batches")
def test_ctrl_c_at_every_step_of_a_fleets_backfill(
    path: Path, clock: Clock, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The same with the signal itself, in this process."""
    sweep = Sweep()
    with asyncio.Runner() as runner:
        sim = served(fleet_size(soak_scale))
        runner.run(sim.__aenter__())
        program = Program(sim, path, clock)
        before = runner.run(calm())
        for steps in sweep:
            by_ctrl_c(runner, program.run(), steps)
            assert runner.run(left_open(before)) == (0, 0)
            runner.run(program.prove(steps))
        runner.run(sim.__aexit__(None, None, None))
    record_property("figure", sweep.figure)


async def interrupted(sim: PoderoSimulator, path: Path, after_s: float) -> tuple[int | None, str, float]:
    """Send a SIGINT to a process that fills a store; return its exit code, its last words, and how long it took to end."""
    arguments = [path, sim.base_url, sim.org_id, sim.client_id, sim.client_secret, sim.first_day, sim.last_day, 0.05]
    command = [sys.executable, "-W", "always", "-m", "tests._support.backfill_process", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=asyncio.subprocess.PIPE
    )
    asked = sim.counts.requests["sessions"]
    while sim.counts.requests["sessions"] == asked and process.returncode is None:
        await asyncio.sleep(0.005)
    await asyncio.sleep(after_s)
    since = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, words = await process.communicate()
    return process.returncode, words.decode(), time.monotonic() - since


async def interrupt(path: Path, times: int, seed: int) -> str:
    """Interrupt one process after the other, let the last one finish, and return a figure to quote."""
    rng, slowest_s = Random(seed), 0.0
    async with PoderoSimulator(users=20, vehicles=60 + 100 * times, sessions_per_vehicle=5, latency_s=0.1) as sim:
        for _ in range(times):
            code, words, took_s = await interrupted(sim, path, rng.uniform(0.3, 0.5))
            assert code == -signal.SIGINT
            assert words.rstrip().endswith("KeyboardInterrupt")
            assert not [sign for sign in ("Warning", "never", "destroyed", "unclosed") if sign in words], words
            assert took_s < 2, "the process itself needs a part of a second to end"
            assert list(path.parent.iterdir()) == [path]
            slowest_s = max(slowest_s, took_s)
        async with client_of(sim) as client, SessionStore(path) as store:
            held = len(await held_by(store))
            report = await backfill(client, store, sim.first_day, sim.last_day, include_hidden=True)
        assert report.is_clean
        assert report.resumed
        truth = truth_of(sim, include_hidden=True)
        assert held < len(truth)
        await assert_equal(path, truth)
    return f"seed {seed}: {times} processes, ended within {slowest_s:.2f} s, {held} of {len(truth)} rows held before the last"


async def test_ctrl_c_ends_a_process_and_the_same_call_goes_on(
    path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A user's Ctrl-C would hang, litter the terminal with warnings, or spoil the store."""
    record_property("figure", await interrupt(path, times=1, seed=1))


@pytest.mark.soak
async def test_ctrl_c_ends_many_processes(
    path: Path, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The same 20 times over, at random moments."""
    record_property("figure", await interrupt(path, times=max(1, round(20 * soak_scale)), seed=2))

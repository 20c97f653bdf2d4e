"""A backfill that is cancelled at any step leaves nothing but a consistent store, and the same call completes it."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from podero_async import ThrottlePolicy, VehicleRef
from podero_async.backfill import BackfillReport, SessionStore, backfill
from podero_async.backfill._values import Limits
from podero_async.testing import Fault, PoderoSimulator
from tests._support.backfill_process import start, until_reading
from tests._support.cancel_points import WAYS, Steps, Sweep, Way, by_cancelling, by_ctrl_c, calm, left_open
from tests._support.clients import client_of
from tests._support.expected_rows import Rows, assert_equal, held_by, truth_of
from tests.backfill.conftest import Clock

SMALL_BATCHES = Limits(max_batch_outcomes=2)
SLOW_S = 10.0
"""More than a slow machine needs for a commit, or to open or close a file; a request that hangs would take longer."""


@pytest.fixture
def path(new_path: Path) -> Path:
    """Return the path of a store that does not exist yet, so that each run creates it."""
    return new_path


async def awaited(work: Coroutine[Any, Any, object]) -> None:
    await work


@pytest.mark.slow
async def test_a_stop_at_every_step_of_a_vehicles_backfill(
    path: Path, clock: Clock, record_property: Callable[[str, object], None]
) -> None:
    """A backfill cancelled at any step leaves no task, file or thread, and the next one completes the store."""
    sweep, vehicles, one_by_one = Sweep(longest_s=SLOW_S), 0, ThrottlePolicy(max_concurrency=1)
    async with PoderoSimulator(users=1, vehicles=400, sessions_per_vehicle=2, seed=3) as sim:
        async with client_of(sim, throttle=one_by_one) as client, SessionStore(path) as store:

            async def read(vehicle: VehicleRef) -> BackfillReport:
                return await backfill(client, store, sim.first_day, sim.last_day, vehicles=[vehicle], now=clock)

            await read(sim.vehicles[0])
            before = await calm()
            for steps in sweep:
                vehicles += 1  # a new run in the same store, since opening a store takes ten times as long
                await by_cancelling(awaited(read(sim.vehicles[vehicles])), steps)
                assert steps.left() == []
                report = await read(sim.vehicles[vehicles])
                assert report.is_clean
                assert await left_open(before) == (0, 0)
        await assert_equal(path, first_of(truth_of(sim), sim.vehicles[: vehicles + 1]))
    assert list(path.parent.iterdir()) == [path]
    record_property("figure", sweep.figure)


@pytest.mark.slow
async def test_a_stop_while_a_store_opens_or_closes_leaves_it_closed(path: Path) -> None:
    """A cancellation at any step of opening or closing a store leaves it closed, so that it opens again."""

    async def opened() -> None:
        async with SessionStore(path):
            pass

    before = await calm()
    for steps in Sweep(longest_s=SLOW_S):
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
    """Opens a store and reads a fleet into it, from a server with some faults."""

    sim: PoderoSimulator
    path: Path
    clock: Clock
    left_at: float = 0.0
    """When the backfill ended; closing the file afterwards takes as long as the disk needs."""

    async def run(self) -> None:
        self.sim.clear_faults()
        for fault in (
            Fault(kind="status", status=503, endpoint="vehicles", nth=1),
            Fault(kind="reset", endpoint="sessions", nth=2),
            Fault(kind="token_revoked", endpoint="sessions", nth=4),
        ):
            self.sim.add_fault(fault)
        await self.resume()

    async def resume(self) -> None:
        throttle = ThrottlePolicy(max_concurrency=2)
        async with client_of(self.sim, throttle=throttle) as client, SessionStore(self.path) as store:
            try:
                window = self.sim.first_day, self.sim.last_day
                report = await backfill(client, store, *window, now=self.clock, limits=SMALL_BATCHES)
            finally:
                self.left_at = asyncio.get_running_loop().time()
        assert report.is_clean

    async def prove(self, steps: Steps) -> None:
        """Fail if a task or file is left, or if another run does not complete the store."""
        assert steps.ended_at - steps.acted_at < SLOW_S or not steps.was_stopped
        steps.ended_at = max(steps.acted_at, self.left_at)
        assert steps.left(of_others=True) == []
        assert [*self.path.parent.iterdir()] in ([], [self.path])
        await self.resume()
        await assert_equal(self.path, truth_of(self.sim))
        self.path.unlink()


def mixed_fleet(vehicles: int) -> PoderoSimulator:
    """Simulate a fleet in which one vehicle has a list of several pages."""
    sim = PoderoSimulator(users=2, vehicles=vehicles - 1, sessions_per_vehicle=5, seed=3)
    sim.add_vehicle(sim.vehicles[0].user_id, sessions=300)
    return sim


def fleet_size(soak_scale: float) -> int:
    return max(2, round(4 * math.sqrt(soak_scale)))  # the number of steps and the time of each grow with the fleet


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS)
async def test_a_stop_at_every_step_of_a_fleets_backfill(
    way: Way, path: Path, clock: Clock, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """A whole run with discovery, stopped at any step in any way, leaves nothing, and the next one completes the store."""
    sweep = Sweep(longest_s=SLOW_S)
    async with mixed_fleet(fleet_size(soak_scale)) as sim:
        program = Program(sim, path, clock)
        before = await calm()
        for steps in sweep:
            await way(program.run(), steps)
            assert await left_open(before) == (0, 0)
            await program.prove(steps)
    record_property("figure", sweep.figure)


@pytest.mark.soak
def test_ctrl_c_at_every_step_of_a_fleets_backfill(
    path: Path, clock: Clock, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The same holds if the stop is a SIGINT in this process."""
    sweep = Sweep(longest_s=SLOW_S)
    with asyncio.Runner() as runner:
        sim = mixed_fleet(fleet_size(soak_scale))
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
    """Send SIGINT to a backfill process; return its exit code, its stderr, and the seconds until it ended."""
    process = await start(sim, path, 4, stderr=asyncio.subprocess.PIPE)
    await until_reading(sim, process)
    await asyncio.sleep(after_s)
    since = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    return process.returncode, stderr.decode(), time.monotonic() - since


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.soak)])
async def test_ctrl_c_ends_a_process_and_the_next_one_resumes(
    times: int, path: Path, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """Ctrl-C ends a process soon and without warnings, and the next call completes the store."""
    times = max(1, round(times * soak_scale))
    rng, slowest_s = Random(times), 0.0
    async with PoderoSimulator(users=20, vehicles=60 + 100 * times, sessions_per_vehicle=5, latency_s=0.1) as sim:
        for _ in range(times):
            code, stderr, took_s = await interrupted(sim, path, rng.uniform(0.3, 0.5))
            assert code == -signal.SIGINT
            assert stderr.rstrip().endswith("KeyboardInterrupt")
            assert not [sign for sign in ("Warning", "never", "destroyed", "unclosed") if sign in stderr], stderr
            assert list(path.parent.iterdir()) == [path]
            slowest_s = max(slowest_s, took_s)
        async with client_of(sim) as client, SessionStore(path) as store:
            stored = len(await held_by(store))
            report = await backfill(client, store, sim.first_day, sim.last_day, include_hidden=True)
        assert report.is_clean
        assert report.missing == 0
        truth = truth_of(sim, include_hidden=True)
        assert stored < len(truth)
        await assert_equal(path, truth)
    record_property(
        "figure",
        f"{times} processes, ended within {slowest_s:.2f} s, {stored} of {len(truth)} rows stored before the last",
    )

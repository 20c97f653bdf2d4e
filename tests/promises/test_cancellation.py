"""A stop (cancellation, timeout, task group, Ctrl-C) at any step is never swallowed and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import attrs
import pytest
from filelock import FileLock

from podero_async import Completeness, FileTokenStore, PoderoClient, ThrottlePolicy
from podero_async.backfill._client_access import limiter_of
from podero_async.testing import Fault, PoderoSimulator
from tests._support.cancel_points import (
    WAYS,
    Steps,
    Sweep,
    Way,
    Work,
    by_a_sibling,
    by_a_timeout,
    by_cancelling,
    by_ctrl_c,
    calm,
    left_open,
)
from tests._support.clients import client_of
from tests._support.drifting_list import MovingList, Result, read
from tests._support.time_warp import LeapingLoop

Record = Callable[[str, object], None]
slow, soak = pytest.mark.slow, pytest.mark.soak


def assert_idle(client: PoderoClient) -> None:
    limiter = limiter_of(client)
    assert (limiter.in_flight, limiter.queued) == (0, 0)


def sockets_to(simulator: PoderoSimulator) -> int:
    """Count this process's connections to the simulator; its port is the peer's on the client's side only."""
    port = int(simulator.base_url.rpartition(":")[2])
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if int(line.split()[2].rpartition(":")[2], 16) == port
    }
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        count += target.startswith("socket:[") and target[8:-1] in inodes
    return count


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="counts sockets through /proc, which Linux has")
async def test_leaving_a_large_fleet_early_leaves_nothing() -> None:
    """After the first of 1,000 vehicles no task, slot or connection is left, and the client can still be used."""
    async with PoderoSimulator(users=200, vehicles=1000, sessions_per_vehicle=3, latency_s=0.001) as simulator:
        before = asyncio.all_tasks()
        async with client_of(simulator) as client:
            await a_fleet_left_early(client, simulator)
            assert_idle(client)
            ours = {task for task in asyncio.all_tasks() - before if "podero_async" in repr(task.get_coro())}
            assert {task for task in ours if "testing" not in repr(task.get_coro())} == set()
            assert len([user async for user in client.users()]) == 200
            assert sockets_to(simulator) > 0
        assert sockets_to(simulator) == 0


# --- stopped at every step --------------------------------------------------------------------------------------------


async def fleet(client: PoderoClient, simulator: PoderoSimulator) -> None:
    async with client.fetch_fleet(simulator.first_day, simulator.last_day) as stream:
        async for _ in stream:
            pass


async def a_fleet_taken_slowly(client: PoderoClient, simulator: PoderoSimulator) -> None:
    vehicles = simulator.vehicles[:1] * 4  # two of them fill the buffer, and the others wait
    async with client.fetch_fleet(simulator.first_day, simulator.last_day, vehicles) as stream:
        await asyncio.sleep(60)
        async for _ in stream:
            pass


async def a_fleet_left_early(client: PoderoClient, simulator: PoderoSimulator) -> None:
    async with client.fetch_fleet(simulator.first_day, simulator.last_day) as stream:
        async for _ in stream:
            break


async def one_vehicle(client: PoderoClient, simulator: PoderoSimulator) -> None:
    vehicle = simulator.vehicles[0]
    await client.vehicle_sessions(vehicle.user_id, vehicle.vehicle_id, simulator.first_day, simulator.last_day)


async def a_stream(client: PoderoClient, simulator: PoderoSimulator) -> None:
    vehicle = simulator.vehicles[0]
    async for _ in client.sessions(vehicle.user_id, vehicle.vehicle_id, simulator.first_day, simulator.last_day):
        pass


async def one_user(client: PoderoClient, simulator: PoderoSimulator) -> None:
    await client.user_sessions(simulator.vehicles[0].user_id, simulator.first_day, simulator.last_day)


async def discovery(client: PoderoClient, simulator: PoderoSimulator) -> None:
    async for _ in client.discover_vehicles():
        pass


async def calls_at_once(client: PoderoClient, simulator: PoderoSimulator) -> None:
    user = simulator.vehicles[0].user_id
    await asyncio.gather(*(client.electric_vehicles(user) for _ in range(4)))


FleetWork = Callable[[PoderoClient, PoderoSimulator], Work]
WORKS: list[FleetWork] = [
    fleet,
    a_fleet_taken_slowly,
    a_fleet_left_early,
    one_vehicle,
    a_stream,
    one_user,
    discovery,
    calls_at_once,
]


@attrs.define
class Program:
    """Does some work with its own client, against a server with many kinds of faults."""

    work: FleetWork
    simulator: PoderoSimulator
    folder: Path
    client: PoderoClient | None = None

    async def run(self, number: int) -> None:
        self._add_faults()
        store, throttle = FileTokenStore(self.folder / f"tokens-{number}"), ThrottlePolicy(max_concurrency=2)
        with FileLock(self.folder / f"tokens-{number}.lock") as of_another_process:
            if self.work is calls_at_once:
                asyncio.get_running_loop().call_later(0.01, of_another_process.release)
            else:
                of_another_process.release()
            async with client_of(self.simulator, throttle=throttle, token_store=store) as self.client:
                await self.work(self.client, self.simulator)

    def _add_faults(self) -> None:
        self.simulator.clear_faults()
        for fault in (
            Fault(kind="clamped_limit", limit=60),  # so that few rows make several pages
            Fault(kind="unstable_order", vehicle=self.simulator.vehicles[1]),
            Fault(kind="status", status=404, vehicle=self.simulator.vehicles[2]),
            Fault(kind="status", status=503, endpoint="vehicles", nth=1),
            Fault(kind="status", status=429, headers={"Retry-After": "1"}, endpoint="sessions", nth=2),
            Fault(kind="reset", endpoint="sessions", nth=3),
            Fault(kind="token_revoked", endpoint="sessions", nth=5),
            Fault(kind="drip", chunk_bytes=10_000, endpoint="sessions", nth={1, 4}),
        ):
            self.simulator.add_fault(fault)

    def assert_nothing_is_left(self, steps: Steps) -> None:
        assert steps.left(of_others=True) == []
        if self.client is not None:
            assert_idle(self.client)
        assert not [file for file in self.folder.iterdir() if file.suffix not in {"", ".lock"}]


def served(vehicles: int, soak_scale: float) -> PoderoSimulator:
    """Serve a fleet of at least three vehicles; the number of steps grows with the square of the fleet."""
    vehicles = max(3, round(vehicles * soak_scale**0.5))
    return PoderoSimulator(users=2, vehicles=vehicles, sessions_per_vehicle=80, seed=2)


@pytest.mark.slow
@pytest.mark.leaping
@pytest.mark.parametrize(
    ("work", "way", "vehicles"),
    [
        (one_vehicle, by_a_timeout, 3),
        pytest.param(a_stream, by_a_sibling, 3, marks=slow),
        (calls_at_once, by_cancelling, 3),
        pytest.param(fleet, by_cancelling, 3, marks=slow),
        pytest.param(one_user, by_a_timeout, 3, marks=slow),
        pytest.param(a_fleet_taken_slowly, by_cancelling, 3, marks=slow),
        *(pytest.param(work, way, 12, marks=soak) for work in WORKS for way in WAYS),
    ],
)
async def test_a_stop_at_every_step_leaves_nothing(
    work: FleetWork, way: Way, vehicles: int, tmp_path: Path, soak_scale: float, record_property: Record
) -> None:
    """A stop at any step of any task ends the work promptly, and no task, slot, file or thread is left."""
    sweep = Sweep()
    async with served(vehicles, soak_scale) as simulator:
        before = await calm()
        for steps in sweep:
            program = Program(work, simulator, tmp_path)
            await way(program.run(steps.at), steps)
            assert await left_open(before) == (0, 0)
            program.assert_nothing_is_left(steps)
    record_property("figure", sweep.figure)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "vehicles"), [(one_vehicle, 3), *(pytest.param(work, 12, marks=soak) for work in WORKS)]
)
def test_ctrl_c_at_every_step_leaves_nothing(
    work: FleetWork, vehicles: int, tmp_path: Path, soak_scale: float, record_property: Record
) -> None:
    """A SIGINT at any step ends the program promptly, and no task, slot, file or thread is left."""
    sweep = Sweep()
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        simulator = served(vehicles, soak_scale)
        runner.run(simulator.__aenter__())
        before = runner.run(calm())
        for steps in sweep:
            program = Program(work, simulator, tmp_path)
            by_ctrl_c(runner, program.run(steps.at), steps)
            assert runner.run(left_open(before)) == (0, 0)
            program.assert_nothing_is_left(steps)
        runner.run(simulator.__aexit__(None, None, None))
    record_property("figure", sweep.figure)


@pytest.mark.slow
@pytest.mark.leaping
@pytest.mark.parametrize("way", WAYS)
async def test_a_stop_at_every_step_of_a_repaired_read_leaves_nothing(way: Way) -> None:
    """A read that closes gaps can be stopped at any step, and none of its requests is left."""
    results: list[Result] = []

    async def read_whole() -> None:
        results.append(await read(moving, ahead=4))

    for steps in (sweep := Sweep()):
        moving = MovingList(Random(3), insert_rate=0.8, burst=10, page_size=60).fill(300)
        await way(read_whole(), steps)
        assert steps.left(of_others=True) == []
    assert results[-1].completeness is Completeness.REPAIRED
    assert "overlap.py" in " ".join(sweep.places)


# --- the caller's own scopes ------------------------------------------------------------------------------------------


@pytest.mark.leaping
async def test_a_timeout_around_a_call_is_kept() -> None:
    """A call that hangs ends when the caller's timeout expires, and its slot is free."""
    faults = [Fault(kind="hang", rate=1.0, endpoint="sessions")]
    async with PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=1, faults=faults) as simulator:
        async with client_of(simulator) as client:
            loop = asyncio.get_running_loop()
            started = loop.time()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10):
                    await one_vehicle(client, simulator)
            assert 10 <= loop.time() - started < 11
            assert_idle(client)


async def test_a_task_group_raises_only_the_siblings_error(simulator: PoderoSimulator) -> None:
    """If a sibling task fails, its error is the only one in the group, since the fetch ends with `CancelledError`."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("sibling")

    async with client_of(simulator) as client:
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(fleet(client, simulator))
                group.create_task(fail())
    assert [type(error) for error in caught.value.exceptions] == [KeyError]

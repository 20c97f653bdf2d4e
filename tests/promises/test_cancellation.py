"""Leaving early leaves nothing behind, and a cancellation is never swallowed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import attrs
import pytest
from filelock import FileLock

from podero_async import Completeness, FileTokenStore, PoderoClient, ThrottlePolicy
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


def sockets_to(simulator: PoderoSimulator) -> int:
    """Count this process's connections to the simulator: only the client's side has its port as the peer."""
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
async def test_breaking_out_of_a_large_fleet_leaves_nothing() -> None:
    """A bot that stops at the first answer would leak tasks, connections and places, until it stands still."""
    async with PoderoSimulator(users=200, vehicles=1000, sessions_per_vehicle=3, latency_s=0.001) as simulator:
        before = asyncio.all_tasks()
        async with client_of(simulator) as client:
            async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
                async for _ in fleet:
                    break
            throttle = client._transport.limiter
            assert (throttle.in_flight, throttle.queued) == (0, 0)
            ours = {task for task in asyncio.all_tasks() - before if "podero_async" in repr(task.get_coro())}
            assert {task for task in ours if "testing" not in repr(task.get_coro())} == set()
            assert len([user async for user in client.users()]) == 200, "the client works on"
            assert sockets_to(simulator) > 0
        assert sockets_to(simulator) == 0


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
    discovery,
    calls_at_once,
]


@attrs.define
class Program:
    """Does some work with a client of its own, beside a server that does what servers do."""

    work: FleetWork
    simulator: PoderoSimulator
    folder: Path
    client: PoderoClient | None = None

    async def run(self, number: int) -> None:
        self._arm()
        store, throttle = FileTokenStore(self.folder / f"tokens-{number}"), ThrottlePolicy(max_concurrency=2)
        with FileLock(self.folder / f"tokens-{number}.lock") as of_another_process:
            if self.work is calls_at_once:
                asyncio.get_running_loop().call_later(0.01, of_another_process.release)
            else:
                of_another_process.release()
            async with client_of(self.simulator, throttle=throttle, token_store=store) as self.client:
                await self.work(self.client, self.simulator)

    def _arm(self) -> None:
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
            throttle = self.client._transport.limiter
            assert (throttle.in_flight, throttle.queued) == (0, 0)
        assert not [file for file in self.folder.iterdir() if file.suffix not in {"", ".lock"}]


def served(vehicles: int) -> PoderoSimulator:
    return PoderoSimulator(users=2, vehicles=vehicles, sessions_per_vehicle=80, seed=2)


async def stop_everywhere(work: FleetWork, way: Way, folder: Path, vehicles: int) -> str:
    """Return a figure to quote."""
    sweep = Sweep()
    async with served(vehicles) as simulator:
        before = await calm()
        for steps in sweep:
            program = Program(work, simulator, folder)
            await way(program.run(steps.at), steps)
            assert await left_open(before) == (0, 0)
            program.assert_nothing_is_left(steps)
    return sweep.figure


@pytest.mark.leaping
@pytest.mark.parametrize(
    ("work", "way"),
    [
        (fleet, by_cancelling),
        (a_fleet_taken_slowly, by_cancelling),
        (calls_at_once, by_cancelling),
        (one_vehicle, by_a_timeout),
        (a_stream, by_a_sibling),
    ],
)
async def test_a_stop_at_every_step_comes_out_and_leaves_nothing(
    work: FleetWork, way: Way, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """At some await, a cancelled call would go on, hang, or keep a place for ever."""
    record_property("figure", await stop_everywhere(work, way, tmp_path, vehicles=3))


@pytest.mark.parametrize("way", WAYS)
async def test_a_stop_at_every_step_of_a_read_that_is_repaired_comes_out(way: Way) -> None:
    """A list that moves would keep its reader asking for pages after its caller has gone."""
    results: list[Result] = []
    for steps in (sweep := Sweep()):
        moving = MovingList(Random(3), insert_rate=0.8, burst=10, page_size=60).fill(300)
        await way(read_whole(moving, results), steps)
        assert steps.left(of_others=True) == []
    assert results[-1].completeness is Completeness.REPAIRED
    assert "overlap.py" in " ".join(sweep.places)


async def read_whole(moving: MovingList, results: list[Result]) -> None:
    results.append(await read(moving, ahead=4))


@pytest.mark.soak
@pytest.mark.leaping
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("work", WORKS)
async def test_a_stop_at_every_step_of_a_larger_fleet(
    work: FleetWork, way: Way, tmp_path: Path, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The same with 12 vehicles, in all the ways."""
    record_property("figure", await stop_everywhere(work, way, tmp_path, vehicles=max(3, round(12 * soak_scale**0.5))))


def interrupt_everywhere(work: FleetWork, folder: Path, vehicles: int) -> str:
    """Return a figure to quote."""
    sweep = Sweep()
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        simulator = served(vehicles)
        runner.run(simulator.__aenter__())
        before = runner.run(calm())
        for steps in sweep:
            program = Program(work, simulator, folder)
            by_ctrl_c(runner, program.run(steps.at), steps)
            assert runner.run(left_open(before)) == (0, 0)
            program.assert_nothing_is_left(steps)
        runner.run(simulator.__aexit__(None, None, None))
    return sweep.figure


def test_ctrl_c_at_every_step_comes_out_and_leaves_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A script that is interrupted would hang, or leave connections behind."""
    record_property("figure", interrupt_everywhere(one_vehicle, tmp_path, vehicles=3))


@pytest.mark.soak
@pytest.mark.parametrize("work", WORKS)
def test_ctrl_c_at_every_step_of_a_larger_fleet(
    work: FleetWork, tmp_path: Path, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The same with 12 vehicles, and with all that a client is asked for."""
    record_property("figure", interrupt_everywhere(work, tmp_path, vehicles=max(3, round(12 * soak_scale**0.5))))


async def test_a_timeout_around_a_call_is_kept() -> None:
    """A request handler with a deadline would miss it."""
    faults = [Fault(kind="hang", rate=1.0, endpoint="sessions")]
    async with PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=1, faults=faults) as simulator:
        async with client_of(simulator) as client:
            loop = asyncio.get_running_loop()
            started = loop.time()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.04):
                    await one_vehicle(client, simulator)
            assert loop.time() - started < 0.3
            assert client._transport.limiter.in_flight == 0


async def test_a_task_group_sees_the_callers_error_not_ours(simulator: PoderoSimulator) -> None:
    """A sibling's failure would be hidden behind a cancellation that we turned into something else."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("sibling")

    async with client_of(simulator) as client:
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(fleet(client, simulator))
                group.create_task(fail())
    assert [type(error) for error in caught.value.exceptions] == [KeyError]

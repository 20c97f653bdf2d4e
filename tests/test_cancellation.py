"""Leaving early leaves nothing behind, and a cancellation is never swallowed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podero_async import PoderoClient, ThrottlePolicy
from podero_async.testing import Fault, PoderoSimulator
from tests.support import client_of


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
            throttle = client._transport.throttle
            assert (throttle.in_flight, len(throttle._waiters)) == (0, 0)
            ours = {task for task in asyncio.all_tasks() - before if "podero_async" in repr(task.get_coro())}
            assert {task for task in ours if "testing" not in repr(task.get_coro())} == set()
            assert len([user async for user in client.users()]) == 200, "the client works on"
            assert sockets_to(simulator) > 0
        assert sockets_to(simulator) == 0


async def fleet(client: PoderoClient, simulator: PoderoSimulator) -> None:
    async with client.fetch_fleet(simulator.first_day, simulator.last_day) as stream:
        async for _ in stream:
            pass


async def one_vehicle(client: PoderoClient, simulator: PoderoSimulator) -> None:
    vehicle = simulator.vehicles[0]
    await client.vehicle_sessions(vehicle.user_id, vehicle.vehicle_id, simulator.first_day, simulator.last_day)


async def a_stream(client: PoderoClient, simulator: PoderoSimulator) -> None:
    vehicle = simulator.vehicles[0]
    async for _ in client.sessions(vehicle.user_id, vehicle.vehicle_id, simulator.first_day, simulator.last_day):
        await asyncio.sleep(0)


async def discovery(client: PoderoClient, simulator: PoderoSimulator) -> None:
    async for _ in client.discover_vehicles():
        pass


@pytest.mark.parametrize("work", [fleet, one_vehicle, a_stream, discovery])
async def test_cancellation_at_every_step_comes_out_and_leaves_nothing(
    work: Callable[[PoderoClient, PoderoSimulator], Awaitable[None]],
) -> None:
    """At some await, a cancelled call would go on, hang, or keep a place for ever."""
    faults = [Fault(kind="status", status=503, rate=0.2), Fault(kind="reset", rate=0.1)]
    async with PoderoSimulator(users=3, vehicles=4, sessions_per_vehicle=450, seed=2, faults=faults) as simulator:
        step = 0
        finished = False
        while not finished:
            step += 1
            async with client_of(simulator, throttle=ThrottlePolicy(max_concurrency=3)) as client:
                before = asyncio.all_tasks()
                task = asyncio.ensure_future(work(client, simulator))
                for _ in range(step * step):  # ever further into the work
                    await asyncio.sleep(0)
                task.cancel()
                async with asyncio.timeout(5):
                    results = await asyncio.gather(task, return_exceptions=True)
                finished = results == [None]
                assert finished or isinstance(results[0], asyncio.CancelledError)
                await asyncio.sleep(0)
                left = {
                    each for each in asyncio.all_tasks() - before if "_lookahead" in repr(each) or "fleet" in repr(each)
                }
                assert left == set()
                throttle = client._transport.throttle
                assert (throttle.in_flight, len(throttle._waiters)) == (0, 0)
        assert step > 4


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
            assert client._transport.throttle.in_flight == 0


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

"""Reads of many vehicles at once: bounded in what they hold, ended together, and nothing kept of what was handed over."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Iterator
from datetime import date

import pytest

from podero_async import Completeness, VehicleRef, VehicleSessions
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.vehicle import UndecodedSessions
from podero_async._fleet.worker_pool import Outcome, WorkerPool
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, USER, client_of

DAY = date(2026, 1, 1)


def sessions() -> VehicleSessions:
    vehicle = VehicleRef(user_id=ORG, vehicle_id=USER)
    return VehicleSessions(
        vehicle=vehicle, from_date=DAY, to_date=DAY, sessions=[], completeness=Completeness.VERIFIED, total=0
    )


async def test_room_is_given_first_come_first_served_and_never_over_its_bound() -> None:
    """Long lists would fill the memory, or a large one would wait behind small ones for ever."""
    room = MemoryBudget(10)
    entered: list[int] = []

    async def enter(pages: int) -> None:
        await room.enter(pages)
        entered.append(pages)

    assert await room.enter(6) == 6
    waiting = [asyncio.create_task(enter(pages)) for pages in (5, 1, 4)]
    await asyncio.sleep(0.001)
    assert entered == [], "the small one does not slip past the large one"
    room.leave(6)
    await asyncio.gather(*waiting)
    assert entered == [5, 1, 4]


async def test_a_list_larger_than_all_the_room_gets_all_of_it() -> None:
    """A vehicle with more pages than may be held would hang its fleet."""
    room = MemoryBudget(10)
    await room.enter(1)
    large = asyncio.create_task(room.enter(1000))
    await asyncio.sleep(0.001)
    assert not large.done()
    room.leave(1)
    assert await large == 10
    room.leave(10)
    assert await room.enter(10) == 10


async def test_who_is_cancelled_while_it_waits_for_room_takes_none() -> None:
    """Each cancelled read would leave less room, until nothing is read any more."""
    room = MemoryBudget(2)
    await room.enter(2)
    waiting = [asyncio.create_task(room.enter(1)) for _ in range(3)]
    await asyncio.sleep(0.001)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    room.leave(2)
    assert await asyncio.wait_for(room.enter(2), 1) == 2


async def test_no_result_outlives_its_hand_over() -> None:
    """Each worker would hold the vehicle it read last: a hundred megabytes of sessions that nobody wants any more."""
    handed_over: list[weakref.ref[VehicleSessions]] = []
    never = asyncio.Event()

    async def read(item: int, _: MemoryBudget) -> UndecodedSessions | Outcome:
        if item >= 3:
            await never.wait()
        result = sessions()
        handed_over.append(weakref.ref(result))
        return result

    async with WorkerPool(iter(range(100)), read, places=2) as stream:
        for _ in range(3):
            await anext(stream)
        await asyncio.sleep(0)
        gc.collect()
        assert [alive() for alive in handed_over] == [None, None, None]


@pytest.mark.parametrize("kind", ["iterator", "generator"])
async def test_items_are_pulled_only_as_there_is_somebody_to_read_them(kind: str) -> None:
    """A fleet of a million vehicles would be listed before the first one is read."""
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for number in range(1000):
            pulled += 1
            yield number

    async def stream_of_items() -> AsyncGenerator[int, None]:
        for number in items():
            yield number

    async def read(_: int, __: MemoryBudget) -> UndecodedSessions | Outcome:
        return sessions()

    source = items() if kind == "iterator" else stream_of_items()
    async with WorkerPool(source, read, places=4) as stream:
        await asyncio.sleep(0.01)
        assert pulled <= 4 + 2 + 16, "the workers, and what waits in the buffer"
        assert len([item async for item, _ in stream]) == 1000


async def test_long_lists_are_under_way_with_few_pages_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet of long lists would be in memory with as many of them as requests may be under way."""
    most = 0
    plain = MemoryBudget.enter

    async def watched(self: MemoryBudget, pages: int) -> int:
        nonlocal most
        taken = await plain(self, pages)
        most = max(most, self._taken)
        return taken

    monkeypatch.setattr(MemoryBudget, "enter", watched)
    async with PoderoSimulator(users=5, vehicles=40, sessions_per_vehicle=900, seed=4) as simulator:
        async with client_of(simulator) as client:
            async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
                count = sum([len(outcome.sessions) async for outcome in fleet if isinstance(outcome, VehicleSessions)])
                assert fleet._outcomes._room._taken == 0
    assert count == sum(len(simulator.truth(vehicle)) for vehicle in simulator.vehicles)
    assert 100 < most <= 128


async def endless(_: int, __: MemoryBudget) -> UndecodedSessions | Outcome:
    return sessions()


async def test_leaving_does_not_wait_for_room_that_nobody_makes() -> None:
    """A caller whose source of vehicles fails while it is closed would hang for ever."""

    async def items() -> AsyncGenerator[int, None]:
        for number in range(60):
            yield number
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the cursor is closed")

    async with asyncio.timeout(5):
        async with WorkerPool(items(), endless, places=64) as stream:
            await anext(stream)
            await asyncio.sleep(0.01)  # all is pulled, and the buffer is full


async def test_everybody_who_iterates_is_told_of_the_end() -> None:
    """A second consumer would wait for ever once the first has left."""

    async def never(_: int, __: MemoryBudget) -> UndecodedSessions | Outcome:
        await asyncio.Event().wait()
        return sessions()

    stream = WorkerPool(iter(range(3)), never, places=2)
    async with stream:
        second = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0.001)
    async with asyncio.timeout(5):
        assert await second is None


async def test_an_iterator_that_raises_the_end_of_another_kind_is_an_error() -> None:
    """A fleet would be called complete though its source broke off."""

    def items() -> Iterator[int]:
        yield 1
        raise StopAsyncIteration

    async with WorkerPool(items(), endless, places=1) as stream:
        await anext(stream)
        with pytest.raises(RuntimeError):
            await anext(stream)

"""The worker pool and the memory budget: bounded memory, and an end that every consumer sees."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podero_async import (
    ClientCredentials,
    Completeness,
    NotFoundError,
    RetryPolicy,
    ThrottlePolicy,
    Timeouts,
    VehicleRef,
    VehicleSessions,
)
from podero_async._decode import read_page
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.fetch import fetch_or_fail
from podero_async._fleet.vehicle import FetchedSessions
from podero_async._fleet.worker_pool import Fetched, WorkerPool
from podero_async._http import Transport
from podero_async._http.endpoints import Endpoints
from podero_async._paging.window import Window
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, USER, page_body, wire_row

DAY = date(2026, 1, 1)


def outcome(sessions: int = 0) -> FetchedSessions:
    rows = [read_page(page_body(*[wire_row()] * sessions))]
    vehicle, window = VehicleRef(user_id=ORG, vehicle_id=USER), Window(DAY, DAY)
    return FetchedSessions(vehicle, window, rows, Completeness.VERIFIED, sessions, 1, 0)


decode = FetchedSessions.decode


async def read_at_once(_: int, __: MemoryBudget) -> Fetched:
    return outcome()


async def never_read(_: int, __: MemoryBudget) -> Fetched:
    await asyncio.Event().wait()
    return outcome()


async def let_tasks_run() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# --- the memory budget ------------------------------------------------------------------------------------------------


async def admitted(waiting: dict[int, asyncio.Task[Callable[[], None]]]) -> list[int]:
    await let_tasks_run()
    return [pages for pages, task in waiting.items() if task.done()]


async def test_lists_that_fit_pass_a_list_that_waits() -> None:
    """Beside a list that hangs and a long one that waits for it, others are read in less than half of the budget."""
    budget = MemoryBudget(10)
    hanging = await budget.acquire(5)
    waiting = {pages: asyncio.create_task(budget.acquire(pages)) for pages in (100, 3, 2, 1)}
    assert await admitted(waiting) == [3, 1]
    waiting[3].result()()
    assert await admitted(waiting) == [3, 2, 1]
    hanging()
    assert await admitted(waiting) == [100, 3, 2, 1]
    assert budget.pages_held == 9


async def test_lists_that_pass_do_not_keep_a_long_one_waiting() -> None:
    """However many short lists come, a long list is admitted once the lists before it have ended."""
    budget = MemoryBudget(10)
    before = [await budget.acquire(1) for _ in range(10)]
    long = asyncio.create_task(budget.acquire(10))
    await let_tasks_run()
    short = [asyncio.create_task(budget.acquire(1)) for _ in range(100)]
    await let_tasks_run()
    for release in before:
        release()
    await let_tasks_run()
    assert long.done()
    assert [task.done() for task in short].count(True) == 4


async def test_two_long_lists_are_not_read_at_once() -> None:
    """A list takes at most one page over half of the budget, and another that long waits for it."""
    budget = MemoryBudget(10)
    release = await budget.acquire(1000)
    assert budget.pages_held == budget.max_share == 6
    other = asyncio.create_task(budget.acquire(1000))
    await let_tasks_run()
    assert not other.done()
    release()
    await other


@pytest.mark.parametrize("max_pages", [1, 2, 3, 16])
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=40))
@settings(max_examples=50, deadline=None)
def test_the_budget_is_never_exceeded_and_no_list_waits_for_ever(max_pages: int, steps: list[tuple[bool, int]]) -> None:
    """In any order of calls, releases and cancellations the budget holds, and all lists that wait are admitted."""

    async def run() -> None:
        budget = MemoryBudget(max_pages)
        tasks: list[asyncio.Task[Callable[[], None]]] = []

        def end(number: int) -> None:
            task = tasks.pop(number % len(tasks))
            if task.done():
                task.result()()
            else:
                task.cancel()  # perhaps at the moment at which it is admitted

        for is_call, number in steps:
            if is_call:
                tasks.append(asyncio.create_task(budget.acquire(number)))
            elif tasks:
                end(number)
            if number % 2:
                await asyncio.sleep(0)
            assert 0 <= budget.pages_held <= max_pages
        while tasks:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            end([task.done() for task in tasks].index(True))
        await let_tasks_run()
        assert budget.pages_held == 0

    asyncio.run(run())


async def test_a_cancelled_acquire_takes_nothing() -> None:
    """After waiting tasks are cancelled, the whole budget is available again, at once for those behind them."""
    budget = MemoryBudget(4)
    release = await budget.acquire(2)
    waiting = [asyncio.create_task(budget.acquire(pages)) for pages in (3, 3, 2)]
    await let_tasks_run()
    for task in waiting[:2]:
        task.cancel()
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    assert waiting[2].done()
    release()
    assert budget.pages_held == 2


async def test_a_fleet_of_long_lists_stays_within_the_budget() -> None:
    """With 8 slots at most 16 pages are held at once, most of them are used, and all are released in the end."""
    peak = 0
    async with PoderoSimulator(users=2, vehicles=8, sessions_per_vehicle=700, seed=4) as simulator:
        credentials = ClientCredentials(simulator.client_id, simulator.client_secret)
        policies = {"retry": RetryPolicy(), "throttle": ThrottlePolicy(max_concurrency=8), "timeouts": Timeouts()}
        transport = Transport(simulator.base_url, credentials, session=None, token_store=None, **policies)  # type: ignore[arg-type]
        endpoints = Endpoints(transport, simulator.org_id)
        window = Window(simulator.first_day, simulator.last_day)
        budgets: set[MemoryBudget] = set()

        async def read(vehicle: VehicleRef, budget: MemoryBudget) -> Fetched:
            nonlocal peak
            budgets.add(budget)
            outcome = await fetch_or_fail(endpoints, vehicle, window, budget)
            peak = max(peak, budget.pages_held)
            return outcome

        async with WorkerPool(iter(simulator.vehicles), read, decode, slots=8) as pool:
            count = sum([len(outcome.sessions) async for _, outcome in pool if isinstance(outcome, VehicleSessions)])
        await transport.aclose()
        assert count == sum(len(simulator.truth(vehicle)) for vehicle in simulator.vehicles)
    assert 10 < peak <= 16
    assert [budget.pages_held for budget in budgets] == [0]


# --- the worker pool --------------------------------------------------------------------------------------------------


async def test_no_worker_keeps_the_outcome_that_it_handed_over() -> None:
    """When the consumer has dropped an outcome, it is freed although the workers wait for their next item."""
    handed_over: list[weakref.ref[VehicleSessions]] = []

    async def read(item: int, budget: MemoryBudget) -> Fetched:
        if item >= 3:
            return await never_read(item, budget)
        return outcome()

    async def noted(fetched: FetchedSessions) -> VehicleSessions:
        sessions = await decode(fetched)
        handed_over.append(weakref.ref(sessions))
        return sessions

    async with WorkerPool(iter(range(100)), read, noted, slots=2) as pool:
        for _ in range(3):
            await anext(pool)
        await asyncio.sleep(0)
        gc.collect()
        assert [alive() for alive in handed_over] == [None, None, None]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["iterator", "generator"])
@pytest.mark.parametrize(("sessions", "buffered"), [(0, 16), (60, 2)])
async def test_items_are_pulled_only_when_a_worker_is_free(kind: str, sessions: int, buffered: int) -> None:
    """Without a consumer, each of 6 workers has an item, and the buffer has 16 outcomes or 100 sessions."""
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for number in range(1000):
            pulled += 1
            yield number

    async def generated() -> AsyncGenerator[int, None]:
        for number in items():
            yield number

    async def read(_: int, __: MemoryBudget) -> Fetched:
        return outcome(sessions)

    source = items() if kind == "iterator" else generated()
    async with WorkerPool(source, read, decode, slots=4) as pool:
        for _ in range(200):
            await asyncio.sleep(0)
        assert pulled == 6 + buffered
        assert len([item async for item, _ in pool]) == 1000


async def test_an_error_of_the_source_while_it_closes_does_not_block_leaving() -> None:
    """The context of a pool can be left although its buffer is full and its source raises while it is closed."""

    async def items() -> AsyncGenerator[int, None]:
        for number in range(60):
            yield number
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the cursor is closed")

    async with asyncio.timeout(60):
        async with WorkerPool(items(), read_at_once, decode, slots=64) as pool:
            await anext(pool)
            for _ in range(200):
                await asyncio.sleep(0)  # until all items are pulled and the buffer is full


async def test_every_consumer_sees_the_end() -> None:
    """A second task that iterates ends when the first leaves the context."""
    pool = WorkerPool(iter(range(3)), never_read, decode, slots=2)
    async with pool:
        second = asyncio.create_task(anext(pool, None))
        await let_tasks_run()
    async with asyncio.timeout(60):
        assert await second is None


@pytest.mark.parametrize("is_alone", [True, False])
async def test_the_iteration_ends_if_only_the_pools_own_task_is_cancelled(is_alone: bool) -> None:
    """If anyone cancels the task of a pool, alone or with its workers, each iteration raises `CancelledError`."""
    before = asyncio.all_tasks()
    async with WorkerPool(iter(range(3)), never_read, decode, slots=2) as pool:
        await let_tasks_run()
        for task in asyncio.all_tasks() - before:
            if not is_alone or task.get_name() == "podero_async fleet":
                task.cancel()
        async with asyncio.timeout(60):
            for _ in range(2):
                with pytest.raises(asyncio.CancelledError):
                    await anext(pool)


@pytest.mark.parametrize("consumers", [1, 2])
@pytest.mark.parametrize("has_failed", [False, True])
async def test_every_consumer_gets_the_same_end_however_often_it_asks(consumers: int, has_failed: bool) -> None:
    """All iterations end the same, cleanly or with one error, also if they begin after the end or after the context."""
    error = NotFoundError(404, "no such organization", "GET", "/users", "request-1", 2.5)
    error.attempts = 3

    def items() -> Iterator[int]:
        yield from range(20)
        if has_failed:
            raise error

    async def consume(pool: WorkerPool[int, VehicleSessions]) -> NotFoundError | None:
        try:
            async for item, _ in pool:
                consumed.append(item)
                await asyncio.sleep(0)
        except NotFoundError as caught:
            return caught
        return None

    consumed: list[int] = []
    async with WorkerPool(items(), read_at_once, decode, slots=2) as pool:
        ends = await asyncio.gather(*(consume(pool) for _ in range(consumers)))
        ends.append(await consume(pool))
    ends.append(await consume(pool))
    assert sorted(consumed) == list(range(20)), "each outcome goes to one consumer"
    if not has_failed:
        assert ends == [None] * (consumers + 2)
        return
    assert ends[0] is error
    assert len({id(end) for end in ends}) == consumers + 2
    for end in ends:
        assert end is not None
        assert (end.args, vars(end)) == (error.args, vars(error))
        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(end.__traceback__)]
        assert frames.count("consume") == 1


async def test_an_error_that_cannot_be_copied_is_raised_again_itself() -> None:
    """The caller's own error is raised from every iteration, even if it cannot be copied."""

    class OwnError(Exception):
        def __init__(self, *, line: int) -> None:
            super().__init__(f"line {line}")

    def items() -> Iterator[int]:
        yield from ()
        raise OwnError(line=7)

    async with WorkerPool(items(), read_at_once, decode, slots=2) as pool:
        for _ in range(2):
            with pytest.raises(OwnError, match="line 7"):
                await anext(pool)


@pytest.mark.parametrize("kind", ["iterator", "generator"])
async def test_an_error_of_the_source_comes_as_it_is_after_the_outcomes_before_it(kind: str) -> None:
    """The error of a source is raised unchanged, even if it is an exception group, after the items before it were read."""
    error = ExceptionGroup("two shards failed", [OSError("one"), OSError("other")])

    def items() -> Iterator[int]:
        yield from range(5)
        raise error

    async def generated() -> AsyncGenerator[int, None]:
        for number in items():
            yield number

    async def read(item: int, __: MemoryBudget) -> Fetched:
        for _ in range(item * 10):
            await asyncio.sleep(0)
        return outcome()

    read_items = []
    async with WorkerPool(items() if kind == "iterator" else generated(), read, decode, slots=8) as pool:
        with pytest.raises(ExceptionGroup) as caught:
            async for item, _ in pool:
                read_items.append(item)
    assert caught.value is error
    assert sorted(read_items) == [0, 1, 2, 3, 4]


async def test_an_error_of_a_read_precedes_an_earlier_error_of_the_source() -> None:
    """If a read fails after the source has failed, the other reads are cancelled and the error of the read is raised."""

    def items() -> Iterator[int]:
        yield 1
        raise OSError("the cursor is closed")

    async def read(_: int, __: MemoryBudget) -> Fetched:
        await asyncio.sleep(0)
        raise ExceptionGroup("refused", [PermissionError()])

    async with WorkerPool(items(), read, decode, slots=2) as pool:
        with pytest.raises(ExceptionGroup, match="refused"):
            await anext(pool)


async def test_leaving_drops_the_outcomes_in_the_buffer() -> None:
    """A consumer that goes on after the context was left gets no outcome, although the buffer had some."""
    async with WorkerPool(iter(range(3)), read_at_once, decode, slots=2) as pool:
        await let_tasks_run()
    assert [item async for item, _ in pool] == []


async def test_an_iterator_that_raises_stop_async_iteration_is_an_error() -> None:
    """The wrong kind of end from the caller's iterator is a `RuntimeError`, not the end of the fleet."""

    def items() -> Iterator[int]:
        yield 1
        raise StopAsyncIteration

    async with WorkerPool(items(), read_at_once, decode, slots=1) as pool:
        await anext(pool)
        with pytest.raises(RuntimeError):
            await anext(pool)

"""A request that hangs ends at its deadline, and a cancellation by a caller is never reported as a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from podero_async import Timeouts
from podero_async._http.timeouts import AttemptTimeout, AttemptTimer
from tests._support.fake_clock import run_by_clockwork

TIMEOUTS = Timeouts(read=30, total=60)

Work = Callable[[AttemptTimeout], Awaitable[object]]


async def timed_out_after(work: Work) -> float:
    """Return the seconds until `work` was ended by its timeout."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        attempt = AttemptTimeout(TIMEOUTS, AttemptTimer())
        with attempt:
            await work(attempt)
    assert not attempt.is_task_cancelled
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "the task's next await is not cancelled"
    await asyncio.sleep(0)
    return loop.time() - began


async def hang(_: AttemptTimeout) -> None:
    await asyncio.Event().wait()


async def hang_after_one_chunk(attempt: AttemptTimeout) -> None:
    await asyncio.sleep(20)
    attempt.progress()
    await asyncio.Event().wait()


async def drip(attempt: AttemptTimeout) -> None:
    while True:
        await asyncio.sleep(20)
        attempt.progress()


@pytest.mark.parametrize(("work", "seconds"), [(hang, 30), (hang_after_one_chunk, 50), (drip, 60)])
def test_an_attempt_ends_without_progress_and_at_its_total(work: Work, seconds: float) -> None:
    """An attempt ends `read` seconds after its last progress, and `total` seconds after its beginning at the latest."""
    assert run_by_clockwork(timed_out_after(work), within_s=99) == seconds


def test_attempts_that_share_a_timer_end_each_at_its_own_moment() -> None:
    """Attempts of different timeouts and beginnings, some of which end before, end each at its own timeout."""

    async def ends() -> tuple[float, ...]:
        timer, loop = AttemptTimer(), asyncio.get_running_loop()
        began = loop.time()

        async def attempt(delay_s: float, read_s: float, work_s: float = 1e6) -> float:
            await asyncio.sleep(delay_s)
            with suppress(TimeoutError), AttemptTimeout(Timeouts(read=read_s, total=60), timer):
                await asyncio.sleep(work_s)
            return loop.time() - began

        attempts = attempt(0, 30), attempt(1, 5), attempt(2, 30, 3), attempt(3, 30), attempt(40, 10)
        return tuple(await asyncio.gather(*attempts))

    assert run_by_clockwork(ends(), within_s=99) == (30, 6, 5, 33, 50)


def test_a_hold_that_ended_leaves_the_read_timeout() -> None:
    """After a hold, `read` counts from the next progress, although only `total` was watched in between."""

    async def held() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        attempt = AttemptTimeout(Timeouts(read=10, total=60), AttemptTimer())
        with pytest.raises(TimeoutError), attempt:
            attempt.hold()
            await asyncio.sleep(25)
            attempt.progress()
            await asyncio.Event().wait()
        return loop.time() - began

    assert run_by_clockwork(held(), within_s=99) == 35


@pytest.mark.parametrize(("ahead_s", "outcome"), [(1, "cancelled"), (0, "cancelled"), (-1, "TimeoutError")])
def test_a_cancellation_from_outside_is_not_a_timeout(ahead_s: float, outcome: str) -> None:
    """A task that is cancelled before its timeout, or at the same moment, ends cancelled."""

    async def cancelled_ahead_of_the_timeout() -> str:
        attempts: list[AttemptTimeout] = []

        async def work() -> None:
            attempts.append(AttemptTimeout(TIMEOUTS, AttemptTimer()))
            with attempts[0]:
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(30 - ahead_s, task.cancel)
        await asyncio.wait([task])
        assert attempts[0].is_task_cancelled is task.cancelled()
        return "cancelled" if task.cancelled() else type(task.exception()).__name__

    assert run_by_clockwork(cancelled_ahead_of_the_timeout(), within_s=99) == outcome


def test_the_timeout_of_a_caller_stays_with_the_caller() -> None:
    """An `asyncio.timeout` around an attempt ends the caller's block, and the attempt raises no timeout of its own."""

    async def within_a_timeout() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                with pytest.raises(asyncio.CancelledError):
                    with AttemptTimeout(TIMEOUTS, AttemptTimer()):
                        await asyncio.Event().wait()
                raise asyncio.CancelledError
        return loop.time() - began

    assert run_by_clockwork(within_a_timeout(), within_s=99) == 5


async def test_an_attempt_needs_a_task() -> None:
    """Outside a task there is nothing to cancel, so an attempt fails before it is sent."""
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            AttemptTimeout(TIMEOUTS, AttemptTimer())
        except RuntimeError as error:
            found.set_result(str(error))

    asyncio.get_running_loop().call_soon(call)
    assert await found == "a request must be sent from a task"

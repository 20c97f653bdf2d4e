"""Deadlines end what takes too long, at their moment, by one timer; and never what somebody else cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from podero_async._http.timeouts import Deadline, Deadlines
from tests._support.fake_clock import SteppingLoop, run_by_clockwork


async def ended_after(
    deadlines: Deadlines, work: Callable[[Deadline], Awaitable[object]], *, total: float = 60, between: float = 30
) -> float:
    """Work within a deadline; return the moment at which it ended that."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):  # what is raised is the context manager's
        with Deadline(deadlines, total=total, between=between) as deadline:
            await work(deadline)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "what follows would be cancelled in its next timeout"
    await asyncio.sleep(0)
    return loop.time() - began


async def hang(_: Deadline) -> None:
    await asyncio.Event().wait()


async def drip(deadline: Deadline) -> None:
    while True:
        await asyncio.sleep(20)
        deadline.progress()


async def begin(deadline: Deadline) -> None:
    await asyncio.sleep(20)
    deadline.progress()
    await asyncio.Event().wait()


@pytest.mark.parametrize(("work", "seconds"), [(hang, 30), (begin, 50), (drip, 60)])
def test_it_ends_what_makes_no_progress_and_what_takes_too_long(
    work: Callable[[Deadline], Awaitable[object]], seconds: float
) -> None:
    """A request would hang for ever, or one that is under way be given up."""
    assert run_by_clockwork(ended_after(Deadlines(), work), within_s=99) == seconds


def test_each_ends_at_its_own_moment() -> None:
    """A deadline would be forgotten behind a later one, or all end with the first."""

    async def all_of_them() -> list[float]:
        deadlines = Deadlines()
        return await asyncio.gather(*(ended_after(deadlines, hang, between=seconds) for seconds in (9, 3, 30, 3, 6)))

    assert run_by_clockwork(all_of_them(), within_s=99) == [9, 3, 30, 3, 6]


@pytest.mark.parametrize(("is_answered", "seconds"), [(True, 60.0), (False, 45.05)])
def test_what_came_while_the_loop_stood_still_is_progress(is_answered: bool, seconds: float) -> None:
    """All requests under way would end with the pause of a debugger, though their answers are there."""

    async def answered(deadline: Deadline) -> None:
        answer = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(20, answer.set_result, None)
        await asyncio.sleep(10)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppingLoop)
        loop.lag(35)
        if is_answered:
            await answer
            deadline.progress()
        await asyncio.Event().wait()

    assert run_by_clockwork(ended_after(Deadlines(), answered), within_s=99) == pytest.approx(seconds)


def test_a_loop_that_is_always_late_waits_for_no_request_for_ever() -> None:
    """A program that is too busy would never be told of a server that hangs."""

    async def busy(_: Deadline) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppingLoop)
        while True:
            loop.lag(0.2)
            await asyncio.sleep(0)

    assert 5 < run_by_clockwork(ended_after(Deadlines(), busy, total=5), within_s=99) < 6


def test_one_timer_is_enough_for_what_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request would set and cancel timers of its own."""
    set_at: list[float] = []
    set_timer = Deadlines._set_timer

    def noted(deadlines: Deadlines, at: float) -> None:
        set_at.append(at)
        set_timer(deadlines, at)

    async def many() -> None:
        deadlines = Deadlines()
        for _ in range(1000):
            with Deadline(deadlines, total=60, between=30) as deadline:
                await asyncio.sleep(0.05)
                deadline.progress()
                await asyncio.sleep(0.05)

    monkeypatch.setattr(Deadlines, "_set_timer", noted)
    run_by_clockwork(many(), within_s=200)
    assert len(set_at) <= 5, "one each 30 s"


async def test_a_closed_one_leaves_no_timer() -> None:
    """A loop would keep what a client that is closed has left, for half a minute."""
    deadlines = Deadlines()
    with Deadline(deadlines, total=60, between=30):
        timer = deadlines._timer
    assert timer is not None
    assert not timer.cancelled(), "the next one may need it"
    deadlines.close()
    assert timer.cancelled()
    Deadlines().close()


def test_what_is_under_way_when_it_is_closed_ends_at_its_moment() -> None:
    """A call over a session that was lent would hang for ever once its client is closed."""

    async def closed_meanwhile() -> tuple[float, bool]:
        deadlines = Deadlines()
        hanging = asyncio.create_task(ended_after(deadlines, hang))
        with Deadline(deadlines, total=60, between=59):
            await asyncio.sleep(5)
            deadlines.close()
            seconds = await hanging
            timer = deadlines._timer
            assert timer is not None
            assert not timer.cancelled()
        return seconds, timer.cancelled()

    assert run_by_clockwork(closed_meanwhile(), within_s=99) == (30, True)


async def cancelled_with(deadlines: Deadlines, ahead_s: float) -> str:
    """Cancel a task so many seconds before its deadline; return what came out of it."""

    async def work() -> None:
        with Deadline(deadlines, total=60, between=30):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(30 - ahead_s, task.cancel)
    await asyncio.wait([task])
    return "cancelled" if task.cancelled() else type(task.exception()).__name__


@pytest.mark.parametrize(("ahead_s", "comes_out"), [(1, "cancelled"), (0, "cancelled"), (-1, "TimeoutError")])
def test_who_cancels_the_task_meanwhile_is_not_told_of_a_timeout(ahead_s: float, comes_out: str) -> None:
    """A cancelled caller would try again instead of leaving."""
    assert run_by_clockwork(cancelled_with(Deadlines(), ahead_s), within_s=99) == comes_out


def test_the_caller_s_own_timeout_is_the_caller_s() -> None:
    """`asyncio.timeout` around a call would end as an error of the call."""

    async def within_a_timeout() -> float:
        loop, deadlines = asyncio.get_running_loop(), Deadlines()
        began = loop.time()
        try:
            async with asyncio.timeout(5):
                try:
                    with Deadline(deadlines, total=60, between=30):
                        await asyncio.Event().wait()
                except TimeoutError:
                    return -1
        except TimeoutError:
            return loop.time() - began
        return -2

    assert run_by_clockwork(within_a_timeout(), within_s=99) == 5


def test_a_result_that_came_in_time_stays_one() -> None:
    """What catches the cancellation and ends well would be an error, or be cancelled again and again."""

    async def stubborn() -> str:
        with Deadline(Deadlines(), total=60, between=30):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(1)
                answer = "an answer"
        await asyncio.sleep(1)
        return answer

    assert run_by_clockwork(stubborn(), within_s=99) == "an answer"


def test_there_must_be_a_task() -> None:
    """A call out of a callback would have no deadline at all."""

    async def from_a_callback() -> str:
        found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def call() -> None:
            try:
                Deadline(Deadlines(), total=1, between=1)
            except RuntimeError as error:
                found.set_result(str(error))

        asyncio.get_running_loop().call_soon(call)
        return await found

    assert run_by_clockwork(from_a_callback(), within_s=1) == "there is no task"

"""Bounded concurrent maps, and cancellation that waits for every task."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from podero_async._concurrency import (
    SharedFuture,
    cancel_all,
    import_ahead,
    map_as_completed,
    map_in_order,
    outlast,
    run_until,
)

pytestmark = pytest.mark.leaping


class Calls:
    """Calls that take as many seconds as their argument says, and count how many of them run."""

    def __init__(self) -> None:
        self.running = self.peak = self.started = 0

    async def __call__(self, argument: float) -> float:
        self.running += 1
        self.started += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(argument)
            if argument == 13:
                raise ValueError("unlucky")
            return argument
        finally:
            self.running -= 1


async def stream(*arguments: float) -> AsyncIterator[float]:
    for argument in arguments:
        yield argument


async def test_map_in_order_keeps_the_order_and_the_bound() -> None:
    """Results come in the order of the arguments, and at most `ahead` calls run."""
    calls = Calls()
    rng = random.Random(1)
    arguments = [rng.random() for _ in range(50)]
    assert [result async for result in map_in_order(calls, arguments, ahead=4)] == arguments
    assert calls.peak == 4
    assert [result async for result in map_in_order(calls, [], ahead=4)] == []


async def test_map_as_completed_yields_the_quickest_first_and_keeps_the_bound() -> None:
    """Results come in the order of completion, and at most `ahead` calls run."""
    calls = Calls()
    assert [result async for result in map_as_completed(calls, stream(5, 1, 3, 2), ahead=4)] == [1, 2, 3, 5]
    calls = Calls()
    assert len([result async for result in map_as_completed(calls, stream(*[1.0] * 50), ahead=3)]) == 50
    assert calls.peak == 3


async def test_map_as_completed_does_not_wait_for_arguments_to_yield_a_result() -> None:
    """A result is yielded as soon as its call has finished,
    although a slot is free and the next argument has not arrived.
    """

    async def slow() -> AsyncIterator[float]:
        yield 1.0
        await asyncio.sleep(1000)
        yield 1.0

    loop = asyncio.get_running_loop()
    since = loop.time()
    times = [loop.time() - since async for _ in map_as_completed(Calls(), slow(), ahead=64)]
    assert times == pytest.approx([1, 1001])


@pytest.mark.parametrize("source", ["call", "arguments"])
async def test_map_as_completed_yields_the_finished_results_before_an_error(source: str) -> None:
    """An error of a call or of the arguments is raised after the results of all calls that have finished by then."""

    async def arguments() -> AsyncIterator[float]:
        for argument in (1, 13 if source == "call" else 12, 14, 99):
            yield argument
        if source == "arguments":
            await asyncio.sleep(10)
            raise ValueError("unlucky")

    calls, results = Calls(), []
    with pytest.raises(ValueError, match="unlucky"):
        async for result in map_as_completed(calls, arguments(), ahead=8):
            results.append(result)
            await asyncio.sleep(20)  # the error occurs, and then another call finishes
    assert results == ([1, 14] if source == "call" else [1, 12, 14])
    assert calls.running == 0


@pytest.mark.parametrize("taken", [1, 3])
async def test_closing_a_map_ends_its_calls(taken: int) -> None:
    """If the consumer leaves early, no call is running and no task is left when the map has been closed."""
    one, other = Calls(), Calls()
    for calls, results in (
        (one, map_in_order(one, range(1, 100), ahead=8)),
        (other, map_as_completed(other, stream(*range(1, 100)), ahead=8)),
    ):
        async with aclosing(results):
            for _ in range(taken):
                await anext(results)
        assert calls.running == 0
        assert len(asyncio.all_tasks()) == 1


async def test_an_error_is_raised_and_ends_the_other_calls() -> None:
    """When a call fails, the map raises its error after the other calls have ended."""
    for make in (
        lambda calls: map_in_order(calls, [1, 13, 99], ahead=3),
        lambda calls: map_as_completed(calls, stream(1, 13, 99), ahead=3),
    ):
        calls = Calls()
        with pytest.raises(ValueError, match="unlucky"):
            async for result in make(calls):
                assert result == 1
        assert calls.running == 0


async def test_errors_of_abandoned_calls_are_retrieved() -> None:
    """If several calls fail, asyncio logs none of the other errors as never retrieved."""

    async def fail(_: int) -> None:
        raise ValueError("abandoned")

    async with aclosing(map_in_order(fail, range(5), ahead=5)) as results:
        with pytest.raises(ValueError, match="abandoned"):
            await anext(results)


async def test_cancel_all_waits_for_every_task_when_it_is_cancelled_itself() -> None:
    """When the caller is cancelled a second time, all tasks still end before `CancelledError` is raised."""
    ended = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(5)
            ended.append(True)

    tasks = [asyncio.create_task(stubborn()) for _ in range(3)]
    await asyncio.sleep(1)
    cancelling = asyncio.create_task(cancel_all(tasks))
    await asyncio.sleep(1)
    cancelling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelling
    assert ended == [True] * 3


async def test_a_cancelled_caller_waits_for_the_end_of_a_future() -> None:
    """A caller of `outlast` that is cancelled twice still waits for the end; another caller gets the result."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    impatient, patient = (asyncio.create_task(outlast(future)) for _ in range(2))
    for _ in range(2):
        await asyncio.sleep(1)
        impatient.cancel()
    await asyncio.sleep(1)
    assert not impatient.done()
    future.set_result(7)
    assert await patient == 7
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_run_until_says_whether_the_task_ended_first() -> None:
    """The result is True if the task ended first; if the event was set first, it is False and the task is cancelled."""
    event = asyncio.Event()
    assert await run_until(event, asyncio.create_task(asyncio.sleep(1)))
    endless = asyncio.create_task(asyncio.sleep(1000))
    asyncio.get_running_loop().call_later(1, event.set)
    assert not await run_until(event, endless)
    assert endless.cancelled()
    with pytest.raises(ZeroDivisionError):
        await run_until(asyncio.Event(), asyncio.create_task(divide(0)))


async def divide(number: int) -> float:
    return 1 / number


def test_a_module_is_imported_ahead_in_a_thread_that_no_exit_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`import_ahead` imports a module in a daemon thread."""
    (tmp_path / "imported_ahead.py").write_text("import threading\nis_daemon = threading.current_thread().daemon\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_ahead("imported_ahead")
    for thread in threading.enumerate():
        if thread.name == "podero_async import":
            thread.join(timeout=60)
    assert sys.modules.pop("imported_ahead").is_daemon


async def test_a_forked_process_can_import_what_its_parent_was_importing(tmp_path: Path) -> None:
    """A fork waits for an import that is under way, so the import's lock is free in the child."""
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.03)\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORK, cwd=Path(__file__).parents[1], env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert await process.wait() == 0


FORK = """
import os, signal, sys
sys.path.insert(0, os.getcwd())
from podero_async._concurrency import import_ahead
import_ahead("slow_to_import")
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1] != 0)
signal.alarm(5)
import slow_to_import
os._exit(0)
"""


async def test_a_cancelled_task_leaves_a_shared_future_without_a_search() -> None:
    """Of the tasks that wait for a future, the cancelled ones leave it without a search, and the others get its result."""
    searches = 0

    class Counted(SharedFuture[str]):
        def remove_done_callback(self, *_: object) -> int:
            nonlocal searches
            searches += 1
            return 0

    future = Counted()
    tasks = [asyncio.create_task(future.wait()) for _ in range(100)]
    await asyncio.sleep(0)
    for task in tasks[:0:-1]:
        task.cancel()
    await asyncio.wait(tasks[1:])
    assert not future.done()
    future.set_result("token")
    assert await tasks[0] == await future.wait() == "token"
    assert all(task.cancelled() for task in tasks[1:])
    assert searches == 0


@pytest.mark.parametrize("ends", ["error", "cancelled"])
async def test_every_task_gets_the_end_of_a_shared_future(ends: str) -> None:
    """The error of a shared future is raised in every task that waits for it, and so is its cancellation."""
    future = SharedFuture[str]()
    tasks = [asyncio.create_task(future.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    error = OSError("refused")
    if ends == "error":
        future.set_exception(error)
    else:
        future.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result is error or isinstance(result, asyncio.CancelledError) for result in results] == [True] * 3


async def test_a_cancellation_keeps_its_message_if_the_call_is_cancelled_at_the_same_moment() -> None:
    """If a timeout cancels a call and a scope its caller in one turn of the loop, the caller gets the scope's message."""

    async def consume() -> None:
        async with aclosing(map_in_order(lambda _: asyncio.Event().wait(), [1], ahead=1)) as results:
            await anext(results)

    before = asyncio.all_tasks()
    consumer = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    (call,) = asyncio.all_tasks() - before - {consumer}
    call.cancel()
    consumer.cancel("of the scope")
    with pytest.raises(asyncio.CancelledError, match="of the scope"):
        await consumer


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    """A shared future that lives on keeps nothing of the tasks that were cancelled while they waited for it."""

    def cancelled() -> int:
        gc.collect()
        return sum(isinstance(each, asyncio.Future) and each.cancelled() for each in gc.get_objects())

    future, before = SharedFuture[str](), cancelled()
    tasks = [asyncio.create_task(future.wait()) for _ in range(100)]
    await asyncio.sleep(0)
    await cancel_all(tasks)
    del tasks
    assert cancelled() < before + 100
    future.set_result("done")
    assert await future.wait() == "done"


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_module_that_cannot_be_imported_ahead_is_no_error() -> None:
    """If an import ahead fails, nothing is raised or printed: the first use of the module tries again."""
    before = set(threading.enumerate())
    import_ahead("no_such_module")
    for thread in set(threading.enumerate()) - before:
        thread.join(60)

"""Calls that run ahead: bounded, ordered, and ended together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from podero_async._concurrency import cancel_all, map_as_completed, map_in_order

pytestmark = pytest.mark.leaping


class Calls:
    """Calls that take their argument's time, and note how many run."""

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


async def test_in_order_keeps_the_order_and_the_bound() -> None:
    """Pages would be joined in the wrong order, or all be asked for at once."""
    calls = Calls()
    arguments = [random.Random(1).random() for _ in range(50)]
    assert [result async for result in map_in_order(calls, arguments, ahead=4)] == arguments
    assert calls.peak == 4
    assert [result async for result in map_in_order(calls, [], ahead=4)] == []


async def test_as_completed_yields_the_quick_first_and_keeps_the_bound() -> None:
    """One slow user would hold up the whole discovery."""
    calls = Calls()
    assert [result async for result in map_as_completed(calls, stream(5, 1, 3, 2), ahead=4)] == [1, 2, 3, 5]
    calls = Calls()
    assert len([result async for result in map_as_completed(calls, stream(*[1.0] * 50), ahead=3)]) == 50
    assert calls.peak == 3


@pytest.mark.parametrize("taken", [1, 3])
async def test_leaving_early_ends_what_is_running(taken: int) -> None:
    """Requests would go on for a caller who is gone."""
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


async def test_an_error_comes_out_and_ends_the_others() -> None:
    """A failure would be lost in a task, or leave its siblings running."""
    for make in (
        lambda calls: map_in_order(calls, [1, 13, 99], ahead=3),
        lambda calls: map_as_completed(calls, stream(1, 13, 99), ahead=3),
    ):
        calls = Calls()
        with pytest.raises(ValueError, match="unlucky"):
            async for result in make(calls):
                assert result == 1
        assert calls.running == 0


async def test_errors_of_abandoned_calls_are_taken_note_of() -> None:
    """The event loop would complain of an exception that was never retrieved."""

    async def fail(_: int) -> None:
        raise ValueError("nobody will ask")

    async with aclosing(map_in_order(fail, range(5), ahead=5)) as results:
        with pytest.raises(ValueError, match="nobody"):
            await anext(results)


async def test_a_cancelled_cleaner_finishes_the_cleaning() -> None:
    """A second Ctrl-C would leave tasks behind."""
    ended = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(5)
            ended.append(True)

    tasks = [asyncio.create_task(stubborn()) for _ in range(3)]
    await asyncio.sleep(1)
    cleaner = asyncio.create_task(cancel_all(tasks))
    await asyncio.sleep(1)
    cleaner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cleaner
    assert ended == [True] * 3

"""The queue of the limiter. `test_limiter` and `test_limiter_machine` prove who goes next."""

from __future__ import annotations

import asyncio
import random

import pytest

from podero_async._flow.breaker import CircuitBreakers
from podero_async._flow.queue import SlotQueue, Waiter


@pytest.mark.parametrize("is_bulk", [False, True])
async def test_a_caller_leaves_without_a_search(is_bulk: bool) -> None:
    """If queued callers are cancelled or refused in a random order, none of them is compared with another."""
    comparisons = 0

    class Counted(Waiter):
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal comparisons
            comparisons += 1
            return self is other

    queue, breaker, loop = SlotQueue(), CircuitBreakers()["sessions"], asyncio.get_running_loop()
    waiters = [Counted(loop.create_future(), breaker, is_bulk, 0, 1) for _ in range(100)]
    for waiter in waiters:
        queue.append(waiter)
    leaving = random.Random(1).sample(waiters, 50)
    assert all(queue.remove(waiter) for waiter in leaving)
    assert not queue.remove(leaving[0])
    queue.reject(lambda waiter: waiter.number % 2 == 0, lambda: RuntimeError("refused"))
    assert comparisons == 0
    assert {type(waiter.slot.exception()) for waiter in waiters if waiter.slot.done()} == {RuntimeError}
    staying = [waiter for waiter in waiters if waiter not in leaving and waiter.number % 2]
    assert [queue.pop(0, lambda _: 0) for _ in staying] == staying
    assert (queue.size, queue.interactive) == (0, 0)

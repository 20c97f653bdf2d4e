"""Run calls ahead of the one who takes their results: bounded, and cancelled together when the taker leaves.

Knows tasks only. Close these generators (`contextlib.aclosing`) where they may be left early.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["cancel_all", "map_as_completed", "map_in_order", "run_until"]

A = TypeVar("A")
T = TypeVar("T")


async def map_in_order(
    call: Callable[[A], Coroutine[Any, Any, T]], arguments: Iterable[A], *, ahead: int
) -> AsyncGenerator[T, None]:
    """Yield results in the order of the arguments, with at most `ahead` calls running or waiting to be taken."""
    tasks: deque[asyncio.Task[T]] = deque()
    try:
        for argument in arguments:
            tasks.append(asyncio.create_task(call(argument)))
            if len(tasks) == ahead:
                yield await tasks[0]
                tasks.popleft()
        while tasks:
            yield await tasks[0]
            tasks.popleft()
    finally:
        await cancel_all(tasks)


async def map_as_completed(
    call: Callable[[A], Coroutine[Any, Any, T]], arguments: AsyncIterator[A], *, ahead: int
) -> AsyncGenerator[T, None]:
    """Yield results as they come, with at most `ahead` calls running or waiting to be taken."""
    tasks: set[asyncio.Task[T]] = set()
    done: asyncio.Queue[asyncio.Task[T]] = asyncio.Queue()
    try:
        while True:
            while len(tasks) < ahead:
                try:
                    argument = await anext(arguments)
                except StopAsyncIteration:
                    ahead = 0
                else:
                    task = asyncio.create_task(call(argument))
                    task.add_done_callback(done.put_nowait)
                    tasks.add(task)
            if not tasks:
                return
            task = await done.get()
            tasks.remove(task)
            yield task.result()
    finally:
        await cancel_all(tasks)


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait for their end, even where the one who waits is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    while pending:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
        pending = [task for task in pending if not task.done()]
    for task in tasks:
        if not task.cancelled():
            task.exception()  # taken note of: nobody else will ask
    if cancelled is not None:
        raise cancelled


async def run_until(event: asyncio.Event, task: asyncio.Task[Any]) -> bool:
    """Await a task, and say whether it came to its end; once the event is set, it is cancelled."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        await cancel_all([task, waiting])

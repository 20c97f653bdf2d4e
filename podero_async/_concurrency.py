"""Bounded concurrent maps, futures that many await, cancellation that waits for every task, and imports in a thread.

Close a map with `contextlib.aclosing` if its consumer may leave early.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from importlib import import_module
from threading import Thread
from typing import Any, TypeVar, cast

__all__ = [
    "SharedFuture",
    "cancel_all",
    "import_ahead",
    "map_as_completed",
    "map_in_order",
    "outlast",
    "run_until",
    "wait_for_all",
]

A = TypeVar("A")
T = TypeVar("T")

_MAX_IMPORT_S = 10.0
_imports: list[Thread] = []


class SharedFuture(asyncio.Future[T]):
    """A future that any number of tasks wait for, each of which may be cancelled without an effect on the others.

    `asyncio.shield` does the same, but searches the callbacks of all tasks when one is cancelled: ten thousand tasks
    that are cancelled at once would stop the event loop for seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[asyncio.Future[None], None] = {}
        self.add_done_callback(SharedFuture._wake_all)

    @property
    def waiting(self) -> int:
        """The number of tasks that wait."""
        return len(self._waiting)

    async def wait(self) -> T:
        """Wait for the result and return it; its exception is the same object for all tasks."""
        if not self.done():
            woken: asyncio.Future[None] = self.get_loop().create_future()
            self._waiting[woken] = None
            try:
                await woken
            finally:
                self._waiting.pop(woken, None)
        return self.result()

    def _wake_all(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)


async def map_in_order(
    call: Callable[[A], Coroutine[Any, Any, T]], arguments: Iterable[A], *, ahead: int
) -> AsyncGenerator[T, None]:
    """Call `call` with each argument and yield the results in the order of the arguments.

    At most `ahead` calls are running or finished and not yet yielded. The first error, in that order, is raised. An error,
    cancellation and closing the generator cancel the other calls and wait until they have ended.
    """
    tasks: deque[asyncio.Task[T]] = deque()
    try:
        for argument in arguments:
            tasks.append(asyncio.create_task(call(argument)))
            if len(tasks) == ahead:
                yield await _result_of(tasks[0])
                tasks.popleft()
        while tasks:
            yield await _result_of(tasks[0])
            tasks.popleft()
    finally:
        await cancel_all(tasks)


async def _result_of(task: asyncio.Task[T]) -> T:
    # `await task` would pass a cancellation on to the task, which may just be cancelled by a timeout. Its message, by which
    # anyio recognizes its own cancellations, would be lost.
    if not task.done():
        await asyncio.wait([task])
    return task.result()


async def map_as_completed(
    call: Callable[[A], Coroutine[Any, Any, T]], arguments: AsyncIterator[A], *, ahead: int
) -> AsyncGenerator[T, None]:
    """Call `call` with each argument and yield the results in the order of completion.

    A result is yielded while the next argument is still awaited. At most `ahead` calls are running or finished and not
    yet yielded. The first error, of a call or of the arguments, is raised after the results of all calls that have
    finished. An error, cancellation and closing the generator cancel the other calls and wait until they have ended.
    """
    tasks: set[asyncio.Task[T | None]] = set()
    done: asyncio.Queue[asyncio.Task[T | None]] = asyncio.Queue()
    free = asyncio.Semaphore(ahead)

    def start(coroutine: Coroutine[Any, Any, T | None]) -> asyncio.Task[T | None]:
        task = asyncio.create_task(coroutine)
        task.add_done_callback(done.put_nowait)
        tasks.add(task)
        return task

    async def start_calls() -> None:
        await free.acquire()
        async for argument in arguments:
            start(call(argument))
            await free.acquire()

    starting = start(start_calls())
    failed: asyncio.Task[T | None] | None = None
    try:
        while tasks and not (failed and done.empty()):
            task = await done.get()
            tasks.remove(task)
            if task.cancelled() or task.exception():
                failed = failed or task
            elif task is not starting:
                yield cast("T", task.result())
                if not failed:
                    free.release()
        if failed:
            failed.result()
    finally:
        await cancel_all(tasks)


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait until all of them have ended; their errors are dropped.

    If the caller is cancelled while it waits, it still waits for the last task before it raises `CancelledError`.
    """
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    try:
        await wait_for_all(pending)
    finally:
        for task in tasks:
            if not task.cancelled():
                task.exception()  # retrieved, so that asyncio does not log it as never retrieved


async def outlast(future: asyncio.Future[T]) -> T:
    """Wait for a future and return its result; a cancellation of the caller does not reach the future.

    If the caller is cancelled while it waits, even repeatedly, it still waits for the end before it raises
    `CancelledError`. So cleanup is complete in a cancelled scope of anyio, which cancels every await again.
    """
    await wait_for_all([future])
    return future.result()


async def wait_for_all(futures: Collection[asyncio.Future[Any]]) -> None:
    """Wait until all futures have ended, then raise the last `CancelledError` of the caller, if there was one."""
    cancelled: asyncio.CancelledError | None = None
    while pending := [future for future in futures if not future.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def run_until(event: asyncio.Event, task: asyncio.Task[Any]) -> bool:
    """Wait until a task has ended or an event is set; return True if the task ended first, and raise its error.

    If the event is set first, or the caller is cancelled, the task is cancelled and awaited.
    """
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        await cancel_all([task, waiting])


def import_ahead(name: str) -> None:
    """Start to import a module that only failures need, in a thread, unless it is imported already.

    The event loop does not wait for it then, and a failure that is a lack of file descriptors need not open files. If the
    import fails, its first use tries again. A fork waits for the import.
    """
    if name not in sys.modules:
        _imports.append(thread := Thread(target=_import, args=[name], name="podero_async import", daemon=True))
        thread.start()


def _import(name: str) -> None:
    with suppress(Exception):
        import_module(name)


def _finish_imports() -> None:
    while _imports:
        _imports.pop().join(_MAX_IMPORT_S)


if hasattr(os, "register_at_fork"):  # not on Windows
    # A forked process would inherit the lock of the module, without the thread that releases it.
    os.register_at_fork(before=_finish_imports)

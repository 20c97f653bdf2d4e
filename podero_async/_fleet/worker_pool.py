"""The worker pool: reads many vehicles concurrently and yields their outcomes as a bounded stream.

Knows neither the source of the vehicles nor the use of their outcomes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, nullcontext, suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

import attrs

from podero_async._concurrency import cancel_all
from podero_async._failures import copy_of
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.vehicle import FetchedSessions
from podero_async.models import VehicleFailure, VehicleSessions

__all__ = ["Fetched", "WorkerPool"]

T = TypeVar("T")
S = TypeVar("S", bound=VehicleSessions | FetchedSessions)

Fetched = FetchedSessions | VehicleFailure

_MAX_BUFFERED_OUTCOMES = 16
_MAX_BUFFERED_SESSIONS = 100  # the garbage collector scans decoded sessions again and again
_PAGES_PER_SLOT = 2  # in memory at once for each slot: enough to keep all slots in use


@attrs.define
class _Ended:
    """The end of the outcomes: clean, or with an error that every consumer gets."""

    _error: BaseException | None = None
    _traceback: TracebackType | None = None
    _was_raised: bool = False

    @classmethod
    def of(cls, error: BaseException | None) -> Self:
        return cls(error, error.__traceback__ if error else None)

    def exception(self) -> BaseException:
        """Return the error to raise: the original once, then copies, so that no traceback shows another consumer."""
        if self._error is None:
            return StopAsyncIteration()
        if not self._was_raised:
            self._was_raised = True
            return self._error
        try:
            copied = copy_of(self._error)
        except Exception:  # noqa: BLE001  # the caller's own error, with arguments that cannot be known
            return self._error
        copied.__cause__, copied.__context__ = self._error.__cause__, self._error.__context__
        copied.__suppress_context__ = self._error.__suppress_context__
        return copied.with_traceback(self._traceback)


class _Buffer(asyncio.Queue[tuple[T, S | VehicleFailure, int] | _Ended]):
    """The outcomes that are ready for the consumer, each with its item and its number of sessions, which are both bounded.

    When the buffer is full, each worker holds one more.
    """

    _sessions = 0
    has_ended = False  # from then on the buffer is never full, since its consumer may be gone

    def end(self, error: BaseException | None = None) -> None:
        """Put the end behind the outcomes; only the first end counts."""
        if not self.has_ended:
            self.has_ended = True
            self.put_nowait(_Ended.of(error))

    def clear(self) -> None:
        """Remove the outcomes before the end."""
        while not isinstance(item := self.get_nowait(), _Ended):
            pass
        self.put_nowait(item)

    def full(self) -> bool:
        is_full = self._sessions >= _MAX_BUFFERED_SESSIONS or self.qsize() >= _MAX_BUFFERED_OUTCOMES
        return is_full and not self.has_ended

    def _put(self, item: tuple[T, S | VehicleFailure, int] | _Ended) -> None:
        super()._put(item)
        if not isinstance(item, _Ended):
            self._sessions += item[2]

    def _get(self) -> tuple[T, S | VehicleFailure, int] | _Ended:
        item: tuple[T, S | VehicleFailure, int] | _Ended = super()._get()
        if not isinstance(item, _Ended):
            self._sessions -= item[2]
        return item


class WorkerPool(Generic[T, S]):
    """Read items concurrently: an async context manager that is iterated for pairs of an item and its outcome.

    Pairs come in order of completion through a small buffer. When the buffer is full, the workers wait for the
    consumer, and items are pulled only when a worker is free. Several tasks may iterate: each pair goes to one of them,
    and the end, clean or an error, to all. Leaving the context cancels and awaits all workers and drops the buffer.

    Args:
        items: The items to read; pulled by one worker at a time. An error that it raises is raised from the iteration
            after the outcomes of all items before it.
        read: Reads one item; an item that is a `VehicleFailure` is its own outcome. An error that it raises cancels the other reads and is raised from the iteration.
        finish: Makes the outcome of the fetched sessions; called when the buffer has room.
        slots: How many requests may be in flight at once.
    """

    def __init__(
        self,
        items: AsyncGenerator[T, None] | Iterator[T],
        read: Callable[[T, MemoryBudget], Awaitable[Fetched]],
        finish: Callable[[FetchedSessions], Awaitable[S]],
        *,
        slots: int,
    ) -> None:
        self._items = items
        self._read = read
        self._finish = finish
        self._worker_count = slots + max(2, slots // 8)  # a few more than slots, so that no slot waits for an item
        self._budget = MemoryBudget(slots * _PAGES_PER_SLOT)
        self._pulling = asyncio.Lock()
        # One list of several pages is finished at a time; the others stay as rows until the consumer has room for them.
        self._finishing = asyncio.Lock()
        self._buffer: _Buffer[T, S] = _Buffer()
        self._run: asyncio.Task[None] | None = None
        self._was_left = False
        self._has_items = True
        self._source_error: BaseException | None = None
        self._read_error: BaseException | None = None

    async def __aenter__(self) -> Self:
        self._run = asyncio.create_task(self._read_all(), name="podero_async fleet")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._was_left = True
        if self._run is not None:
            try:
                await cancel_all([self._run])
            finally:
                self._buffer.end()  # another task may still be iterating
                self._buffer.clear()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[T, S | VehicleFailure]:
        item = await self._buffer.get() if self._buffer.empty() else self._buffer.get_nowait()
        if isinstance(item, _Ended):
            self._buffer.put_nowait(item)  # for other tasks that iterate
            raise item.exception()
        return item[:2]

    async def _read_all(self) -> None:
        try:
            async with self._source(), asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(self._worker_count)]
        except Exception as error:  # noqa: BLE001  # raised from the iteration
            self._buffer.end(self._read_error or self._source_error or error)  # not the exception group around it
        else:
            # A task group ignores a child that was cancelled: the source of the items was cancelled, so items are missing.
            was_cancelled = any(worker.cancelled() for worker in workers)
            self._buffer.end(self._source_error or (asyncio.CancelledError() if was_cancelled else None))
        finally:
            if not self._was_left:
                self._buffer.end(asyncio.CancelledError())  # no effect unless this task was cancelled

    def _source(self) -> aclosing[AsyncGenerator[T, None]] | nullcontext[None]:
        return nullcontext() if isinstance(self._items, Iterator) else aclosing(self._items)

    async def _work(self) -> None:
        items = self._items
        with suppress(_NoMoreItemsError):
            if isinstance(items, Iterator):
                while True:
                    await self._read_one(self._next(items))
            while True:
                await self._read_one(await self._pull(items))

    def _next(self, items: Iterator[T]) -> T:
        try:
            if self._has_items:
                return next(items)
        except StopIteration:
            pass
        except StopAsyncIteration as error:  # it would end the iteration as if all items had been read
            self._source_error = RuntimeError("the vehicles' iterator raised StopAsyncIteration")
            self._source_error.__cause__ = error
        except Exception as error:  # noqa: BLE001  # raised after the outcomes of the items before it
            self._source_error = error
        self._has_items = False
        raise _NoMoreItemsError

    async def _pull(self, items: AsyncGenerator[T, None]) -> T:
        async with self._pulling:
            try:
                if self._has_items:
                    return await anext(items)
            except StopAsyncIteration:
                pass
            except Exception as error:  # noqa: BLE001  # raised after the outcomes of the items before it
                self._source_error = error
            self._has_items = False
            raise _NoMoreItemsError

    async def _read_one(self, item: T) -> None:
        try:
            fetched = item if isinstance(item, VehicleFailure) else await self._read(item, self._budget)
            if isinstance(fetched, VehicleFailure):
                await self._buffer.put((item, fetched, 0))
                return
            try:
                if len(fetched.pages) > 1:
                    async with self._finishing:
                        await self._buffer.put((item, await self._finish(fetched), fetched.count))
                else:
                    await self._buffer.put((item, await self._finish(fetched), fetched.count))
            finally:
                fetched.release()
        except Exception as error:
            self._read_error = self._read_error or error
            raise


class _NoMoreItemsError(Exception):
    pass

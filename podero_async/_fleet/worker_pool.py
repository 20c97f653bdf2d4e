"""The worker pool: reads many vehicles concurrently and yields their outcomes as a bounded stream.

Knows neither the source of the vehicles nor the use of their outcomes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, nullcontext
from typing import Generic, Self, TypeVar

import attrs

from podero_async._concurrency import cancel_all
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.vehicle import UndecodedSessions
from podero_async.models import VehicleFailure, VehicleSessions

__all__ = ["Outcome", "WorkerPool"]

T = TypeVar("T")

Outcome = VehicleSessions | VehicleFailure

_MAX_BUFFERED_OUTCOMES = 16
_MAX_BUFFERED_SESSIONS = 100  # the garbage collector scans decoded sessions again and again
_PAGES_PER_SLOT = 2  # in memory at once for each slot: enough to keep all slots in use


@attrs.frozen
class _Ended:
    error: BaseException | None


class _Buffer(asyncio.Queue[tuple[T, Outcome] | _Ended]):
    """The outcomes that wait for the consumer, bounded by their number and by the number of their sessions."""

    _sessions = 0
    has_ended = False  # from then on the buffer is never full, since its consumer may be gone

    def full(self) -> bool:
        is_full = self.qsize() >= _MAX_BUFFERED_OUTCOMES or self._sessions >= _MAX_BUFFERED_SESSIONS
        return is_full and not self.has_ended

    def _put(self, item: tuple[T, Outcome] | _Ended) -> None:
        super()._put(item)
        self._sessions += _session_count(item)

    def _get(self) -> tuple[T, Outcome] | _Ended:
        item: tuple[T, Outcome] | _Ended = super()._get()
        self._sessions -= _session_count(item)
        return item


def _session_count(item: tuple[object, Outcome] | _Ended) -> int:
    if isinstance(item, _Ended) or isinstance(item[1], VehicleFailure):
        return 0
    return len(item[1].sessions)


class WorkerPool(Generic[T]):
    """Read items concurrently: an async context manager that is iterated for pairs of an item and its outcome.

    Pairs come in order of completion through a small buffer. When the buffer is full, the workers wait for the
    consumer, and items are pulled only when a worker is free. Leaving the context cancels and awaits all workers.

    Args:
        items: The items to read; pulled by one worker at a time.
        read: Reads one item. An error that it raises ends the pool and is raised from the iteration.
        slots: How many requests may be in flight at once.
    """

    def __init__(
        self,
        items: AsyncGenerator[T, None] | Iterator[T],
        read: Callable[[T, MemoryBudget], Awaitable[UndecodedSessions | Outcome]],
        *,
        slots: int,
    ) -> None:
        self._items = items
        self._read = read
        self._worker_count = slots + max(2, slots // 8)  # a few more than slots, so that no slot waits for an item
        self._budget = MemoryBudget(slots * _PAGES_PER_SLOT)
        self._pulling = asyncio.Lock()
        self._decoding = asyncio.Lock()  # one list is decoded at a time; the others wait for the consumer as bytes
        self._buffer: _Buffer[T] = _Buffer()
        self._run: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._run = asyncio.create_task(self._read_all(), name="podero_async fleet")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._run is not None:
            try:
                await cancel_all([self._run])
            finally:
                self._end(None)  # another task may still be iterating

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[T, Outcome]:
        item = await self._buffer.get()
        if isinstance(item, _Ended):
            self._buffer.put_nowait(item)  # for other tasks that iterate
            if item.error is not None:
                raise item.error
            raise StopAsyncIteration
        return item

    async def _read_all(self) -> None:
        try:
            async with self._source(), asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(self._worker_count)]
        except* Exception as errors:  # noqa: BLE001  # raised from the iteration
            self._end(_first_of(errors))
        else:
            # A task group ignores a child that was cancelled: the source of the items was cancelled, so items are missing.
            was_cancelled = any(worker.cancelled() for worker in workers)
            self._end(asyncio.CancelledError() if was_cancelled else None)

    def _end(self, error: BaseException | None) -> None:
        self._buffer.has_ended = True
        self._buffer.put_nowait(_Ended(error))

    def _source(self) -> aclosing[AsyncGenerator[T, None]] | nullcontext[None]:
        return nullcontext() if isinstance(self._items, Iterator) else aclosing(self._items)

    async def _work(self) -> None:
        try:
            while True:
                item = await self._pull()
                # The outcome gets no name here, since the worker would keep it in memory while it waits for an item.
                await self._hand_over(item, await self._read(item, self._budget))
        except _NoMoreItemsError:
            return

    async def _pull(self) -> T:
        if isinstance(self._items, Iterator):
            try:
                return next(self._items)
            except StopIteration:
                raise _NoMoreItemsError from None
            except StopAsyncIteration as error:  # would end the iteration as if all items had been read
                raise RuntimeError("the vehicles' iterator raised StopAsyncIteration") from error
        async with self._pulling:
            try:
                return await anext(self._items)
            except StopAsyncIteration:
                raise _NoMoreItemsError from None

    async def _hand_over(self, item: T, outcome: UndecodedSessions | Outcome) -> None:
        if not isinstance(outcome, UndecodedSessions):
            await self._buffer.put((item, outcome))
            return
        try:
            async with self._decoding:
                await self._buffer.put((item, await outcome.decode()))
        finally:
            outcome.release()


class _NoMoreItemsError(Exception):
    pass


def _first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first

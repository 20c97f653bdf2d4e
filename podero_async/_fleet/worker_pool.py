"""Read many vehicles by a few workers, and hand the results over as a bounded stream.

Knows that reads end in results, and that a long list is held as bytes until it is its turn to be handed over; nothing of
where vehicles come from, nor what their results are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, nullcontext
from types import TracebackType
from typing import Generic, Self, TypeVar

import attrs

from podero_async._concurrency import cancel_all
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.vehicle import UndecodedSessions
from podero_async.models import VehicleFailure, VehicleSessions

__all__ = ["Outcome", "WorkerPool"]

T = TypeVar("T")

Outcome = VehicleSessions | VehicleFailure

_MAX_RESULTS = 16  # that wait for the consumer ...
_MAX_SESSIONS = 100  # ... as long as they hold few sessions: what is kept decoded, the garbage collector walks over
_PAGES_A_PLACE = 2  # that lists may be under way with, for each request that may be: enough to keep all places taken


@attrs.frozen
class _Ended:
    error: BaseException | None


class _Buffer(asyncio.Queue[tuple[T, Outcome] | _Ended]):
    """The results that wait for the consumer, bounded by how many they are and by what they hold."""

    _sessions = 0
    has_ended = False  # the end itself always finds room: nobody may be there to make any

    def full(self) -> bool:
        return not self.has_ended and (self.qsize() >= _MAX_RESULTS or self._sessions >= _MAX_SESSIONS)

    def _put(self, item: tuple[T, Outcome] | _Ended) -> None:
        super()._put(item)
        self._sessions += _weight(item)

    def _get(self) -> tuple[T, Outcome] | _Ended:
        item: tuple[T, Outcome] | _Ended = super()._get()
        self._sessions -= _weight(item)
        return item


def _weight(item: tuple[object, Outcome] | _Ended) -> int:
    if isinstance(item, _Ended) or isinstance(item[1], VehicleFailure):
        return 0
    return len(item[1].sessions)


class WorkerPool(Generic[T]):
    """Reads under way: an async context manager that is iterated for pairs of an item and its result.

    Pairs come in order of completion. A few wait in a buffer; when it is full, the reads wait for their consumer, and
    items are pulled only as there is somebody to read them. Leaving the context ends everything that was started.

    Args:
        items: What is to be read; pulled by one worker at a time.
        read: Reads one item. What it raises ends all reads, and comes out of the iteration.
        places: How many requests may be under way at once.
    """

    def __init__(
        self,
        items: AsyncGenerator[T, None] | Iterator[T],
        read: Callable[[T, MemoryBudget], Awaitable[UndecodedSessions | Outcome]],
        *,
        places: int,
    ) -> None:
        self._items = items
        self._read = read
        # A few more than may ask at once, so that a place never waits for a vehicle.
        self._workers = places + max(2, places // 8)
        self._room = MemoryBudget(places * _PAGES_A_PLACE)
        self._pulling = asyncio.Lock()
        self._handing_over = asyncio.Lock()  # one list at a time is decoded: the others wait for the consumer as bytes
        self._results: _Buffer[T] = _Buffer()
        self._run: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._run = asyncio.create_task(self._read_all(), name="podero_async fleet")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._run is not None:
            try:
                await cancel_all([self._run])
            finally:
                self._end(None)  # whoever else iterates must not wait for ever

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[T, Outcome]:
        item = await self._results.get()
        if isinstance(item, _Ended):
            self._results.put_nowait(item)  # for whoever else is iterating
            if item.error is not None:
                raise item.error
            raise StopAsyncIteration
        return item

    async def _read_all(self) -> None:
        try:
            async with self._source(), asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(self._workers)]
        except* Exception as errors:  # noqa: BLE001  # handed to the consumer, who raises it
            self._end(_first_of(errors))
        else:
            # A group takes no note of a child that was cancelled: it was the caller's own source that was.
            is_cut_short = any(worker.cancelled() for worker in workers)
            self._end(asyncio.CancelledError() if is_cut_short else None)

    def _end(self, error: BaseException | None) -> None:
        self._results.has_ended = True
        self._results.put_nowait(_Ended(error))

    def _source(self) -> aclosing[AsyncGenerator[T, None]] | nullcontext[None]:
        return nullcontext() if isinstance(self._items, Iterator) else aclosing(self._items)

    async def _work(self) -> None:
        try:
            while True:
                item = await self._pull()
                await self._hand_over(item, await self._read(item, self._room))  # no name here keeps the last result
        except _NoMoreError:
            return

    async def _pull(self) -> T:
        if isinstance(self._items, Iterator):
            try:
                return next(self._items)
            except StopIteration:
                raise _NoMoreError from None
            except StopAsyncIteration as error:  # out of here it would read as the end
                raise RuntimeError("the vehicles' iterator raised StopAsyncIteration") from error
        async with self._pulling:
            try:
                return await anext(self._items)
            except StopAsyncIteration:
                raise _NoMoreError from None

    async def _hand_over(self, item: T, result: UndecodedSessions | Outcome) -> None:
        if not isinstance(result, UndecodedSessions):
            await self._results.put((item, result))
            return
        try:
            async with self._handing_over:
                await self._results.put((item, await result.decode()))
        finally:
            result.leave()


class _NoMoreError(Exception):
    """All items were pulled."""


def _first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first

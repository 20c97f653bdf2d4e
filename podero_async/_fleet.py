"""A whole fleet: every vehicle's sessions, read by a few workers, and the outcomes as a bounded stream.

Knows how one vehicle is read and how the fleet is discovered; nothing of HTTP, tokens or retries.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Self

import attrs

from podero_async._api import Api
from podero_async._discovery import discover, would_fail_all
from podero_async._lookahead import cancel_all
from podero_async._pages import Window
from podero_async._retry import Tally
from podero_async._throttle import Throttle
from podero_async._vehicle import VehicleRead, fetch_vehicle
from podero_async.errors import PoderoError
from podero_async.models import FleetSummary, VehicleFailure, VehicleRef, VehicleSessions

__all__ = ["FleetFetch"]

_MOST_OUTCOMES = 16  # that wait for the consumer ...
_MOST_SESSIONS = 100  # ... as long as they hold few sessions: what is kept decoded, the garbage collector walks over


@attrs.frozen
class _Ended:
    error: BaseException | None


_Outcome = VehicleSessions | VehicleFailure | _Ended


class _Buffer(asyncio.Queue[_Outcome]):
    """The outcomes that wait for the consumer, bounded by how many they are and by what they hold."""

    _sessions = 0

    def full(self) -> bool:
        return self.qsize() >= _MOST_OUTCOMES or self._sessions >= _MOST_SESSIONS

    def _put(self, item: _Outcome) -> None:
        super()._put(item)
        self._sessions += _weight(item)

    def _get(self) -> _Outcome:
        item = super()._get()
        self._sessions -= _weight(item)
        return item


def _weight(outcome: _Outcome) -> int:
    return len(outcome.sessions) if isinstance(outcome, VehicleSessions) else 0


class FleetFetch:
    """A fetch of a fleet under way: an async context manager that is iterated for its outcomes.

    Outcomes come in order of completion. A few wait in a buffer; when it is full, the fetch waits for its consumer.
    Leaving the context ends everything that was started for it.
    """

    def __init__(
        self,
        api: Api,
        throttle: Throttle,
        window: Window,
        vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None,
    ) -> None:
        self._api = api
        self._throttle = throttle
        self._window = window
        # A few more than may ask at once, so that a place never waits for a vehicle.
        self._workers = throttle.ceiling + max(2, throttle.ceiling // 8)
        self._discovery = Tally()
        self._vehicles = self._as_stream(vehicles)
        self._next_vehicle = asyncio.Lock()
        self._outcomes = _Buffer()
        self._handing_over = asyncio.Lock()  # one list at a time is decoded: the others wait for the consumer as bytes
        self._run: asyncio.Task[None] | None = None
        self._counts: Counter[str] = Counter()  # the summary's own names
        self._pauses_before = throttle.pauses
        self._started = self._ended = 0.0

    @property
    def summary(self) -> FleetSummary:
        """What was done so far."""
        now = self._ended or (asyncio.get_running_loop().time() if self._started else 0.0)
        counts = Counter(self._counts)
        counts.update(requests=self._discovery.requests, retries=self._discovery.retries)
        pauses = self._throttle.pauses - self._pauses_before
        return FleetSummary(**counts, pauses=pauses, seconds=now - self._started)

    async def __aenter__(self) -> Self:
        """Start to fetch."""
        if self._run is not None:
            raise RuntimeError("a fetch of a fleet is entered once")
        self._started = asyncio.get_running_loop().time()
        self._run = asyncio.create_task(self._fetch_all(), name="podero_async fleet")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel and await what is still under way."""
        if self._run is not None:
            await cancel_all([self._run])
        self._ended = self._ended or asyncio.get_running_loop().time()

    def __aiter__(self) -> AsyncIterator[VehicleSessions | VehicleFailure]:
        """Iterate over the outcomes."""
        return self

    async def __anext__(self) -> VehicleSessions | VehicleFailure:
        """Wait for the next outcome.

        Raises:
            AuthenticationError: The credentials were refused: no vehicle would go better.
            PoderoError: The organization's users could not be listed.
        """
        if self._run is None:
            raise RuntimeError("a fetch of a fleet is used as `async with client.fetch_fleet(...) as fleet`")
        if self._ended:
            raise StopAsyncIteration
        outcome = await self._outcomes.get()
        if isinstance(outcome, _Ended):
            self._outcomes.put_nowait(outcome)  # for whoever else is iterating
            self._ended = asyncio.get_running_loop().time()
            if outcome.error is not None:
                raise outcome.error
            raise StopAsyncIteration
        self._count(outcome)
        return outcome

    async def _fetch_all(self) -> None:
        try:
            async with aclosing(self._vehicles), asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(self._workers)]
        except* Exception as errors:  # noqa: BLE001  # handed to the consumer, who raises it
            await self._outcomes.put(_Ended(_first_of(errors)))
        else:
            # A group takes no note of a child that was cancelled: it was the caller's own source that was.
            is_cut_short = any(worker.cancelled() for worker in workers)
            await self._outcomes.put(_Ended(asyncio.CancelledError() if is_cut_short else None))

    async def _work(self) -> None:
        while True:
            async with self._next_vehicle:
                try:
                    vehicle = await anext(self._vehicles)
                except StopAsyncIteration:
                    return
            outcome = vehicle if isinstance(vehicle, VehicleFailure) else await self._fetch(vehicle)
            if isinstance(outcome, VehicleFailure):
                await self._outcomes.put(outcome)
            elif outcome.is_decoded:
                await self._outcomes.put(await outcome.decode())
            else:
                async with self._handing_over:
                    await self._outcomes.put(await outcome.decode())

    async def _fetch(self, vehicle: VehicleRef) -> VehicleRead | VehicleFailure:
        tally = Tally()
        try:
            return await fetch_vehicle(self._api, vehicle, self._window, tally)
        except PoderoError as error:
            if would_fail_all(error):
                raise
            return VehicleFailure(
                user_id=vehicle.user_id,
                vehicle=vehicle,
                error=error,
                requests=tally.requests,
                retries=tally.retries,
            )

    async def _as_stream(
        self, vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None
    ) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
        if vehicles is None:
            async with aclosing(discover(self._api, self._discovery, ahead=self._throttle.ceiling)) as found:
                async for vehicle in found:
                    yield vehicle
        elif isinstance(vehicles, AsyncIterable):
            async for vehicle in vehicles:
                yield _checked(vehicle)
        else:
            for vehicle in vehicles:
                yield _checked(vehicle)

    def _count(self, outcome: VehicleSessions | VehicleFailure) -> None:
        counts = self._counts
        if isinstance(outcome, VehicleSessions):
            counts["vehicles"] += 1
            counts["sessions"] += len(outcome.sessions)
            counts["rejected"] += len(outcome.rejected)
            counts[outcome.completeness.value] += 1
        else:
            counts["failures"] += 1
            if outcome.vehicle is None:
                return  # its requests stand with the discovery's
        counts["requests"] += outcome.requests
        counts["retries"] += outcome.retries


def _checked(vehicle: VehicleRef) -> VehicleRef:
    if not isinstance(vehicle, VehicleRef):
        raise ValueError(f"vehicles must be of VehicleRef, not {type(vehicle).__name__}")  # noqa: TRY004
    return vehicle


def _first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first

"""A whole fleet: its vehicles, given or discovered, each one's sessions, and what the fetch did.

Knows how one vehicle is read and how the fleet is discovered; nothing of HTTP, tokens or retries.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Self

from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.discovery import discover
from podero_async._fleet.vehicle import UndecodedSessions, fetch_vehicle
from podero_async._fleet.worker_pool import Outcome, WorkerPool
from podero_async._flow.limiter import Limiter
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.window import Window
from podero_async.errors import PoderoError
from podero_async.models import FleetSummary, VehicleFailure, VehicleRef, VehicleSessions

__all__ = ["FleetFetch", "fetch_or_fail"]


class FleetFetch:
    """A fetch of a fleet under way: an async context manager that is iterated for its outcomes.

    Outcomes come in order of completion. A few wait in a buffer; when it is full, the fetch waits for its consumer.
    Leaving the context ends everything that was started for it.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        limiter: Limiter,
        window: Window,
        vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None,
    ) -> None:
        self._endpoints = endpoints
        self._limiter = limiter
        self._window = window
        self._discovery = RequestStats()
        self._outcomes = WorkerPool(self._items(vehicles), self._read, places=limiter.ceiling)
        self._counts: Counter[str] = Counter()  # the summary's own names
        self._pauses_before = limiter.pauses
        self._started = self._ended = 0.0

    @property
    def summary(self) -> FleetSummary:
        """What was done so far."""
        now = self._ended or (asyncio.get_running_loop().time() if self._started else 0.0)
        counts = Counter(self._counts)
        counts.update(requests=self._discovery.requests, retries=self._discovery.retries)
        pauses = self._limiter.pauses - self._pauses_before
        return FleetSummary(**counts, pauses=pauses, seconds=now - self._started)

    async def __aenter__(self) -> Self:
        """Start to fetch."""
        if self._started:
            raise RuntimeError("a fetch of a fleet is entered once")
        self._started = asyncio.get_running_loop().time()
        await self._outcomes.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel and await what is still under way."""
        await self._outcomes.__aexit__(kind, error, traceback)
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
        if not self._started:
            raise RuntimeError("a fetch of a fleet is used as `async with client.fetch_fleet(...) as fleet`")
        if self._ended:
            raise StopAsyncIteration
        try:
            _, outcome = await anext(self._outcomes)
        except Exception:  # the end, or what ended it
            self._ended = asyncio.get_running_loop().time()
            raise
        self._count(outcome)
        return outcome

    async def _read(self, vehicle: VehicleRef | VehicleFailure, room: MemoryBudget) -> UndecodedSessions | Outcome:
        if isinstance(vehicle, VehicleFailure):
            return vehicle  # the discovery's
        return await fetch_or_fail(self._endpoints, vehicle, self._window, room)

    def _items(
        self, vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None
    ) -> AsyncGenerator[VehicleRef | VehicleFailure, None] | Iterator[VehicleRef | VehicleFailure]:
        if vehicles is None:
            return discover(self._endpoints, self._discovery, ahead=self._limiter.ceiling)
        if isinstance(vehicles, AsyncIterable):
            return _all_checked(vehicles)
        return map(_checked, vehicles)

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


async def fetch_or_fail(
    endpoints: Endpoints, vehicle: VehicleRef, window: Window, room: MemoryBudget
) -> UndecodedSessions | Outcome:
    """Read one vehicle's list; what fails for it alone is a value.

    Raises:
        PoderoError: No other vehicle would go better.
    """
    stats = RequestStats()
    try:
        return await fetch_vehicle(endpoints, vehicle, window, stats, room)
    except PoderoError as error:
        if endpoints.is_fatal(error):
            raise
        return VehicleFailure(
            user_id=vehicle.user_id,
            vehicle=vehicle,
            error=error,
            requests=stats.requests,
            retries=stats.retries,
        )


def _checked(vehicle: VehicleRef) -> VehicleRef:
    if not isinstance(vehicle, VehicleRef):
        raise ValueError(f"vehicles must be of VehicleRef, not {type(vehicle).__name__}")  # noqa: TRY004
    return vehicle


async def _all_checked(vehicles: AsyncIterable[VehicleRef]) -> AsyncGenerator[VehicleRef, None]:
    async for vehicle in vehicles:
        yield _checked(vehicle)

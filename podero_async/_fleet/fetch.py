"""The fetch of a fleet: an async context manager that yields the outcome of each vehicle and counts them.

Combines discovery, the worker pool and the read of one vehicle; knows the endpoints, but neither requests nor tokens.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from podero_async._decode import Keep
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.discovery import discover
from podero_async._fleet.vehicle import FetchedSessions, failure_of, fetch_vehicle
from podero_async._fleet.worker_pool import Fetched, WorkerPool
from podero_async._flow.limiter import Limiter
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.window import Window
from podero_async.errors import PoderoError
from podero_async.models import FleetSummary, VehicleFailure, VehicleRef, VehicleSessions

__all__ = ["FleetFetch", "fetch_or_fail"]


class FleetFetch:
    """A running fetch of a fleet, made by `PoderoClient.fetch_fleet`: an async context manager to iterate over.

    Outcomes come in order of completion through a small buffer. When the buffer is full, the fetch waits for its
    consumer, so its memory does not grow with the fleet. Several tasks may iterate; each outcome goes to one of them.
    Leaving the context cancels and awaits everything that the fetch started. A fetch is entered once.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        limiter: Limiter,
        window: Window,
        vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None,
    ) -> None:
        self._started_at: float | None = None  # in the event loop's time
        self._ended_at: float | None = None
        self._was_left = False
        self._endpoints = endpoints
        self._limiter = limiter
        self._window = window
        self._discovery_stats = RequestStats()
        self._outcomes = WorkerPool(self._items(vehicles), self._read, FetchedSessions.decode, slots=limiter.ceiling)
        self._counts = defaultdict[str, int](int)  # by the names of the summary's fields
        self._pauses_before = limiter.pauses
        self._leaving = ExitStack()

    def __repr__(self) -> str:
        state = "not entered" if self._started_at is None else "running" if self._ended_at is None else "finished"
        done, failures = self._counts["vehicles"], self._counts["failures"]
        return f"<FleetFetch {state}: vehicles={done}, failures={failures}, in_flight={self._limiter.in_flight}>"

    def __del__(self) -> None:
        if self._started_at is not None and not self._was_left:
            message = "a fleet fetch was entered but never left; use `async with client.fetch_fleet(...) as fleet`"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    @property
    def summary(self) -> FleetSummary:
        """The counts of all outcomes that the iteration has yielded, and of the requests made for them."""
        counts = Counter(self._counts)
        counts.update(requests=self._discovery_stats.requests, retries=self._discovery_stats.retries)
        pauses = self._limiter.pauses - self._pauses_before
        seconds = 0.0
        if self._started_at is not None:
            now = asyncio.get_running_loop().time() if self._ended_at is None else self._ended_at
            seconds = now - self._started_at
        return FleetSummary(**counts, pauses=pauses, seconds=seconds)

    async def __aenter__(self) -> Self:
        """Start the fetch."""
        if self._started_at is not None:
            raise RuntimeError("a fleet fetch is entered once; call `client.fetch_fleet` again for another")
        self._started_at = asyncio.get_running_loop().time()
        if (call := self._endpoints.observation.begin("fetch_fleet", self._discovery_stats)) is not None:
            self._leaving.push(call.__enter__())
            self._leaving.callback(self._note_counts)
        await self._outcomes.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel and await everything that is still running."""
        self._was_left = True
        try:
            await self._outcomes.__aexit__()
        finally:
            self._end()
            self._leaving.__exit__(kind, error, traceback)

    def __aiter__(self) -> AsyncIterator[VehicleSessions | VehicleFailure]:
        """Iterate over the outcomes."""
        return self

    async def __anext__(self) -> VehicleSessions | VehicleFailure:
        """Wait for the next outcome. Cancellation loses no outcome, and an error is raised to every task that iterates.

        Raises:
            AuthenticationError: The credentials were refused, so every other vehicle would fail too.
            RateLimitError, ServerError: The server asked for a longer pause than `RetryPolicy` allows.
            CompletenessError: The list of users is incomplete; raised after the last outcome.
            PoderoError: The organization's users could not be listed; raised after the outcomes of those listed before.
        """
        if self._started_at is None:
            raise RuntimeError("a fleet fetch must be entered: `async with client.fetch_fleet(...) as fleet`")
        try:
            _, outcome = await anext(self._outcomes)
        except Exception:  # StopAsyncIteration included
            self._end()
            raise
        self._count(outcome)
        return outcome

    def _read(self, vehicle: VehicleRef | VehicleFailure, budget: MemoryBudget) -> Coroutine[Any, Any, Fetched]:
        if not isinstance(vehicle, VehicleRef):
            raise ValueError(f"vehicles must be VehicleRef values, not {type(vehicle).__name__}")  # noqa: TRY004
        return fetch_or_fail(self._endpoints, vehicle, self._window, budget, self._discovery_stats.of_part())

    def _items(
        self, vehicles: Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None
    ) -> AsyncGenerator[VehicleRef | VehicleFailure, None] | Iterator[VehicleRef | VehicleFailure]:
        if vehicles is None:
            return discover(self._endpoints, self._discovery_stats, ahead=self._limiter.ceiling)
        if isinstance(vehicles, AsyncIterable):
            iterator = aiter(vehicles)  # the pool closes a generator, which may have requests under way
            return iterator if isinstance(iterator, AsyncGenerator) else (vehicle async for vehicle in iterator)
        return (vehicle for vehicle in vehicles)

    def _count(self, outcome: VehicleSessions | VehicleFailure) -> None:
        counts = self._counts
        if isinstance(outcome, VehicleSessions):
            counts["vehicles"] += 1
            counts["sessions"] += len(outcome.sessions)
            counts["rejected"] += len(outcome.rejected)
            counts[str(outcome.completeness)] += 1  # a key that is not a plain text slows all lookups down
        else:
            counts["failures"] += 1
            if outcome.vehicle is None:
                return  # the discovery counts its requests itself
        counts["requests"] += outcome.requests
        counts["retries"] += outcome.retries

    def _note_counts(self) -> None:
        summary = self.summary
        names = ("vehicles", "failures", "sessions", "requests", "retries")
        self._discovery_stats.note(**{name: getattr(summary, name) for name in names})

    def _end(self) -> None:
        if self._ended_at is None:
            self._ended_at = asyncio.get_running_loop().time()


async def fetch_or_fail(
    endpoints: Endpoints,
    vehicle: VehicleRef,
    window: Window,
    budget: MemoryBudget,
    stats: RequestStats | None = None,
    *,
    keep: Keep = Keep.ROWS,
) -> Fetched:
    """Fetch one vehicle's whole list; return a `VehicleFailure` if the error concerns this vehicle only.

    Args:
        endpoints: Send the requests.
        vehicle: The vehicle.
        window: Its days.
        budget: Bounds the pages in memory.
        stats: The requests that were sent for this outcome before, if any.
        keep: What the pages keep for columns that are made of them.

    Raises:
        PoderoError: The error would fail every other vehicle too.
    """
    stats = stats or RequestStats()
    try:
        return await fetch_vehicle(endpoints, vehicle, window, stats, budget, keep=keep)
    except PoderoError as error:
        if endpoints.is_fatal(error):
            raise
        return failure_of(vehicle, error, stats)

"""A whole fleet: who has vehicles, every vehicle's sessions, and the outcomes as a bounded stream.

Knows the API's endpoints and the reader; nothing of HTTP, tokens or retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Self
from uuid import UUID

import attrs

from podero_async._api import MOST_PER_PAGE, Api
from podero_async._lookahead import as_completed, cancel_all
from podero_async._pages import Page, Window
from podero_async._reader import ListReader
from podero_async._retry import Tally
from podero_async._throttle import Throttle
from podero_async.errors import AuthenticationError, CompletenessError, ConfigurationError, PoderoError
from podero_async.models import (
    FleetSummary,
    User,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)

__all__ = ["FleetFetch", "all_users", "discover", "list_reader", "read_vehicle", "would_fail_all"]

_PAGES_AHEAD = 16  # of one list, asked for at once
_DECODED_AT_A_TIME = 32  # pages, at a quarter of a millisecond each, before the event loop gets its turn
_BUFFERED = 16  # outcomes that wait for a slow consumer


def would_fail_all(error: PoderoError) -> bool:
    """Say whether an error is no one vehicle's: every other would fail alike."""
    return isinstance(error, AuthenticationError | ConfigurationError) or getattr(error, "is_for_all", False)


def list_reader(
    api: Api, vehicle: VehicleRef, window: Window, tally: Tally, *, ahead: int = _PAGES_AHEAD
) -> ListReader:
    """Make the reader of one vehicle's list, in pages as large as they come."""

    async def fetch(part: Window, offset: int) -> Page:
        return await api.sessions(
            vehicle,
            part.from_date,
            part.to_date,
            include_hidden=part.include_hidden,
            limit=MOST_PER_PAGE,
            offset=offset,
            decode=partial(Page.outlined, offset) if offset else Page.decoded,
            tally=tally,
        )

    return ListReader(fetch, window, ahead=ahead)


async def read_vehicle(api: Api, vehicle: VehicleRef, window: Window, tally: Tally) -> VehicleSessions:
    """Read one vehicle's sessions whole. They are held as bytes until the last page is in, and only then decoded."""
    reader = list_reader(api, vehicle, window, tally)
    async with aclosing(reader.pieces()) as stream:
        pieces = [piece async for piece in stream]
    whole = VehicleSessions(
        vehicle=vehicle,
        from_date=window.from_date,
        to_date=window.to_date,
        sessions=[],
        completeness=reader.completeness,
        total=reader.total,
        requests=tally.requests,
        retries=tally.retries,
    )
    for index, piece in enumerate(pieces, 1):
        page = piece.decode()
        whole.sessions.extend(page.items)
        whole.rejected.extend(page.rejected)
        if index % _DECODED_AT_A_TIME == 0:
            await asyncio.sleep(0)
    return whole


async def all_users(api: Api, *, include_deleted: bool, tally: Tally) -> AsyncGenerator[User, None]:
    """Yield the organization's users, each once, whether the server answers all at once or in pages."""
    seen: set[UUID] = set()
    offset = 0
    while True:
        total, users = await api.users(offset=offset, include_deleted=include_deleted, tally=tally)
        fresh = [user for user in users if user.id not in seen]
        for user in fresh:
            seen.add(user.id)
            yield user
        offset += len(users)
        if offset >= total:
            return
        if not fresh:
            raise CompletenessError("the list of users makes no progress", len(seen), total)


async def discover(api: Api, tally: Tally, *, ahead: int) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of all users, in no particular order; a user whose vehicles cannot be listed is a failure.

    Users without vehicles cost no request. At most `ahead` users are asked about at once.
    """

    async def vehicles_of(user: User) -> list[VehicleRef] | VehicleFailure:
        own = Tally()
        try:
            vehicles = await api.electric_vehicles(user.id, own)
        except PoderoError as error:
            if would_fail_all(error):
                raise
            return VehicleFailure(
                user_id=user.id, vehicle=None, error=error, requests=own.requests, retries=own.retries
            )
        finally:
            tally.requests += own.requests
            tally.retries += own.retries
        return [VehicleRef(user_id=user.id, vehicle_id=vehicle.id) for vehicle in vehicles]

    async with aclosing(all_users(api, include_deleted=False, tally=tally)) as users:
        owners = (user async for user in users if user.num_electric_vehicles != 0)
        async with aclosing(as_completed(vehicles_of, owners, ahead=ahead)) as answers:
            async for answer in answers:
                if isinstance(answer, VehicleFailure):
                    yield answer
                else:
                    for vehicle in answer:
                        yield vehicle


@attrs.frozen
class _Ended:
    error: BaseException | None


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
        self._outcomes: asyncio.Queue[VehicleSessions | VehicleFailure | _Ended] = asyncio.Queue(_BUFFERED)
        self._run: asyncio.Task[None] | None = None
        self._summary = FleetSummary()
        self._pauses_before = throttle.pauses
        self._started = self._ended = 0.0

    @property
    def summary(self) -> FleetSummary:
        """What was done so far."""
        now = self._ended or (asyncio.get_running_loop().time() if self._started else 0.0)
        return attrs.evolve(
            self._summary,
            requests=self._summary.requests + self._discovery.requests,
            retries=self._summary.retries + self._discovery.retries,
            pauses=self._throttle.pauses - self._pauses_before,
            seconds=now - self._started,
        )

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
            await self._outcomes.put(vehicle if isinstance(vehicle, VehicleFailure) else await self._fetch(vehicle))

    async def _fetch(self, vehicle: VehicleRef) -> VehicleSessions | VehicleFailure:
        tally = Tally()
        try:
            return await read_vehicle(self._api, vehicle, self._window, tally)
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
        known = self._summary
        if isinstance(outcome, VehicleFailure):
            if outcome.vehicle is None:  # its requests stand with the discovery's
                self._summary = attrs.evolve(known, failures=known.failures + 1)
                return
            changes = {"failures": known.failures + 1}
        else:
            verdict = outcome.completeness.value
            changes = {
                "vehicles": known.vehicles + 1,
                "sessions": known.sessions + len(outcome.sessions),
                "rejected": known.rejected + len(outcome.rejected),
                verdict: getattr(known, verdict) + 1,
            }
        changes["requests"] = known.requests + outcome.requests
        changes["retries"] = known.retries + outcome.retries
        self._summary = attrs.evolve(known, **changes)


def _checked(vehicle: VehicleRef) -> VehicleRef:
    if not isinstance(vehicle, VehicleRef):
        raise ValueError(f"vehicles must be of VehicleRef, not {type(vehicle).__name__}")  # noqa: TRY004
    return vehicle


def _first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first

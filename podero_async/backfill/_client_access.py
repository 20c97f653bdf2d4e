"""The parts of the client that a backfill uses: discovery, reads of windows, and the state of the API.

This is the only module of the backfill that accesses the client's internals.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import UTC, date, datetime
from uuid import UUID

import attrs

from podero_async._client import PoderoClient
from podero_async._decode import Keep
from podero_async._failures import is_outage_sign
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.discovery import discover, vehicles_of
from podero_async._fleet.fetch import fetch_or_fail
from podero_async._fleet.vehicle import FetchedSessions
from podero_async._fleet.worker_pool import Fetched, WorkerPool
from podero_async._flow.limiter import Limiter
from podero_async._flow.retry import RequestStats
from podero_async._http.origin import checked_origin
from podero_async._http.retry_after import http_date
from podero_async.backfill._coverage import final_day, settle_to
from podero_async.backfill._values import StoreOwner, WorkItem
from podero_async.errors import PoderoError
from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = [
    "ItemReader",
    "discover_fleet",
    "is_down",
    "limiter_of",
    "list_vehicles_of",
    "owner_of",
    "read_windows",
    "server_time",
]

_MAX_UNANSWERED = 10  # then the run asks no more, since each such request takes as long as its retries

_logger = logging.getLogger("podero_async")


def owner_of(client: PoderoClient) -> StoreOwner:
    """Return the organization and the origin that the client reads from."""
    return StoreOwner(str(client._org_id), checked_origin(client._base_url))  # noqa: SLF001


def limiter_of(client: PoderoClient) -> Limiter:
    """Return the limiter of the client's requests."""
    return client._transport.limiter  # noqa: SLF001


def is_down(client: PoderoClient) -> bool:
    """Return whether the client considers the API unavailable."""
    return client._transport.is_down  # noqa: SLF001


def discover_fleet(
    client: PoderoClient, stats: RequestStats, takes: Callable[[User], bool]
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of the users that `takes` accepts, and a failure for each user with a failed vehicle list."""
    endpoints = client._bulk_endpoints  # noqa: SLF001
    found = discover(endpoints, stats, ahead=limiter_of(client).ceiling, takes=takes)
    return endpoints.observation.stream("discover_vehicles", stats, found)


async def list_vehicles_of(
    client: PoderoClient, user_id: UUID, stats: RequestStats
) -> list[VehicleRef | VehicleFailure]:
    """Return a user's vehicles, and a failure if their list failed or a vehicle has no readable id."""
    endpoints = client._bulk_endpoints  # noqa: SLF001
    listing = vehicles_of(endpoints, stats, User(id=user_id))
    return await endpoints.observation.call("electric_vehicles", stats, listing)


def server_time(client: PoderoClient) -> datetime | None:
    """Return the server's time as its last response stated it; None if it stated none."""
    moment = http_date(client._transport.last_date)  # noqa: SLF001
    try:
        # The server's clock is at most a second ahead of the header, which has whole seconds.
        return None if moment is None else datetime.fromtimestamp(moment + 1, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def read_windows(client: PoderoClient, items: AsyncGenerator[WorkItem, None]) -> WorkerPool[WorkItem, FetchedSessions]:
    """Read the windows of work items; each item is yielded with its outcome, in order of completion."""
    endpoints = client._bulk_endpoints  # noqa: SLF001

    async def read(item: WorkItem, budget: MemoryBudget) -> Fetched:
        return await fetch_or_fail(endpoints, item.vehicle, item.window, budget, keep=Keep.BODY)

    return WorkerPool(items, read, _as_fetched, slots=limiter_of(client).ceiling)


@attrs.define
class ItemReader:
    """Reads the work items of a run; knows when each was read, and which days its read settles."""

    client: PoderoClient
    now: Callable[[], datetime]
    settle_days: int
    keep_unknown: bool
    _times: dict[int, tuple[datetime, date | None]] = attrs.field(factory=dict)
    _was_warned: bool = False
    _unanswered: int = 0
    """Requests in a row for current sessions that failed as in an outage."""

    def read(self, items: AsyncGenerator[WorkItem, None] | Iterator[WorkItem]) -> WorkerPool[WorkItem, FetchedSessions]:
        """Read work items; each item is yielded with its outcome, in order of completion."""
        return WorkerPool(items, self._read, _as_fetched, slots=limiter_of(self.client).ceiling)

    def time_of(self, item: WorkItem) -> tuple[datetime, date | None]:
        """Return the time of an item's read, and the last day that the read settles. An item is asked for once."""
        return self._times.pop(item.number)

    async def _read(self, item: WorkItem, budget: MemoryBudget) -> Fetched:
        keep = Keep.UNKNOWN_FIELDS if self.keep_unknown else Keep.BODY
        endpoints, stats, started = self.client._bulk_endpoints, RequestStats(), self.now()  # noqa: SLF001
        plugged_in_at, is_asked = None, False
        if item.asks_current and self._unanswered < _MAX_UNANSWERED:
            # The session must be asked for before the read: one that ends in between is in the list then.
            try:
                session = await endpoints.current_session(item.vehicle, stats)
            except PoderoError as error:
                if endpoints.is_fatal(error):
                    raise
                self._on_unanswered(error)
            else:
                plugged_in_at, is_asked = session.plug_in_time if session else None, True
                self._unanswered = 0
        outcome = await fetch_or_fail(endpoints, item.vehicle, item.window, budget, stats, keep=keep)
        # Both clocks must agree that time has passed, so that a clock that is ahead settles nothing early.
        at = min(started, server_time(self.client) or started)
        final = final_day(at, self.settle_days)
        self._times[item.number] = (at, settle_to(final, plugged_in_at) if is_asked else None)
        return outcome

    def _on_unanswered(self, error: PoderoError) -> None:
        if not self._was_warned:
            _logger.warning("a current session could not be fetched, so no day was settled: %s", error)
        self._was_warned = True
        self._unanswered = self._unanswered + 1 if is_outage_sign(error) else 0


async def _as_fetched(fetched: FetchedSessions) -> FetchedSessions:
    """Leave the rows as they are: the store makes columns of them."""
    return fetched

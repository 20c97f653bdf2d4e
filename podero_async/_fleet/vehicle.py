"""One vehicle's sessions: its whole list, as a value or as a stream.

Knows the sessions endpoint and the list reader, but neither requests nor tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from functools import partial
from typing import Any

import attrs

from podero_async._decode import Keep, PageRows, decode_page
from podero_async._fleet.budget import MemoryBudget
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.page import Page
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import ApiError, CompletenessError, DecodeError, PoderoError, RequestTimeoutError
from podero_async.models import (
    ChargingSession,
    Completeness,
    RejectedItem,
    SessionsPage,
    User,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)

__all__ = ["FetchedSessions", "failure_of", "fetch_page", "fetch_vehicle", "read_vehicle", "stream_vehicle"]

_MAX_PAGES_AHEAD = 16  # pages of one list that are requested at once
_MAX_PAGES_AHEAD_OF_STREAM = 4  # fewer, since they stay in memory while the consumer is slow
_ROWS_PER_SLICE = 1_000  # become sessions in 1 to 2 ms
_MAX_PAGES_WITH_FALSE_TOTAL = 4  # of the memory budget, for a list whose total is too high


@attrs.define(eq=False)
class FetchedSessions:
    """A vehicle's whole list, as rows of pages that are not sessions yet, so that the garbage collector scans none.

    The pages of a list of several pages count against the memory budget until `release` is called.
    """

    vehicle: VehicleRef
    window: Window
    pages: list[PageRows]
    completeness: Completeness
    total: int
    requests: int
    retries: int
    reason: str = ""
    release: Callable[[], None] = lambda: None
    count: int = attrs.field(init=False)
    """Number of sessions."""
    rejected: list[RejectedItem] = attrs.field(init=False)
    """Rows that could not be read."""

    def __attrs_post_init__(self) -> None:
        self.rejected = [item for page in self.pages for item in page.rejected]
        self.count = sum(map(len, self.pages)) - len(self.rejected)

    def slices(self) -> Iterator[tuple[PageRows, int, int]]:
        """Yield each page with the bounds of a slice of it that can be processed without blocking the event loop."""
        for page in self.pages:
            for begin in range(0, len(page), _ROWS_PER_SLICE):
                yield page, begin, begin + _ROWS_PER_SLICE

    async def decode(self) -> VehicleSessions:
        """Make the sessions; other tasks run between slices."""
        sessions: list[ChargingSession] = []
        for page, begin, end in self.slices():
            if sessions:
                await asyncio.sleep(0)
            sessions += page.sessions(begin, end)
        return VehicleSessions(
            vehicle=self.vehicle,
            from_date=self.window.from_date,
            to_date=self.window.to_date,
            sessions=sessions,
            completeness=self.completeness,
            total=self.total,
            rejected=self.rejected,
            requests=self.requests,
            retries=self.retries,
            reason=self.reason,
        )


def fetch_vehicle(
    endpoints: Endpoints,
    vehicle: VehicleRef,
    window: Window,
    stats: RequestStats,
    budget: MemoryBudget | None = None,
    *,
    keep: Keep = Keep.ROWS,
) -> Coroutine[Any, Any, FetchedSessions]:
    """Fetch one vehicle's whole list. A list of one page, as most are, takes one request and no memory budget."""
    fetching = _fetch_vehicle(endpoints, vehicle, window, stats, budget, keep)
    return endpoints.observation.call("vehicle_sessions", stats, fetching, _observed_fields)


def _observed_fields(fetched: FetchedSessions) -> dict[str, Any]:
    return {"sessions": fetched.count, "completeness": fetched.completeness}


async def _fetch_vehicle(
    endpoints: Endpoints,
    vehicle: VehicleRef,
    window: Window,
    stats: RequestStats,
    budget: MemoryBudget | None,
    keep: Keep,
) -> FetchedSessions:
    fetch = partial(_fetch_page, endpoints, vehicle, stats, keep)
    first = await fetch(window, 0)
    if first.is_whole:
        verdict = Completeness.VERIFIED
        return FetchedSessions(vehicle, window, [first.rows], verdict, first.total, stats.requests, stats.retries)
    reader = SessionListReader(fetch, window, first, ahead=endpoints.at_once(_MAX_PAGES_AHEAD))
    with ExitStack() as on_failure, _errors_naming(endpoints.sessions_path(vehicle)):
        if budget is not None:
            on_failure.callback(await budget.acquire(await _pages_to_hold(fetch, window, first, budget)))
        async with aclosing(reader.new_rows()) as stream:
            pages = [rows async for rows in stream]
        return FetchedSessions(
            vehicle,
            window,
            pages,
            reader.completeness,
            reader.total,
            stats.requests,
            stats.retries,
            reader.reason,
            on_failure.pop_all().close,
        )


def fetch_page(
    endpoints: Endpoints, vehicle: VehicleRef, window: Window, limit: int, offset: int, *, keep_rejected: bool
) -> Coroutine[Any, Any, SessionsPage]:
    """Fetch and decode one page; raise `DecodeError` if a row cannot be read and `keep_rejected` is false."""
    stats = RequestStats()
    fetching = _fetch_single_page(endpoints, vehicle, window, limit, offset, keep_rejected, stats)
    return endpoints.observation.call("list_sessions", stats, fetching)


async def _fetch_single_page(
    endpoints: Endpoints,
    vehicle: VehicleRef,
    window: Window,
    limit: int,
    offset: int,
    keep_rejected: bool,
    stats: RequestStats,
) -> SessionsPage:
    page = await endpoints.sessions(
        vehicle,
        window.from_date,
        window.to_date,
        include_hidden=window.include_hidden,
        limit=limit,
        offset=offset,
        decode=partial(decode_page, first_index=offset),
        stats=stats,
    )
    if page.rejected and not keep_rejected:
        _raise_rejected(page.rejected[0], endpoints.sessions_path(vehicle))
    return page


async def read_vehicle(endpoints: Endpoints, vehicle: VehicleRef, window: Window) -> VehicleSessions:
    """Fetch and decode one vehicle's whole list; raise the error if that fails."""
    fetched = await fetch_vehicle(endpoints, vehicle, window, RequestStats())
    return await fetched.decode()


def stream_vehicle(
    endpoints: Endpoints,
    vehicle: VehicleRef,
    window: Window,
    on_rejected: Callable[[RejectedItem], None] | None,
    stats: RequestStats | None = None,
) -> AsyncGenerator[ChargingSession, None]:
    """Yield one vehicle's sessions page by page, as the pages are proven.

    Raises:
        DecodeError: A row cannot be read, if `on_rejected` was not given.
        CompletenessError: The list could not be proven complete; raised after the last session.
    """
    stats = stats or RequestStats()
    sessions = _stream_vehicle(endpoints, vehicle, window, on_rejected, stats)
    return endpoints.observation.stream("sessions", stats, sessions)


async def _stream_vehicle(
    endpoints: Endpoints,
    vehicle: VehicleRef,
    window: Window,
    on_rejected: Callable[[RejectedItem], None] | None,
    stats: RequestStats,
) -> AsyncGenerator[ChargingSession, None]:
    fetch = partial(_fetch_page, endpoints, vehicle, stats, Keep.ROWS)
    reader = SessionListReader(
        fetch, window, await fetch(window, 0), ahead=endpoints.at_once(_MAX_PAGES_AHEAD_OF_STREAM)
    )
    path = endpoints.sessions_path(vehicle)
    if on_rejected is None:
        on_rejected = partial(_raise_rejected, path=path)
    delivered = 0
    with _errors_naming(path):
        async with aclosing(reader.new_rows()) as stream:
            async for rows in stream:
                for item in rows.rejected:
                    on_rejected(item)
                for begin in range(0, len(rows), _ROWS_PER_SLICE):
                    sessions = rows.sessions(begin, begin + _ROWS_PER_SLICE)
                    for session in sessions:
                        yield session
                    delivered += len(sessions)
                    stats.note(sessions=delivered)
    stats.note(sessions=delivered, completeness=reader.completeness)
    if reader.completeness is Completeness.UNPROVEN:
        raise CompletenessError(reader.reason, delivered, reader.total, path)


def failure_of(of: VehicleRef | User, error: PoderoError, stats: RequestStats) -> VehicleFailure:
    """Return a vehicle's failure or, if a user is given, the failure to list the user's vehicles."""
    vehicle = of if isinstance(of, VehicleRef) else None
    return VehicleFailure(
        user_id=of.user_id if isinstance(of, VehicleRef) else of.id,
        vehicle=vehicle,
        error=error,
        external_user_id=of.external_user_id,
        requests=stats.requests,
        retries=stats.retries,
    )


async def _pages_to_hold(
    fetch: Callable[[Window, int], Coroutine[Any, Any, Page]], window: Window, first: Page, budget: MemoryBudget
) -> int:
    """Return how many pages of memory a list needs according to its total.

    A total that is far too high, such as that of all vehicles, would keep other lists waiting. If its pages exceed the
    share of one list, or the first page has fewer rows than requested, the last page is requested to see whether the
    list is that long.
    """
    pages = first.pages
    if pages <= _MAX_PAGES_WITH_FALSE_TOTAL or (first.count == MAX_PAGE_SIZE and pages <= budget.max_share):
        return pages
    try:
        last = await fetch(window, first.total - first.count)
    except (ApiError, RequestTimeoutError):  # such as a refused offset; the reader knows what to do
        return pages
    is_there = last.count and last.ids != first.ids  # a server that ignores the offset repeats the first page
    return pages if is_there else _MAX_PAGES_WITH_FALSE_TOTAL


def _raise_rejected(item: RejectedItem, path: str) -> None:
    raise DecodeError(item.reason, f"$.items[{item.index}]{item.path[1:]}", item.index, path=path)


@contextmanager
def _errors_naming(path: str) -> Iterator[None]:
    """Add the path of the list to a `CompletenessError`."""
    try:
        yield
    except CompletenessError as error:
        error.path = error.path or path
        raise


def _fetch_page(
    endpoints: Endpoints, vehicle: VehicleRef, stats: RequestStats, keep: Keep, window: Window, offset: int
) -> Coroutine[Any, Any, Page]:
    """Fetch a page of the largest size."""
    return endpoints.sessions(
        vehicle,
        window.from_date,
        window.to_date,
        include_hidden=window.include_hidden,
        limit=MAX_PAGE_SIZE,
        offset=offset,
        decode=partial(Page.read, offset, MAX_PAGE_SIZE, keep=keep),
        stats=stats,
    )

"""One vehicle's sessions: its whole list, as a value or as a stream.

Knows the sessions endpoint and the list reader, but neither requests nor tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import attrs

from podero_async._decode import decode_page
from podero_async._fleet.budget import MemoryBudget
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.page import NewRows, Page
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window
from podero_async._redaction import strip_traceback
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import ApiError, CompletenessError, DecodeError, PoderoError, RequestTimeoutError
from podero_async.models import (
    ChargingSession,
    Completeness,
    RejectedItem,
    SessionsPage,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)

__all__ = ["UndecodedSessions", "failure_of", "fetch_page", "fetch_vehicle", "read_vehicle", "stream_vehicle"]

_MAX_PAGES_AHEAD = 16  # pages of one list that are requested at once
_MAX_PAGES_AHEAD_OF_STREAM = 4  # fewer, since they stay in memory while the consumer is slow
_MAX_PAGES_WITH_FALSE_TOTAL = 4  # that a list whose total is too high takes of the memory budget
_MAX_DECODING_S = 0.005  # then other tasks of the event loop run


@attrs.frozen(eq=False)
class UndecodedSessions:
    """A fully fetched list of several pages, kept as bytes so that the garbage collector has fewer objects to scan.

    Its pages count against the memory budget until `release` is called.
    """

    _vehicle: VehicleRef
    _window: Window
    _reader: SessionListReader
    _rows: list[NewRows]
    _stats: RequestStats
    release: Callable[[], None]

    async def decode(self) -> VehicleSessions | VehicleFailure:
        """Decode the list, yielding to the event loop at intervals. If a page cannot be decoded, return a failure."""
        whole = SessionsPage(total=self._reader.total, items=[])
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            for rows in self._rows:
                page = _decoded(rows)
                whole.items.extend(page.items)
                whole.rejected.extend(page.rejected)
                if loop.time() - since > _MAX_DECODING_S:
                    await asyncio.sleep(0)
                    since = loop.time()
        except DecodeError as error:
            return failure_of(self._vehicle.user_id, self._vehicle, error, self._stats)
        reader = self._reader
        return _sessions_of(self._vehicle, self._window, whole, reader.completeness, self._stats, reader.reason)


async def fetch_vehicle(
    endpoints: Endpoints, vehicle: VehicleRef, window: Window, stats: RequestStats, budget: MemoryBudget | None = None
) -> UndecodedSessions | VehicleSessions:
    """Fetch one vehicle's whole list. A list of one page, as most are, takes one request and no memory budget."""
    fetch = partial(_fetch_page, endpoints, vehicle, stats)
    first = await fetch(window, 0)
    if first.is_whole:
        return _sessions_of(vehicle, window, first.decode(), Completeness.VERIFIED, stats)
    reader = SessionListReader(fetch, window, first, ahead=_MAX_PAGES_AHEAD)
    with ExitStack() as on_failure, _errors_naming(endpoints.sessions_path(vehicle)):
        if budget is not None:
            on_failure.callback(await budget.acquire(await _pages_to_hold(fetch, window, first, budget)))
        async with aclosing(reader.new_rows()) as stream:
            rows = [rows async for rows in stream]
        return UndecodedSessions(vehicle, window, reader, rows, stats, on_failure.pop_all().close)


async def fetch_page(
    endpoints: Endpoints, vehicle: VehicleRef, window: Window, limit: int, offset: int, *, keep_rejected: bool
) -> SessionsPage:
    """Fetch and decode one page; raise `DecodeError` if a row cannot be read and `keep_rejected` is false."""
    page = await endpoints.sessions(
        vehicle,
        window.from_date,
        window.to_date,
        include_hidden=window.include_hidden,
        limit=limit,
        offset=offset,
        decode=partial(decode_page, first_index=offset),
        stats=RequestStats(),
    )
    if page.rejected and not keep_rejected:
        _raise_rejected(page.rejected[0], endpoints.sessions_path(vehicle))
    return page


async def read_vehicle(endpoints: Endpoints, vehicle: VehicleRef, window: Window) -> VehicleSessions:
    """Fetch and decode one vehicle's whole list; raise the error if that fails."""
    outcome = await fetch_vehicle(endpoints, vehicle, window, RequestStats())
    decoded = await outcome.decode() if isinstance(outcome, UndecodedSessions) else outcome
    if isinstance(decoded, VehicleFailure):
        raise decoded.error
    return decoded


async def stream_vehicle(
    endpoints: Endpoints, vehicle: VehicleRef, window: Window, on_rejected: Callable[[RejectedItem], None] | None
) -> AsyncGenerator[ChargingSession, None]:
    """Yield one vehicle's sessions page by page, as the pages are proven.

    Raises:
        DecodeError: A row cannot be read, if `on_rejected` was not given.
        CompletenessError: The list could not be proven complete; raised after the last session.
    """
    fetch = partial(_fetch_page, endpoints, vehicle, RequestStats())
    reader = SessionListReader(fetch, window, await fetch(window, 0), ahead=_MAX_PAGES_AHEAD_OF_STREAM)
    path = endpoints.sessions_path(vehicle)
    if on_rejected is None:
        on_rejected = partial(_raise_rejected, path=path)
    delivered = 0
    with _errors_naming(path):
        async with aclosing(reader.new_rows()) as stream:
            async for rows in stream:
                page = _decoded(rows)
                for item in page.rejected:
                    on_rejected(item)
                for session in page.items:
                    yield session
                delivered += len(page.items)
    if reader.completeness is Completeness.UNPROVEN:
        raise CompletenessError(reader.reason, delivered, reader.total, path)


def failure_of(user_id: UUID, vehicle: VehicleRef | None, error: PoderoError, stats: RequestStats) -> VehicleFailure:
    """Return a vehicle's failure or, if no vehicle is given, the failure to list the user's vehicles."""
    requests, retries = stats.requests, stats.retries
    return VehicleFailure(user_id=user_id, vehicle=vehicle, error=error, requests=requests, retries=retries)


async def _pages_to_hold(
    fetch: Callable[[Window, int], Coroutine[Any, Any, Page]], window: Window, first: Page, budget: MemoryBudget
) -> int:
    """Return how many pages of memory a list needs according to its total.

    A total that is far too high, such as that of all vehicles, would keep other lists waiting. If it would take a large
    share of the budget, or the first page has fewer rows than requested, the last page is requested to see whether the list
    is that long.
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


def _sessions_of(
    vehicle: VehicleRef,
    window: Window,
    whole: SessionsPage,
    completeness: Completeness,
    stats: RequestStats,
    reason: str = "",
) -> VehicleSessions:
    return VehicleSessions(
        vehicle=vehicle,
        from_date=window.from_date,
        to_date=window.to_date,
        sessions=whole.items,
        completeness=completeness,
        total=whole.total,
        rejected=whole.rejected,
        requests=stats.requests,
        retries=stats.retries,
        reason=reason,
    )


def _decoded(rows: NewRows) -> SessionsPage:
    with strip_traceback():  # inner frames hold the body
        return rows.decode()


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
    endpoints: Endpoints, vehicle: VehicleRef, stats: RequestStats, window: Window, offset: int
) -> Coroutine[Any, Any, Page]:
    """Fetch a page of the largest size. A first page that may be the whole list is decoded at once."""
    return endpoints.sessions(
        vehicle,
        window.from_date,
        window.to_date,
        include_hidden=window.include_hidden,
        limit=MAX_PAGE_SIZE,
        offset=offset,
        decode=partial(Page.outlined, offset) if offset else partial(Page.first, MAX_PAGE_SIZE),
        stats=stats,
    )

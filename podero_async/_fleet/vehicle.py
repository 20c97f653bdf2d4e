"""One vehicle's sessions: its list as pages of one endpoint, read whole or streamed.

Knows the API's endpoint and the reader; nothing of HTTP, tokens or retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from functools import partial

import attrs

from podero_async._fleet.budget import MemoryBudget
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.page import NewRows, Page
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window
from podero_async._redaction import strip_traceback
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import CompletenessError, DecodeError
from podero_async.models import (
    ChargingSession,
    Completeness,
    RejectedItem,
    SessionsPage,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)

__all__ = ["UndecodedSessions", "fetch_vehicle", "read_vehicle", "stream_vehicle"]

_PAGES_AHEAD = 16  # of one list, asked for at once
_STREAMED_AHEAD = 4  # the same, for a stream: they may wait long to be wanted
_DECODED_AT_A_TIME_S = 0.005  # before the event loop gets its turn


@attrs.frozen(eq=False)
class UndecodedSessions:
    """A list of several pages that is in, as bytes: what is kept decoded, the collector walks over.

    It takes its room until it `leave`s.
    """

    _vehicle: VehicleRef
    _window: Window
    _reader: SessionListReader
    _pieces: list[NewRows]
    _tally: RequestStats
    leave: Callable[[], None]

    async def decode(self) -> VehicleSessions | VehicleFailure:
        """Decode it, and give the event loop its turns; a page whose outline could be read, but not all of it, is a failure."""
        try:
            return await self._decoded()
        except DecodeError as error:
            requests, retries = self._tally.requests, self._tally.retries
            who = self._vehicle
            return VehicleFailure(user_id=who.user_id, vehicle=who, error=error, requests=requests, retries=retries)

    async def _decoded(self) -> VehicleSessions:
        whole = VehicleSessions(
            vehicle=self._vehicle,
            from_date=self._window.from_date,
            to_date=self._window.to_date,
            sessions=[],
            completeness=self._reader.completeness,
            total=self._reader.total,
            requests=self._tally.requests,
            retries=self._tally.retries,
        )
        loop = asyncio.get_running_loop()
        since = loop.time()
        for piece in self._pieces:
            page = _rows_of(piece)
            whole.sessions.extend(page.items)
            whole.rejected.extend(page.rejected)
            if loop.time() - since > _DECODED_AT_A_TIME_S:
                await asyncio.sleep(0)
                since = loop.time()
        return whole


async def fetch_vehicle(
    endpoints: Endpoints, vehicle: VehicleRef, window: Window, stats: RequestStats, room: MemoryBudget
) -> UndecodedSessions | VehicleSessions:
    """Read one vehicle's list whole. Most lists are one page, which needs no reader."""
    fetch = partial(_fetch_page, endpoints, vehicle, stats)
    first = await fetch(window, 0)
    if first.is_whole_and_distinct:
        page = first.decode()
        return VehicleSessions(
            vehicle=vehicle,
            from_date=window.from_date,
            to_date=window.to_date,
            sessions=page.items,
            completeness=Completeness.VERIFIED,
            total=first.total,
            rejected=page.rejected,
            requests=stats.requests,
            retries=stats.retries,
        )
    reader = SessionListReader(fetch, window, first, ahead=_PAGES_AHEAD)
    with ExitStack() as on_leaving:
        on_leaving.callback(room.leave, await room.enter(first.pages))
        async with aclosing(reader.new_rows()) as pieces:
            taken = [piece async for piece in pieces]
        return UndecodedSessions(vehicle, window, reader, taken, stats, on_leaving.pop_all().close)


async def read_vehicle(
    endpoints: Endpoints, vehicle: VehicleRef, window: Window, stats: RequestStats
) -> VehicleSessions:
    """Read one vehicle's sessions whole."""
    read = await fetch_vehicle(endpoints, vehicle, window, stats, MemoryBudget(1))
    result = await read.decode() if isinstance(read, UndecodedSessions) else read
    if isinstance(result, VehicleFailure):
        raise result.error
    return result


async def stream_vehicle(
    endpoints: Endpoints, vehicle: VehicleRef, window: Window, on_rejected: Callable[[RejectedItem], None]
) -> AsyncGenerator[ChargingSession, None]:
    """Yield one vehicle's sessions page by page, as they are proven.

    Raises:
        CompletenessError: After the last one, where the list could not be proven.
    """
    fetch = partial(_fetch_page, endpoints, vehicle, RequestStats())
    reader = SessionListReader(fetch, window, await fetch(window, 0), ahead=_STREAMED_AHEAD)
    delivered = 0
    async with aclosing(reader.new_rows()) as pieces:
        async for piece in pieces:
            page = _rows_of(piece)
            for item in page.rejected:
                on_rejected(item)
            for session in page.items:
                yield session
            delivered += len(page.items)
    if reader.completeness is Completeness.UNPROVEN:
        raise CompletenessError(reader.reason, delivered, reader.total)


def _rows_of(piece: NewRows) -> SessionsPage:
    with strip_traceback():  # they hold the body
        return piece.decode()


async def _fetch_page(
    endpoints: Endpoints, vehicle: VehicleRef, stats: RequestStats, part: Window, offset: int
) -> Page:
    """Fetch a page, as large as they come; one that may be the whole list is decoded at once."""
    return await endpoints.sessions(
        vehicle,
        part.from_date,
        part.to_date,
        include_hidden=part.include_hidden,
        limit=MAX_PAGE_SIZE,
        offset=offset,
        decode=partial(Page.outlined, offset) if offset else partial(Page.first, MAX_PAGE_SIZE),
        stats=stats,
    )

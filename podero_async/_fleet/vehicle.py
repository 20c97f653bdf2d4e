"""One vehicle's sessions: its list as pages of one endpoint, read whole or streamed.

Knows the API's endpoint and the reader; nothing of HTTP, tokens or retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from functools import partial

import attrs

from podero_async._flow.retry import Tally
from podero_async._http.endpoints import MOST_PER_PAGE, Api
from podero_async._paging.page import Page, Piece, Window
from podero_async._paging.reader import ListReader
from podero_async._redaction import without_frames
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

__all__ = ["Room", "VehicleRead", "fetch_vehicle", "read_vehicle", "stream_vehicle"]

_PAGES_AHEAD = 16  # of one list, asked for at once
_STREAMED_AHEAD = 4  # the same, for a stream: they may wait long to be wanted
_DECODED_AT_A_TIME_S = 0.005  # before the event loop gets its turn


class Room:
    """Bounds the pages of all lists that are under way at once; first come, first served.

    A list that is larger than all there is waits until it is the only one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._entrance = asyncio.Lock()
        self._left = asyncio.Event()

    async def enter(self, pages: int) -> int:
        """Wait until there is room for so many pages, or for the most there can be; take it, and return how much it is."""
        taken = min(pages, self._most)
        async with self._entrance:
            while self._taken + taken > self._most:
                self._left.clear()
                await self._left.wait()
            self._taken += taken
        return taken

    def leave(self, pages: int) -> None:
        """Give room back."""
        self._taken -= pages
        self._left.set()


@attrs.frozen(eq=False)
class VehicleRead:
    """A list of several pages that is in, as bytes: what is kept decoded, the collector walks over.

    It takes its room until it `leave`s.
    """

    _vehicle: VehicleRef
    _window: Window
    _reader: ListReader
    _pieces: list[Piece]
    _tally: Tally
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
    api: Api, vehicle: VehicleRef, window: Window, tally: Tally, room: Room
) -> VehicleRead | VehicleSessions:
    """Read one vehicle's list whole. Most lists are one page, which needs no reader."""
    fetch = partial(_fetch_page, api, vehicle, tally)
    first = await fetch(window, 0)
    if first.proves_itself:
        page = first.decode()
        return VehicleSessions(
            vehicle=vehicle,
            from_date=window.from_date,
            to_date=window.to_date,
            sessions=page.items,
            completeness=Completeness.VERIFIED,
            total=first.total,
            rejected=page.rejected,
            requests=tally.requests,
            retries=tally.retries,
        )
    reader = ListReader(fetch, window, first, ahead=_PAGES_AHEAD)
    with ExitStack() as on_leaving:
        on_leaving.callback(room.leave, await room.enter(first.pages))
        async with aclosing(reader.pieces()) as pieces:
            taken = [piece async for piece in pieces]
        return VehicleRead(vehicle, window, reader, taken, tally, on_leaving.pop_all().close)


async def read_vehicle(api: Api, vehicle: VehicleRef, window: Window, tally: Tally) -> VehicleSessions:
    """Read one vehicle's sessions whole."""
    read = await fetch_vehicle(api, vehicle, window, tally, Room(1))
    result = await read.decode() if isinstance(read, VehicleRead) else read
    if isinstance(result, VehicleFailure):
        raise result.error
    return result


async def stream_vehicle(
    api: Api, vehicle: VehicleRef, window: Window, on_rejected: Callable[[RejectedItem], None]
) -> AsyncGenerator[ChargingSession, None]:
    """Yield one vehicle's sessions page by page, as they are proven.

    Raises:
        CompletenessError: After the last one, where the list could not be proven.
    """
    fetch = partial(_fetch_page, api, vehicle, Tally())
    reader = ListReader(fetch, window, await fetch(window, 0), ahead=_STREAMED_AHEAD)
    delivered = 0
    async with aclosing(reader.pieces()) as pieces:
        async for piece in pieces:
            page = _rows_of(piece)
            for item in page.rejected:
                on_rejected(item)
            for session in page.items:
                yield session
            delivered += len(page.items)
    if reader.completeness is Completeness.UNPROVEN:
        raise CompletenessError(reader.doubt, delivered, reader.total)


def _rows_of(piece: Piece) -> SessionsPage:
    with without_frames():  # they hold the body
        return piece.decode()


async def _fetch_page(api: Api, vehicle: VehicleRef, tally: Tally, part: Window, offset: int) -> Page:
    """Fetch a page, as large as they come; one that may be the whole list is decoded at once."""
    return await api.sessions(
        vehicle,
        part.from_date,
        part.to_date,
        include_hidden=part.include_hidden,
        limit=MOST_PER_PAGE,
        offset=offset,
        decode=partial(Page.outlined, offset) if offset else partial(Page.first, MOST_PER_PAGE),
        tally=tally,
    )

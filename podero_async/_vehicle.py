"""One vehicle's sessions: its list as pages of one endpoint, read whole or streamed.

Knows the API's endpoint and the reader; nothing of HTTP, tokens or retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial

import attrs

from podero_async._api import MOST_PER_PAGE, Api
from podero_async._pages import Page, Piece, Window
from podero_async._reader import ListReader
from podero_async._retry import Tally
from podero_async.errors import CompletenessError
from podero_async.models import ChargingSession, Completeness, RejectedItem, VehicleRef, VehicleSessions

__all__ = ["VehicleRead", "fetch_vehicle", "read_vehicle", "stream_vehicle"]

_PAGES_AHEAD = 16  # of one list, asked for at once
_STREAMED_AHEAD = 4  # the same, for a stream: they may wait long to be wanted
_DECODED_AT_A_TIME_S = 0.005  # before the event loop gets its turn


@attrs.frozen(eq=False)
class VehicleRead:
    """A list that is in, as bytes but for its first page."""

    _vehicle: VehicleRef
    _window: Window
    _reader: ListReader
    _pieces: list[Piece]
    _tally: Tally

    @property
    def is_decoded(self) -> bool:
        """Whether its first page was all."""
        return len(self._pieces) <= 1

    async def decode(self) -> VehicleSessions:
        """Decode it, and give the event loop its turns."""
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
            page = piece.decode()
            whole.sessions.extend(page.items)
            whole.rejected.extend(page.rejected)
            if loop.time() - since > _DECODED_AT_A_TIME_S:
                await asyncio.sleep(0)
                since = loop.time()
        return whole


async def fetch_vehicle(api: Api, vehicle: VehicleRef, window: Window, tally: Tally) -> VehicleRead:
    """Read one vehicle's list whole. It is held as bytes: what is kept decoded, the garbage collector walks over."""
    reader = _list_reader(api, vehicle, window, tally, ahead=_PAGES_AHEAD)
    return VehicleRead(vehicle, window, reader, await reader.read(), tally)


async def read_vehicle(api: Api, vehicle: VehicleRef, window: Window, tally: Tally) -> VehicleSessions:
    """Read one vehicle's sessions whole."""
    read = await fetch_vehicle(api, vehicle, window, tally)
    return await read.decode()


async def stream_vehicle(
    api: Api, vehicle: VehicleRef, window: Window, on_rejected: Callable[[RejectedItem], None]
) -> AsyncGenerator[ChargingSession, None]:
    """Yield one vehicle's sessions page by page, as they are proven.

    Raises:
        CompletenessError: After the last one, where the list could not be proven.
    """
    reader = _list_reader(api, vehicle, window, Tally(), ahead=_STREAMED_AHEAD)
    delivered = 0
    async with aclosing(reader.pieces()) as pieces:
        async for piece in pieces:
            page = piece.decode()
            for item in page.rejected:
                on_rejected(item)
            for session in page.items:
                yield session
            delivered += len(page.items)
    if reader.completeness is Completeness.UNPROVEN:
        raise CompletenessError(reader.doubt, delivered, reader.total)


def _list_reader(api: Api, vehicle: VehicleRef, window: Window, tally: Tally, *, ahead: int) -> ListReader:
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

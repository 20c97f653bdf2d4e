"""A server of users whose pages and totals a test controls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import attrs
from aiohttp import web

from podero_async import PoderoClient
from tests._support.clients import page_body, serving, static_client


@attrs.define
class Directory:
    """A server that pages its users. Each has one vehicle; if `owners` is given, only those users have one."""

    users: list[int]
    owners: set[int] | None = None
    total_is_off_by: int = 0
    is_array: bool = False
    """Whether pages are arrays without a total."""
    max_page_size: int = 200
    default_page_size: int = 50
    refuses_limit_above: int = 1000
    """The largest `limit` that is not refused with 422."""
    cut: Callable[[int, list[int]], list[int]] = lambda _, page: page
    """Makes the rows of a page, given its offset and the right rows."""
    without_id: set[int] = attrs.field(factory=set)
    """Users whose ids cannot be read."""
    with_odd_vehicle: set[int] = attrs.field(factory=set)
    """Users that have another vehicle, whose id cannot be read."""
    before_users: Callable[[int], Awaitable[None]] | None = None
    """Called with the offset of each request for users."""
    before_vehicles: Callable[[], Awaitable[None]] | None = None
    """Called for each request for a user's vehicles."""
    offsets: list[int] = attrs.field(factory=list)

    async def respond(self, request: web.Request) -> web.Response:
        if request.path.endswith("/sessions"):
            return web.Response(body=page_body())
        if request.path.endswith("/electric-vehicles"):
            if self.before_vehicles is not None:
                await self.before_vehicles()
            user = UUID(request.path.split("/")[-2])
            return web.json_response([{"id": "unknown"}] * (user.int in self.with_odd_vehicle) + [{"id": str(user)}])
        offset = int(request.query.get("offset", 0))
        limit = int(request.query.get("limit", self.default_page_size))
        self.offsets.append(offset)
        if self.before_users is not None:
            await self.before_users(offset)
        if limit > self.refuses_limit_above:
            return web.json_response({"detail": "the limit is too large"}, status=422)
        page = self.users[offset : offset + min(limit, self.max_page_size)]
        rows = [*map(self._row, self.cut(offset, page))]
        total = len(self.users) + self.total_is_off_by
        return web.json_response(rows if self.is_array else {"total": total, "items": rows})

    def _row(self, user: int) -> dict[str, Any]:
        is_owner = self.owners is None or user in self.owners
        return {
            "id": "unknown" if user in self.without_id else str(UUID(int=user)),
            "num_electric_vehicles": int(is_owner),
        }

    @asynccontextmanager
    async def client(self) -> AsyncIterator[PoderoClient]:
        async with serving(self.respond) as origin, static_client(origin) as client:
            yield client

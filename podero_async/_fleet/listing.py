"""The lists of users and of a user's vehicles, from servers that page them or return them whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from podero_async._failures import is_fatal
from podero_async._fleet.position import Position
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async.errors import CompletenessError, DecodeError, PoderoError
from podero_async.models import ElectricVehicle, User

__all__ = ["all_users", "listed_vehicles"]

Row = TypeVar("Row", User, ElectricVehicle)

_MAX_ROWS_PER_LOOP_TURN = 500  # a consumer that skips rows without awaiting would hold the event loop for over 20 ms


async def all_users(endpoints: Endpoints, *, include_deleted: bool, stats: RequestStats) -> AsyncGenerator[User, None]:
    """Yield the organization's users, each once, from a server that pages the list or returns it whole.

    Every user that is in the list throughout the read is yielded, even if others come and go and pages shift, provided
    that the list is ordered and its pages can overlap. Two pages in a row without new users end the read. If the list has
    fewer or more users than its totals, a warning with both numbers is logged. An array of ten users or more may be a page,
    so the next page is requested, and arrays are read on until one shows the end of the list, or the server refuses to list
    a second page.

    Raises:
        CompletenessError: The server counts more users than it lists, a page that may exist failed, a user has no
            readable id, no array showed the end of the list, or the list changed too often; raised after the last user.
    """

    def fetch(begin: int, limit: int | None) -> Coroutine[Any, Any, tuple[int | None, list[User | DecodeError]]]:
        return endpoints.users(offset=begin, limit=limit, include_deleted=include_deleted, stats=stats)

    position, path = Position(), endpoints.users_path
    unreadable: DecodeError | None = None
    async with aclosing(_rows(fetch, position, path)) as rows:
        async for row in rows:
            if isinstance(row, User):
                yield row
            else:
                unreadable = row
    position.balance(unreadable, path)


async def listed_vehicles(
    endpoints: Endpoints, user: User, stats: RequestStats
) -> tuple[list[ElectricVehicle | DecodeError], CompletenessError | None]:
    """Return the rows of a user's list of vehicles, each once, and an error if vehicles may be missing.

    The list is read on as that of users is, and also if it has fewer vehicles than the user's `num_electric_vehicles`.
    """
    position, path = Position("vehicles", user.num_electric_vehicles), endpoints.vehicles_path(user.id)
    found: list[ElectricVehicle | DecodeError] = []

    async def fetch(begin: int, limit: int | None) -> tuple[int | None, list[ElectricVehicle | DecodeError]]:
        return None, await endpoints.listed_vehicles(user.id, stats, offset=begin, limit=limit)

    try:
        async with aclosing(_rows(fetch, position, path)) as rows:
            async for row in rows:  # an error keeps those that were listed before it
                found.append(row)  # noqa: PERF401
        position.balance(None, path)
    except CompletenessError as error:
        return found, error
    return found, None


async def _rows(
    fetch: Callable[[int, int | None], Coroutine[Any, Any, tuple[int | None, list[Row | DecodeError]]]],
    position: Position,
    path: str,
) -> AsyncGenerator[Row | DecodeError, None]:
    """Yield the rows of a list, each once, and the errors of unreadable ones, once for each page that has them."""
    while not position.is_at_end:
        begin = position.begin
        try:
            total, rows = await fetch(begin, position.limit)
        except PoderoError as error:
            if position.outlives(error):
                continue
            if not position.is_array or is_fatal(error):
                raise
            reason = f"the list of {position.of} may go on, but its page at offset {begin} failed: {error}"
            raise CompletenessError(reason, len(position.seen), None, path) from None
        ids = [row.id.int for row in rows if not isinstance(row, DecodeError)]
        count, seen = len(rows), position.seen
        if position.goes_back(ids, count, total):
            continue
        seen_before = len(seen)
        rows.reverse()
        while rows:
            if len(rows) % _MAX_ROWS_PER_LOOP_TURN == 0:
                await asyncio.sleep(0)
            row = rows.pop()  # so that each row is freed when the consumer drops it
            if isinstance(row, DecodeError):
                yield row
            elif row.id.int not in seen:
                seen.add(row.id.int)
                yield row
        position.advance(ids, count, total, has_new=len(seen) > seen_before)

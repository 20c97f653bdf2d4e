"""Discovery: the organization's users, and the vehicles of each user.

Calls the API's endpoints; does not import HTTP or tokens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from podero_async._concurrency import map_as_completed
from podero_async._fleet.vehicle import failure_of
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import CompletenessError, PoderoError
from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = ["all_users", "all_vehicles", "discover"]

_MAX_USERS_PER_LOOP_TURN = 500  # a consumer that skips users without awaiting would hold the event loop for over 20 ms

_logger = logging.getLogger("podero_async")


async def all_users(endpoints: Endpoints, *, include_deleted: bool, stats: RequestStats) -> AsyncGenerator[User, None]:
    """Yield the organization's users, each once, from a server that pages the list or returns it whole.

    A page without new users is requested once more. If the list still ends before its total, or goes on after it, a
    warning with both numbers is logged.

    Raises:
        CompletenessError: The server counts more users than it lists; raised after the last user.
    """
    seen: set[int] = set()  # a UUID takes twice the memory of its int
    totals: list[int] = []
    offset = 0
    is_second_try = False
    while True:
        total, users = await endpoints.users(offset=offset, include_deleted=include_deleted, stats=stats)
        count, seen_before = len(users), len(seen)
        users.reverse()
        while users:
            if len(users) % _MAX_USERS_PER_LOOP_TURN == 0:
                await asyncio.sleep(0)
            user = users.pop()  # so that each user is freed when the consumer drops it
            if user.id.int not in seen:
                seen.add(user.id.int)
                yield user
        if total is None:
            return
        totals.append(total)
        if len(seen) > seen_before:
            offset += count
            is_second_try = False
            if offset >= total and not _may_be_full(count):
                break
        elif offset >= total or is_second_try:
            break
        else:
            is_second_try = True
    _balance(len(seen), totals, is_last_page_empty=not count)


def _balance(listed: int, totals: list[int], *, is_last_page_empty: bool) -> None:
    """Compare the number of listed users with the totals of the pages, which differ if the list changes while it is read."""
    if min(totals) <= listed <= max(totals):
        return
    _logger.warning("the list of users has %d users, but the server counts %d", listed, totals[-1])
    if listed < min(totals):
        reason = "ends before its total" if is_last_page_empty else "makes no progress"
        raise CompletenessError(f"the list of users {reason}", listed, totals[-1])


def _may_be_full(count: int) -> bool:
    """Return whether a page's size may be the server's limit: then the list may go on, whatever its total is."""
    return count <= MAX_PAGE_SIZE and (count % 10 == 0 or count % 25 == 0)


async def discover(
    endpoints: Endpoints, stats: RequestStats, *, ahead: int
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of all users, in no particular order, and a failure if a user's list failed.

    Users without vehicles cost no request. The vehicles of at most `ahead` users are requested at once.

    Raises:
        CompletenessError: The server counts more users than it lists; raised after the vehicles of all listed users.
    """
    incomplete: CompletenessError | None = None

    async def owners() -> AsyncGenerator[User, None]:
        nonlocal incomplete
        async with aclosing(all_users(endpoints, include_deleted=False, stats=stats)) as users:
            try:
                async for user in users:
                    if user.num_electric_vehicles != 0:
                        yield user
            except CompletenessError as error:
                incomplete = error

    vehicles_of = partial(_vehicles_of, endpoints, stats)
    async with (
        aclosing(owners()) as users,
        aclosing(map_as_completed(vehicles_of, users, ahead=ahead)) as lists,
    ):
        async for vehicles in lists:
            for vehicle in vehicles:
                yield vehicle
    if incomplete is not None:
        raise incomplete


async def _vehicles_of(
    endpoints: Endpoints, stats: RequestStats, user: User
) -> list[VehicleRef] | list[VehicleFailure]:
    own = RequestStats()
    try:
        vehicles = await endpoints.electric_vehicles(user.id, own)
    except PoderoError as error:
        if endpoints.is_fatal(error):
            raise
        return [failure_of(user.id, None, error, own)]
    finally:
        stats.requests += own.requests
        stats.retries += own.retries
    return [VehicleRef(user_id=user.id, vehicle_id=vehicle.id) for vehicle in vehicles]


async def all_vehicles(endpoints: Endpoints, *, ahead: int) -> AsyncGenerator[VehicleRef, None]:
    """Yield the vehicles that `discover` does, but raise the error if a user's list failed."""
    async with aclosing(discover(endpoints, RequestStats(), ahead=ahead)) as found:
        async for vehicle in found:
            if isinstance(vehicle, VehicleFailure):
                raise vehicle.error
            yield vehicle

"""Discovery: the organization's users, and the vehicles of each user.

Calls the API's endpoints; does not import HTTP or tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from podero_async._concurrency import map_as_completed
from podero_async._fleet.vehicle import failure_of
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async.errors import CompletenessError, PoderoError
from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = ["all_users", "all_vehicles", "discover"]

_MAX_USERS_PER_LOOP_TURN = 500  # a consumer that skips users without awaiting would hold the event loop for over 20 ms


async def all_users(endpoints: Endpoints, *, include_deleted: bool, stats: RequestStats) -> AsyncGenerator[User, None]:
    """Yield the organization's users, each once, from a server that pages the list or returns it whole.

    Raises:
        CompletenessError: A page had no new users before the end of the list.
    """
    seen: set[UUID] = set()
    offset = 0
    while True:
        total, users = await endpoints.users(offset=offset, include_deleted=include_deleted, stats=stats)
        seen_before = len(seen)
        for number, user in enumerate(users):
            if number % _MAX_USERS_PER_LOOP_TURN == 0:
                await asyncio.sleep(0)
            if user.id not in seen:
                seen.add(user.id)
                yield user
        offset += len(users)
        if offset >= total:
            return
        if len(seen) == seen_before:
            raise CompletenessError("the list of users makes no progress", len(seen), total)


async def discover(
    endpoints: Endpoints, stats: RequestStats, *, ahead: int
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of all users, in no particular order, and a failure if a user's list failed.

    Users without vehicles cost no request. The vehicles of at most `ahead` users are requested at once.
    """

    async def vehicles_of(user: User) -> list[VehicleRef] | VehicleFailure:
        own = RequestStats()
        try:
            vehicles = await endpoints.electric_vehicles(user.id, own)
        except PoderoError as error:
            if endpoints.is_fatal(error):
                raise
            return failure_of(user.id, None, error, own)
        finally:
            stats.requests += own.requests
            stats.retries += own.retries
        return [VehicleRef(user_id=user.id, vehicle_id=vehicle.id) for vehicle in vehicles]

    async with aclosing(all_users(endpoints, include_deleted=False, stats=stats)) as users:
        owners = (user async for user in users if user.num_electric_vehicles != 0)
        async with aclosing(map_as_completed(vehicles_of, owners, ahead=ahead)) as lists:
            async for vehicles in lists:
                if isinstance(vehicles, VehicleFailure):
                    yield vehicles
                else:
                    for vehicle in vehicles:
                        yield vehicle


async def all_vehicles(endpoints: Endpoints, *, ahead: int) -> AsyncGenerator[VehicleRef, None]:
    """Yield what `discover` does, but raise the error if a user's list failed."""
    async with aclosing(discover(endpoints, RequestStats(), ahead=ahead)) as found:
        async for vehicle in found:
            if isinstance(vehicle, VehicleFailure):
                raise vehicle.error
            yield vehicle

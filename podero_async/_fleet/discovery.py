"""Who has vehicles: the organization's users, and the vehicles of each.

Knows the API's endpoints; nothing of HTTP, tokens or retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from podero_async._concurrency import map_as_completed
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async.errors import CompletenessError, PoderoError
from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = ["all_users", "discover"]

_USERS_A_TURN = 500  # of the event loop


async def all_users(endpoints: Endpoints, *, include_deleted: bool, stats: RequestStats) -> AsyncGenerator[User, None]:
    """Yield the organization's users, each once, whether the server answers all at once or in pages."""
    seen: set[UUID] = set()
    offset = 0
    while True:
        total, users = await endpoints.users(offset=offset, include_deleted=include_deleted, stats=stats)
        before = len(seen)
        for number, user in enumerate(users):
            if number % _USERS_A_TURN == 0:
                await asyncio.sleep(0)  # who skips those without vehicles would not stop for 20 ms and more
            if user.id not in seen:
                seen.add(user.id)
                yield user
        offset += len(users)
        if offset >= total:
            return
        if len(seen) == before:
            raise CompletenessError("the list of users makes no progress", len(seen), total)


async def discover(
    endpoints: Endpoints, stats: RequestStats, *, ahead: int
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of all users, in no particular order; a user whose vehicles cannot be listed is a failure.

    Users without vehicles cost no request. At most `ahead` users are asked about at once.
    """

    async def vehicles_of(user: User) -> list[VehicleRef] | VehicleFailure:
        own = RequestStats()
        try:
            vehicles = await endpoints.electric_vehicles(user.id, own)
        except PoderoError as error:
            if endpoints.is_fatal(error):
                raise
            return VehicleFailure(
                user_id=user.id, vehicle=None, error=error, requests=own.requests, retries=own.retries
            )
        finally:
            stats.requests += own.requests
            stats.retries += own.retries
        return [VehicleRef(user_id=user.id, vehicle_id=vehicle.id) for vehicle in vehicles]

    async with aclosing(all_users(endpoints, include_deleted=False, stats=stats)) as users:
        owners = (user async for user in users if user.num_electric_vehicles != 0)
        async with aclosing(map_as_completed(vehicles_of, owners, ahead=ahead)) as answers:
            async for answer in answers:
                if isinstance(answer, VehicleFailure):
                    yield answer
                else:
                    for vehicle in answer:
                        yield vehicle

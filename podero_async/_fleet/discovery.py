"""Who has vehicles: the organization's users, and the vehicles of each.

Knows the API's endpoints; nothing of HTTP, tokens or retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from podero_async._concurrency import as_completed
from podero_async._flow.retry import Tally
from podero_async._http.endpoints import Api
from podero_async.errors import AuthenticationError, CompletenessError, ConfigurationError, PoderoError
from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = ["all_users", "discover", "would_fail_all"]

_USERS_A_TURN = 500  # of the event loop


def would_fail_all(error: PoderoError) -> bool:
    """Say whether an error is no one vehicle's: every other would fail alike."""
    return isinstance(error, AuthenticationError | ConfigurationError) or getattr(error, "is_for_all", False)


async def all_users(api: Api, *, include_deleted: bool, tally: Tally) -> AsyncGenerator[User, None]:
    """Yield the organization's users, each once, whether the server answers all at once or in pages."""
    seen: set[UUID] = set()
    offset = 0
    while True:
        total, users = await api.users(offset=offset, include_deleted=include_deleted, tally=tally)
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


async def discover(api: Api, tally: Tally, *, ahead: int) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of all users, in no particular order; a user whose vehicles cannot be listed is a failure.

    Users without vehicles cost no request. At most `ahead` users are asked about at once.
    """

    async def vehicles_of(user: User) -> list[VehicleRef] | VehicleFailure:
        own = Tally()
        try:
            vehicles = await api.electric_vehicles(user.id, own)
        except PoderoError as error:
            if would_fail_all(error):
                raise
            return VehicleFailure(
                user_id=user.id, vehicle=None, error=error, requests=own.requests, retries=own.retries
            )
        finally:
            tally.requests += own.requests
            tally.retries += own.retries
        return [VehicleRef(user_id=user.id, vehicle_id=vehicle.id) for vehicle in vehicles]

    async with aclosing(all_users(api, include_deleted=False, tally=tally)) as users:
        owners = (user async for user in users if user.num_electric_vehicles != 0)
        async with aclosing(as_completed(vehicles_of, owners, ahead=ahead)) as answers:
            async for answer in answers:
                if isinstance(answer, VehicleFailure):
                    yield answer
                else:
                    for vehicle in answer:
                        yield vehicle

"""Discovery: the organization's users, and the vehicles of each user.

Knows the endpoints, but neither requests nor tokens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from uuid import UUID

from podero_async._concurrency import map_as_completed
from podero_async._failures import is_fatal, is_retryable
from podero_async._fleet.position import Position, is_round
from podero_async._fleet.vehicle import failure_of
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.overlap import REFUSED_PAGE_STATUSES
from podero_async.errors import ApiError, CompletenessError, DecodeError, PoderoError
from podero_async.models import DeviceModel, ElectricVehicle, User, VehicleFailure, VehicleOwner, VehicleRef

__all__ = ["all_users", "all_vehicles", "discover", "electric_vehicles_of", "ref_of", "vehicles_of"]

_MAX_USERS_PER_LOOP_TURN = 500  # a consumer that skips users without awaiting would hold the event loop for over 20 ms
_OVERLAP = 5  # vehicles; fewer than a page has
_NO_MODEL, _NO_OWNER = DeviceModel(), VehicleOwner()

_logger = logging.getLogger("podero_async")


async def all_users(endpoints: Endpoints, *, include_deleted: bool, stats: RequestStats) -> AsyncGenerator[User, None]:
    """Yield the organization's users, each once, from a server that pages the list or returns it whole.

    Every user that is in the list throughout the read is yielded, even if others come and go and pages shift, provided
    that the list is ordered. Two pages in a row without new users end the read. If the list has fewer or more users than
    its totals, a warning with both numbers is logged. An array of ten users or more may be a page, so the next page is requested,
    and arrays are read on until one shows the end of the list, or the server refuses to list a second page.

    Raises:
        CompletenessError: The server counts more users than it lists, a page that may exist failed, a user has no
            readable id, no array showed the end of the list, or the list changed too often; raised after the last user.
    """
    unreadable: DecodeError | None = None
    seen: set[int] = set()  # a UUID takes twice the memory of its int
    position = Position()
    while not position.is_at_end:
        begin = position.begin
        try:
            total, users = await endpoints.users(
                offset=begin, limit=position.limit, include_deleted=include_deleted, stats=stats
            )
        except PoderoError as error:
            if position.outlives(error):
                continue
            if not position.is_array or is_fatal(error):
                raise
            reason = f"the list of users may go on, but its page at offset {begin} failed: {error}"
            raise CompletenessError(reason, len(seen), None, endpoints.users_path) from None
        ids = [user.id.int for user in users if isinstance(user, User)]
        count, seen_before = len(users), len(seen)
        if position.goes_back(ids, count, total, seen):
            continue
        users.reverse()
        while users:
            if len(users) % _MAX_USERS_PER_LOOP_TURN == 0:
                await asyncio.sleep(0)
            user = users.pop()  # so that each user is freed when the consumer drops it
            if isinstance(user, DecodeError):
                unreadable = user
            elif user.id.int not in seen:
                seen.add(user.id.int)
                yield user
        position.advance(ids, count, total, listed=len(seen), has_new=len(seen) > seen_before)
    position.balance(len(seen), unreadable, endpoints.users_path)


async def discover(
    endpoints: Endpoints, stats: RequestStats, *, ahead: int, takes: Callable[[User], bool] = lambda _: True
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of all users, in no particular order, and a failure for each user whose list failed.

    Users without vehicles cost no request. The vehicles of at most `ahead` users are requested at once. A vehicle that two
    users list is yielded for each. A warning has the number of users who list fewer vehicles than their
    `num_electric_vehicles`, which may count others, such as deleted ones.

    Args:
        endpoints: Send the requests.
        stats: Counts them.
        ahead: How many users' vehicles are requested at once.
        takes: Is called with each user, and returns whether to list the user's vehicles.

    Raises:
        PoderoError: The list of users is incomplete, or a later page of it failed; raised after the vehicles of all
            listed users, unless every other call would fail the same way now.
    """
    incomplete: list[PoderoError] = []
    short_lists = 0

    async def vehicles_of_user(user: User) -> list[VehicleRef | VehicleFailure]:
        nonlocal short_lists
        found = await vehicles_of(endpoints, stats, user)
        is_failed = bool(found) and isinstance(found[-1], VehicleFailure)
        short_lists += not is_failed and len(found) < (user.num_electric_vehicles or 0)
        return found

    async with (
        aclosing(_owners(endpoints, stats, takes, incomplete)) as users,
        aclosing(map_as_completed(vehicles_of_user, users, ahead=ahead)) as lists,
    ):
        async for vehicles in lists:
            for vehicle in vehicles:
                yield vehicle
    if short_lists:
        _logger.warning("%d users list fewer vehicles than their num_electric_vehicles", short_lists)
    if incomplete:
        raise incomplete[0]


async def _owners(
    endpoints: Endpoints, stats: RequestStats, takes: Callable[[User], bool], incomplete: list[PoderoError]
) -> AsyncGenerator[User, None]:
    """Yield the users whose vehicles are listed; an error that concerns only the list of users goes to `incomplete`."""
    async with aclosing(all_users(endpoints, include_deleted=False, stats=stats)) as users:
        try:
            async for user in users:
                if takes(user) and user.num_electric_vehicles != 0:
                    yield user
        except PoderoError as error:
            if is_fatal(error):
                raise
            incomplete.append(error)


async def vehicles_of(endpoints: Endpoints, stats: RequestStats, user: User) -> list[VehicleRef | VehicleFailure]:
    """Return a user's vehicles, each once, and a failure if their list failed or a vehicle has no readable id.

    A failure that every call would share is raised.
    """
    own = stats.of_part()
    try:
        vehicles = await _listed_vehicles(endpoints, user, own)
    except PoderoError as error:
        if is_fatal(error):
            raise
        return [failure_of(user, error, own)]
    finally:
        stats.requests += own.requests
        stats.retries += own.retries
    found: dict[UUID, VehicleRef] = {}
    unreadable: DecodeError | None = None
    for vehicle in vehicles:
        if isinstance(vehicle, DecodeError):
            unreadable = unreadable or vehicle
        else:
            found[vehicle.id] = ref_of(user, vehicle)
    if unreadable is None:
        return list(found.values())
    unreadable.path = endpoints.vehicles_path(user.id)
    return [*found.values(), failure_of(user, unreadable, own)]


async def electric_vehicles_of(endpoints: Endpoints, user_id: UUID, stats: RequestStats) -> list[ElectricVehicle]:
    """Return a user's vehicles.

    Raises:
        DecodeError: A vehicle has no readable id.
    """
    vehicles = []
    for vehicle in await _listed_vehicles(endpoints, User(id=user_id), stats):
        if isinstance(vehicle, DecodeError):
            vehicle.path = endpoints.vehicles_path(user_id)
            raise vehicle
        vehicles.append(vehicle)
    return vehicles


async def _listed_vehicles(
    endpoints: Endpoints, user: User, stats: RequestStats
) -> list[ElectricVehicle | DecodeError]:
    """Return the rows of a user's list of vehicles.

    A list of a round number of vehicles may be a page, unless the user has no more of them. It is read on until a page has
    no new ones, or the server refuses to list a second page. Each page repeats the last vehicles of the one before.

    Raises:
        CompletenessError: A page repeats none, so vehicles between them may be missing.
    """
    rows = page = await endpoints.listed_vehicles(user.id, stats)
    known: set[UUID] = set()
    while (
        page and is_round(len(page)) and (user.num_electric_vehicles is None or len(rows) < user.num_electric_vehicles)
    ):
        known.update(vehicle.id for vehicle in page if isinstance(vehicle, ElectricVehicle))
        try:
            page = await endpoints.listed_vehicles(user.id, stats, offset=len(rows) - _OVERLAP)
        except ApiError as error:
            if error.status not in REFUSED_PAGE_STATUSES or is_retryable(error) or len(rows) > len(page):
                raise
            break
        if page and known.isdisjoint(vehicle.id for vehicle in page if isinstance(vehicle, ElectricVehicle)):
            path = endpoints.vehicles_path(user.id)
            raise CompletenessError("the list of vehicles has changed while it was read", len(known), None, path)
        new = [vehicle for vehicle in page if isinstance(vehicle, DecodeError) or vehicle.id not in known]
        rows = rows + new
        if all(isinstance(vehicle, DecodeError) for vehicle in new):
            break
    return rows


def ref_of(user: User, vehicle: ElectricVehicle) -> VehicleRef:
    """Return a vehicle's ids and details; the external id is the user's, or the one that the vehicle's owner has."""
    device, owner = vehicle.device_model or _NO_MODEL, vehicle.owner or _NO_OWNER
    return VehicleRef(
        user_id=user.id,
        vehicle_id=vehicle.id,
        external_user_id=user.external_user_id or (owner.external_id if owner.id == user.id else None),
        manufacturer=device.manufacturer,
        model=device.model,
        year=device.year,
        price_zone=vehicle.price_zone,
        lifecycle_state=vehicle.lifecycle_state,
        is_authenticated=vehicle.is_authenticated,
    )


async def all_vehicles(endpoints: Endpoints, stats: RequestStats, *, ahead: int) -> AsyncGenerator[VehicleRef, None]:
    """Yield the vehicles that `discover` does, but raise the error if a user's list failed."""
    async with aclosing(discover(endpoints, stats, ahead=ahead)) as found:
        async for vehicle in found:
            if isinstance(vehicle, VehicleFailure):
                raise vehicle.error
            yield vehicle

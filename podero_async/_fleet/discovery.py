"""Discovery: the organization's users, and the vehicles of each user.

Knows the endpoints, but neither requests nor tokens.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from uuid import UUID

import attrs

from podero_async._concurrency import map_as_completed
from podero_async._failures import is_fatal
from podero_async._fleet.listing import all_users, listed_vehicles
from podero_async._fleet.vehicle import failure_of
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async.errors import DecodeError, PoderoError
from podero_async.models import DeviceModel, ElectricVehicle, User, VehicleFailure, VehicleOwner, VehicleRef

__all__ = ["all_vehicles", "discover", "electric_vehicles_of", "ref_of", "vehicles_of"]

_MAX_HASHES_PER_LOOP_TURN = 50_000  # take about 3 ms
_MAX_USERS_NAMED = 10  # in a warning
_NO_MODEL, _NO_OWNER = DeviceModel(), VehicleOwner()

_logger = logging.getLogger("podero_async")


async def discover(
    endpoints: Endpoints, stats: RequestStats, *, ahead: int, takes: Callable[[User], bool] = lambda _: True
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of all users, in no particular order, and a failure for each user whose list failed.

    Users without vehicles cost no request. The vehicles of at most `ahead` users are requested at once. A vehicle that two
    users list is yielded for each. If a user lists fewer vehicles than its `num_electric_vehicles`, one may have changed its
    user since. So the users are listed once more, and a user that now counts more vehicles than it listed is asked again.
    A warning names the users that still list fewer, since this number may count deleted vehicles.

    Args:
        endpoints: Send the requests.
        stats: Counts them.
        ahead: How many users' vehicles are requested at once.
        takes: Is called with each user, and returns whether to list the user's vehicles. It may be called twice.

    Raises:
        PoderoError: The list of users is incomplete, or a later page of it failed; raised after the vehicles of all
            listed users, unless every other call would fail the same way now.
    """
    incomplete: list[PoderoError] = []
    counted = _Counted()

    async def vehicles_of_user(user: User) -> list[VehicleRef | VehicleFailure]:
        found = await vehicles_of(endpoints, stats, user)
        counted.add(user, found)
        return found

    def takes_again(user: User) -> bool:
        return counted.lists_fewer(user) and (user.id.int in counted.vehicles_of or takes(user))

    async def found(takes: Callable[[User], bool]) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
        async with (
            aclosing(_owners(endpoints, stats, takes, incomplete)) as users,
            aclosing(map_as_completed(vehicles_of_user, users, ahead=ahead)) as lists,
        ):
            async for vehicles in lists:
                for vehicle in vehicles:
                    yield vehicle

    async with aclosing(found(takes)) as first_pass:
        async for vehicle in first_pass:
            yield vehicle
    if counted.short and not incomplete:
        counted.begin_second_pass()
        async with aclosing(found(takes_again)) as second_pass:
            again = [vehicle async for vehicle in second_pass]
        for vehicle in await counted.new(again):
            yield vehicle
    counted.warn()
    if incomplete:
        raise incomplete[0]


@attrs.define
class _Counted:
    """How many vehicles each user listed, and which users list fewer than they count."""

    vehicles_of: dict[int, int] = attrs.field(factory=dict)
    """The number of vehicles that a user listed, by the number of the user's id."""
    short: list[UUID] = attrs.field(factory=list)
    """The users that listed fewer vehicles than they count, in this pass."""
    _listed: array[int] = attrs.field(factory=lambda: array("q"))  # 8 bytes per vehicle of the first pass
    _is_second_pass: bool = False

    def add(self, user: User, found: list[VehicleRef | VehicleFailure]) -> None:
        is_failed = bool(found) and isinstance(found[-1], VehicleFailure)
        self.vehicles_of[user.id.int] = (user.num_electric_vehicles or 0) if is_failed else len(found)
        if self.lists_fewer(user):
            self.short.append(user.id)
        if not self._is_second_pass:
            self._listed.extend(map(_hash_of, found))

    def lists_fewer(self, user: User) -> bool:
        return self.vehicles_of.get(user.id.int, 0) < (user.num_electric_vehicles or 0)

    def begin_second_pass(self) -> None:
        self._is_second_pass = True
        self.short.clear()

    async def new(self, again: list[VehicleRef | VehicleFailure]) -> list[VehicleRef | VehicleFailure]:
        """Return those of the vehicles and failures that the first pass did not yield."""
        new = {_hash_of(each): each for each in again}
        for begin in range(0, len(self._listed), _MAX_HASHES_PER_LOOP_TURN) if new else ():
            for known in self._listed[begin : begin + _MAX_HASHES_PER_LOOP_TURN]:
                new.pop(known, None)
            await asyncio.sleep(0)
        return list(new.values())

    def warn(self) -> None:
        if not self.short:
            return
        names = ", ".join(map(str, sorted(self.short)[:_MAX_USERS_NAMED]))
        more = ", ..." if len(self.short) > _MAX_USERS_NAMED else ""
        _logger.warning(
            "%d users list fewer vehicles than their num_electric_vehicles: %s%s", len(self.short), names, more
        )


def _hash_of(found: VehicleRef | VehicleFailure) -> int:
    return hash((found.user_id, found.vehicle_id if isinstance(found, VehicleRef) else None))


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
    """Return a user's vehicles, each once, and a failure if their list failed, may go on, or a vehicle has no readable id.

    A failure that every call would share is raised.
    """
    own = stats.of_part()
    try:
        vehicles, incomplete = await listed_vehicles(endpoints, user, own)
    except PoderoError as error:
        if is_fatal(error):
            raise
        return [failure_of(user, error, own)]
    finally:
        stats.requests += own.requests
        stats.retries += own.retries
    found: list[VehicleRef | VehicleFailure] = []
    unreadable: DecodeError | None = None
    for vehicle in vehicles:
        if isinstance(vehicle, DecodeError):
            unreadable = unreadable or vehicle
        else:
            found.append(ref_of(user, vehicle))
    if unreadable is not None:
        unreadable.path = endpoints.vehicles_path(user.id)
    failed = unreadable or incomplete
    return found if failed is None else [*found, failure_of(user, failed, own)]


async def electric_vehicles_of(endpoints: Endpoints, user_id: UUID, stats: RequestStats) -> list[ElectricVehicle]:
    """Return a user's vehicles, each once.

    Raises:
        DecodeError: A vehicle has no readable id.
        CompletenessError: Vehicles may be missing.
    """
    vehicles = []
    rows, incomplete = await listed_vehicles(endpoints, User(id=user_id), stats)
    for vehicle in rows:
        if isinstance(vehicle, DecodeError):
            vehicle.path = endpoints.vehicles_path(user_id)
            raise vehicle
        vehicles.append(vehicle)
    if incomplete is not None:
        raise incomplete
    return vehicles


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

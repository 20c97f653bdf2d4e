"""Discovery: the organization's users, and the vehicles of each user.

Knows the endpoints, but neither requests nor tokens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import attrs

from podero_async._concurrency import map_as_completed
from podero_async._fleet.vehicle import failure_of
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.overlap import refusal_of
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import ApiError, CompletenessError, PoderoError
from podero_async.models import DeviceModel, ElectricVehicle, User, VehicleFailure, VehicleOwner, VehicleRef

__all__ = ["all_users", "all_vehicles", "discover", "ref_of", "vehicles_of"]

_MAX_USERS_PER_LOOP_TURN = 500  # a consumer that skips users without awaiting would hold the event loop for over 20 ms
_OVERLAP = 5  # rows
_MAX_GAPS = 10  # an unordered list has one after almost every page
_MAX_PAGES_WITHOUT_NEW = 2  # in a row
_NO_MODEL, _NO_OWNER = DeviceModel(), VehicleOwner()

_logger = logging.getLogger("podero_async")


async def all_users(endpoints: Endpoints, *, include_deleted: bool, stats: RequestStats) -> AsyncGenerator[User, None]:
    """Yield the organization's users, each once, from a server that pages the list or returns it whole.

    Every user that is in the list throughout the read is yielded, even if others come and go and pages shift, provided
    that the list is ordered. A page without new users is requested once more. If the list still ends before its total,
    or goes on after it, a warning with both numbers is logged. An array of a round number of users, up to 200, may be a
    page without a total, so a next page is requested.

    Raises:
        CompletenessError: The server counts more users than it lists; raised after the last user.
    """
    seen: set[int] = set()  # a UUID takes twice the memory of its int
    position = _Position()
    while not position.is_at_end:
        try:
            total, users = await endpoints.users(offset=position.begin, include_deleted=include_deleted, stats=stats)
        except ApiError as error:
            if not position.is_array:
                raise
            refusal_of(error, is_later_page=False)  # the array was the whole list
            return
        if users and position.goes_back(is_first_known=users[0].id.int in seen):
            continue
        count, seen_before = len(users), len(seen)
        users.reverse()
        while users:
            if len(users) % _MAX_USERS_PER_LOOP_TURN == 0:
                await asyncio.sleep(0)
            user = users.pop()  # so that each user is freed when the consumer drops it
            if user.id.int not in seen:
                seen.add(user.id.int)
                yield user
        position.advance(count, total, has_new=len(seen) > seen_before)
    position.balance(len(seen))


@attrs.define
class _Position:
    """The position in a paged list of users, and the totals of its pages.

    Each page repeats the last rows of the one before it. If it does not, users were removed, the others moved up, and
    the reader goes back by one page.
    """

    is_at_end: bool = False
    is_array: bool = False
    """Whether the last response was an array without a total."""
    _offset: int = 0
    _page_size: int = 0
    _pages_without_new: int = 0
    _gaps: int = 0
    _totals: list[int] = attrs.field(factory=list)

    @property
    def begin(self) -> int:
        """The offset of the next page."""
        return max(0, self._offset - min(_OVERLAP, self._page_size // 4))

    def goes_back(self, *, is_first_known: bool) -> bool:
        """Return whether to read an earlier page, since users may lie between the last page and this one."""
        if not self.begin or is_first_known or self._gaps > _MAX_GAPS:
            return False
        self._gaps += 1
        if self._gaps > _MAX_GAPS:
            return False
        self._offset = max(0, self.begin - self._page_size)
        return True

    def advance(self, count: int, total: int | None, *, has_new: bool) -> None:
        """Go on after a page, or after an array without a total, which may be a page, too."""
        self.is_array = total is None
        total = self.begin + count if total is None else total
        self._totals.append(total)
        if count:
            self._offset = self.begin + count
        self._page_size = max(self._page_size, count)
        self._pages_without_new = 0 if has_new else self._pages_without_new + 1
        may_go_on = has_new and count == self._page_size and _may_be_limit(count)  # even if the total is too small
        is_past_total = self._offset >= total and not may_go_on
        self.is_at_end = is_past_total or self._pages_without_new == _MAX_PAGES_WITHOUT_NEW

    def balance(self, listed: int) -> None:
        """Compare the number of listed users with the totals, which differ if the list changes while it is read."""
        least = max(self._totals) if self._gaps > _MAX_GAPS else min(self._totals)
        if least <= listed <= max(self._totals):
            return
        total = self._totals[-1]
        _logger.warning("the list of users has %d users, but the server counts %d", listed, total)
        if listed < least:
            raise CompletenessError("the list of users ends before its total", listed, total)


def _may_be_limit(count: int) -> bool:
    """Return whether this number may be the page size of a server."""
    return count <= MAX_PAGE_SIZE and (count % 10 == 0 or count % 25 == 0)


async def discover(
    endpoints: Endpoints, stats: RequestStats, *, ahead: int, takes: Callable[[User], bool] = lambda _: True
) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of all users, in no particular order, and a failure for each user whose list failed.

    Users without vehicles cost no request. The vehicles of at most `ahead` users are requested at once.

    Args:
        endpoints: Send the requests.
        stats: Counts them.
        ahead: How many users' vehicles are requested at once.
        takes: Is called with each user, and returns whether to list the user's vehicles.

    Raises:
        CompletenessError: The server counts more users than it lists; raised after the vehicles of all listed users.
    """
    incomplete: CompletenessError | None = None

    async def owners() -> AsyncGenerator[User, None]:
        nonlocal incomplete
        async with aclosing(all_users(endpoints, include_deleted=False, stats=stats)) as users:
            try:
                async for user in users:
                    if takes(user) and user.num_electric_vehicles != 0:
                        yield user
            except CompletenessError as error:
                incomplete = error

    async def vehicles_of_user(user: User) -> list[VehicleRef] | list[VehicleFailure]:
        return await vehicles_of(endpoints, stats, user)

    async with (
        aclosing(owners()) as users,
        aclosing(map_as_completed(vehicles_of_user, users, ahead=ahead)) as lists,
    ):
        async for vehicles in lists:
            for vehicle in vehicles:
                yield vehicle
    if incomplete is not None:
        raise incomplete


async def vehicles_of(endpoints: Endpoints, stats: RequestStats, user: User) -> list[VehicleRef] | list[VehicleFailure]:
    """Return a user's vehicles, or the failure of their list; a failure that every call would share is raised."""
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
    return [ref_of(user, vehicle) for vehicle in vehicles]


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


async def all_vehicles(endpoints: Endpoints, *, ahead: int) -> AsyncGenerator[VehicleRef, None]:
    """Yield the vehicles that `discover` does, but raise the error if a user's list failed."""
    async with aclosing(discover(endpoints, RequestStats(), ahead=ahead)) as found:
        async for vehicle in found:
            if isinstance(vehicle, VehicleFailure):
                raise vehicle.error
            yield vehicle

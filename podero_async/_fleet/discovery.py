"""Discovery: the organization's users, and the vehicles of each user.

Knows the endpoints, but neither requests nor tokens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from uuid import UUID

import attrs

from podero_async._concurrency import map_as_completed
from podero_async._failures import is_retryable_status, is_server_fault
from podero_async._fleet.vehicle import failure_of
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.overlap import REFUSED_PAGE_STATUSES
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import ApiError, CompletenessError, DecodeError, PoderoError
from podero_async.models import DeviceModel, ElectricVehicle, User, VehicleFailure, VehicleOwner, VehicleRef

__all__ = ["all_users", "all_vehicles", "discover", "ref_of", "vehicles_of"]

_MAX_USERS_PER_LOOP_TURN = 500  # a consumer that skips users without awaiting would hold the event loop for over 20 ms
_OVERLAP = 5  # rows
_MAX_GAPS = 10  # more are a sign of an unordered list, which has a gap after almost every page
_MAX_PAGES_WITHOUT_NEW = 2  # in a row
_ROUND_SIZES = (10, 25, 32)  # a server's page size is a multiple of one of them
_UNAUTHORIZED = 401
_NO_MODEL, _NO_OWNER = DeviceModel(), VehicleOwner()

_logger = logging.getLogger("podero_async")


async def all_users(endpoints: Endpoints, *, include_deleted: bool, stats: RequestStats) -> AsyncGenerator[User, None]:
    """Yield the organization's users, each once, from a server that pages the list or returns it whole.

    Every user that is in the list throughout the read is yielded, even if others come and go and pages shift, provided
    that the list is ordered. Two pages in a row without new users end the read. If the list has fewer or more users than
    its totals, a warning with both numbers is logged. An array of a round number of users may be a page without a total,
    so the next page is requested; if the server refuses the parameters of that request, the array was the whole list.

    Raises:
        CompletenessError: The server counts more users than it lists, a page that may exist failed, a user has no
            readable id, or a list without totals changed too often; raised after the last user.
    """
    unreadable: DecodeError | None = None
    seen: set[int] = set()  # a UUID takes twice the memory of its int
    position = _Position()
    while not position.is_at_end:
        try:
            total, users = await endpoints.users(offset=position.begin, include_deleted=include_deleted, stats=stats)
        except PoderoError as error:
            if not position.is_array or endpoints.is_fatal(error):
                raise
            if not position.ends_with(error):
                reason = f"the list of users may go on, but its page at offset {position.begin} failed: {error}"
                raise CompletenessError(reason, len(seen), position.begin, endpoints.users_path) from None
            break
        first_id = next((user.id.int for user in users if isinstance(user, User)), None)
        if first_id is not None and position.goes_back(is_first_known=first_id in seen):
            continue
        count, seen_before = len(users), len(seen)
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
        position.advance(count, total, has_new=len(seen) > seen_before)
    position.balance(len(seen), unreadable, endpoints.users_path)


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
    _is_back: bool = False
    """Whether the next page is read because of a gap; pages after it are known to exist."""
    _totals: list[int] = attrs.field(factory=list)

    @property
    def begin(self) -> int:
        """The offset of the next page."""
        return max(0, self._offset - min(_OVERLAP, self._page_size // 4))

    def ends_with(self, error: PoderoError) -> bool:
        """Return whether an error says that the first array was the whole list, since the server knows no pages.

        After two pages it does know them, and a next page exists, since it repeats the last rows of the one before.
        """
        if len(self._totals) > 1:
            return False
        if isinstance(error, DecodeError):
            return error.index is None and not error.retryable
        if not isinstance(error, ApiError) or error.status == _UNAUTHORIZED or is_retryable_status(error.status):
            return False
        return error.status in REFUSED_PAGE_STATUSES or not is_server_fault(error.status)

    def goes_back(self, *, is_first_known: bool) -> bool:
        """Return whether to read an earlier page, since users may lie between the last page and this one."""
        if not self.begin or is_first_known or self._gaps > _MAX_GAPS:
            return False
        self._gaps += 1
        if self._gaps > _MAX_GAPS:
            return False
        self._offset = max(0, self.begin - min(self._page_size, MAX_PAGE_SIZE))
        self._is_back = True
        return True

    def advance(self, count: int, total: int | None, *, has_new: bool) -> None:
        """Go on after a page, or after an array without a total, which may be a page, too."""
        self.is_array = total is None
        total = self.begin + count if total is None else total
        self._totals.append(total)
        if count:
            self._offset = self.begin + count
        self._page_size = max(self._page_size, count)
        is_back, self._is_back = self._is_back, False
        if has_new:
            self._pages_without_new = 0
        elif not is_back:
            self._pages_without_new += 1
        is_full = count >= min(self._page_size, MAX_PAGE_SIZE) and any(count % size == 0 for size in _ROUND_SIZES)
        may_go_on = is_back if self.is_array and not has_new else has_new and is_full  # even if the total is too small
        is_past_total = self._offset >= total and not may_go_on
        self.is_at_end = is_past_total or self._pages_without_new == _MAX_PAGES_WITHOUT_NEW

    def balance(self, listed: int, unreadable: DecodeError | None, path: str) -> None:
        """Compare the number of listed users with the totals, which differ if the list changes while it is read."""
        if unreadable is not None:
            raise CompletenessError(f"a user cannot be read: {unreadable}", listed, self._totals[-1], path)
        if self.is_array:  # its totals are the numbers of its own rows, which may list a user twice
            if self._gaps > _MAX_GAPS:
                reason = "the list of users changes so often, or has so little order, that users may be missing"
                raise CompletenessError(reason, listed, self._totals[-1], path)
            return
        least = max(self._totals) if self._gaps > _MAX_GAPS else min(self._totals)
        if least <= listed <= max(self._totals):
            return
        total = self._totals[-1]
        _logger.warning("the list of users has %d users, but the server counts %d", listed, total)
        if listed < least:
            raise CompletenessError("the list of users ends before its total", listed, total, path)


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
        PoderoError: The list of users is incomplete, or a later page of it failed; raised after the vehicles of all
            listed users, unless every other call would fail the same way now.
    """
    incomplete: PoderoError | None = None

    async def owners() -> AsyncGenerator[User, None]:
        nonlocal incomplete
        async with aclosing(all_users(endpoints, include_deleted=False, stats=stats)) as users:
            try:
                async for user in users:
                    if takes(user) and user.num_electric_vehicles != 0:
                        yield user
            except PoderoError as error:
                if endpoints.is_fatal(error):
                    raise
                incomplete = error

    async def vehicles_of_user(user: User) -> list[VehicleRef | VehicleFailure]:
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


async def vehicles_of(endpoints: Endpoints, stats: RequestStats, user: User) -> list[VehicleRef | VehicleFailure]:
    """Return a user's vehicles, each once, and a failure if their list failed or a vehicle has no readable id.

    A failure that every call would share is raised.
    """
    own = stats.of_part()
    try:
        vehicles = await endpoints.listed_vehicles(user.id, own)
    except PoderoError as error:
        if endpoints.is_fatal(error):
            raise
        return [failure_of(user.id, None, error, own)]
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
    return [*found.values(), failure_of(user.id, None, unreadable, own)]


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

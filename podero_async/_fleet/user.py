"""The calls that backends and bots make for one user: the sessions of all vehicles, and a vehicle's latest session.

Knows discovery and the read of one vehicle, but neither requests nor tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from podero_async import _validation as arguments
from podero_async._concurrency import map_in_order
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.discovery import electric_vehicles_of, vehicles_of
from podero_async._fleet.fetch import fetch_or_fail
from podero_async._fleet.vehicle import stream_vehicle
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.window import Window
from podero_async._redaction import strip_traceback
from podero_async._validation import Id
from podero_async.models import (
    ChargingSession,
    ElectricVehicle,
    User,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)

__all__ = ["UserCalls"]

_MAX_VEHICLES_AHEAD = 4
_MAX_PAGES_AHEAD = 16  # that each of them requests at once
_MAX_PAGES = 32  # that wait for the end of their lists, apart from lists of one page
_FIRST_WINDOW_DAYS = 31  # most vehicles were charged in these days


class UserCalls:
    """The calls of `PoderoClient` that concern one user."""

    _endpoints: Endpoints

    async def user_sessions(
        self, user_id: Id, from_date: date, to_date: date, *, include_hidden: bool = False
    ) -> list[VehicleSessions | VehicleFailure]:
        """Fetch all sessions of a user's vehicles, as one outcome for each vehicle, in the order of the vehicles.

        As in `fetch_fleet`, a vehicle that fails is a `VehicleFailure`, and the others go on. Vehicles without a readable
        id are one failure at the end. Several vehicles are read at a time, and all sessions are held in memory.
        `GET .../users/{user_id}/electric-vehicles`, then
        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions`, once per page of each vehicle.

        Raises:
            PoderoError: The vehicles could not be listed, or an error occurred that every vehicle would share.
            DecodeError: None of the vehicles has a readable id.
        """
        user = arguments.uuid("user_id", user_id)
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        stats = RequestStats()
        reading = _read_user(self._endpoints, user, window, stats)
        return await self._endpoints.observation.call("user_sessions", stats, reading)

    async def latest_session(self, user_id: Id, vehicle_id: Id, *, days: int = 365) -> ChargingSession | None:
        """Fetch the vehicle's listed session with the latest plug-in, or None if these days have none.

        The last month is read first, and the days before it only if it has no session. Hidden sessions are left out, and
        so is the session that is going on, which `current_session` returns.
        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions`, once per page.

        Args:
            days: How many UTC days to look back, 1 to 3,650.

        Raises:
            DecodeError: A row of these days cannot be read, and may be the latest session. The error stays until the row
                leaves the days; `sessions` with `on_rejected` skips such rows.
            CompletenessError: The list could not be proven complete, so a later session may be missing.
        """
        vehicle = arguments.vehicle_ref(user_id, vehicle_id)
        stats = RequestStats()
        finding = _find_latest(self._endpoints, vehicle, arguments.days_back(days), stats)
        return await self._endpoints.observation.call("latest_session", stats, finding)

    async def user_by_external_id(self, external_id: str, *, include_deleted: bool = False) -> User:
        """Fetch a user by a partner's own id, which no error or log shows: `GET .../users/by-ext-id/{external_id}`."""
        with strip_traceback():  # the partner's own id may identify a person
            checked = arguments.external_id(external_id)
            deleted = arguments.flag("include_deleted", include_deleted)
            return await self._endpoints.user_by_external_id(checked, include_deleted=deleted, stats=RequestStats())

    async def electric_vehicles(self, user_id: Id) -> list[ElectricVehicle]:
        """Fetch a user's vehicles, in the server's order: `GET .../users/{user_id}/electric-vehicles`."""
        stats = RequestStats()
        listing = electric_vehicles_of(self._endpoints, arguments.uuid("user_id", user_id), stats)
        return await self._endpoints.observation.call("electric_vehicles", stats, listing)


async def _read_user(
    endpoints: Endpoints, user_id: UUID, window: Window, stats: RequestStats
) -> list[VehicleSessions | VehicleFailure]:
    found = await vehicles_of(endpoints, stats, User(id=user_id))
    vehicles = [each for each in found if isinstance(each, VehicleRef)]
    failures = [each for each in found if isinstance(each, VehicleFailure)]
    if failures and not vehicles:
        raise failures[0].error
    budget = MemoryBudget(_MAX_PAGES)

    async def read(vehicle: VehicleRef) -> VehicleSessions | VehicleFailure:
        outcome = await fetch_or_fail(endpoints, vehicle, window, budget, stats.of_part())
        stats.requests += outcome.requests
        stats.retries += outcome.retries
        if isinstance(outcome, VehicleFailure):
            return outcome
        try:
            return await outcome.decode()
        finally:
            outcome.release()

    # Under a low rate, more vehicles at once would queue behind each other for too long.
    ahead = max(1, endpoints.at_once(_MAX_VEHICLES_AHEAD * _MAX_PAGES_AHEAD) // _MAX_PAGES_AHEAD)
    async with aclosing(map_in_order(read, vehicles, ahead=ahead)) as outcomes:
        return [*[outcome async for outcome in outcomes], *failures]


async def _find_latest(
    endpoints: Endpoints, vehicle: VehicleRef, days: int, stats: RequestStats
) -> ChargingSession | None:
    for window in _windows(datetime.now(UTC).date(), days):
        latest: ChargingSession | None = None
        async with aclosing(stream_vehicle(endpoints, vehicle, window, None, stats)) as sessions:
            async for session in sessions:
                if latest is None or session.plug_in_time > latest.plug_in_time:
                    latest = session
        if latest is not None:
            return latest
    return None


def _windows(today: date, days: int) -> Iterator[Window]:
    """Yield the windows to read, the newest first; that one includes tomorrow, since this machine's clock may be slow."""
    first = today - timedelta(days=min(days, _FIRST_WINDOW_DAYS) - 1)
    yield Window(first, today + timedelta(days=1))
    if days > _FIRST_WINDOW_DAYS:
        yield Window(today - timedelta(days=days - 1), first - timedelta(days=1))

"""The calls that backends and bots make for one user: the sessions of all vehicles, and a vehicle's latest session.

Knows discovery and the read of one vehicle, but neither requests nor tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta

from podero_async import _validation as arguments
from podero_async._concurrency import map_in_order
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.discovery import vehicles_of
from podero_async._fleet.fetch import fetch_or_fail
from podero_async._fleet.vehicle import stream_vehicle
from podero_async._flow.retry import RequestStats
from podero_async._http.endpoints import Endpoints
from podero_async._paging.window import Window
from podero_async._validation import Id
from podero_async.models import ChargingSession, User, VehicleFailure, VehicleRef, VehicleSessions

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
        found = await vehicles_of(self._endpoints, RequestStats(), User(id=user))
        vehicles = [each for each in found if isinstance(each, VehicleRef)]
        failures = [each for each in found if isinstance(each, VehicleFailure)]
        if failures and not vehicles:
            raise failures[0].error
        budget = MemoryBudget(_MAX_PAGES)

        async def read(vehicle: VehicleRef) -> VehicleSessions | VehicleFailure:
            outcome = await fetch_or_fail(self._endpoints, vehicle, window, budget)
            if isinstance(outcome, VehicleFailure):
                return outcome
            try:
                return await outcome.decode()
            finally:
                outcome.release()

        # Under a low rate, more vehicles at once would queue behind each other for too long.
        ahead = max(1, self._endpoints.at_once(_MAX_VEHICLES_AHEAD * _MAX_PAGES_AHEAD) // _MAX_PAGES_AHEAD)
        async with aclosing(map_in_order(read, vehicles, ahead=ahead)) as outcomes:
            return [*[outcome async for outcome in outcomes], *failures]

    async def latest_session(self, user_id: Id, vehicle_id: Id, *, days: int = 365) -> ChargingSession | None:
        """Fetch the vehicle's listed session with the latest plug-in, or None if these days have none.

        The last month is read first, and the days before it only if it has no session. Hidden sessions are left out, and
        so is the session that is going on, which `current_session` returns.
        `GET .../users/{user_id}/electric-vehicles/{vehicle_id}/sessions`, once per page.

        Args:
            days: How many UTC days to look back, 1 to 3,650.

        Raises:
            DecodeError: A row cannot be read.
            CompletenessError: The list could not be proven complete, so a later session may be missing.
        """
        vehicle = arguments.vehicle_ref(user_id, vehicle_id)
        for window in _windows(datetime.now(UTC).date(), arguments.days_back(days)):
            latest: ChargingSession | None = None
            async with aclosing(stream_vehicle(self._endpoints, vehicle, window, None)) as sessions:
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

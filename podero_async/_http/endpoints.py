"""The endpoints of the Partner API, one method each: arguments to path and query, response to models."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import date
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

from podero_async._decode import (
    decode_current_session,
    decode_listed_vehicles,
    decode_user,
    decode_users,
    uuid_text,
)
from podero_async._flow.retry import RequestStats
from podero_async._http import Transport
from podero_async._http.response import MAX_USERS_BYTES
from podero_async.errors import DecodeError
from podero_async.models import ChargingSession, ElectricVehicle, User, VehicleRef

__all__ = ["Endpoints"]

T = TypeVar("T")


class Endpoints:
    """The endpoints of one organization, for single calls or for bulk calls, which go behind single ones.

    Each method returns the coroutine of the transport's call: a coroutine of its own would only await it. The observer is
    told of a call here if it is one request, and by the function that sends several requests otherwise.
    """

    def __init__(self, transport: Transport, org_id: UUID, *, is_bulk: bool = False) -> None:
        self._transport = transport
        self._is_bulk = is_bulk
        self.observation = transport.observation
        self.users_path = f"/api/partners/v2.0/org/{org_id}/users"

    def at_once(self, most: int) -> int:
        """Return how many requests one call may send at once; bulk calls wait for the rate as long as it takes."""
        return most if self._is_bulk else self._transport.at_once(most)

    def sessions(
        self,
        vehicle: VehicleRef,
        from_date: date,
        to_date: date,
        *,
        include_hidden: bool,
        limit: int,
        offset: int,
        decode: Callable[[bytes], T],
        stats: RequestStats,
    ) -> Coroutine[Any, Any, T]:
        """GET .../users/{user_id}/electric-vehicles/{electric_vehicle_id}/sessions: one page, read by `decode`."""
        days = _days(from_date, to_date, include_hidden=include_hidden)
        path = f"{self.sessions_path(vehicle)}?{days}&limit={limit}&offset={offset}"
        return self._transport.get(path, decode, stats, endpoint="sessions", is_bulk=self._is_bulk)

    def current_session(self, vehicle: VehicleRef, stats: RequestStats) -> Coroutine[Any, Any, ChargingSession | None]:
        """GET .../users/{user_id}/electric-vehicles/{electric_vehicle_id}/sessions/current."""
        path = f"{self.sessions_path(vehicle)}/current"
        calling = self._get(path, decode_current_session, stats, endpoint="current")
        return self.observation.call("current_session", stats, calling)

    def users(
        self, *, offset: int, limit: int | None, include_deleted: bool, stats: RequestStats
    ) -> Coroutine[Any, Any, tuple[int | None, list[User | DecodeError]]]:
        """GET .../users: the total number of users, or None if the response is an array, and the users from `offset` on.

        The first page is requested without parameters of pages. Without a limit, the server chooses the size of each page.
        """
        path = f"{self.users_path}?include_deleted={'true' if include_deleted else 'false'}"
        if offset:
            path += f"&{_place(offset, limit)}"
        return self._get(path, decode_users, stats, endpoint="users", max_bytes=MAX_USERS_BYTES)

    def user_by_external_id(
        self, external_id: str, *, include_deleted: bool, stats: RequestStats
    ) -> Coroutine[Any, Any, User]:
        """GET .../users/by-ext-id/{external_id}."""
        path = f"{self.users_path}/by-ext-id/"
        query = f"?include_deleted={'true' if include_deleted else 'false'}"
        calling = self._get(
            path + quote(external_id, safe="") + query,
            decode_user,
            stats,
            endpoint="user",
            shown_path=f"{path}***",  # the partner's own id may be a person's name
            private=external_id,
        )
        return self.observation.call("user_by_external_id", stats, calling)

    def listed_vehicles(
        self, user_id: UUID, stats: RequestStats, *, offset: int = 0, limit: int | None = None
    ) -> Coroutine[Any, Any, list[ElectricVehicle | DecodeError]]:
        """GET .../users/{user_id}/electric-vehicles; an unreadable vehicle among readable ones is replaced by its error."""
        path = self.vehicles_path(user_id) + (f"?{_place(offset, limit)}" if offset else "")
        return self._get(path, decode_listed_vehicles, stats, endpoint="vehicles")

    def _get(
        self,
        path: str,
        decode: Callable[[bytes], T],
        stats: RequestStats,
        *,
        max_bytes: int | None = None,
        **options: str,
    ) -> Coroutine[Any, Any, T]:
        return self._transport.get(path, decode, stats, is_bulk=self._is_bulk, max_bytes=max_bytes, **options)

    def vehicles_path(self, user_id: UUID) -> str:
        """Return the path of a user's vehicles."""
        return f"{self.users_path}/{user_id}/electric-vehicles"

    def sessions_path(self, vehicle: VehicleRef) -> str:
        """Return the path of a vehicle's sessions, without query."""
        user_id, vehicle_id = uuid_text(vehicle.user_id), uuid_text(vehicle.vehicle_id)
        return f"{self.users_path}/{user_id}/electric-vehicles/{vehicle_id}/sessions"


@lru_cache(maxsize=16)  # all vehicles of a fleet are read for the same days
def _days(from_date: date, to_date: date, *, include_hidden: bool) -> str:
    return f"from={from_date}&to={to_date}" + ("&include_hidden=true" if include_hidden else "")


def _place(offset: int, limit: int | None) -> str:
    return f"offset={offset}" if limit is None else f"limit={limit}&offset={offset}"

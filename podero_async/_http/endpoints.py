"""The endpoints of the Partner API, one method each: arguments to path and query, response to models."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import date
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

from podero_async._decode import (
    decode_current_session,
    decode_listed_vehicles,
    decode_user,
    decode_users,
    decode_vehicles,
    uuid_text,
)
from podero_async._flow.retry import RequestStats
from podero_async._http import Transport
from podero_async._http.response import MAX_USERS_BYTES
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import DecodeError
from podero_async.models import ChargingSession, ElectricVehicle, User, VehicleRef

__all__ = ["Endpoints"]

T = TypeVar("T")

_CALLS: Mapping[str, str] = MappingProxyType(
    {
        "sessions": "list_sessions",
        "current": "current_session",
        "users": "users",
        "user": "user_by_external_id",
        "vehicles": "electric_vehicles",
    }
)
"""The call of each endpoint, if it belongs to no other call."""


class Endpoints:
    """The endpoints of one organization, for single calls or for bulk calls, which go behind single ones.

    Each method returns the coroutine of the transport's call: a coroutine of its own would only await it.
    """

    def __init__(self, transport: Transport, org_id: UUID, *, is_bulk: bool = False) -> None:
        self._transport = transport
        self._is_bulk = is_bulk
        self.is_fatal = transport.is_fatal
        self.observation = transport.observation
        self.users_path = f"/api/partners/v2.0/org/{org_id}/users"

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
        return self._get(path, decode, stats, endpoint="sessions")

    def current_session(self, vehicle: VehicleRef, stats: RequestStats) -> Coroutine[Any, Any, ChargingSession | None]:
        """GET .../users/{user_id}/electric-vehicles/{electric_vehicle_id}/sessions/current."""
        path = f"{self.sessions_path(vehicle)}/current"
        return self._get(path, decode_current_session, stats, endpoint="current")

    def users(
        self, *, offset: int, include_deleted: bool, stats: RequestStats
    ) -> Coroutine[Any, Any, tuple[int | None, list[User | DecodeError]]]:
        """GET .../users: the total number of users, or None if all are in the response, and the users from `offset` on."""
        query = f"?include_deleted={'true' if include_deleted else 'false'}"
        if offset:
            query += f"&limit={MAX_PAGE_SIZE}&offset={offset}"
        path = self.users_path + query
        return self._get(path, decode_users, stats, endpoint="users", max_bytes=MAX_USERS_BYTES)

    def user_by_external_id(
        self, external_id: str, *, include_deleted: bool, stats: RequestStats
    ) -> Coroutine[Any, Any, User]:
        """GET .../users/by-ext-id/{external_id}."""
        path = f"{self.users_path}/by-ext-id/"
        query = f"?include_deleted={'true' if include_deleted else 'false'}"
        return self._get(
            path + quote(external_id, safe="") + query,
            decode_user,
            stats,
            endpoint="user",
            shown_path=f"{path}***",  # the partner's own id may be a person's name
            private=external_id,
        )

    def electric_vehicles(self, user_id: UUID, stats: RequestStats) -> Coroutine[Any, Any, list[ElectricVehicle]]:
        """GET .../users/{user_id}/electric-vehicles."""
        return self._get(self.vehicles_path(user_id), decode_vehicles, stats, endpoint="vehicles")

    def listed_vehicles(
        self, user_id: UUID, stats: RequestStats
    ) -> Coroutine[Any, Any, list[ElectricVehicle | DecodeError]]:
        """GET .../users/{user_id}/electric-vehicles; an unreadable vehicle among readable ones is replaced by its error."""
        return self._get(self.vehicles_path(user_id), decode_listed_vehicles, stats, endpoint="vehicles")

    def _get(
        self,
        path: str,
        decode: Callable[[bytes], T],
        stats: RequestStats,
        *,
        max_bytes: int | None = None,
        **options: str,
    ) -> Coroutine[Any, Any, T]:
        calling = self._transport.get(path, decode, stats, is_bulk=self._is_bulk, max_bytes=max_bytes, **options)
        if self.observation.observer is None or stats.call is not None:
            return calling
        return self.observation.call(_CALLS[options["endpoint"]], stats, calling)

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

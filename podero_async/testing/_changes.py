"""Changes of a simulated fleet while clients read it."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from threading import RLock
from typing import Any, TypeVar, cast

from podero_async.models import VehicleRef
from podero_async.testing._arguments import AnyRow, AnySession, AnyUser, AnyVehicle, session_id_of, user_id_of
from podero_async.testing._state import Fleet

_Method = TypeVar("_Method", bound=Callable[..., Any])


def locked(method: _Method) -> _Method:
    """Let a method hold the simulator's lock, as the server does while it makes a response."""

    @functools.wraps(method)
    def call(self: FleetChanges, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return cast(_Method, call)


class FleetChanges:
    """The changes that a simulator offers, to any thread.

    A vehicle is a `VehicleRef` or an `ElectricVehicle`, or its id if only one user lists it; a user is a `User` or an id;
    a session is a `ChargingSession`, a row or an id. Ids are UUIDs or text. Rows have the names of the API's JSON; their
    values are JSON, or those of the models. A time without an offset is UTC. An unknown vehicle, user or session raises
    `KeyError`.
    """

    _fleet: Fleet
    _lock: RLock  # guards all that the server and other threads use: fleet, tokens, faults, counts and records

    @locked
    def insert(
        self, vehicle: AnyVehicle, row: AnyRow | None = None, *, plug_in_time: datetime | None = None
    ) -> dict[str, Any]:
        """Add a completed session to a vehicle, and return its row.

        If `row` is omitted, the session is generated and not hidden. If the time is omitted, too, it is a minute after
        the newest one.
        """
        return self._fleet.insert(self._fleet.ref(vehicle), row, plug_in_time)

    @locked
    def remove(self, vehicle: AnyVehicle, session: AnySession) -> None:
        """Remove a session from a vehicle's list."""
        self._fleet.sessions(self._fleet.ref(vehicle)).remove(session_id_of(session))

    @locked
    def move_session(self, vehicle: AnyVehicle, session: AnySession, to: AnyVehicle) -> None:
        """Move a session to the list of another vehicle."""
        self._fleet.move_session(self._fleet.ref(vehicle), session_id_of(session), self._fleet.ref(to))

    def hide(self, vehicle: AnyVehicle, session: AnySession) -> None:
        """Mark a session as hidden: it is listed only with `include_hidden` from now on."""
        self.update(vehicle, session, is_hidden=True, hidden_reason="short_duration")

    @locked
    def update(self, vehicle: AnyVehicle, session: AnySession, **fields: Any) -> dict[str, Any]:
        """Change fields of a session, and return its row; a new `plug_in_time` moves it in the list."""
        return self._fleet.update(self._fleet.ref(vehicle), session_id_of(session), fields)

    @locked
    def add_vehicle(
        self,
        user: AnyUser | None = None,
        *,
        sessions: int = 0,
        rows: Iterable[AnyRow] | None = None,
    ) -> VehicleRef:
        """Add a vehicle with `rows`, or with generated sessions if they are omitted; without a user, add one, too."""
        return self._fleet.add_vehicle(_id_or_none(user), sessions=sessions, rows=rows)

    @locked
    def remove_vehicle(self, vehicle: AnyVehicle) -> None:
        """Remove a vehicle: its user no longer lists it, and requests about it get 404."""
        self._fleet.remove_vehicle(self._fleet.ref(vehicle))

    @locked
    def share_vehicle(self, vehicle: AnyVehicle, user: AnyUser | None = None) -> VehicleRef:
        """Let another user, or a new one, list a vehicle, too, and return the new pair; both have the same sessions."""
        return self._fleet.share_vehicle(self._fleet.ref(vehicle), _id_or_none(user))

    @locked
    def move_vehicle(self, vehicle: AnyVehicle, user: AnyUser | None = None) -> VehicleRef:
        """Move a vehicle with its sessions to another user, or to a new one, and return the new pair."""
        return self._fleet.move_vehicle(self._fleet.ref(vehicle), _id_or_none(user))

    @locked
    def delete_user(self, user: AnyUser) -> None:
        """Mark a user as deleted: listed only with `include_deleted` from now on. The vehicles remain."""
        self._fleet.delete_user(user_id_of(user))

    @locked
    def current(self, vehicle: AnyVehicle) -> dict[str, Any] | None:
        """Return a copy of the row of a vehicle's current session, or None if it has none."""
        row = self._fleet.current(self._fleet.ref(vehicle))
        return None if row is None else dict(row)

    @locked
    def plug_in(self, vehicle: AnyVehicle, plug_in_time: datetime | None = None, **fields: Any) -> dict[str, Any]:
        """Begin a generated current session of a vehicle, with these fields in it, and return its row.

        If the time is omitted, it is an hour after the end of the newest session. A vehicle that has a current session
        already raises `ValueError`.
        """
        return self._fleet.plug_in(self._fleet.ref(vehicle), plug_in_time, fields)

    @locked
    def complete_current(self, vehicle: AnyVehicle, **fields: Any) -> dict[str, Any]:
        """End the current session of a vehicle: from now on it is listed, with these fields. Return its row.

        If they are omitted, it was unplugged eight hours after it was plugged in, and its outcome is "optimized".
        """
        return self._fleet.complete_current(self._fleet.ref(vehicle), fields)

    @locked
    def set_current(self, vehicle: AnyVehicle, row: AnyRow | None) -> None:
        """Replace the current session of a vehicle; without a row, remove it."""
        self._fleet.set_current(self._fleet.ref(vehicle), row)


def _id_or_none(user: AnyUser | None) -> uuid.UUID | None:
    return None if user is None else user_id_of(user)

"""Changes of a simulated fleet while clients read it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from podero_async.models import VehicleRef
from podero_async.testing._state import Fleet


class FleetChanges:
    """The changes that a simulator offers. They raise `KeyError` for an unknown vehicle, user or session."""

    _fleet: Fleet

    def insert(
        self, vehicle: VehicleRef, row: Mapping[str, Any] | None = None, *, plug_in_time: datetime | None = None
    ) -> dict[str, Any]:
        """Add a completed session to a vehicle, and return its row.

        If `row` is omitted, the session is generated and not hidden. If the time is omitted, too, it is a minute after
        the newest one.
        """
        return self._fleet.insert(vehicle, row, plug_in_time)

    def remove(self, vehicle: VehicleRef, session_id: str) -> None:
        """Remove a session from a vehicle's list."""
        self._fleet.sessions(vehicle).remove(session_id)

    def move_session(self, vehicle: VehicleRef, session_id: str, to: VehicleRef) -> None:
        """Move a session to the list of another vehicle."""
        self._fleet.move_session(vehicle, session_id, to)

    def hide(self, vehicle: VehicleRef, session_id: str) -> None:
        """Mark a session as hidden: it is listed only with `include_hidden` from now on."""
        self.update(vehicle, session_id, is_hidden=True, hidden_reason="short_duration")

    def update(self, vehicle: VehicleRef, session_id: str, **fields: Any) -> dict[str, Any]:
        """Change fields of a session, and return its row; a new `plug_in_time` moves it in the list."""
        return self._fleet.update(vehicle, session_id, fields)

    def add_vehicle(
        self,
        user_id: uuid.UUID | None = None,
        *,
        sessions: int = 0,
        rows: Iterable[Mapping[str, Any]] | None = None,
    ) -> VehicleRef:
        """Add a vehicle with `rows`, or with generated sessions if they are omitted; without a user, add one, too."""
        return self._fleet.add_vehicle(user_id, sessions=sessions, rows=rows)

    def remove_vehicle(self, vehicle: VehicleRef) -> None:
        """Remove a vehicle: its user no longer lists it, and requests about it get 404."""
        self._fleet.remove_vehicle(vehicle)

    def share_vehicle(self, vehicle: VehicleRef, user_id: uuid.UUID | None = None) -> VehicleRef:
        """Let another user (without one: a new one) list a vehicle, too, and return the pair. Both have the same sessions."""
        return self._fleet.share_vehicle(vehicle, user_id)

    def move_vehicle(self, vehicle: VehicleRef, user_id: uuid.UUID | None = None) -> VehicleRef:
        """Move a vehicle with its sessions to another user (without one: a new one), and return the new pair."""
        return self._fleet.move_vehicle(vehicle, user_id)

    def delete_user(self, user_id: uuid.UUID) -> None:
        """Mark a user as deleted: listed only with `include_deleted` from now on. The vehicles remain."""
        self._fleet.delete_user(user_id)

    def set_current(self, vehicle: VehicleRef, row: Mapping[str, Any] | None) -> None:
        """Replace the current session of a vehicle; without a row, remove it."""
        self._fleet.set_current(vehicle, row)

    def complete_current(self, vehicle: VehicleRef, **fields: Any) -> dict[str, Any]:
        """End the current session of a vehicle: from now on it is listed, with these fields. Return its row.

        If they are omitted, it was unplugged eight hours after it was plugged in, and its outcome is "optimized".
        """
        return self._fleet.complete_current(vehicle, fields)

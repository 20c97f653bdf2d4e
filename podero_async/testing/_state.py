"""The state of the simulator: users, their vehicles, and the sessions of each vehicle. Each change is atomic."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import cycle
from random import Random
from typing import Any

import attrs

from podero_async.models import ElectricVehicle, SessionOutcome, VehicleRef
from podero_async.testing._arguments import AnyRow, AnyVehicle, vehicle_id_of, whole_number
from podero_async.testing._fake_data import (
    LAST_DAY,
    active_row,
    current_row,
    external_id,
    first_day,
    new_uuid,
    seeded,
    session_row,
    session_rows,
    user_row,
    vehicle_row,
)
from podero_async.testing._session_list import Row, SessionList, parse_time, wire_row, wire_time

Rows = Mapping[VehicleRef, Iterable[AnyRow]]
MAX_SESSIONS = 100_000
"""The most generated sessions of a vehicle: they reach back two centuries."""
_GAP = timedelta(hours=1)
"""The time between the end of the newest session and the next plug-in, unless a time is given."""


@attrs.define
class _User:
    number: int
    vehicles: list[VehicleRef] = attrs.field(factory=list)
    is_deleted: bool = False


@attrs.define
class _Vehicle:
    planned: int
    """The number of sessions. They are generated when they are first accessed, so that a large fleet starts at once."""
    sessions: SessionList | None = None
    current: dict[str, Any] | None = None


@attrs.define
class Fleet:
    """Users and vehicles, in the order in which they were added."""

    seed: int
    org_id: uuid.UUID
    _users: dict[uuid.UUID, _User] = attrs.field(factory=dict, init=False)
    _vehicles: dict[VehicleRef, _Vehicle] = attrs.field(factory=dict, init=False)
    _rng: Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._rng = seeded(self.seed, "fleet")

    @classmethod
    def generated(
        cls, seed: int, org_id: uuid.UUID, users: int, vehicles: int, sessions: int | tuple[int, int]
    ) -> Fleet:
        """Generate a fleet from a seed, and assign the vehicles to the users in turn."""
        low, high = (sessions, sessions) if isinstance(sessions, int) else sessions
        whole_number("users", users, 0)
        whole_number("vehicles", vehicles, 0)
        whole_number("sessions_per_vehicle", low, 0, MAX_SESSIONS)
        whole_number("sessions_per_vehicle", high, low, MAX_SESSIONS)
        if vehicles and not users:
            raise ValueError("vehicles need at least one user")
        fleet = cls(seed, org_id)
        ids = [new_uuid(fleet._rng) for _ in range(users)]
        for user_id in ids:
            fleet._add_user(user_id)
        for user_id, _ in zip(cycle(ids), range(vehicles), strict=False):
            fleet.add_vehicle(user_id, sessions=fleet._rng.randint(low, high))
        return fleet

    @classmethod
    def of_rows(cls, seed: int, org_id: uuid.UUID, rows: Rows) -> Fleet:
        fleet = cls(seed, org_id)
        for vehicle, its_rows in rows.items():
            if not isinstance(vehicle, VehicleRef):
                raise ValueError(f"rows must have a VehicleRef as each key, not {vehicle!r}")  # noqa: TRY004
            fleet._add_user(vehicle.user_id)
            fleet._users[vehicle.user_id].vehicles.append(vehicle)
            fleet._vehicles[vehicle] = _Vehicle(0, SessionList.of(its_rows))
        return fleet

    def _add_user(self, user_id: uuid.UUID) -> None:
        self._users.setdefault(user_id, _User(len(self._users) + 1))

    def add_vehicle(
        self,
        user_id: uuid.UUID | None = None,
        *,
        sessions: int = 0,
        rows: Iterable[AnyRow] | None = None,
    ) -> VehicleRef:
        """Add a vehicle to a user, or to a new one if `user_id` is omitted."""
        whole_number("sessions", sessions, 0, MAX_SESSIONS)
        user_id = user_id or new_uuid(self._rng)
        vehicle = VehicleRef(user_id=user_id, vehicle_id=new_uuid(self._rng))
        own = None if rows is None else SessionList.of(rows)
        current = active_row(self.seed, vehicle) if rows is None else None
        self._add_user(user_id)
        self._users[user_id].vehicles.append(vehicle)
        self._vehicles[vehicle] = _Vehicle(sessions, own, current)
        return vehicle

    def remove_vehicle(self, vehicle: VehicleRef) -> None:
        del self._vehicles[vehicle]
        self._users[vehicle.user_id].vehicles.remove(vehicle)

    def share_vehicle(self, vehicle: VehicleRef, user_id: uuid.UUID | None) -> VehicleRef:
        user_id = user_id or new_uuid(self._rng)
        pair = VehicleRef(user_id=user_id, vehicle_id=vehicle.vehicle_id)
        if pair in self._vehicles:
            raise ValueError(f"user {user_id} already lists the vehicle {vehicle.vehicle_id}")
        self._vehicles[pair] = self._vehicles[vehicle]
        self._add_user(user_id)
        self._users[user_id].vehicles.append(pair)
        return pair

    def move_vehicle(self, vehicle: VehicleRef, user_id: uuid.UUID | None) -> VehicleRef:
        pair = self.share_vehicle(vehicle, user_id)
        self.remove_vehicle(vehicle)
        return pair

    @property
    def vehicles(self) -> list[VehicleRef]:
        return list(self._vehicles)

    def external_ids(self) -> dict[uuid.UUID, str]:
        return {user_id: external_id(user.number) for user_id, user in self._users.items()}

    def ref(self, vehicle: AnyVehicle) -> VehicleRef:
        """Return the pair of a vehicle and its user; raise `KeyError` if it is unknown, `ValueError` if it has several."""
        if isinstance(vehicle, VehicleRef):
            found = [vehicle] if vehicle in self._vehicles else []
        else:
            vehicle_id = vehicle_id_of(vehicle)
            owner = vehicle.owner if isinstance(vehicle, ElectricVehicle) else None
            found = [
                pair
                for pair in self._vehicles
                if pair.vehicle_id == vehicle_id and (owner is None or owner.id in {None, pair.user_id})
            ]
        if not found:
            raise KeyError(f"unknown vehicle: {vehicle}")
        if len(found) > 1:
            raise ValueError(f"several users list the vehicle {vehicle_id}: pass a VehicleRef")
        return found[0]

    def sessions(self, vehicle: VehicleRef) -> SessionList:
        """Return the sessions of a vehicle, not as a copy; raise `KeyError` for an unknown vehicle."""
        known = self._vehicles[vehicle]
        if known.sessions is None:
            known.sessions = SessionList.of(session_rows(self.seed, vehicle, known.planned))
        return known.sessions

    def total_sessions(self) -> int:
        distinct = {id(known): known for known in self._vehicles.values()}.values()  # two users may share a vehicle
        return sum(known.planned if known.sessions is None else len(known.sessions) for known in distinct)

    def span(self) -> tuple[date, date]:
        """Return the first and the last day that can have a session."""
        days = {LAST_DAY} if not self._vehicles else set()
        for known in self._vehicles.values():
            if known.planned or known.sessions is None:
                # From the planned number, so that the span does not depend on which rows have been generated.
                days |= {first_day(known.planned), LAST_DAY}
            if known.sessions is not None:
                days |= {row.plug_in_time.date() for row in (known.sessions.oldest(), known.sessions.newest()) if row}
        return min(days, default=LAST_DAY), max(days, default=LAST_DAY)

    def has_vehicle(self, vehicle: VehicleRef) -> bool:
        return vehicle in self._vehicles

    def has_user(self, user_id: uuid.UUID) -> bool:
        return user_id in self._users

    def current(self, vehicle: VehicleRef) -> dict[str, Any] | None:
        return self._vehicles[vehicle].current

    def set_current(self, vehicle: VehicleRef, row: AnyRow | None) -> None:
        self._vehicles[vehicle].current = None if row is None else wire_row(row)

    def plug_in(self, vehicle: VehicleRef, plug_in_time: datetime | None, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Begin a current session, which is generated."""
        if self.current(vehicle) is not None:
            raise ValueError(f"the vehicle already has a current session: {vehicle}")
        newest = self.sessions(vehicle).newest()
        row = current_row(self._rng, plug_in_time or (_end_of(newest) + _GAP if newest else _first_moment()))
        self._vehicles[vehicle].current = row = row | wire_row(fields)
        return dict(row)

    def complete_current(self, vehicle: VehicleRef, fields: Mapping[str, Any]) -> dict[str, Any]:
        row = self.current(vehicle)
        if row is None:
            raise KeyError(f"no current session: {vehicle}")
        unplugged = parse_time(row["plug_in_time"]) + timedelta(hours=8)
        ended = {"unplug_time": wire_time(unplugged), "session_outcome": SessionOutcome.OPTIMIZED.value}
        row = row | ended | wire_row(fields)
        self.sessions(vehicle).insert(row)
        self.set_current(vehicle, None)
        return row

    def move_session(self, vehicle: VehicleRef, session_id: str, to: VehicleRef) -> None:
        fields = self.sessions(vehicle).fields(session_id)
        self.sessions(to).insert(fields)
        self.sessions(vehicle).remove(session_id)

    def user_rows(self, *, include_deleted: bool) -> list[dict[str, Any]]:
        return [
            self._user_row(user_id, user)
            for user_id, user in self._users.items()
            if include_deleted or not user.is_deleted
        ]

    def user_by_external_id(self, wanted: str, *, include_deleted: bool) -> dict[str, Any] | None:
        for user_id, user in self._users.items():
            if external_id(user.number) == wanted and (include_deleted or not user.is_deleted):
                return self._user_row(user_id, user)
        return None

    def _user_row(self, user_id: uuid.UUID, user: _User) -> dict[str, Any]:
        return user_row(self.org_id, user_id, user.number, len(user.vehicles))

    def vehicle_rows(self, user_id: uuid.UUID) -> list[dict[str, Any]]:
        user = self._users[user_id]
        return [vehicle_row(self.seed, vehicle, external_id(user.number)) for vehicle in user.vehicles]

    def delete_user(self, user_id: uuid.UUID) -> None:
        self._users[user_id].is_deleted = True

    def insert(
        self, vehicle: VehicleRef, row: AnyRow | None = None, plug_in_time: datetime | None = None
    ) -> dict[str, Any]:
        """Add a session, which is generated if `row` is omitted."""
        listed = self.sessions(vehicle)
        if row is None:
            newest = listed.newest()
            after = newest.plug_in_time if newest else _first_moment()
            fields = session_row(self._rng, plug_in_time or after + timedelta(minutes=1))
            fields |= {"is_hidden": False, "hidden_reason": None}
        else:
            fields = wire_row(row)
            if plug_in_time is not None:
                fields["plug_in_time"] = wire_time(plug_in_time)
        listed.insert(fields)
        return fields

    def update(self, vehicle: VehicleRef, session_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of a session, and sort it anew. If a field is invalid, nothing changes."""
        listed = self.sessions(vehicle)
        changed = listed.fields(session_id) | wire_row(fields)
        if Row.of(changed).id != session_id and changed["id"] in listed:
            raise ValueError(f"the vehicle already has a session {changed['id']}")
        listed.remove(session_id)
        listed.insert(changed)
        return changed

    def truth(
        self, vehicle: VehicleRef, from_date: date | None, to_date: date | None, *, include_hidden: bool
    ) -> list[dict[str, Any]]:
        rows, window = self.sessions(vehicle).window(from_date, to_date, include_hidden=include_hidden)
        return [row.fields for row in rows[window]]


def _first_moment() -> datetime:
    return datetime.combine(LAST_DAY, datetime.min.time(), UTC)


def _end_of(row: Row) -> datetime:
    fields = row.fields
    return parse_time(fields.get("unplug_time") or fields.get("inferred_session_end") or fields["plug_in_time"])

"""Checks of the simulator's arguments, and the ids of the models and rows among them."""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection, Mapping
from datetime import date, datetime
from typing import Any

from podero_async.models import ChargingSession, ElectricVehicle, User, VehicleRef

AnyUser = User | uuid.UUID | str
"""A user: the model, or the user's id."""
AnyVehicle = VehicleRef | ElectricVehicle | uuid.UUID | str
"""A vehicle: a model, or the vehicle's id if only one user lists it."""
AnyRow = ChargingSession | Mapping[str, Any]
"""A session: the model, or a row with the names of the API's JSON."""
AnySession = AnyRow | uuid.UUID | str
"""A session that is listed: the model, its row, or its id."""


def whole_number(name: str, value: int, minimum: int, maximum: int | None = None) -> int:
    """Return a whole number within bounds, or raise `ValueError`."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < minimum or (maximum is not None and value > maximum):
        bounds = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"{name} must be a whole number {bounds}, not {value!r}")
    return value


def seconds(name: str, value: float) -> float:
    """Return a finite number of seconds, or raise `ValueError`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number of seconds, at least 0, not {value!r}")
    return value


def choices(name: str, values: Collection[str], known: Collection[str]) -> frozenset[str]:
    """Return texts that are all known, or raise `ValueError`, also for a single text, which is a collection of letters."""
    if isinstance(values, str) or not set(values) <= set(known):
        raise ValueError(f"{name} must be a collection of {', '.join(sorted(known))}, not {values!r}")
    return frozenset(values)


def day(name: str, value: date | None) -> date | None:
    """Return a day or None, or raise `ValueError`, also for a `datetime`, whose day depends on a time zone."""
    if isinstance(value, datetime) or not isinstance(value, date | None):
        raise ValueError(f"{name} must be a datetime.date, not a {type(value).__name__}")  # noqa: TRY004
    return value


def user_id_of(user: AnyUser) -> uuid.UUID:
    return _uuid("user", user.id if isinstance(user, User) else user)


def vehicle_id_of(vehicle: ElectricVehicle | uuid.UUID | str) -> uuid.UUID:
    return _uuid("vehicle", vehicle.id if isinstance(vehicle, ElectricVehicle) else vehicle)


def session_id_of(session: AnySession) -> str:
    """Return the id of a session as its row has it; the rows of a test may have ids that are not UUIDs."""
    if isinstance(session, Mapping):
        session = session["id"]
    return str(session.id if isinstance(session, ChargingSession) else session)


def _uuid(name: str, value: uuid.UUID | str) -> uuid.UUID:
    try:
        return value if isinstance(value, uuid.UUID) else uuid.UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{name} must be a model, a uuid or its text, not {value!r}") from None

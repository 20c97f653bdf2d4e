"""Plausible data: users with reserved addresses, vehicles and charging sessions. Pure functions of a seed and an id.

The same seed and id give the same rows, in whichever order rows are generated.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from random import Random
from typing import Any

from podero_async.models import HiddenReason, SessionOutcome, VehicleRef
from podero_async.testing._session_list import wire_time

LAST_DAY = date(2026, 6, 30)
"""The day of each generated vehicle's newest session, which leaves some hours of the day for insertions."""

_INTERVAL = timedelta(hours=20)  # one session in each, so that sessions do not overlap or tie
_END = datetime(2026, 6, 30, 12, tzinfo=UTC)
_HIDDEN_SHARE = 0.05
_INFERRED_SHARE = 0.06
_ACTIVE_SHARE = 0.3

_AWAY = SessionOutcome.NOT_AT_HOME
_WITHOUT_DATA = frozenset({SessionOutcome.NOT_AUTHENTICATED, SessionOutcome.EV_NOT_FOUND, SessionOutcome.UNKNOWN})
_UNCHARGED = frozenset({SessionOutcome.ALREADY_AT_TARGET, SessionOutcome.COMMANDS_FAILED})
_COMMON = {
    SessionOutcome.OPTIMIZED: 50,
    SessionOutcome.NOT_AT_HOME: 12,
    SessionOutcome.USER_UNPLUGGED_EARLY: 8,
    SessionOutcome.IMMEDIATE_START: 8,
}
_OUTCOMES = [outcome for outcome in SessionOutcome if outcome is not SessionOutcome.IN_PROGRESS]
"""The outcomes of completed sessions."""
_CUMULATED_WEIGHTS = list(accumulate(_COMMON.get(outcome, 2) for outcome in _OUTCOMES))

_MODELS = [
    ("Example Motors", "Compact E", 2021, 45.0),
    ("Example Motors", "Estate E", 2024, 77.0),
    ("Sample Cars", "City One", 2019, 38.0),
    ("Sample Cars", "Tourer", 2025, 91.0),
]
_TIMESTAMP = "2025-01-15T08:00:00Z"


def seeded(seed: int, *parts: object) -> Random:
    return Random("/".join(map(str, (seed, *parts))))


def new_uuid(rng: Random) -> uuid.UUID:
    return uuid.UUID(int=rng.getrandbits(128), version=4)


def first_day(sessions: int) -> date:
    """Return the first day that can have a session of a vehicle with that number of sessions."""
    return (_END - sessions * _INTERVAL).date()


def user_row(org_id: uuid.UUID, user_id: uuid.UUID, number: int, vehicles: int) -> dict[str, Any]:
    return {
        "id": str(user_id),
        "organization_id": str(org_id),
        "role": "user",
        "email": f"user-{number}@example.com",
        "external_user_id": external_id(number),
        "first_name": "User",
        "last_name": str(number),
        "is_onboarded": True,
        "joined_at": _TIMESTAMP,
        "last_login": None,
        "address": {"street": f"Example Street {number}", "city": "Exampletown", "country": "AT"},
        "num_electric_vehicles": vehicles,
        "num_inverters": 0,
        "num_heat_pumps": 0,
        "num_wallboxes": 0,
        # Not in the API's description: clients must ignore unknown fields.
        "locale": "en",
        "feature_flags": {"beta": number % 2 == 0},
    }


def external_id(number: int) -> str:
    return f"customer_{number}"


def vehicle_row(seed: int, vehicle: VehicleRef, owner_external_id: str) -> dict[str, Any]:
    manufacturer, model, year, battery_kwh = seeded(seed, vehicle.vehicle_id, "model").choice(_MODELS)
    return {
        "id": str(vehicle.vehicle_id),
        "device_model": {
            "manufacturer": manufacturer,
            "model": model,
            "year": year,
            "battery_capacity_kwh": battery_kwh,
        },
        "owner": {"id": str(vehicle.user_id), "external_id": owner_external_id, "kind": "person"},
        "lifecycle_state": "active",
        "is_authenticated": True,
        "is_smart_optimization_active": True,
        "price_zone": "AT",
        "created_at": _TIMESTAMP,
        "updated_at": _TIMESTAMP,
        "deleted_at": None,
        # Not in the API's description: clients must ignore unknown fields.
        "odometer_km": None,
        "tags": [],
    }


def session_rows(seed: int, vehicle: VehicleRef, count: int) -> Iterator[dict[str, Any]]:
    """Generate the completed sessions of a vehicle, oldest first, without overlaps or equal plug-in times."""
    rng = seeded(seed, vehicle.vehicle_id, "sessions")
    for number in range(count):
        start = _END - (count - number) * _INTERVAL
        yield session_row(rng, start + timedelta(seconds=rng.randrange(8 * 3600)))


def active_row(seed: int, vehicle: VehicleRef) -> dict[str, Any] | None:
    """Generate the current session of a vehicle, for the share of vehicles that are plugged in."""
    rng = seeded(seed, vehicle.vehicle_id, "active")
    if rng.random() >= _ACTIVE_SHARE:
        return None
    return current_row(rng, _END + timedelta(seconds=rng.randrange(6 * 3600)))


def current_row(rng: Random, plug_in: datetime) -> dict[str, Any]:
    """Generate a session that has not ended."""
    return session_row(rng, plug_in, SessionOutcome.IN_PROGRESS) | {
        "unplug_time": None,
        "inferred_session_end": None,
        "final_soc_pct": None,
        "actual_cost_eur": None,
        "actual_savings_eur": None,
        "is_hidden": False,
        "hidden_reason": None,
    }


def session_row(rng: Random, plug_in: datetime, outcome: SessionOutcome | None = None) -> dict[str, Any]:
    """Generate one session of less than twelve hours, or, for a small share, one of minutes that is hidden."""
    row_id = str(new_uuid(rng))
    outcome = outcome or rng.choices(_OUTCOMES, cum_weights=_CUMULATED_WEIGHTS)[0]
    is_hidden = rng.random() < _HIDDEN_SHARE
    length = timedelta(seconds=rng.randrange(20, 290) if is_hidden else rng.randrange(1800, 11 * 3600))
    unplug = wire_time(plug_in + length)
    is_inferred = rng.random() < _INFERRED_SHARE
    return {
        "id": row_id,
        "plug_in_time": wire_time(plug_in),
        "unplug_time": None if is_inferred else unplug,
        "inferred_session_end": unplug if is_inferred else None,
        **_schedule(rng, plug_in, length, outcome),
        **_charge(rng, length, outcome),
        "is_at_home": outcome is not _AWAY,
        "session_outcome": outcome.value,
        "is_hidden": is_hidden,
        "hidden_reason": HiddenReason.SHORT_DURATION.value if is_hidden else None,
        **_reachability(rng, outcome),
    }


def _schedule(rng: Random, plug_in: datetime, length: timedelta, outcome: SessionOutcome) -> dict[str, Any]:
    if outcome is _AWAY or outcome in _WITHOUT_DATA:
        names = ("desired_charging_start_time", "desired_charging_end_time", "charge_deadline", "target_soc_pct")
        return dict.fromkeys(names)
    quarter = timedelta(seconds=length // timedelta(seconds=4))
    deadline = plug_in + timedelta(hours=rng.randrange(8, 14))
    return {
        "desired_charging_start_time": wire_time(plug_in + quarter),
        "desired_charging_end_time": wire_time(plug_in + 3 * quarter),
        "charge_deadline": wire_time(deadline.replace(minute=0, second=0, microsecond=0)),
        "target_soc_pct": rng.choice([80.0, 80.0, 90.0, 100.0]),
    }


def _charge(rng: Random, length: timedelta, outcome: SessionOutcome) -> dict[str, Any]:
    initial = round(rng.uniform(8, 78), 1)
    peak_kw = rng.choice([3.7, 7.4, 11.0])
    hours = length / timedelta(hours=1)
    kwh = 0.0 if outcome in _UNCHARGED else min(peak_kw * hours * 0.9, (95 - initial) / 100 * 60)
    cost = kwh * rng.uniform(0.08, 0.32)
    saved = cost * rng.uniform(0.05, 0.4)
    is_settled = rng.random() < 0.8  # noqa: PLR2004 - for the others, savings are not computed yet
    has_no_data = outcome in _WITHOUT_DATA
    return {
        "initial_soc_pct": None if has_no_data else initial,
        "final_soc_pct": None if has_no_data else round(initial + kwh / 60 * 100, 1),
        "energy_charged_kwh": None if has_no_data else round(kwh, 3),
        "avg_charge_power_kw": None if has_no_data else round(kwh / hours, 2),
        "peak_charge_power_kw": None if has_no_data else peak_kw,
        "actual_cost_eur": None if has_no_data or outcome is _AWAY else round(cost, 2),
        "expected_savings_eur": None if has_no_data or outcome is _AWAY else round(saved, 2),
        "actual_savings_eur": round(saved * 0.9, 2) if is_settled and outcome is SessionOutcome.OPTIMIZED else None,
    }


def _reachability(rng: Random, outcome: SessionOutcome) -> dict[str, Any]:
    if outcome is _AWAY or outcome in _WITHOUT_DATA:
        return {"target_reachable": None, "reachable_soc_pct": None}
    reachable = rng.randrange(40, 101)
    return {"target_reachable": reachable >= 80, "reachable_soc_pct": reachable}  # noqa: PLR2004 - the usual target

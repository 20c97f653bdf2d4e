"""Seeded, plausible data: people of reserved domains, vehicles, charging sessions. Pure functions of a seed and an id.

The same seed gives the same rows, whatever else was generated before them.
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
"""The day of every generated vehicle's newest session; it ends early enough for some hours of insertions."""

_SLOT = timedelta(hours=20)  # one session each: they neither overlap nor share a plug-in time
_END = datetime(2026, 6, 30, 12, tzinfo=UTC)
_BLIP_SHARE = 0.05
_INFERRED_SHARE = 0.06
_ACTIVE_SHARE = 0.3

_AWAY = SessionOutcome.NOT_AT_HOME
_BLIND = frozenset({SessionOutcome.NOT_AUTHENTICATED, SessionOutcome.EV_NOT_FOUND, SessionOutcome.UNKNOWN})
_UNCHARGED = frozenset({SessionOutcome.ALREADY_AT_TARGET, SessionOutcome.COMMANDS_FAILED})
_COMMON = {
    SessionOutcome.OPTIMIZED: 50,
    SessionOutcome.NOT_AT_HOME: 12,
    SessionOutcome.USER_UNPLUGGED_EARLY: 8,
    SessionOutcome.IMMEDIATE_START: 8,
}
_OUTCOMES = list(SessionOutcome)
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


def first_day(most_sessions: int) -> date:
    """Return the first day that can hold a session of a vehicle with so many of them."""
    return (_END - most_sessions * _SLOT).date()


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
        # No description lists these: a client must not mind.
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
        # No description lists these: a client must not mind.
        "odometer_km": None,
        "tags": [],
    }


def session_rows(seed: int, vehicle: VehicleRef, count: int) -> Iterator[dict[str, Any]]:
    """Make a vehicle's completed sessions, oldest first; their plug-in times differ, and they do not overlap."""
    rng = seeded(seed, vehicle.vehicle_id, "sessions")
    for number in range(count):
        slot = _END - (count - number) * _SLOT
        yield session_row(rng, slot + timedelta(seconds=rng.randrange(8 * 3600)))


def active_row(seed: int, vehicle: VehicleRef) -> dict[str, Any] | None:
    """Make the session that is going on, for the share of the vehicles that are plugged in."""
    rng = seeded(seed, vehicle.vehicle_id, "active")
    if rng.random() >= _ACTIVE_SHARE:
        return None
    started = session_row(rng, _END + timedelta(seconds=rng.randrange(6 * 3600)), SessionOutcome.IN_PROGRESS)
    return started | {
        "unplug_time": None,
        "inferred_session_end": None,
        "final_soc_pct": None,
        "actual_cost_eur": None,
        "actual_savings_eur": None,
        "is_hidden": False,
        "hidden_reason": None,
    }


def session_row(rng: Random, plug_in: datetime, outcome: SessionOutcome | None = None) -> dict[str, Any]:
    """Make one session of at most twelve hours: a charge, or now and then a blip that the classifier hid."""
    row_id = str(new_uuid(rng))
    outcome = outcome or rng.choices(_OUTCOMES, cum_weights=_CUMULATED_WEIGHTS)[0]
    is_blip = rng.random() < _BLIP_SHARE
    length = timedelta(seconds=rng.randrange(20, 290) if is_blip else rng.randrange(1800, 11 * 3600))
    unplug = wire_time(plug_in + length)
    is_inferred = rng.random() < _INFERRED_SHARE
    return {
        "id": row_id,
        "plug_in_time": wire_time(plug_in),
        "unplug_time": None if is_inferred else unplug,
        "inferred_session_end": unplug if is_inferred else None,
        **_plan(rng, plug_in, length, outcome),
        **_charge(rng, length, outcome),
        "is_at_home": outcome is not _AWAY,
        "session_outcome": outcome.value,
        "is_hidden": is_blip,
        "hidden_reason": HiddenReason.SHORT_DURATION.value if is_blip else None,
        **_reach(rng, outcome),
    }


def _plan(rng: Random, plug_in: datetime, length: timedelta, outcome: SessionOutcome) -> dict[str, Any]:
    if outcome is _AWAY or outcome in _BLIND:
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
    is_settled = rng.random() < 0.8  # noqa: PLR2004 - the rest of the savings is still to be computed
    is_blind = outcome in _BLIND
    return {
        "initial_soc_pct": None if is_blind else initial,
        "final_soc_pct": None if is_blind else round(initial + kwh / 60 * 100, 1),
        "energy_charged_kwh": None if is_blind else round(kwh, 3),
        "avg_charge_power_kw": None if is_blind else round(kwh / hours, 2),
        "peak_charge_power_kw": None if is_blind else peak_kw,
        "actual_cost_eur": None if is_blind or outcome is _AWAY else round(cost, 2),
        "expected_savings_eur": None if is_blind or outcome is _AWAY else round(saved, 2),
        "actual_savings_eur": round(saved * 0.9, 2) if is_settled and outcome is SessionOutcome.OPTIMIZED else None,
    }


def _reach(rng: Random, outcome: SessionOutcome) -> dict[str, Any]:
    if outcome is _AWAY or outcome in _BLIND:
        return {"target_reachable": None, "reachable_soc_pct": None}
    reachable = rng.randrange(40, 101)
    return {"target_reachable": reachable >= 80, "reachable_soc_pct": reachable}  # noqa: PLR2004 - the usual target

"""Make sessions and outcomes without a server."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from podero_async import ChargingSession, Completeness, SessionOutcome, VehicleRef, VehicleSessions


def session_of(number: int, **fields: Any) -> ChargingSession:
    """Return a session with an id of its own."""
    values: dict[str, Any] = {
        "id": UUID(int=number),
        "plug_in_time": datetime(2026, 10, 1, 18, tzinfo=UTC),
        "unplug_time": datetime(2026, 10, 2, 6, tzinfo=UTC),
        "inferred_session_end": None,
        "desired_charging_start_time": None,
        "desired_charging_end_time": None,
        "charge_deadline": None,
        "target_soc_pct": 80.0,
        "initial_soc_pct": 20.0,
        "final_soc_pct": None,
        "energy_charged_kwh": 40.0,
        "avg_charge_power_kw": 7.0,
        "peak_charge_power_kw": 11.0,
        "actual_cost_eur": 8.0,
        "expected_savings_eur": 2.0,
        "actual_savings_eur": 1.5,
        "is_at_home": True,
        "session_outcome": SessionOutcome.OPTIMIZED,
    }
    return ChargingSession(**values | fields)


def outcome_of(vehicle: int, *sessions: ChargingSession) -> VehicleSessions:
    """Return the outcome of a vehicle."""
    return VehicleSessions(
        vehicle=VehicleRef(user_id=UUID(int=1000 + vehicle), vehicle_id=UUID(int=2000 + vehicle)),
        from_date=date(2026, 10, 1),
        to_date=date(2026, 10, 31),
        sessions=list(sessions),
        completeness=Completeness.VERIFIED,
        total=len(sessions),
    )

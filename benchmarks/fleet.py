"""The fleet of the benchmarks: vehicles whose ids contain the number of their sessions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache

from podero_async import VehicleRef

__all__ = ["FIRST_DAY", "LAST_DAY", "ORG", "is_slow", "sessions_of", "vehicles", "wire_rows"]

ORG = uuid.UUID("00000000-0000-4000-8000-000000000001")
FIRST_DAY, LAST_DAY = date(2024, 1, 1), date(2026, 6, 30)
_NEWEST = datetime(2026, 6, 30, 22, tzinfo=UTC)
_SLOW = 1 << 16  # a mark in the second field of the id: the server responds slowly


def vehicles(counts: Iterable[int], *, slow: frozenset[int] = frozenset()) -> Iterator[VehicleRef]:
    """Make vehicles with the given numbers of sessions, and mark those whose index is in `slow`."""
    for number, count in enumerate(counts):
        fields = f"{count:08x}-{int(number in slow):04x}-4000-8000-{number:012x}"
        yield VehicleRef(user_id=uuid.UUID(int=number + 1), vehicle_id=uuid.UUID(fields))


def sessions_of(vehicle_id: bytes) -> int:
    """Return the number of sessions that an id contains."""
    return int(vehicle_id[:8], 16)


def is_slow(vehicle_id: bytes) -> bool:
    """Return whether the server responds slowly for a vehicle."""
    return vehicle_id[9:13] == b"0001"


@cache
def wire_rows(count: int) -> list[bytes]:
    """Make the JSON rows of a vehicle, newest first; vehicles with the same number of sessions share them."""
    return [json.dumps(_row(count, number)).encode() for number in range(count)]


def _row(count: int, number: int) -> dict[str, object]:
    plugged_in = _NEWEST - timedelta(hours=10 * number, seconds=37 * number % 3600)
    unplugged = plugged_in + timedelta(hours=8, minutes=number % 50)
    return {
        "id": str(uuid.UUID(int=(count << 64) | (number * 0x9E3779B97F4A7C15 % (1 << 64)))),
        "plug_in_time": plugged_in.isoformat().replace("+00:00", "Z"),
        "unplug_time": unplugged.isoformat().replace("+00:00", "Z"),
        "inferred_session_end": None,
        "desired_charging_start_time": (plugged_in + timedelta(minutes=5)).isoformat(),
        "desired_charging_end_time": unplugged.isoformat(),
        "charge_deadline": (plugged_in + timedelta(hours=9)).isoformat(),
        "target_soc_pct": 80.0,
        "initial_soc_pct": 20.5 + number % 50,
        "final_soc_pct": 79.5,
        "energy_charged_kwh": 12.345 + number % 30,
        "avg_charge_power_kw": 3.71,
        "peak_charge_power_kw": 11.02,
        "actual_cost_eur": 2.31 + number % 7,
        "expected_savings_eur": 0.41,
        "actual_savings_eur": None if number % 9 == 0 else 0.38,
        "is_at_home": number % 5 != 0,
        "session_outcome": ("optimized", "already_at_target", "user_unplugged_early")[number % 3],
        "is_hidden": False,
        "hidden_reason": None,
        "target_reachable": True,
        "reachable_soc_pct": 80,
    }

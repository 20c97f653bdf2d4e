"""The Arrow schema of sessions: the one place that says which type a field has as a column."""

from __future__ import annotations

import pyarrow as pa  # type: ignore[import-untyped]

from podero_async.models import HiddenReason, SessionOutcome

__all__ = ["ENUMS", "MOMENT", "SESSION_SCHEMA", "UUID", "VEHICLE_FIELDS"]

UUID = pa.uuid()
MOMENT = pa.timestamp("us", tz="UTC")
_TEXT = pa.dictionary(pa.int32(), pa.string())

ENUMS = {
    "session_outcome": pa.array([member.value for member in SessionOutcome], pa.string()),
    "hidden_reason": pa.array([member.value for member in HiddenReason], pa.string()),
}
"""The texts with which the dictionary of a column begins, in any batch. Unknown texts follow them."""

SESSION_SCHEMA = pa.schema(
    [
        ("id", UUID),
        ("plug_in_time", MOMENT),
        ("unplug_time", MOMENT),
        ("inferred_session_end", MOMENT),
        ("desired_charging_start_time", MOMENT),
        ("desired_charging_end_time", MOMENT),
        ("charge_deadline", MOMENT),
        ("target_soc_pct", pa.float64()),
        ("initial_soc_pct", pa.float64()),
        ("final_soc_pct", pa.float64()),
        ("energy_charged_kwh", pa.float64()),
        ("avg_charge_power_kw", pa.float64()),
        ("peak_charge_power_kw", pa.float64()),
        ("actual_cost_eur", pa.float64()),
        ("expected_savings_eur", pa.float64()),
        ("actual_savings_eur", pa.float64()),
        ("is_at_home", pa.bool_()),
        ("session_outcome", _TEXT),
        ("is_hidden", pa.bool_()),
        ("hidden_reason", _TEXT),
        ("target_reachable", pa.bool_()),
        ("reachable_soc_pct", pa.int32()),
    ]
)
"""The fields of a `ChargingSession`, in order."""

VEHICLE_FIELDS = [pa.field("user_id", UUID), pa.field("vehicle_id", UUID)]
"""The columns before those of a session in a frame; null if a session was given without its vehicle."""

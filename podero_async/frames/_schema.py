"""The Arrow schema of sessions: the one place that says which type a field has as a column."""

from __future__ import annotations

import pyarrow as pa  # type: ignore[import-untyped]

from podero_async.models import HiddenReason, SessionOutcome

__all__ = ["ENUMS", "MOMENT", "SESSION_SCHEMA", "UUID", "VEHICLE_SCHEMA", "frame_schema"]

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

VEHICLE_SCHEMA = pa.schema(
    [
        ("user_id", UUID),
        ("vehicle_id", UUID),
        ("external_user_id", pa.string()),
        ("manufacturer", pa.string()),
        ("model", pa.string()),
    ]
)
"""The fields of a `VehicleRef`, which precede those of a session in a frame."""

_FRAME = pa.schema([*VEHICLE_SCHEMA, *SESSION_SCHEMA])
_TEXT_FRAME = pa.schema([field.with_type(pa.string()) if field.type == UUID else field for field in _FRAME])


def frame_schema(*, text_ids: bool = False) -> pa.Schema:
    """Return the schema of all frames: fields of the `VehicleRef`, then the fields of the `ChargingSession`.

    Args:
        text_ids: Ids are texts instead of Arrow's uuid.
    """
    return _TEXT_FRAME if text_ids else _FRAME

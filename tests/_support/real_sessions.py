"""Real charging sessions as wire rows: the Trondheim dataset, where it lies beside the project.

Sorensen, Lindberg, Sartori, Andresen: "Residential electric vehicle charging datasets from apartment buildings", Data in
Brief 36, 2021, CC BY 4.0. Local times without an offset; an ambiguous one, in the hour that a clock repeats, is read as
the first of the two.
"""

from __future__ import annotations

import csv
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from podero_async import VehicleRef

__all__ = ["TRONDHEIM", "needs_trondheim", "read_trondheim"]

TRONDHEIM = Path(__file__).parents[3] / "shared" / "data" / "trondheim_ev_charging_reports.csv"
needs_trondheim = pytest.mark.skipif(
    not TRONDHEIM.exists(), reason="the Trondheim sessions are not part of the project: ../shared/data is not there"
)

_OSLO = ZoneInfo("Europe/Oslo")
_NAMESPACE = uuid.UUID(int=0x7A0)


def read_trondheim(path: Path = TRONDHEIM) -> dict[VehicleRef, list[dict[str, Any]]]:
    """Read the sessions as wire rows, by vehicle: each resident has one."""
    rows: dict[VehicleRef, list[dict[str, Any]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for report in csv.DictReader(file, delimiter=";"):
            resident = report["User_ID"]
            vehicle = VehicleRef(
                user_id=uuid.uuid5(_NAMESPACE, f"user {resident}"),
                vehicle_id=uuid.uuid5(_NAMESPACE, f"vehicle {resident}"),
            )
            rows.setdefault(vehicle, []).append(_wire_row(report))
    return rows


def _wire_row(report: dict[str, str]) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid5(_NAMESPACE, f"session {report['session_ID']}")),
        "plug_in_time": _instant(report["Start_plugin"]),
        "unplug_time": _instant(report["End_plugout"]),
        "inferred_session_end": None,
        "desired_charging_start_time": None,
        "desired_charging_end_time": None,
        "charge_deadline": None,
        "target_soc_pct": None,
        "initial_soc_pct": None,
        "final_soc_pct": None,
        "energy_charged_kwh": _number(report["El_kWh"]),
        "avg_charge_power_kw": None,
        "peak_charge_power_kw": None,
        "actual_cost_eur": None,
        "expected_savings_eur": None,
        "actual_savings_eur": None,
        "is_at_home": True,
        "session_outcome": "optimized",
        "is_hidden": False,
        "hidden_reason": None,
        "target_reachable": None,
        "reachable_soc_pct": None,
    }


def _instant(text: str) -> str | None:
    if text == "NA":
        return None
    local = datetime.strptime(text, "%d.%m.%Y %H:%M").replace(tzinfo=_OSLO)
    return local.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(text: str) -> float | None:
    return None if text == "NA" else float(text.replace(",", "."))

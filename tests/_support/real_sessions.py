"""Charging reports as the simulator's rows: a small made-up file, and the Trondheim dataset if it is there.

`made_sessions.csv` has the format of the dataset and sessions of the same kind, none of which is from it: mostly
overnight, some over several days, some of minutes, two at one time, one in the hour that the clock repeats in October,
and some without an end.

The dataset: Sorensen, Lindberg, Sartori, Andresen: "Residential electric vehicle charging datasets from apartment
buildings", Data in Brief 36, 2021, CC BY 4.0.
"""

from __future__ import annotations

import csv
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest

from podero_async import VehicleRef
from tests._support.clients import wire_row

__all__ = ["Report", "for_each_report_file", "read_reports", "rows_by_vehicle"]

_MADE = Path(__file__).with_name("made_sessions.csv")
_TRONDHEIM = Path(__file__).parents[3] / "shared" / "data" / "trondheim_ev_charging_reports.csv"
_OSLO = ZoneInfo("Europe/Oslo")
_NAMESPACE = uuid.UUID(int=0x7A0)

for_each_report_file = pytest.mark.parametrize(
    "report_file",
    [
        pytest.param(_MADE, id="made rows"),
        pytest.param(
            _TRONDHEIM,
            id="the whole dataset",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not _TRONDHEIM.exists(), reason=f"{_TRONDHEIM} is not part of the project"),
            ],
        ),
    ],
)


@attrs.frozen
class Report:
    """One line of a file."""

    session_id: uuid.UUID
    vehicle: VehicleRef
    plug_in: datetime
    plug_out: datetime | None
    energy_kwh: float


def read_reports(path: Path) -> list[Report]:
    """Read a file; each resident has one vehicle."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [
            Report(
                session_id=uuid.uuid5(_NAMESPACE, f"session {line['session_ID']}"),
                vehicle=VehicleRef(
                    user_id=uuid.uuid5(_NAMESPACE, f"user {line['User_ID']}"),
                    vehicle_id=uuid.uuid5(_NAMESPACE, f"vehicle {line['User_ID']}"),
                ),
                plug_in=_utc(line["Start_plugin"]),
                plug_out=None if line["End_plugout"] == "NA" else _utc(line["End_plugout"]),
                energy_kwh=float(line["El_kWh"].replace(",", ".")),
            )
            for line in csv.DictReader(file, delimiter=";")
        ]


def rows_by_vehicle(reports: list[Report]) -> dict[VehicleRef, list[dict[str, Any]]]:
    """Make the rows that a simulator serves."""
    rows = defaultdict(list)
    for report in reports:
        row = wire_row(
            id=str(report.session_id),
            plug_in_time=report.plug_in.isoformat(),
            unplug_time=report.plug_out and report.plug_out.isoformat(),
            energy_charged_kwh=report.energy_kwh,
        )
        rows[report.vehicle].append(row)
    return rows


def _utc(text: str) -> datetime:
    """Read a local time. In the hour that the clock repeats, it is taken for the first of the two."""
    return datetime.strptime(text, "%d.%m.%Y %H:%M").replace(tzinfo=_OSLO).astimezone(UTC)

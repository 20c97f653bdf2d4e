"""Real sessions of real residents, through the whole path."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from itertools import chain

from podero_async import Completeness, VehicleSessions
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.real_sessions import TRONDHEIM, needs_trondheim, read_trondheim


@needs_trondheim
async def test_the_real_sessions_of_trondheim_arrive_field_by_field() -> None:
    """What holds for generated rows would not hold for a winter of real charging."""
    rows = read_trondheim()
    assert len(rows) == 97
    assert sum(map(len, rows.values())) == 6878
    async with PoderoSimulator(rows=rows) as simulator, client_of(simulator) as client:
        async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
            outcomes = [outcome async for outcome in fleet]
    assert fleet.summary.sessions == 6878
    assert {outcome.vehicle for outcome in outcomes} == set(rows)
    assert sum(len(wire) > 200 for wire in rows.values()) > 3, "several vehicles have more than one page"
    for outcome in outcomes:
        assert isinstance(outcome, VehicleSessions)
        assert outcome.completeness is not Completeness.UNPROVEN
        wire = {row["id"]: row for row in rows[outcome.vehicle]}
        assert len(outcome.sessions) == len(wire)
        for session in outcome.sessions:
            row = wire[str(session.id)]
            assert session.plug_in_time == _time(row["plug_in_time"])
            assert session.plug_in_time.utcoffset() == UTC.utcoffset(None)
            assert session.unplug_time == _time(row["unplug_time"])
            assert session.energy_charged_kwh == row["energy_charged_kwh"]
    # The figures straight from the file, past the converter above.
    with TRONDHEIM.open(encoding="utf-8", newline="") as file:
        energies = [float(report["El_kWh"].replace(",", ".")) for report in csv.DictReader(file, delimiter=";")]
    sessions = chain.from_iterable(outcome.sessions for outcome in outcomes if isinstance(outcome, VehicleSessions))
    assert sorted(session.energy_charged_kwh or 0.0 for session in sessions) == sorted(energies)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)

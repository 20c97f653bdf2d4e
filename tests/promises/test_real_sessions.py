"""Sessions as residents charge, through the whole path."""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from pathlib import Path

from podero_async import Completeness, VehicleSessions
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of
from tests._support.real_sessions import for_each_report_file, read_reports, rows_by_vehicle


@for_each_report_file
async def test_reported_sessions_arrive_field_by_field(report_file: Path) -> None:
    """Every reported session arrives once, with its times and its energy, and no list is UNPROVEN."""
    reports = read_reports(report_file)
    page_size = min(200, len(reports) // 3)
    assert max(Counter(report.vehicle for report in reports).values()) > page_size, "a list has more than one page"
    small_pages = Fault(kind="clamped_limit", limit=page_size)
    async with PoderoSimulator(rows=rows_by_vehicle(reports), faults=[small_pages]) as simulator:
        async with client_of(simulator) as client:
            async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
                outcomes = [outcome async for outcome in fleet]
    assert fleet.summary.sessions == len(reports)
    assert {outcome.vehicle for outcome in outcomes} == {report.vehicle for report in reports}
    for outcome in outcomes:
        assert isinstance(outcome, VehicleSessions)
        assert outcome.completeness is not Completeness.UNPROVEN
        sessions = {session.id: session for session in outcome.sessions}
        expected = [report for report in reports if report.vehicle == outcome.vehicle]
        assert len(outcome.sessions) == len(sessions) == len(expected)
        for report in expected:
            session = sessions[report.session_id]
            assert (session.plug_in_time, session.unplug_time) == (report.plug_in, report.plug_out)
            assert session.plug_in_time.utcoffset() == UTC.utcoffset(None)
            assert session.energy_charged_kwh == report.energy_kwh

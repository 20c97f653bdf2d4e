"""Questions that an analyst asks a store in SQL, about sessions as residents charge."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date, timedelta
from pathlib import Path

import pytest

from podero_async.backfill import SessionStore, backfill
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.real_sessions import for_each_report_file, read_reports, rows_by_vehicle

MONTHS = """
SELECT strftime(plug_in_time, '%Y-%m') AS month, count(*) AS sessions, sum(energy_charged_kwh) AS kwh
FROM sessions WHERE withdrawn_at IS NULL GROUP BY month ORDER BY month
"""
BLIPS = """
SELECT count(*) FILTER (unplug_time - plug_in_time < INTERVAL 5 MINUTES) / count(unplug_time) AS share
FROM sessions WHERE withdrawn_at IS NULL
"""
HOURS = """
SELECT hour(plug_in_time) AS hour, count(*) AS sessions FROM sessions WHERE withdrawn_at IS NULL GROUP BY hour
"""


@for_each_report_file
async def test_a_store_gives_the_figures_of_the_reports(report_file: Path, path: Path) -> None:
    """Energy by month, the fraction of plug-ins under five minutes,
    and plug-ins by hour are the same in SQL as in the reports.
    """
    reports = read_reports(report_file)
    async with PoderoSimulator(rows=rows_by_vehicle(reports)) as sim, client_of(sim) as client:
        async with SessionStore(path) as store:
            report = await backfill(client, store, date(2018, 12, 1), date(2020, 2, 29))
            assert report.is_clean
            assert (report.vehicles, report.new) == (len({line.vehicle for line in reports}), len(reports))

            sessions = Counter(f"{line.plug_in:%Y-%m}" for line in reports)
            kwh = defaultdict[str, float](float)
            for line in reports:
                kwh[f"{line.plug_in:%Y-%m}"] += line.energy_kwh
            months = await store.query(MONTHS)
            assert {row["month"]: row["sessions"] for row in months} == sessions
            assert {row["month"]: row["kwh"] for row in months} == pytest.approx(kwh, rel=1e-12)

            lengths = [line.plug_out - line.plug_in for line in reports if line.plug_out is not None]
            (blips,) = await store.query(BLIPS)
            assert blips["share"] == sum(length < timedelta(minutes=5) for length in lengths) / len(lengths)

            hours = await store.query(HOURS)
            assert {row["hour"]: row["sessions"] for row in hours} == Counter(line.plug_in.hour for line in reports)

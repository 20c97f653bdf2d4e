"""Real sessions go in, and questions about them are answered as the file itself answers them."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from podero_async.backfill import SessionStore, backfill
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.real_sessions import TRONDHEIM, read_trondheim

MONTHS = """
SELECT strftime(plug_in_time, '%Y-%m') AS month, count(*) AS sessions, sum(energy_charged_kwh) AS kwh
FROM sessions WHERE withdrawn_at IS NULL GROUP BY month ORDER BY month
"""
BLIPS = """
SELECT count(*) FILTER (unplug_time - plug_in_time < INTERVAL 5 MINUTES) / count(unplug_time) AS share
FROM sessions WHERE withdrawn_at IS NULL
"""
BUSIEST = """
SELECT hour(plug_in_time) AS hour, count(*) AS sessions
FROM sessions WHERE withdrawn_at IS NULL GROUP BY hour ORDER BY sessions DESC LIMIT 1
"""


def _records() -> list[tuple[datetime, datetime | None, float]]:
    """Read the file as it is, with nothing of the library in between."""

    def utc(text: str) -> datetime:
        day, clock = text.split(" ")
        d, m, y = map(int, day.split("."))
        h, minute = map(int, clock.split(":"))
        return datetime(y, m, d, h, minute, tzinfo=ZoneInfo("Europe/Oslo")).astimezone(UTC)

    with TRONDHEIM.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file, delimiter=";"))
    at = {name: number for number, name in enumerate(lines[0])}
    return [
        (
            utc(line[at["Start_plugin"]]),
            None if line[at["End_plugout"]] == "NA" else utc(line[at["End_plugout"]]),
            0.0 if line[at["El_kWh"]] == "NA" else float(line[at["El_kWh"]].replace(",", ".")),
        )
        for line in lines[1:]
    ]


@pytest.mark.skipif(not TRONDHEIM.exists(), reason="the data set is not at hand")
async def test_three_questions_about_real_sessions(path: Path) -> None:
    """An analyst must get from SQL what the source says: energy a month, blips, and the busiest hour."""
    records = _records()
    async with PoderoSimulator(rows=read_trondheim(TRONDHEIM)) as sim, client_of(sim) as client:
        async with SessionStore(path) as store:
            report = await backfill(client, store, date(2018, 12, 1), date(2020, 2, 29))
            assert report.is_clean
            assert (report.vehicles, report.new) == (97, len(records))

            sessions, kwh = Counter[str](), defaultdict[str, float](float)
            for start, _, energy in records:
                sessions[f"{start:%Y-%m}"] += 1
                kwh[f"{start:%Y-%m}"] += energy
            months = await store.query(MONTHS)
            assert {row["month"]: row["sessions"] for row in months} == sessions
            assert {row["month"]: row["kwh"] for row in months} == pytest.approx(kwh, rel=1e-12)

            lengths = [end - start for start, end, _ in records if end is not None]
            (blips,) = await store.query(BLIPS)
            assert blips["share"] == sum(length < timedelta(minutes=5) for length in lengths) / len(lengths)

            (busiest,) = await store.query(BUSIEST)
            ((hour, count),) = Counter(start.hour for start, _, _ in records).most_common(1)
            assert (busiest["hour"], busiest["sessions"]) == (hour, count)

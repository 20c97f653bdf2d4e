"""Years of a fleet whose API misbehaves, against stores that must say nothing false.
`python -m tests.year SEED` replays one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.year.simulation import Year

DAYS = 7
EVENTS = {
    "a consumer reads during a run",
    "a vehicle dies",
    "accident: cancel",
    "accident: kill after an operation",
    "accident: kill at a moment",
    "accident: stop",
    "change during a run",
    "current session's plug-in corrected",
    "days settled",
    "energy corrected",
    "hidden",
    "hidden: always",
    "hidden: mixed",
    "hidden: never",
    "listed",
    "listed hours after its end",
    "listed without an end",
    "local clock wrong",
    "moved to another vehicle",
    "neither current nor listed when its day settles",
    "one of two users remains",
    "pause of weeks",
    "plug-in corrected",
    "plug-in corrected across midnight",
    "plug-in corrected by days",
    "plugged in for two months",
    "plugged in for weeks",
    "returned",
    "rows withdrawn",
    "run: clean",
    "run: finished",
    "run: unfinished",
    "run: the API is down",
    "savings",
    "schedule: ds",
    "schedule: fixed",
    "schedule: weekly",
    "schedule: weekly windows",
    "schedule: yesterday",
    "sessions on settled days",
    "sessions that came to a settled day",
    "shown again",
    "store of an older release",
    "two shards",
    "two users list a vehicle",
    "user was deleted",
    "vehicle came",
    "vehicle changed its user",
    "vehicle left",
    "verdict: repaired",
    "verdict: unproven",
    "verdict: verified",
    "weather: a user's vehicles are missing",
    "weather: a user's vehicles fail",
    "weather: a vehicle fails",
    "weather: clear",
    "weather: connections lost",
    "weather: counts wrong",
    "weather: current fails",
    "weather: damaged rows",
    "weather: down",
    "weather: lists nothing for all",
    "weather: lists nothing for one",
    "weather: no order",
    "weather: no users",
    "weather: overloaded",
    "weather: sessions fail",
    "weather: slow",
    "weather: small pages",
    "weather: spoilt bodies",
    "weather: throttled",
    "weather: tokens revoked",
    "weather: users fail",
    "withdrawn",
}
"""The events that must occur in the years, so that each of them is tested."""

Report = Callable[[str, object], None]


@pytest.mark.parametrize("seed", [8, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (4, 10))])
def test_a_few_weeks_leave_the_stores_right(seed: int, tmp_path: Path, record_property: Report) -> None:
    """After each run of a few weeks, and at their end, a store keeps every invariant."""
    record_property("figure", _summary(Year(seed, DAYS, tmp_path).run()))


@pytest.mark.slow
def test_a_seed_determines_a_year(tmp_path: Path) -> None:
    """Two runs of a seed leave the same rows and the same coverage after every backfill."""
    digests = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        year = Year(8, 3, tmp_path / name)
        year.run()
        digests.append(year.digest.hexdigest())
    assert digests[0] == digests[1]


@pytest.mark.soak
def test_a_year_leaves_the_stores_right(tmp_path: Path, record_property: Report) -> None:
    """After each run of a year, a store keeps every invariant."""
    record_property("figure", _summary(Year(1, 365, tmp_path).run()))


@pytest.mark.soak
def test_every_kind_of_event_strikes(tmp_path: Path, record_property: Report) -> None:
    """Over at most 40 seeds of two months, every kind of event occurs, and the stores keep every invariant."""
    figures: Counter[str] = Counter()
    for seed in range(332, 372):
        figures.update(Year(seed, 60, tmp_path).run())
        if all(figures[event] for event in EVENTS):
            break
    assert not [event for event in EVENTS if not figures[event]]
    record_property("figure", _summary(figures))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_200_years_leave_the_stores_right(seed: int, tmp_path: Path, soak_scale: float) -> None:
    """After each run of 200 years, a store keeps every invariant."""
    Year(seed, round(365 * soak_scale), tmp_path).run()


def _summary(figures: Counter[str]) -> str:
    runs = sum(number for name, number in figures.items() if name.startswith("run: "))
    return (
        f"{runs:,} runs, {figures['listed']:,} sessions, {figures['days settled']:,} days settled,"
        f" {figures['rows withdrawn']:,} rows withdrawn, {figures['requests']:,} requests"
    )

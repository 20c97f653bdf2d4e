"""The alarms of a run: their bounds and their lines."""

from __future__ import annotations

import pytest

from podero_async.backfill import Bounds
from podero_async.backfill._alarms import (
    FailureCounts,
    Vanished,
    failed_alarms,
    rejected_alarm,
    too_many_absent,
    too_many_vanished,
    vanished_alarm,
    withdrawn_alarm,
)

BOUNDS = Bounds()


@pytest.mark.parametrize(
    ("vanished", "known", "is_too_many"),
    [(0, 0, False), (1, 1, True), (1, 2, False), (2, 2, True), (1, 5, False), (2, 20, False), (3, 20, True)],
)
def test_a_fleet_that_vanishes_is_too_many(vanished: int, known: int, is_too_many: bool) -> None:
    """Beyond the bound, two vehicles are too many, or one that is the whole fleet; at a bound of 1, none is."""
    assert too_many_vanished(vanished, known, BOUNDS.max_vanished) == is_too_many
    assert not too_many_vanished(vanished, known, 1)


@pytest.mark.parametrize(
    ("absent", "live", "is_too_many"),
    [(0, 0, False), (1, 1, False), (2, 2, True), (9, 10, False), (11, 11, True), (11, 220, False), (12, 220, True)],
)
def test_many_sessions_that_are_absent_are_too_many(absent: int, live: int, is_too_many: bool) -> None:
    """Up to ten sessions are too many only if they are all sessions of the days read, and more than one."""
    assert too_many_absent(absent, live, BOUNDS.max_withdrawn) == is_too_many
    assert not too_many_absent(absent, live, 1)


@pytest.mark.parametrize(
    ("counts", "alarms"),
    [
        (FailureCounts(vehicles=0, failed=0, unproven=0, long_failed=0), 0),
        (FailureCounts(vehicles=0, failed=1, unproven=0, long_failed=0), 1),
        (FailureCounts(vehicles=10, failed=1, unproven=0, long_failed=0), 1),
        (FailureCounts(vehicles=10, failed=1, unproven=0, long_failed=1), 0),
        (FailureCounts(vehicles=10, failed=2, unproven=0, long_failed=1), 1),
        (FailureCounts(vehicles=10, failed=2, unproven=0, long_failed=2), 1),
        (FailureCounts(vehicles=100, failed=1, unproven=1, long_failed=0), 0),
        (FailureCounts(vehicles=100, failed=2, unproven=1, long_failed=0), 2),
        (FailureCounts(vehicles=100, failed=4, unproven=1, long_failed=5), 0),
        (FailureCounts(vehicles=100, failed=4, unproven=2, long_failed=6), 2),
    ],
)
def test_many_vehicles_that_failed_are_too_many(counts: FailureCounts, alarms: int) -> None:
    """Failed and unproven vehicles count together; a few that have failed for days do not count."""
    assert len(failed_alarms(counts, BOUNDS)) == alarms
    assert failed_alarms(counts, Bounds(max_failed=1)) == [] or not counts.vehicles


@pytest.mark.parametrize(
    ("stored", "lately", "received", "rejected", "is_alarm"),
    [
        (0, 0, 0, 0, False),
        (1, 1, 1_000, 1, True),
        (1, 1, 0, 0, True),
        (9, 0, 0, 0, False),
        (1, 0, 9, 1, False),
        (2, 0, 9, 2, True),
        (5, 0, 95, 5, False),
        (6, 0, 94, 6, True),
    ],
)
def test_unreadable_rows_that_are_new_or_many_are_an_alarm(
    stored: int, lately: int, received: int, rejected: int, is_alarm: bool
) -> None:
    """An unreadable row is an alarm for three days, also if an earlier run has read it; many of them always are."""
    counts = FailureCounts(vehicles=1, failed=0, unproven=0, long_failed=0, rejected=stored, lately_rejected=lately)
    assert bool(rejected_alarm(counts, received, rejected)) == is_alarm


def test_an_alarm_says_what_to_do() -> None:
    """Each alarm has the numbers, the bound, and the option to pass."""
    (line,) = vanished_alarm(Vanished(1_200, 1_000, is_recorded=False), BOUNDS)
    assert line == (
        "1,000 of 1,200 known vehicles are no longer listed (at most a share of 0.1 is accepted);"
        " none was recorded as gone: run once with --max-vanished 1 if they have left"
    )
    assert vanished_alarm(Vanished(1_200, 100, is_recorded=True), BOUNDS) == []
    (line,) = withdrawn_alarm(50, 60, Bounds(max_withdrawn=0))
    assert line.startswith("50 of 60 stored sessions were no longer listed (none is accepted); none was withdrawn")
    assert withdrawn_alarm(5, 60, BOUNDS) == []
    (line,) = failed_alarms(FailureCounts(vehicles=10, failed=0, unproven=3, long_failed=0), BOUNDS)
    assert line.startswith("3 of 10 vehicles were not proven complete (at most a share of 0.02")

"""Summaries: sums by group, months and days of a time zone, nulls, and the partner's question of the README."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podero_async import (
    NotFoundError,
    SessionOutcome,
    SessionTotals,
    VehicleFailure,
    summarize,
)
from podero_async.backfill import SessionStore, backfill
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.made_outcomes import outcome_of, session_of

VIENNA = ZoneInfo("Europe/Vienna")
SUMS = ("energy_charged_kwh", "actual_cost_eur", "expected_savings_eur", "actual_savings_eur")
NULLS = (
    "sessions_without_energy",
    "sessions_without_cost",
    "sessions_without_expected_savings",
    "sessions_without_savings",
)
VALUES = st.none() | st.floats(-1000, 1000)


def test_all_sessions_are_one_group_without_a_name() -> None:
    """Without a name, the totals of all sessions have the key `()`, even those of an empty list."""
    outcomes = [outcome_of(1, session_of(1), session_of(2, actual_savings_eur=None)), outcome_of(2, session_of(3))]
    assert summarize(outcomes) == {
        (): SessionTotals(
            sessions=3,
            energy_charged_kwh=120.0,
            actual_cost_eur=24.0,
            expected_savings_eur=6.0,
            actual_savings_eur=3.0,
            sessions_without_savings=1,
        )
    }
    assert summarize([]) == {(): SessionTotals()}
    assert summarize([], "month") == {}


@given(values=st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), max_size=8))
def test_sums_leave_nulls_out_and_count_them(values: list[tuple[float | None, ...]]) -> None:
    """Each sum is that of the known values to the last digit, or None without any; nulls are counted by field."""
    sessions = [session_of(number, **dict(zip(SUMS, row, strict=True))) for number, row in enumerate(values)]
    totals = summarize(sessions)[()]
    for name, nulls, column in zip(SUMS, NULLS, zip(*values, strict=True), strict=False):
        known = [value for value in column if value is not None]
        assert getattr(totals, nulls) == len(column) - len(known)
        if known:
            assert getattr(totals, name) == pytest.approx(math.fsum(known), rel=1e-15, abs=1e-12)
        else:
            assert getattr(totals, name) is None


def test_the_order_of_sessions_does_not_change_a_sum() -> None:
    """Small amounts beside a large one are not lost."""
    amounts = [1e16, *[0.25] * 8, -1e16]
    sessions = [session_of(number, actual_savings_eur=amount) for number, amount in enumerate(amounts)]
    assert summarize(sessions)[()].actual_savings_eur == 2.0


@pytest.mark.parametrize(
    ("moment", "zone", "day"),
    [
        (datetime(2026, 9, 30, 22, tzinfo=UTC), "Europe/Vienna", date(2026, 10, 1)),  # two hours ahead in summer
        (datetime(2026, 9, 30, 21, 59, 59, tzinfo=UTC), "Europe/Vienna", date(2026, 9, 30)),
        (datetime(2026, 10, 31, 23, tzinfo=UTC), VIENNA, date(2026, 11, 1)),  # one hour ahead in winter
        (datetime(2026, 10, 31, 22, 59, 59, tzinfo=UTC), VIENNA, date(2026, 10, 31)),
        (datetime(2026, 10, 1, 1, tzinfo=timezone(timedelta(hours=2))), UTC, date(2026, 9, 30)),
        (datetime(9999, 12, 31, 23, 59, tzinfo=UTC), VIENNA, date(9999, 12, 31)),
        (datetime(1, 1, 1, tzinfo=UTC), "America/New_York", date(1, 1, 1)),
    ],
)
def test_days_and_months_are_those_of_the_time_zone(moment: datetime, zone: tzinfo | str, day: date) -> None:
    """A session belongs to the day and month of its plug-in by the clock of the time zone, summer time included."""
    found = summarize([session_of(1, plug_in_time=moment)], ("month", "day"), time_zone=zone)
    assert list(found) == [(day.replace(day=1), day)]


def test_groups_have_the_keys_that_were_asked_for() -> None:
    """One name makes plain keys, several make tuples; groups come in order of first appearance."""
    new = SessionOutcome("new_outcome")
    outcomes = [outcome_of(1, session_of(1, session_outcome=new), session_of(2)), outcome_of(2, session_of(3))]
    one, other = (outcome.vehicle for outcome in outcomes)
    assert {key: totals.sessions for key, totals in summarize(outcomes, "vehicle_id").items()} == {
        one.vehicle_id: 2,
        other.vehicle_id: 1,
    }
    assert list(summarize(outcomes, "session_outcome")) == ["new_outcome", SessionOutcome.OPTIMIZED]
    by_both = summarize(outcomes, ["user_id", "session_outcome"])
    assert list(by_both) == [(one.user_id, new), (one.user_id, "optimized"), (other.user_id, "optimized")]
    assert list(summarize([session_of(1)], "user_id")) == [None]


@pytest.mark.parametrize(
    "arguments",
    [{"by": "outcome"}, {"by": ("month", "week")}, {"by": "month", "time_zone": "Europe/Wien"}, {"time_zone": "../x"}],
)
def test_unknown_names_are_refused(arguments: dict[str, Any]) -> None:
    """An unknown name of a group or of a time zone raises a `ValueError` that shows it."""
    with pytest.raises(ValueError, match=r"'(outcome|week|Europe/Wien|\.\./x)'"):
        summarize([], **arguments)


@pytest.mark.parametrize("arguments", [{"by": None}, {"time_zone": None}, {"time_zone": 3}, {"on_failure": "print"}])
def test_arguments_of_the_wrong_kind_are_refused(arguments: dict[str, Any]) -> None:
    """An argument of the wrong kind, or one outcome instead of an iterable, raises a `ValueError` that names it."""
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))} must be"):
        summarize([], **arguments)
    with pytest.raises(ValueError, match=r"^items must be"):
        summarize(outcome_of(1))  # type: ignore[arg-type]


def test_a_sum_that_is_too_large_is_infinite() -> None:
    """A sum beyond the largest float is infinite, and not NaN; in JSON, which has no infinity, it is null."""
    totals = summarize([session_of(1, actual_cost_eur=1e308)] * 3)[()]
    assert totals.actual_cost_eur == math.inf
    assert json.loads(totals.to_json())["actual_cost_eur"] is None


def test_a_failure_is_raised_or_collected() -> None:
    """The error of a failure is raised, unless `on_failure` takes the failure."""
    failure = VehicleFailure(user_id=UUID(int=9), vehicle=None, error=NotFoundError(404, "not found", "GET", "/users"))
    with pytest.raises(NotFoundError):
        summarize([failure])
    failures: list[VehicleFailure] = []
    assert summarize([failure, outcome_of(1, session_of(1))], on_failure=failures.append)[()].sessions == 1
    assert failures == [failure]


# --- the same figures as SQL ------------------------------------------------------------------------------------------

_SQL = f"""
SELECT user_id, date_trunc('month', plug_in_time AT TIME ZONE 'Europe/Vienna')::DATE AS "month", count(*) AS sessions,
    {", ".join(f"fsum({name}) AS {name}" for name in SUMS)},
    {", ".join(f"count(*) FILTER ({name} IS NULL) AS {nulls}" for name, nulls in zip(SUMS, NULLS, strict=True))}
FROM sessions WHERE withdrawn_at IS NULL GROUP BY user_id, "month"
"""


@pytest.mark.slow
async def test_a_summary_has_the_figures_of_the_store(tmp_path: Path) -> None:
    """The sums by customer and month are those that SQL finds in a store of the same fleet, nulls included."""
    async with PoderoSimulator(users=4, vehicles=8, sessions_per_vehicle=200, seed=3) as simulator:
        days = simulator.first_day, simulator.last_day
        async with client_of(simulator) as client, SessionStore(tmp_path / "fleet.duckdb") as store:
            async with client.fetch_fleet(*days) as fleet:
                outcomes = [outcome async for outcome in fleet]
            assert (await backfill(client, store, *days)).is_clean
            stored = await store.query(_SQL)
    summary = summarize(outcomes, ("user_id", "month"), time_zone=VIENNA)
    assert len(summary) == len(stored) > 8
    for row in stored:
        totals = attrs.asdict(summary[UUID(row.pop("user_id")), row.pop("month")])
        assert totals == pytest.approx(row, rel=1e-12)

"""Which days are read: what is not held, and the last ones again."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podero_async.backfill._values import days_needed, merged

JAN = date(2026, 1, 1)


def day(number: int) -> date:
    """Return the day of January that a number means; 32 is the 1st of February."""
    return JAN + timedelta(days=number - 1)


def spans(*pairs: tuple[int, int]) -> list[tuple[date, date]]:
    return [(day(first), day(last)) for first, last in pairs]


@pytest.mark.parametrize(
    ("window", "held", "refresh_days", "needed"),
    [
        ((1, 31), [], 7, [(1, 31)]),
        ((1, 31), [(1, 31)], 0, []),
        ((1, 31), [(1, 31)], 7, [(25, 31)]),
        ((1, 40), [(1, 31)], 7, [(25, 40)]),
        ((1, 40), [(1, 31)], 0, [(32, 40)]),
        ((1, 40), [(1, 31)], 100, [(1, 40)]),
        ((1, 40), [(1, 31)], 1_000_000, [(1, 40)]),
        ((1, 40), [(10, 40)], 3, [(1, 9), (38, 40)]),
        ((1, 60), [(10, 20), (30, 40)], 2, [(1, 9), (21, 29), (39, 60)]),
        ((10, 12), [(1, 31)], 2, [(11, 12)]),
        ((50, 60), [(1, 31)], 7, [(50, 60)]),
    ],
)
def test_missing_days_and_the_last_ones(
    window: tuple[int, int], held: list[tuple[int, int]], refresh_days: int, needed: list[tuple[int, int]]
) -> None:
    """Days that nobody asked for would cost requests; days left out would be missing sessions."""
    (asked,) = spans(window)
    assert days_needed(asked, spans(*held), refresh_days) == spans(*needed)


SPAN = st.tuples(st.integers(1, 60), st.integers(0, 20)).map(lambda pair: (day(pair[0]), day(sum(pair))))


def days_of(pieces: list[tuple[date, date]]) -> set[date]:
    return {first + timedelta(days=number) for first, last in pieces for number in range((last - first).days + 1)}


@given(SPAN, st.lists(SPAN), st.integers(0, 10))
def test_the_plan_is_the_set_of_days_it_stands_for(
    window: tuple[date, date], held: list[tuple[date, date]], refresh_days: int
) -> None:
    """Whatever was held in whatever pieces, the plan must be the missing days and the newest held ones."""
    asked, known = days_of([window]), days_of(held)
    inside = asked & known
    again = {max(inside) - timedelta(days=back) for back in range(refresh_days)} & asked if inside else set()
    needed = days_needed(window, held, refresh_days)
    assert days_of(needed) == (asked - known) | again
    assert needed == merged(needed), "in as few pieces as can be"

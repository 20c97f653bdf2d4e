"""The rules of coverage, against a model that looks at one day after the other."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podero_async.backfill._coverage import (
    Days,
    KnownDays,
    ProvenRead,
    Span,
    asks_current,
    count_days,
    final_day,
    fold,
    needs_of,
    settle_to,
    stale_limits,
    unread_days,
)
from tests._support.expected_rows import utc

FIRST = date(2026, 1, 1)
LENGTH = 120
GAP = 30


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def spans() -> st.SearchStrategy[list[Days]]:
    bound = st.integers(0, LENGTH)
    pairs = st.tuples(bound, bound).map(lambda pair: (day(min(pair)), day(max(pair))))
    return st.lists(pairs, max_size=3)


KNOWN = st.builds(KnownDays, settled=spans(), fresh=spans(), stale=spans(), suspect=spans(), failed=spans())


def days_in(found: list[Days]) -> set[date]:
    return {start + timedelta(days=n) for start, end in found for n in range((end - start).days + 1)}


@settings(max_examples=40)
@given(
    known=KNOWN,
    bounds=st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)),
    today=st.integers(0, LENGTH),
    age=st.integers(1, 60),
    group=st.integers(0, 6),
)
def test_a_vehicle_needs_the_days_that_a_model_needs(
    known: KnownDays, bounds: tuple[int, int], today: int, age: int, group: int
) -> None:
    """The needs have each missing, stale, failed and suspect day;
    other days only in gaps that are shorter than a request is worth.
    """
    window, final = (day(min(bounds)), day(max(bounds))), day(today - age)
    settled, fresh, stale = map(days_in, (known.settled, known.fresh, known.stale))
    wanted = set()
    for number in range(-1, LENGTH + 2):
        each = day(number)
        is_known = each in settled or each in fresh
        is_missing = window[0] <= each <= window[1] and not is_known
        is_stale = (each in stale and not is_known) or each in days_in(known.failed)
        near = {each - timedelta(days=1), each, each + timedelta(days=1)}
        if each <= day(today) and (is_missing or (is_stale and each <= window[1]) or near & days_in(known.suspect)):
            wanted.add(each)

    needs = needs_of(known, window, today=day(today), final=final, group=group)

    read = [(need.from_date, need.to_date) for need in needs]
    assert wanted <= days_in(read)
    for need in needs:
        assert {need.from_date, need.to_date} <= wanted
        inside = sorted(each for each in wanted if need.from_date <= each <= need.to_date)
        assert all((other - one).days - 1 <= GAP for one, other in pairwise(inside))
        unsettled = sorted(days_in([(need.from_date, need.to_date)]) - settled)
        assert need.asks_current == asks_current(unsettled[0] if unsettled else None, final, day(today), group)
    for one, other in pairwise(read):
        assert (other[0] - one[1]).days - 1 > GAP


@given(known=KNOWN, bounds=st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)))
def test_each_day_is_counted_once(known: KnownDays, bounds: tuple[int, int]) -> None:
    """Each day of a window counts once: as settled, else as provisional, else as missing."""
    window = (day(bounds[0]), day(bounds[1]))
    inside, settled = days_in([window]), days_in(known.settled)
    provisional = days_in([*known.fresh, *known.stale]) - settled
    found = count_days(known, window)
    assert (found.settled, found.provisional) == (len(inside & settled), len(inside & provisional))
    assert found.missing == len(inside - settled - provisional)


@given(
    at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - Hypothesis adds the zone
    hours=st.integers(-14, 14),
    settle_days=st.integers(0, 400),
)
def test_the_final_day_ended_long_enough_ago(at: datetime, hours: int, settle_days: int) -> None:
    """The final day's end is at least `settle_days` before the time, and the next day's is not, in every time zone."""
    moment = at.replace(tzinfo=timezone(timedelta(hours=hours)))
    final = final_day(moment, settle_days)
    end = datetime(final.year, final.month, final.day, tzinfo=UTC) + timedelta(days=1)
    assert end + timedelta(days=settle_days) <= moment < end + timedelta(days=settle_days + 1)


@pytest.mark.parametrize(
    ("plugged_in_at", "settles"),
    [
        (None, day(50)),
        (datetime(2026, 3, 1, tzinfo=UTC), day(50)),
        (datetime(2026, 1, 11, 0, 30, tzinfo=timezone(timedelta(hours=1))), day(8)),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), None),
        (datetime(1, 1, 1, tzinfo=UTC), None),
    ],
)
def test_no_day_settles_from_the_plug_in_of_the_current_session_on(
    plugged_in_at: datetime | None, settles: date | None
) -> None:
    """A read settles the days before the UTC day on which the current session was plugged in; a null time settles none."""
    assert settle_to(day(50), plugged_in_at) == settles


@pytest.mark.parametrize("group", range(7))
def test_each_vehicle_asks_once_a_week(group: int) -> None:
    """Nightly runs ask for a vehicle's current session once a week, and settle a week at a time."""
    settled_to, asked = day(40), []
    for number in range(60, 60 + 70):
        today = day(number)
        final = today - timedelta(days=20)
        if asks_current(settled_to + timedelta(days=1), final, today, group):
            asked.append((final - settled_to).days)
            settled_to = final
    assert set(asked[1:]) == {7}
    assert len(asked) >= 9
    assert 1 <= asked[0] <= 7


def test_a_vehicle_with_settled_days_does_not_ask() -> None:
    """The current session is asked for only if a day can settle; days that are overdue by a week ask at once."""
    assert not asks_current(None, day(50), day(80), 0)
    assert not any(asks_current(day(51), day(50), day(80), group) for group in range(7))
    assert all(asks_current(day(44), day(50), day(80), group) for group in range(7))
    assert sum(asks_current(day(50), day(50), day(80), group) for group in range(7)) == 1


@pytest.mark.parametrize("hours", [0, 12, 24])
def test_old_days_are_stale_after_a_week(hours: int) -> None:
    """A day that is overdue by over a week is read again after 13 times as long as others: by default, once a week."""
    now = datetime(2026, 3, 1, 2, tzinfo=UTC)
    fresh_since, old_since, old_day = stale_limits(now, timedelta(hours=hours), date(2026, 1, 29))
    assert fresh_since == now - timedelta(hours=hours)
    assert old_since == now - timedelta(hours=13 * hours)
    assert old_day == date(2026, 1, 22)


def test_known_days_are_read_from_a_text() -> None:
    """The spans of a text keep their states."""
    text = (
        "s2026-01-01/2026-01-31 f2026-02-01/2026-02-01 p2026-02-02/2026-02-05"
        " a2026-02-03/2026-02-03 m2026-02-04/2026-02-05"
    )
    known = KnownDays.parse(text)
    assert (known.settled, known.fresh) == ([(day(0), day(30))], [(day(31), day(31))])
    assert (known.stale, known.suspect) == ([(day(32), day(35))], [(day(33), day(33))])
    assert known.failed == [(day(34), day(35))]
    assert (known.first, KnownDays.parse("").first) == (day(0), None)


def test_days_at_the_ends_of_the_calendar_do_not_overflow() -> None:
    """The first day of the calendar can be suspect; its neighbor before is left out."""
    known = KnownDays([], [], [], [(date.min, date.min)])
    needs = needs_of(known, (day(5), day(5)), today=day(9), final=day(0), group=0)
    assert [(need.from_date, need.to_date) for need in needs] == [(date.min, date(1, 1, 2)), (day(5), day(5))]


def test_an_unsettled_day_outside_the_read_changes_nothing() -> None:
    """A session without an end may be listed on any day, even the last one that Python has."""
    at = utc(2026, 3, 1)
    known = [Span(date(2026, 1, 1), date(2026, 1, 9), True, at)]
    read = ProvenRead(date(2026, 1, 10), date(2026, 1, 12), date(2026, 1, 12), at, False)
    unsettled = [(date.max, date.max), (date(2025, 1, 1), date(2025, 1, 1)), (date(2026, 1, 3), date(2026, 1, 3))]
    assert fold(known, [read], unsettled) == [
        Span(date(2026, 1, 1), date(2026, 1, 2), True, at),
        Span(date(2026, 1, 3), date(2026, 1, 3), False, at),
        Span(date(2026, 1, 4), date(2026, 1, 12), True, at),
    ]


def test_days_without_a_read_or_a_failure_are_unread() -> None:
    """Days of the window are unread if no span has them, unless a failure explains them."""
    known = KnownDays.parse("s2026-01-01/2026-01-03 p2026-01-04/2026-01-05 m2026-01-06/2026-01-07")
    assert unread_days(known, (date(2026, 1, 1), date(2026, 1, 10))) == 3
    assert unread_days(known, (date(2026, 1, 1), date(2026, 1, 7))) == 0
    assert unread_days(known, (date(2026, 1, 10), date(2026, 1, 9))) == 0

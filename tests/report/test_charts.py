"""Charts: scales and ticks, labels that have space, axes of days, bars and steps."""

from __future__ import annotations

import math
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podero_async.report._charts import (
    WIDTHS,
    Bar,
    Label,
    Scale,
    bars_of,
    day_labels,
    filled,
    level_of,
    levels_of,
    spaced,
    step_path,
)

DAYS = st.dates(date(1, 1, 1), date(9999, 12, 31))
LETTER_PX = 7


def extents(labels: list[Label], width_px: float) -> list[tuple[float, float]]:
    """Return where labels begin and end, in pixels."""
    found = []
    for label in labels:
        at, length = label.x * width_px / 100, len(label.text) * LETTER_PX
        start = {"start": at, "middle": at - length / 2, "end": at - length}[label.anchor]
        found.append((start, start + length))
    return found


def labels_of(first: date, last: date, width_px: float = WIDTHS["wide"]) -> list[Label]:
    """Return the labels of an axis on which all days have the same width."""
    length = (last - first).days + 1
    return day_labels(first, last, lambda day: 100 * (day - first).days / length, width_px)


def texts_of(labels: list[Label]) -> list[str]:
    return [label.text for label in labels]


@given(values=st.lists(st.none() | st.floats(-1e300, 1e300), max_size=20), whole=st.booleans())
def test_a_scale_holds_all_values(values: list[float | None], whole: bool) -> None:
    """The ticks are few, begin at or below the lowest value, end at or above the highest, and one of them is 0."""
    scale = Scale.of(values, 100, whole=whole)
    known = [value for value in values if value is not None]
    assert 0 in scale.ticks
    assert len(scale.ticks) <= 7
    assert all(0 <= scale.y(value) <= 100 for value in known)
    if whole:
        assert all(tick == round(tick) for tick in scale.ticks)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([], (0,)),
        ([0, None, 0], (0,)),
        ([math.inf, math.nan], (0,)),
        ([3], (0, 1, 2, 3)),
        ([0.07], (0, 0.02, 0.04, 0.06, 0.08)),
        ([90, 412], (0, 200, 400, 600)),
        ([-30, 100], (-50, 0, 50, 100)),
        ([7.2e15], (0, 2e15, 4e15, 6e15, 8e15)),
    ],
)
def test_ticks_are_round_numbers(values: list[float | None], ticks: tuple[float, ...]) -> None:
    """Steps between ticks are 1, 2 or 5 times a power of ten; without a value other than 0, the only tick is 0."""
    assert Scale.of(values, 100).ticks == pytest.approx(ticks)


@given(
    spans=st.lists(st.tuples(st.text(min_size=1, max_size=12), st.floats(0, 100)), max_size=12),
    width_px=st.sampled_from([*WIDTHS.values()]),
)
def test_labels_neither_touch_nor_leave_the_chart(spans: list[tuple[str, float]], width_px: float) -> None:
    """Labels that are given space lie within the width, and apart from each other."""
    spans.sort(key=lambda span: span[1])
    labels = spaced([text for text, _ in spans], [x for _, x in spans], width_px)
    if labels:
        found = extents(labels, width_px)
        assert all(start >= -0.1 and end <= width_px + 0.1 for start, end in found)
        assert all(end < start for (_, end), (start, _) in pairwise(found))


@given(days=st.tuples(DAYS, DAYS), width_px=st.sampled_from([*WIDTHS.values()]))
def test_each_axis_of_days_has_labels(days: tuple[date, date], width_px: float) -> None:
    """From one day to ten thousand years, an axis has at least one label, and they have space."""
    labels = labels_of(min(days), max(days), width_px)
    assert labels
    found = extents(labels, width_px)
    assert all(end < start for (_, end), (start, _) in pairwise(found))


@pytest.mark.parametrize(
    ("first", "last", "texts"),
    [
        (date(2026, 3, 28), date(2026, 3, 28), ["28 Mar 2026"]),
        (date(2026, 3, 28), date(2026, 3, 31), ["28 Mar 2026", "29 Mar", "30 Mar", "31 Mar"]),
        (date(2026, 10, 1), date(2026, 11, 8), ["5 Oct 2026", "12 Oct", "19 Oct", "26 Oct", "2 Nov"]),
        (date(2025, 11, 5), date(2026, 4, 30), ["Dec 2025", "2026", "Feb", "Mar", "Apr"]),
        (date(2026, 1, 1), date(2026, 12, 31), ["2026", "Apr", "Jul", "Oct"]),
        (date(2016, 7, 1), date(2026, 6, 30), [str(year) for year in range(2017, 2027)]),
        (date(1800, 1, 1), date(2026, 6, 30), ["1800", "1850", "1900", "1950", "2000"]),
    ],
)
def test_labels_of_days_are_as_fine_as_the_width_allows(first: date, last: date, texts: list[str]) -> None:
    """One day, days, weeks, months, quarters and years are labelled, and each year is named at its beginning."""
    assert texts_of(labels_of(first, last)) == texts


def test_days_have_one_width_when_clocks_change() -> None:
    """On an axis over the end of summer time, the labels of weeks have equal distances."""
    labels = labels_of(date(2026, 10, 5), date(2026, 11, 8))
    steps = {round(after.x - before.x, 2) for before, after in pairwise(labels)}
    assert len(steps) == 1


def test_bars_stand_on_zero() -> None:
    """Bars of negative values hang below the line of 0, and null has no height."""
    scale = Scale.of([-10, 10], 100)
    assert list(scale.ticks) == [-10, -5, 0, 5, 10]
    assert bars_of([10, -5, None, 0], scale, gap=0.5) == [
        Bar(6.25, 0, 12.5, 50),
        Bar(31.25, 50, 12.5, 25),
        Bar(56.25, 50, 12.5, 0),
        Bar(81.25, 50, 12.5, 0),
    ]


def test_steps_leave_out_empty_ones() -> None:
    """The path has a closed area for each step that does not lie on the base line."""
    assert step_path([(0, 1, 40), (1, 2, 100), (2, 4, 0)], 100) == "M0 100V40H1V100ZM2 100V0H4V100Z"


def test_gaps_of_a_series_are_filled_unless_they_are_huge() -> None:
    """Weeks without sessions are in the axis; a wrong clock's session in the year 1 does not add two thousand years."""

    def next_week(week: date) -> date:
        return week + timedelta(days=7)

    weeks = [date(2026, 1, 5), date(2026, 1, 26)]
    assert filled(weeks, next_week) == [date(2026, 1, day) for day in (5, 12, 19, 26)]
    assert filled([date(1, 1, 1), *weeks], next_week) == [date(1, 1, 1), *weeks]
    assert filled([], next_week) == []


@given(peak=st.integers(0, 10**12), value=st.integers(0, 10**12))
def test_levels_part_the_values(peak: int, value: int) -> None:
    """Each value up to the peak is within the bounds of its level, and 0 has the level 0."""
    value = min(value, peak)
    level = level_of(value, peak, 6)
    if value:
        assert [known for known, low, high in levels_of(peak, 6) if low <= value <= high] == [level]
    else:
        assert level == 0

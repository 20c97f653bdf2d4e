"""Charts as numbers: scales with round ticks, labels that do not overlap, and the shapes of bars and steps.

Positions along a chart are percentages of its width, heights are pixels. So a chart has any width, and its texts
keep their size. Labels are chosen for a least width; a page has a set of them for each of `WIDTHS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from types import MappingProxyType
from typing import Literal

import attrs

__all__ = [
    "WIDTHS",
    "Bar",
    "Label",
    "Scale",
    "are_bars",
    "bars_of",
    "day_labels",
    "filled",
    "level_of",
    "levels_of",
    "spaced",
    "step_path",
]

WIDTHS = MappingProxyType({"narrow": 240, "wide": 490, "large": 950})
"""The least widths of the sets of labels, in pixels. The page's style shows the one for the width of the chart."""
_LETTER_PX = 7.0
"""The width of a digit in the page's labels; most letters are narrower."""
_SPACE_PX = 12.0
_MIN_VALUE = 1e-9
"""Smaller amounts are drawn as 0."""
_MAX_BAR_WIDTH = 15.0
"""Few bars have larger gaps between them."""
_MAX_BARS = 60
"""More values are drawn as steps without gaps."""
_DAYS_OF_WEEKS, _DAYS_OF_MONTHS = 500, 40 * 366
"""Longer axes have no labels for weeks, or for months."""


@attrs.frozen
class Label:
    """A text at an axis of positions."""

    x: float
    text: str
    anchor: Literal["start", "middle", "end"] = "middle"


@attrs.frozen
class Bar:
    """A bar of a chart; the width is a percentage, too."""

    x: float
    y: float
    width: float
    height: float


@attrs.frozen
class Scale:
    """Heights of values: from the lowest to the highest tick, both of which are round numbers; 0 is one of the ticks."""

    height: float
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None], height: float, *, whole: bool = False) -> Scale:
        """Return a scale for values; without any but 0, its only tick is 0.

        Args:
            values: None and infinite values count as 0.
            height: Of the chart.
            whole: Whether all values are whole numbers, so that the ticks must be.
        """
        known = [0.0, *map(_finite, values)]
        low, high = min(known), max(known)
        if low == high:
            return cls(height, (0.0,))
        step = _step((high - low) / 4)
        if whole:
            step = max(1.0, step)
        first, last = math.floor(low / step), math.ceil(high / step)
        return cls(height, tuple(number * step for number in range(first, last + 1)))

    def y(self, value: float | None) -> float:
        """Return the distance of a value from the top."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.height if low == high else round(self.height * (high - _finite(value)) / (high - low), 2)


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) and abs(value) > _MIN_VALUE else 0.0


def _step(least: float) -> float:
    """Return the next of 1, 2, 5, 10, ... that is at least the given one."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def bars_of(values: Sequence[float | None], scale: Scale, *, gap: float = 0.25) -> list[Bar]:
    """Return bars of equal width from 0 to the values, with `gap` of the width between them; None has no height."""
    step, zero = 100 / max(1, len(values)), scale.y(0)
    gap = max(gap, 1 - _MAX_BAR_WIDTH / step)
    tops = [scale.y(value) for value in values]
    return [
        Bar(round(step * (number + gap / 2), 3), min(top, zero), round(step * (1 - gap), 3), round(abs(zero - top), 2))
        for number, top in enumerate(tops)
    ]


def are_bars(values: Sequence[object]) -> bool:
    """Return whether values are few enough for bars with gaps."""
    return len(values) <= _MAX_BARS


def step_path(spans: Iterable[tuple[float, float, float]], base: float) -> str:
    """Return an SVG path of the area between steps and a base line.

    Args:
        spans: The left and right end of each step, and its distance from the top.
        base: The distance of the base line from the top.
    """
    return "".join(f"M{left:g} {base:g}V{top:g}H{right:g}V{base:g}Z" for left, right, top in spans if top != base)


def spaced(texts: Sequence[str], positions: Sequence[float], width_px: float) -> list[Label] | None:
    """Return labels at positions, moved into the chart at its ends; None if two of them would touch each other."""
    labels, end = [], -math.inf
    for text, x in zip(texts, positions, strict=True):
        half, middle = len(text) * _LETTER_PX / 2, x * width_px / 100
        if middle < half:
            anchor: Literal["start", "middle", "end"] = "start"
            left = middle
        elif middle > width_px - half:
            anchor, left = "end", middle - 2 * half
        else:
            anchor, left = "middle", middle - half
        if left < end + _SPACE_PX or left < -half or left + 2 * half > width_px + half:
            return None
        labels.append(Label(round(x, 3), text, anchor))
        end = left + 2 * half
    return labels


def day_labels(
    first: date, last: date, x_of: Callable[[date], float | None], width_px: float, *, by_month: bool = False
) -> list[Label]:
    """Return labels of an axis of days: the finest of days, weeks, months, quarters and years whose labels have space.

    Args:
        first: First day.
        last: Last day, inclusive.
        x_of: Returns the position of a day; None if it has none.
        width_px: The least width of the axis.
        by_month: Whether all positions are those of months.
    """
    for days, text_of in _choices(first, last, by_month=by_month):
        placed = [(day, x) for day in days if (x := x_of(day)) is not None]
        for has_year in (True, False):
            years = [day.year for day, _ in placed]
            is_new = [has_year and (number == 0 or years[number - 1] != year) for number, year in enumerate(years)]
            texts = [text_of(day, new) for (day, _), new in zip(placed, is_new, strict=True)]
            if labels := spaced(texts, [x for _, x in placed], width_px):
                return labels
    x = x_of(first)
    text = _month(first, True) if by_month else _year_day(first, True)
    return [] if x is None else spaced([text], [x], width_px) or []


_Texts = Callable[[date, bool], str]


def _choices(first: date, last: date, *, by_month: bool) -> Iterator[tuple[list[date], _Texts]]:
    """Yield the days that may have a label, from many to few, and a function that returns the text of one of them."""
    length = last.toordinal() - first.toordinal() + 1
    if length <= _DAYS_OF_WEEKS and not by_month:
        days = [first + timedelta(days=number) for number in range(length)]
        yield days, _year_day
        yield [day for day in days if day.weekday() == 0], _year_day
    if length <= _DAYS_OF_MONTHS:
        months = [date(year, month, 1) for year in range(first.year, last.year + 1) for month in range(1, 13)]
        months = [month for month in months if first <= month <= last]
        yield months, _month
        yield [month for month in months if month.month in {1, 4, 7, 10}], _month
    for years in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000):
        begin = -(-first.year // years) * years
        starts = [date(year, 1, 1) for year in range(max(1, begin), last.year + 1, years)]
        yield [start for start in starts if start >= first], _year


def _year_day(day: date, is_first: bool) -> str:
    return f"{day.day} {day:%b} {day.year}" if is_first else f"{day.day} {day:%b}"


def _month(day: date, is_first: bool) -> str:
    return str(day.year) if day.month == 1 else f"{day:%b} {day.year}" if is_first else f"{day:%b}"


def _year(day: date, _: bool) -> str:
    return str(day.year)


def filled(known: Sequence[date], following: Callable[[date], date], *, most: int = 1_200) -> list[date]:
    """Return all dates from the first known one to the last; if they would be more than `most`, only the known ones."""
    if not known:
        return []
    dates = [known[0]]
    while dates[-1] < known[-1]:
        if len(dates) == most:
            return list(known)
        dates.append(following(dates[-1]))
    return dates


def level_of(value: int, peak: int, levels: int) -> int:
    """Return the level of a value: 0 for 0, and from 1 to `levels` for equal parts of the way to the highest value."""
    return 0 if value <= 0 or peak <= 0 else -(-value * levels // peak)


def levels_of(peak: int, levels: int) -> list[tuple[int, int, int]]:
    """Return the levels with their lowest and highest values; a level that no whole number has is left out."""
    bounds = [(level, peak * (level - 1) // levels + 1, peak * level // levels) for level in range(1, levels + 1)]
    return [(level, low, high) for level, low, high in bounds if low <= high]

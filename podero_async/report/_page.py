"""The page: the template, the style and the charts' shapes, put together to one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import attrs
import jinja2
from markupsafe import Markup

from podero_async.report import _charts as charts
from podero_async.report import _words as words
from podero_async.report._charts import WIDTHS, Bar, Label, Scale
from podero_async.report._figures import CoveredDays, Report
from podero_async.report._sections import WEEKDAYS, Section, sections_of
from podero_async.report._style import csp_hash, style_text
from podero_async.report._tiles import tiles_of

__all__ = ["page_of"]

_HEIGHT = 190.0
_CELL_PX, _CELL_STEP_PX = 20, 22
_LEVELS = 6
_STRIP_PX = 32


@attrs.frozen(kw_only=True)
class _Plot:
    """The shapes and texts of a chart with a vertical axis."""

    height: float
    unit: str
    ticks: list[tuple[float, str]]
    labels: dict[str, list[Label]]
    layers: list[_Layer]
    keys: tuple[str, ...] = ()
    """The legend: a text for each layer."""


@attrs.frozen(kw_only=True)
class _Layer:
    """Shapes of one kind."""

    kind: str
    bars: list[tuple[Bar, str]] = attrs.field(factory=list)
    """The bars, and the text of each."""
    path: str = ""
    width: float = 100


def page_of(report: Report) -> str:
    """Return the page of a report."""
    style = style_text()
    sections = sections_of(report)
    return _template().render(
        report=report,
        style=Markup(style),  # noqa: S704 - a file of this package
        style_hash=Markup(csp_hash(style)),  # noqa: S704 - a hash
        period=words.period(report.from_date, report.to_date),
        read_at=report.read_at and f"{words.day(report.read_at)}, {report.read_at.astimezone(UTC):%H:%M} UTC",
        tiles=tiles_of(report),
        sections=sections,
        plots={
            "savings-by-month": _months(sections["savings-by-month"], "money"),
            "energy-by-month": _months(sections["energy-by-month"], "energy"),
            "sessions-by-week": _weeks(sections["sessions-by-week"]),
            "hours-plugged-in": _hours(sections["hours-plugged-in"]),
        },
        heat=_heat(report),
        strip=_strip(report),
        percents=_percents,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(
        files("podero_async.report").joinpath("_page.html.jinja").read_text(encoding="utf-8")
    )


def _percents(values: Sequence[float | None]) -> list[float]:
    """Return the lengths of horizontal bars; the longest has 100 percent."""
    peak = max((value or 0 for value in values), default=0)
    return [round(100 * max(0, value or 0) / peak, 2) if peak > 0 else 0 for value in values]


def _for_widths(labels: Callable[[float], list[Label]]) -> dict[str, list[Label]]:
    return {name: labels(width) for name, width in WIDTHS.items()}


def _plot(
    scale: Scale, kind: str, noun: str, labels: Callable[[float], list[Label]], layers: list[_Layer], *keys: str
) -> _Plot:
    step = scale.ticks[1] - scale.ticks[0] if len(scale.ticks) > 1 else 0
    size, unit = words.axis_unit(max(map(abs, scale.ticks)), kind)
    return _Plot(
        height=scale.height,
        unit=" ".join(filter(None, (unit, noun))),
        ticks=[(scale.y(value), words.tick(value / size, step / size)) for value in scale.ticks],
        labels=_for_widths(labels),
        layers=layers,
        keys=keys,
    )


def _layer(kind: str, section: Section, values: Sequence[float | None], scale: Scale) -> _Layer:
    """Return bars, or steps if there are too many for bars."""
    if charts.are_bars(values):
        texts = [": ".join((row[0], ", ".join(_named(section, row)))) for row in section.rows]
        return _Layer(kind=kind, bars=list(zip(charts.bars_of(values, scale), texts, strict=True)))
    spans = ((number, number + 1, scale.y(value)) for number, value in enumerate(values))
    return _Layer(kind=kind, path=charts.step_path(spans, scale.y(0)), width=len(values))


def _named(section: Section, row: Sequence[str]) -> list[str]:
    return [f"{name} {value}" for name, value in zip(section.headings[1:], row[1:], strict=True) if value]


def _months(section: Section, kind: str) -> _Plot:
    scale = Scale.of([*section.values, *section.others], _HEIGHT)
    layers = [_layer("bar", section, section.values, scale)]
    if section.others:
        marks = charts.bars_of(section.others, scale, gap=0.1 if charts.are_bars(section.others) else 0)
        tops = [scale.y(value) for value in section.others]
        shapes = [
            (Bar(bar.x, top - 1, bar.width, 2), "")
            for bar, top, value in zip(marks, tops, section.others, strict=True)
            if value is not None
        ]
        layers.append(_Layer(kind="mark", bars=shapes))
    keys = ("Saved", "Planned") if section.others else ()
    return _plot(scale, kind, "", _labels_of_months(section.dates), layers, *keys)


def _labels_of_months(months: Sequence[date]) -> Callable[[float], list[Label]]:
    position = {month: 100 * (number + 0.5) / len(months) for number, month in enumerate(months)}
    return lambda width: charts.day_labels(months[0], months[-1], position.get, width, by_month=True) if months else []


def _labels_of_days(first: date, last: date) -> Callable[[float], list[Label]]:
    length = last.toordinal() - first.toordinal() + 1

    def x_of(day: date) -> float:
        return 100 * (day.toordinal() - first.toordinal()) / length

    return lambda width: charts.day_labels(first, last, x_of, width)


def _weeks(section: Section) -> _Plot:
    scale = Scale.of(section.values, _HEIGHT, whole=True)
    weeks = section.dates
    # The label of a day is below the bar of its week. Weeks that have none, as there are very many, have no labels either.
    number_of = {week: number for number, week in enumerate(weeks)}

    def x_of(day: date) -> float | None:
        number = number_of.get(day - timedelta(days=day.weekday()))
        return None if number is None else 100 * (number + 0.5) / len(weeks)

    def labels(width: float) -> list[Label]:
        return charts.day_labels(weeks[0], weeks[-1] + timedelta(days=6), x_of, width) if weeks else []

    if not charts.are_bars(section.values) or section.others.count(None) == len(weeks):
        return _plot(scale, "count", "sessions", labels, [_layer("bar", section, section.values, scale)])
    whole = [value if other is None else None for value, other in zip(section.values, section.others, strict=True)]
    layers = [_layer("bar", section, whole, scale), _layer("rest", section, section.others, scale)]
    return _plot(scale, "count", "sessions", labels, layers, "Whole weeks", "Part of a week")


def _hours(section: Section) -> _Plot:
    scale = Scale.of(section.values, _HEIGHT, whole=True)
    nights, all_of = (_layer("bar", section, values, scale) for values in (section.others, section.values))
    # The sessions of the same day stand on those that last past midnight.
    rest = [
        (attrs.evolve(bar, height=round(below.y - bar.y, 2)), text)
        for (bar, text), (below, _) in zip(all_of.bars, nights.bars, strict=True)
    ]
    hours = [*range(0, 19, 3)]

    def labels(width: float) -> list[Label]:
        texts = [*map(str, hours), "24+ h"]
        return charts.spaced(texts, [*(100 * hour / len(section.values) for hour in hours), 98], width) or []

    layers = [nights, _Layer(kind="rest", bars=rest)]
    return _plot(scale, "count", "sessions", labels, layers, "Past midnight", "Same day")


def _heat(report: Report) -> dict[str, Any]:
    peak = max(map(max, report.arrivals))
    hours = range(24)
    cells = [
        {
            "x": round(100 * hour / 24, 3),
            "y": _CELL_STEP_PX * weekday,
            "level": charts.level_of(report.arrivals[weekday][hour], peak, _LEVELS),
            "text": f"{WEEKDAYS[weekday]} {hour:02}:00: {words.number(report.arrivals[weekday][hour])} sessions",
        }
        for weekday in range(7)
        for hour in hours
    ]
    return {
        "cells": cells,
        "size": _CELL_PX,
        "height": _CELL_STEP_PX * 7,
        "weekdays": [(_CELL_STEP_PX * number + _CELL_PX / 2, name) for number, name in enumerate(WEEKDAYS)],
        "labels": [Label(round(100 * (hour + 0.5) / 24, 3), str(hour)) for hour in hours if hour % 3 == 0],
        "legend": [
            (level, words.number(low) if low == high else f"{words.number(low)} to {words.number(high)}")
            for level, low, high in charts.levels_of(peak, _LEVELS)
        ],
    }


def _heights(days: CoveredDays) -> tuple[int, int, int]:
    """Return the heights of the three states in whole pixels; a few missing days can be seen in any case."""
    vehicles = days.settled + days.provisional + days.missing
    if not vehicles:
        return 0, 0, 0
    missing = min(_STRIP_PX, max(2, _STRIP_PX * days.missing // vehicles)) if days.missing else 0
    provisional = min(_STRIP_PX - missing, _STRIP_PX * days.provisional // vehicles)
    return _STRIP_PX - missing - provisional, provisional, missing


def _strip(report: Report) -> dict[str, Any] | None:
    """Return the coverage as three areas, one above the other, over an axis of days."""
    if not report.coverage:
        return None
    first, last = report.coverage[0].from_date, report.coverage[-1].to_date
    paths: dict[str, list[tuple[float, float, float, float]]] = {"settled": [], "provisional": [], "missing": []}
    for each in report.coverage:
        left, right = (each.from_date - first).days, (each.to_date - first).days + 1
        bottom = float(_STRIP_PX)
        for state, height in zip(paths, _heights(each), strict=True):
            paths[state].append((left, right, bottom - height, bottom))
            bottom -= height
    labels = _labels_of_days(first, last)
    return {
        "days": (last - first).days + 1,
        "height": _STRIP_PX,
        "paths": {
            state: "".join(charts.step_path([span[:3]], span[3]) for span in spans) for state, spans in paths.items()
        },
        "labels": _for_widths(labels),
    }

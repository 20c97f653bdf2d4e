"""The sections of a report: titles, findings in words, and tables. The page and the terminal show the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta

import attrs

from podero_async._summary import SessionTotals
from podero_async.report import _words as words
from podero_async.report._charts import filled
from podero_async.report._figures import GroupSavings, GroupTrouble, Report

__all__ = ["WEEKDAYS", "Section", "sections_of"]

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_NOUNS = {"customer": "customer", "vehicle": "vehicle", "price-zone": "price zone"}
_NOTHING_READ = "No day was read yet."
_NO_SESSIONS = "No sessions in this period."
_DAY_HOURS = 24
_STAY_HOURS, _STAY_STEP, _ARRIVAL_HOURS = 6, 3, 2
"""Widths of the spans of hours that findings name."""


@attrs.frozen(kw_only=True)
class Section:
    """A table with a title and a finding."""

    id: str
    title: str
    finding: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    values: tuple[float | None, ...]
    """The figure of each row that a bar shows."""
    others: tuple[float | None, ...] = ()
    """A second figure of each row."""
    dates: tuple[date, ...] = ()
    """The first day of each row."""
    ids: tuple[str, ...] = ()
    """The id for the first cell of each row, if its text does not say which one it is."""
    notes: tuple[str, ...] = ()
    """A text for each row that says in words what the columns say in numbers."""


def sections_of(report: Report) -> dict[str, Section]:
    """Return the sections by their ids, in order."""
    made = [
        *_months(report),
        _weeks(report),
        _arrivals(report),
        _plugged_in(report),
        _outcomes(report),
        _savings(report),
        _troubles(report),
        _coverage(report),
    ]
    if not report.totals.sessions:
        of_sessions = {"energy-by-month", "sessions-by-week", "arrivals", "hours-plugged-in", "outcomes"}
        made = [attrs.evolve(each, finding=_NO_SESSIONS) if each.id in of_sessions else each for each in made]
    return {section.id: section for section in made}


def _next_month(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _months(report: Report) -> Iterator[Section]:
    known = {each.month: each.totals for each in report.months}
    months = filled(list(known), _next_month)
    totals = [known.get(month, SessionTotals()) for month in months]
    names = [f"{month:%B} {month.year}" for month in months]
    energies = [of.energy_charged_kwh for of in totals]
    saved = [of.actual_savings_eur for of in totals]
    yield Section(
        id="savings-by-month",
        title="Savings a month",
        finding=_most("saved", names, saved, words.money) if any(saved) else "No savings are known yet.",
        headings=("Month", "Saved (EUR)", "Planned (EUR)", "Sessions", "Not known yet"),
        rows=tuple(
            (
                name,
                _amount(of.actual_savings_eur),
                _amount(of.expected_savings_eur),
                words.number(of.sessions),
                words.number(of.sessions_without_savings),
            )
            for name, of in zip(names, totals, strict=True)
        ),
        values=tuple(saved),
        others=tuple(of.expected_savings_eur for of in totals),
        dates=tuple(months),
    )
    yield Section(
        id="energy-by-month",
        title="Energy a month",
        finding=_most("charged", names, energies, words.energy) if any(energies) else "No energy is known yet.",
        headings=("Month", "Energy (kWh)", "Cost (EUR)"),
        rows=tuple(
            (name, _amount(of.energy_charged_kwh), _amount(of.actual_cost_eur))
            for name, of in zip(names, totals, strict=True)
        ),
        values=tuple(energies),
        dates=tuple(months),
    )


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}".replace("-", words.MINUS)


def _most(
    verb: str, names: Sequence[str], values: Sequence[float | None], figure: Callable[[float | None], tuple[str, str]]
) -> str:
    """Return a sentence about the highest of several values; empty if there are not two."""
    known = [(value, name) for value, name in zip(values, names, strict=True) if value]
    if len(known) <= 1:
        return ""
    peak, name = max(known)
    return f"Most was {verb} in {name}: {' '.join(figure(peak))}."


def _weeks(report: Report) -> Section:
    known = {each.week: each.sessions for each in report.weeks}
    weeks = filled(list(known), lambda week: week + timedelta(days=7))
    counts = [known.get(week, 0) for week in weeks]
    first, last = report.from_date or date.min, report.to_date or date.max
    is_whole = [first <= week and week + timedelta(days=6) <= last for week in weeks]
    whole = [count for count, is_one in zip(counts, is_whole, strict=True) if is_one]
    return Section(
        id="sessions-by-week",
        title="Sessions a week",
        finding=f"{sum(whole) / len(whole):,.0f} sessions a week on average." if len(whole) > 1 else "",
        headings=("Week from", "Sessions"),
        rows=tuple((words.day(week), words.number(count)) for week, count in zip(weeks, counts, strict=True)),
        values=tuple(counts),
        others=tuple(None if is_one else count for count, is_one in zip(counts, is_whole, strict=True)),
        dates=tuple(weeks),
    )


def _arrivals(report: Report) -> Section:
    return Section(
        id="arrivals",
        title="When cars are plugged in",
        finding=" ".join(filter(None, (_busiest(report, "On weekdays", 0, 5), _busiest(report, "At weekends", 5, 7)))),
        headings=("Hour", *map(str, range(24))),
        rows=tuple((name, *map(words.number, counts)) for name, counts in zip(WEEKDAYS, report.arrivals, strict=True)),
        values=tuple(map(sum, report.arrivals)),
    )


def _busiest(report: Report, when: str, first: int, after: int) -> str:
    counts = tuple(map(sum, zip(*report.arrivals[first:after], strict=True)))
    if not sum(counts):
        return ""
    start, sessions = words.busiest_hours(counts, _ARRIVAL_HOURS)
    hours = words.span_of_hours(start, _ARRIVAL_HOURS)
    return f"{when} most cars arrive from {hours} ({words.share(sessions, sum(counts))})."


def _plugged_in(report: Report) -> Section:
    of_night = tuple(each.overnight for each in report.plugged_in)
    known = sum(each.overnight + each.same_day for each in report.plugged_in)
    return Section(
        id="hours-plugged-in",
        title="Hours plugged in",
        finding=_stay(report, of_night, known),
        headings=("Hours", "Overnight", "Same day", "Sessions"),
        rows=tuple(
            (_hours(each.hours), *map(words.number, (each.overnight, each.same_day, each.overnight + each.same_day)))
            for each in report.plugged_in
        ),
        values=tuple(each.overnight + each.same_day for each in report.plugged_in),
        others=of_night,
    )


def _hours(hours: int) -> str:
    return "24 or more" if hours == _DAY_HOURS else f"{hours} to {hours + 1}"


def _stay(report: Report, of_night: Sequence[int], known: int) -> str:
    texts = []
    if known:
        texts.append(f"{words.share(sum(of_night), known)} of the sessions last past midnight")
    if sum(of_night):
        sums = [
            sum(of_night[start : start + _STAY_HOURS]) for start in range(0, _DAY_HOURS - _STAY_HOURS + 1, _STAY_STEP)
        ]
        number = max(range(len(sums)), key=sums.__getitem__)
        start = number * _STAY_STEP
        share = words.share(sums[number], sum(of_night))
        texts[-1] += f", most often for {start} to {start + _STAY_HOURS} hours ({share} of these)"
    if report.without_end:
        texts.append(f"Without an end, and left out: {words.counted(report.without_end, 'session')}")
    return "".join(f"{text}. " for text in texts).strip()


def _outcomes(report: Report) -> Section:
    sessions = report.totals.sessions
    of = list(report.outcomes.items())
    return Section(
        id="outcomes",
        title="How sessions went",
        finding="",
        headings=("Outcome", "Share", "Sessions"),
        rows=tuple(
            (words.shortened(words.outcome_words(name)), words.share(count, sessions), words.number(count))
            for name, count in of
        ),
        values=tuple(count for _, count in of),
    )


def _savings(report: Report) -> Section:
    noun = _NOUNS[report.by]
    return Section(
        id="most-savings",
        title=f"{noun.capitalize()}s with the most savings",
        finding="" if report.savings else "No savings are known yet.",
        headings=(noun.capitalize(), "Sessions", "Energy (kWh)", "Saved (EUR)"),
        rows=tuple(
            (
                _name(report, each),
                words.number(each.totals.sessions),
                _amount(each.totals.energy_charged_kwh),
                _amount(each.totals.actual_savings_eur),
            )
            for each in report.savings
        ),
        values=tuple(each.totals.actual_savings_eur for each in report.savings),
        ids=tuple(_id(report, each) for each in report.savings),
    )


def _troubles(report: Report) -> Section:
    noun = _NOUNS[report.by]
    counted = [(each, (each.failed, each.unproven, each.rejected)) for each in report.troubles]
    return Section(
        id="most-trouble",
        title=f"{noun.capitalize()}s with the most trouble",
        finding=_troubled(report, noun),
        headings=(noun.capitalize(), "In all", "Failed", "Unproven", "Rejected"),
        rows=tuple((_name(report, each), *map(words.number, (sum(counts), *counts))) for each, counts in counted),
        values=tuple(sum(counts) for _, counts in counted),
        ids=tuple(_id(report, each) for each in report.troubles),
        notes=tuple(_kinds(*counts) for _, counts in counted),
    )


def _troubled(report: Report, noun: str) -> str:
    if not report.troubled:
        return "No read failed or is unproven, and no session was rejected." if report.coverage else _NOTHING_READ
    more = f" The first {len(report.troubles)} are shown." if report.troubled > len(report.troubles) else ""
    return f"{words.counted(report.troubled, noun)} could not be read in full.{more}"


def _kinds(failed: int, unproven: int, rejected: int) -> str:
    texts = {"failed": failed, "not proven complete": unproven, "rejected": rejected}
    return ", ".join(f"{words.number(number)} {text}" for text, number in texts.items() if number)


def _name(report: Report, group: GroupSavings | GroupTrouble) -> str:
    unknown = "Without a price zone" if report.by == "price-zone" else "Without a name"
    return words.shortened((group.name or "").strip() or group.key or unknown)


def _id(report: Report, group: GroupSavings | GroupTrouble) -> str:
    return group.key or "" if group.name and report.by == "vehicle" else ""


def _coverage(report: Report) -> Section:
    return Section(
        id="coverage-by-day",
        title="Coverage by day",
        finding=_covered(report),
        headings=("From", "To", "Settled", "Provisional", "Missing"),
        rows=tuple(
            (
                words.day(each.from_date),
                words.day(each.to_date),
                *map(words.number, (each.settled, each.provisional, each.missing)),
            )
            for each in report.coverage
        ),
        values=tuple(each.settled for each in report.coverage),
        dates=tuple(each.from_date for each in report.coverage),
    )


def _covered(report: Report) -> str:
    missing = report.days.missing
    if not report.coverage:
        return _NOTHING_READ
    if missing:
        return f"Days of vehicles that are missing, so that their sessions may be unknown: {words.number(missing)}."
    return "No day is missing."

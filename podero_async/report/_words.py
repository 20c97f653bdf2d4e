"""The words and numbers of a report, as a customer reads them."""

from __future__ import annotations

import math
from datetime import date
from types import MappingProxyType

from podero_async.models import SessionOutcome

__all__ = [
    "MINUS",
    "axis_unit",
    "busiest_hours",
    "count",
    "counted",
    "day",
    "energy",
    "money",
    "number",
    "outcome_words",
    "period",
    "share",
    "shortened",
    "span_of_hours",
    "tick",
]

MINUS, _DASH, _SPACE = "\u2212", "\u2013", "\u00a0"
_OUTCOMES = MappingProxyType(
    {
        SessionOutcome.OPTIMIZED: "Charged at the cheapest times",
        SessionOutcome.ALREADY_AT_TARGET: "Was at its target at plug-in",
        SessionOutcome.OEM_REPORTED_FULL: "Full, as the car reported",
        SessionOutcome.USER_UNPLUGGED_EARLY: "Unplugged before it was done",
        SessionOutcome.IMMEDIATE_START: "Charged at once",
        SessionOutcome.BOOSTED: "Charged at once on request",
        SessionOutcome.NOT_AT_HOME: "Plugged in away from home",
        SessionOutcome.SMART_OPTIMIZATION_DISABLED: "Smart charging was switched off",
        SessionOutcome.NOT_AUTHENTICATED: "No access to the car's account",
        SessionOutcome.EV_NOT_FOUND: "Car not found in its account",
        SessionOutcome.OEM_NOT_CAPABLE: "Car cannot be controlled",
        SessionOutcome.NO_BATTERY_CAPACITY: "Battery capacity unknown",
        SessionOutcome.HEMS_ONLY_MODE: "Left to the home energy system",
        SessionOutcome.INSUFFICIENT_PRICE_COVERAGE: "Too few prices were known",
        SessionOutcome.COMMANDS_FAILED: "Car did not follow the commands",
        SessionOutcome.IN_PROGRESS: "Still in progress",
        SessionOutcome.OTHER: "Another reason",
        SessionOutcome.UNKNOWN: "Reason unknown",
    }
)
_ENERGY = ((1, "kWh"), (1e3, "MWh"), (1e6, "GWh"), (1e9, "TWh"))
_MONEY = ((1, "EUR"), (1e3, "thousand EUR"), (1e6, "million EUR"), (1e9, "billion EUR"))
_COUNT = ((1, ""), (1e3, "thousand"), (1e6, "million"), (1e9, "billion"))
_MAX_PLAIN, _MAX_CENTS = 10_000, 1_000
_MAX_NAME = 48
_MAX_TICK = 1e6


def outcome_words(outcome: str | None) -> str:
    """Return an outcome in words; an outcome that this release does not know is shown as its text."""
    if outcome is None:
        return "Reason unknown"
    words = _OUTCOMES.get(SessionOutcome(outcome))
    return words or outcome.replace("_", " ").strip().capitalize() or "Reason unknown"


def number(value: float) -> str:
    """Return a number with separators (`12,345`)."""
    return f"{value:,.0f}".replace("-", MINUS)


def counted(value: int, noun: str) -> str:
    """Return a number with a noun (`1 session`, `2 sessions`)."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def count(value: int) -> tuple[str, str]:
    """Return a number and its unit: none, or millions from ten million on."""
    if abs(value) < _MAX_PLAIN * _MAX_CENTS:
        return number(value), ""
    return _scaled(value, (_COUNT[0], *_COUNT[2:]), 0)


def shortened(name: str) -> str:
    """Return a name of at most 48 characters; the end of a longer one is left out."""
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def energy(kwh: float | None) -> tuple[str, str]:
    """Return an energy and its unit (`9,876.5`, `kWh`)."""
    return _scaled(kwh, _ENERGY, 1)


def money(eur: float | None) -> tuple[str, str]:
    """Return an amount and its unit; amounts are whole euros from 1,000 on, and millions from ten million on."""
    if eur is not None and _MAX_CENTS <= abs(eur) < _MAX_PLAIN * _MAX_CENTS:
        return number(eur), "EUR"
    return _scaled(eur, (_MONEY[0], *_MONEY[2:]), 2)


def _scaled(value: float | None, units: tuple[tuple[float, str], ...], digits: int) -> tuple[str, str]:
    if value is None:
        return _DASH, ""
    if not math.isfinite(value):
        return "too large", ""
    size, unit = next((each for each in units if abs(value) < _MAX_PLAIN * each[0]), units[-1])
    is_plain = size == 1
    return f"{value / size:,.{digits if is_plain else 1}f}".replace("-", MINUS), unit


def share(part: float, whole: float) -> str:
    """Return a share in percent, which is 0 % or 100 % only if it is exactly so."""
    if whole <= 0:
        return _DASH
    percent = 100 * part / whole
    if 0 < part < whole and round(percent) in {0, 100}:
        return f"< 1{_SPACE}%" if part < whole / 2 else f"> 99{_SPACE}%"
    return f"{percent:.0f}{_SPACE}%".replace("-", MINUS)


def axis_unit(peak: float, kind: str) -> tuple[float, str]:
    """Return the size and the name of the unit in which an axis up to a peak has short numbers."""
    units = {"energy": _ENERGY, "money": _MONEY}.get(kind, _COUNT)
    return next((each for each in units if peak < _MAX_PLAIN * each[0]), units[-1])


def tick(value: float, step: float) -> str:
    """Return the text of a tick, with as many digits as the step between ticks needs."""
    if abs(value) >= _MAX_TICK:
        return f"{value:.0e}".replace("-", MINUS)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:,.{min(digits, 4)}f}".replace("-", MINUS)


def day(moment: date) -> str:
    """Return a day (`5 October 2026`)."""
    return f"{moment.day} {moment:%B} {moment.year}"


def period(first: date | None, last: date | None) -> str:
    """Return a span of days in words."""
    if first is None or last is None:
        return "No days yet"
    if first == last:
        return day(first)
    if first.year != last.year:
        return f"{day(first)} {_DASH} {day(last)}"
    start = f"{first.day}" if first.month == last.month else f"{first.day} {first:%B}"
    return f"{start} {_DASH} {day(last)}"


def busiest_hours(counts: tuple[int, ...], width: int) -> tuple[int, int]:
    """Return the first of the consecutive hours with the highest sum, and this sum; the hours go on after the last one."""
    sums = [sum(counts[(start + number) % len(counts)] for number in range(width)) for start in range(len(counts))]
    start = max(range(len(counts)), key=sums.__getitem__)
    return start, sums[start]


def span_of_hours(start: int, width: int) -> str:
    """Return hours of a day in words (`15:00 to 17:00`)."""
    return f"{start:02}:00 to {(start + width) % 24:02}:00"

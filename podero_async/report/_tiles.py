"""The tiles of a report: the figures at its top, with notes on the sessions for which they are not known."""

from __future__ import annotations

import math

import attrs

from podero_async.report import _words as words
from podero_async.report._figures import Report

__all__ = ["Tile", "tiles_of"]


@attrs.frozen(kw_only=True)
class Tile:
    """A figure at the top of a report."""

    label: str
    text: str
    unit: str = ""
    notes: tuple[str, ...] = ()
    value: float | None = None
    """The figure itself; None if it is unknown."""
    parts: tuple[float, ...] = ()
    """The parts of a bar below it, in percent."""


def tiles_of(report: Report) -> list[Tile]:
    """Return the tiles: the savings first, or the energy, or the sessions, if no savings or no energy are known."""
    saved, energy, sessions = _saved(report), _energy(report), _sessions(report)
    tiles = [saved, energy, _planned(report), _cost(report), sessions, _at_home(report), _days(report)]
    first = next(tile for tile in (saved, energy, sessions) if tile.value is not None)
    return [first, *(tile for tile in tiles if tile is not first)]


def _saved(report: Report) -> Tile:
    totals, planned = report.totals, report.expected_savings_of_known_eur
    saved = totals.actual_savings_eur
    text, unit = words.money(saved)
    share = ""
    parts: tuple[float, ...] = ()
    if saved is not None and planned and 0 <= saved <= planned < math.inf:
        share = f"{words.share(saved, planned)} of what was planned for these"
        parts = (100 * saved / planned, 100 - 100 * saved / planned)
    notes = _notes(_known(totals.sessions, totals.sessions_without_savings), share)
    return Tile(label="Saved", text=text, unit=unit, value=saved, notes=notes, parts=parts)


def _planned(report: Report) -> Tile:
    totals = report.totals
    text, unit = words.money(totals.expected_savings_eur)
    notes = _notes(_known(totals.sessions, totals.sessions_without_expected_savings))
    return Tile(label="Savings planned", text=text, unit=unit, value=totals.expected_savings_eur, notes=notes)


def _energy(report: Report) -> Tile:
    totals = report.totals
    energy, known = totals.energy_charged_kwh, totals.sessions - totals.sessions_without_energy
    text, unit = words.energy(energy)
    mean = f"{energy / known:,.1f} kWh a session" if energy is not None else ""
    notes = _notes(mean, _known(totals.sessions, totals.sessions_without_energy))
    return Tile(label="Energy charged", text=text, unit=unit, value=energy, notes=notes)


def _cost(report: Report) -> Tile:
    totals = report.totals
    text, unit = words.money(totals.actual_cost_eur)
    notes = _notes(_known(totals.sessions, totals.sessions_without_cost))
    return Tile(label="Cost of energy", text=text, unit=unit, value=totals.actual_cost_eur, notes=notes)


def _sessions(report: Report) -> Tile:
    hidden = f"{words.number(report.hidden)} hidden by the server" if report.hidden else ""
    notes = _notes(
        ", ".join((words.counted(report.vehicles, "vehicle"), words.counted(report.customers, "customer"))), hidden
    )
    text, unit = words.count(report.totals.sessions)
    return Tile(label="Sessions", text=text, unit=unit, value=report.totals.sessions, notes=notes)


def _at_home(report: Report) -> Tile:
    share = words.share(report.at_home, report.totals.sessions)
    notes = (words.counted(report.at_home, "session"),)
    return Tile(label="At home", text=share, value=report.at_home, notes=notes)


def _days(report: Report) -> Tile:
    counts = attrs.astuple(report.days)
    settled, provisional, missing = (words.share(each, sum(counts)) for each in counts)
    return Tile(
        label="Days settled",
        text=settled,
        value=report.days.settled,
        notes=(f"{provisional} provisional", f"{missing} missing"),
        parts=tuple(100 * each / max(1, sum(counts)) for each in counts),
    )


def _notes(*texts: str) -> tuple[str, ...]:
    return tuple(filter(None, texts))


def _known(sessions: int, unknown: int) -> str:
    return f"known for {words.number(sessions - unknown)} of {words.counted(sessions, 'session')}" if unknown else ""

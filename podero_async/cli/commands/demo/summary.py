"""The demo's summary: the sums of the stored sessions, their receipts, and the cost of the two backfill calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from podero_async import ChargingSession, SessionOutcome, summarize
from podero_async.backfill import BackfillReport, SessionStore
from podero_async.cli._output.text import Pair, pairs_of

__all__ = ["summary_of"]

_SESSIONS = """
SELECT session_outcome, is_hidden, energy_charged_kwh, actual_cost_eur, expected_savings_eur, actual_savings_eur
FROM sessions WHERE withdrawn_at IS NULL
"""
_NOT_READ: dict[str, Any] = dict.fromkeys(field.name for field in attrs.fields(ChargingSession))
_RECEIPTS = """
SELECT count(DISTINCT vehicle_id) AS vehicles, count(*) FILTER (completeness = 'verified') AS verified,
    count(*) FILTER (completeness = 'repaired') AS repaired, count(*) FILTER (completeness = 'unproven') AS unproven,
    (SELECT count(*) FROM failures) AS failures
FROM receipts
"""


async def summary_of(store: SessionStore, reports: Sequence[BackfillReport]) -> list[Pair]:
    """Query the store, and describe its contents and the calls."""
    (receipts,), rows = await store.query(_RECEIPTS), await store.query(_SESSIONS)
    totals = summarize(_sessions(rows))[()]
    by_outcome = summarize(_sessions(rows), "session_outcome").items()
    in_order = sorted(by_outcome, key=lambda each: (-each[1].sessions, each[0].value))
    outcomes = [f"{each.sessions:>7,} {outcome.value}" for outcome, each in in_order]
    return [
        ("vehicles", f"{receipts['vehicles']:,} in the store, {receipts['failures']:,} failed"),
        ("sessions", f"{totals.sessions:,}, including {sum(row['is_hidden'] for row in rows):,} hidden"),
        ("energy", f"{totals.energy_charged_kwh or 0:,.1f} kWh"),
        ("cost", f"{totals.actual_cost_eur or 0:,.2f} EUR"),
        ("savings", f"{totals.actual_savings_eur or 0:,.2f} EUR, {totals.expected_savings_eur or 0:,.2f} EUR expected"),
        ("", f"{totals.sessions_without_savings:,} sessions have no savings yet"),
        *pairs_of("outcomes", outcomes, maximum=len(outcomes)),
        (
            "windows",
            f"{receipts['verified']:,} verified, {receipts['repaired']:,} repaired, {receipts['unproven']:,} unproven",
        ),
        *_costs(reports),
    ]


def _sessions(rows: Iterable[dict[str, Any]]) -> Iterator[ChargingSession]:
    """Make sessions of rows that have only the fields that are summed."""
    for row in rows:
        yield ChargingSession(**_NOT_READ | row | {"session_outcome": SessionOutcome(row["session_outcome"])})


def _costs(reports: Sequence[BackfillReport]) -> list[Pair]:
    requests, retries = sum(each.requests for each in reports), sum(each.retries for each in reports)
    received, seconds = sum(each.sessions for each in reports), sum(each.seconds for each in reports)
    return [
        ("calls", "; then ".join(f"{each.done:,} vehicles in {each.seconds:.1f} s" for each in reports)),
        ("requests", f"{requests:,}, including {retries:,} retries"),
        ("speed", f"{received / seconds:,.0f} sessions/s, {seconds:.1f} s in total (including the server's work)"),
    ]

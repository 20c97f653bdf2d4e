"""The demo's summary: SQL over the store, and the cost of the two backfill calls."""

from __future__ import annotations

from collections.abc import Sequence

from podero_async.backfill import BackfillReport, SessionStore
from podero_async.cli._output.text import Pair, pairs_of

__all__ = ["summary_of"]

_FIGURES = """
SELECT count(*) AS sessions, count(*) FILTER (is_hidden) AS hidden,
    coalesce(sum(energy_charged_kwh), 0) AS energy_kwh, coalesce(sum(actual_cost_eur), 0) AS cost_eur,
    coalesce(sum(actual_savings_eur), 0) AS savings_eur
FROM sessions WHERE withdrawn_at IS NULL
"""
_OUTCOMES = """
SELECT session_outcome AS outcome, count(*) AS sessions
FROM sessions WHERE withdrawn_at IS NULL GROUP BY outcome ORDER BY sessions DESC, outcome
"""
_RECEIPTS = """
SELECT count(DISTINCT vehicle_id) AS vehicles, count(*) FILTER (completeness = 'verified') AS verified,
    count(*) FILTER (completeness = 'repaired') AS repaired, count(*) FILTER (completeness = 'unproven') AS unproven,
    (SELECT count(*) FROM failures) AS failures
FROM receipts
"""


async def summary_of(store: SessionStore, reports: Sequence[BackfillReport]) -> list[Pair]:
    """Query the store, and describe its contents and the calls."""
    (figures,), (receipts,) = await store.query(_FIGURES), await store.query(_RECEIPTS)
    outcomes = [f"{row['sessions']:>7,} {row['outcome']}" for row in await store.query(_OUTCOMES)]
    return [
        ("vehicles", f"{receipts['vehicles']:,} in the store, {receipts['failures']:,} failed"),
        ("sessions", f"{figures['sessions']:,}, including {figures['hidden']:,} hidden"),
        ("energy", f"{figures['energy_kwh']:,.1f} kWh"),
        ("cost", f"{figures['cost_eur']:,.2f} EUR"),
        ("savings", f"{figures['savings_eur']:,.2f} EUR"),
        *pairs_of("outcomes", outcomes, maximum=len(outcomes)),
        (
            "windows",
            f"{receipts['verified']:,} verified, {receipts['repaired']:,} repaired, {receipts['unproven']:,} unproven",
        ),
        *_costs(reports),
    ]


def _costs(reports: Sequence[BackfillReport]) -> list[Pair]:
    requests, retries = sum(each.requests for each in reports), sum(each.retries for each in reports)
    received, seconds = sum(each.sessions for each in reports), sum(each.seconds for each in reports)
    return [
        ("calls", "; then ".join(f"{each.done:,} vehicles in {each.seconds:.1f} s" for each in reports)),
        ("requests", f"{requests:,}, including {retries:,} retries"),
        ("speed", f"{received / seconds:,.0f} sessions/s, {seconds:.1f} s in total (including the server's work)"),
    ]

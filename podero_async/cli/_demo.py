"""`podero-async demo`: a whole simulated fleet, fetched with the public client, and held against the truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from random import Random

from podero_async import ClientCredentials, FleetFetch, FleetSummary, PoderoClient, VehicleFailure
from podero_async.cli import _plain
from podero_async.cli._arguments import whole_number
from podero_async.cli._demo_fleet import Drift, Witness, demo_simulator
from podero_async.cli._figures import Figures
from podero_async.cli._plain import Display, Show
from podero_async.cli._process import Exit, say
from podero_async.testing import PoderoSimulator

__all__ = ["add_to", "run"]

_ABOUT = """\
Fetch every session of a simulated fleet while the server fails, stalls and revokes tokens, and
while sessions come and go; then hold them against the truth. Exit code 1 if one is lost, doubled
or altered, or if a vehicle failed. Needs no credentials and no network.
"""
_FAILURES_TOLD = 5
_Pair = tuple[str, str]


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    about = "fetch a simulated fleet that fails and changes all the time, and check that nothing is lost"
    parser = commands.add_parser("demo", help=about, description=_ABOUT, allow_abbrev=False)
    add = parser.add_argument
    add("--vehicles", type=whole_number(1, 100_000), default=500, metavar="N", help="how many (default: 500)")
    add("--seed", type=int, default=0, metavar="N", help="of the fleet, the faults and the changes (default: 0)")
    add("--plain", action="store_true", help="lines instead of a live bar, as always into a pipe or a file")
    return parser


async def run(arguments: argparse.Namespace) -> Exit:
    """Make the fleet, fetch it, and report."""
    display = _display(live=sys.stdout.isatty() and not arguments.plain)
    simulator = demo_simulator(arguments.vehicles, arguments.seed)
    print(
        f"Simulating {len(simulator.vehicles):,} vehicles with {simulator.total_sessions():,} sessions ...", flush=True
    )
    drift = Drift(simulator, Random(f"{arguments.seed}/drift"))
    witness, figures = Witness(simulator, drift), Figures()
    await witness.look()
    simulator.before_answer = drift
    summary = await _fetch(simulator, witness, figures, display)
    witness.conclude()
    display.print_pairs([*_report(summary, figures), *_against_truth(simulator, drift, witness)])
    return Exit.INCOMPLETE if summary.failures or witness.found.total() else Exit.DONE


async def _fetch(simulator: PoderoSimulator, witness: Witness, figures: Figures, display: Display) -> FleetSummary:
    days = simulator.first_day, simulator.last_day
    credentials = ClientCredentials(simulator.client_id, simulator.client_secret)
    async with (
        simulator,
        PoderoClient(simulator.org_id, credentials, base_url=simulator.base_url) as client,
        client.fetch_fleet(*days, include_hidden=True) as fleet,
    ):
        with display.progress(len(simulator.vehicles)) as show:
            await _consume(fleet, witness, figures, show)
        return fleet.summary


async def _consume(fleet: FleetFetch, witness: Witness, figures: Figures, show: Show) -> None:
    async for outcome in fleet:
        if isinstance(outcome, VehicleFailure):
            if fleet.summary.failures <= _FAILURES_TOLD:
                say(f"user {outcome.user_id}: {outcome.error}")
        else:
            figures.add(outcome.sessions)
            witness.check(outcome)
        show(fleet.summary)


def _display(*, live: bool) -> Display:
    if not live:
        return _plain
    from podero_async.cli import _terminal  # noqa: PLC0415 - it needs rich, which is an extra

    return _terminal


def _report(summary: FleetSummary, figures: Figures) -> Iterator[_Pair]:
    yield "vehicles", f"{summary.vehicles:,} fetched, {summary.failures:,} failed"
    yield "sessions", f"{figures.sessions:,}, of which {figures.hidden:,} hidden"
    yield "energy", f"{figures.energy_kwh:,.1f} kWh"
    yield "cost", f"{figures.cost_eur:,.2f} EUR"
    yield "savings", f"{figures.savings_eur:,.2f} EUR"
    label = "outcomes"
    for outcome, count in figures.outcomes.most_common():
        yield label, f"{count:>7,} {outcome}"
        label = ""
    yield "requests", f"{summary.requests:,}, of which {summary.retries:,} retries; {summary.pauses:,} pauses"
    yield "lists", f"{summary.verified:,} verified, {summary.repaired:,} repaired, {summary.unproven:,} unproven"
    rate = summary.sessions / summary.seconds
    yield "speed", f"{rate:,.0f} sessions a second, {summary.seconds:.1f} s in all (the server's work included)"


def _against_truth(simulator: PoderoSimulator, drift: Drift, witness: Witness) -> Iterator[_Pair]:
    faults = ", ".join(f"{count:,} {kind}" for kind, count in simulator.counts.faults.most_common())
    yield "faults", faults or "none"
    yield "changes", f"{len(drift.inserted):,} sessions inserted, {drift.removed:,} removed while the fleet was read"
    found = witness.found
    verdict = ", ".join(f"{found[kind]:,} {kind}" for kind in ("lost", "doubled", "altered", "foreign"))
    yield "truth", f"{verdict}: {'NOT what the server has' if found.total() else 'all of it is there, once'}"

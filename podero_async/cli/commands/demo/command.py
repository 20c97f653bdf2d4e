"""`podero-async demo`: a simulated fleet brought into a store, interrupted and resumed, and held against the truth."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from podero_async import ClientCredentials, PoderoClient
from podero_async._concurrency import run_until
from podero_async.backfill import BackfillReport, Progress, SessionStore, backfill
from podero_async.cli._options import whole_number
from podero_async.cli._output import text as _plain
from podero_async.cli._output.progress import watched
from podero_async.cli._output.report import Pair, list_failures
from podero_async.cli._output.snapshot import Display
from podero_async.cli._runtime import Exit, say
from podero_async.cli._signals import wishes_to_stop
from podero_async.cli.commands.demo.fleet import Drift, HalfWay, Witness, demo_simulator
from podero_async.cli.commands.demo.summary import summary_of
from podero_async.testing import PoderoSimulator

__all__ = ["add_to", "run"]

_ABOUT = """\
Bring every session of a simulated fleet into a store while the server fails, stalls and revokes
tokens, and while sessions come and go; end half-way, and go on; then hold the store against the
truth. Exit code 1 if a session is lost, doubled or altered, or if a vehicle failed. Needs no
credentials and no network, and leaves nothing behind.
"""
_FAILURES_TOLD = 5
_LINE_EVERY_S = 1.0


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    about = "backfill a simulated fleet that fails and changes all the time, and check that nothing is lost"
    parser = commands.add_parser("demo", help=about, description=_ABOUT, allow_abbrev=False)
    add = parser.add_argument
    add("--vehicles", type=whole_number(1, 100_000), default=500, metavar="N", help="how many (default: 500)")
    add("--seed", type=int, default=0, metavar="N", help="of the fleet, the faults and the changes (default: 0)")
    add("--plain", action="store_true", help="lines instead of a live bar, as always into a pipe or a file")
    return parser


async def run(arguments: argparse.Namespace) -> Exit:
    """Make the fleet, bring it into a store, and report."""
    display = _display(live=sys.stdout.isatty() and not arguments.plain)
    with wishes_to_stop() as wish, TemporaryDirectory(prefix="podero-async-") as folder:
        async with SessionStore(Path(folder) / "demo.duckdb") as store:
            showing = asyncio.create_task(_demonstrate(arguments, store, display))
            if await run_until(wish.event, showing):
                return showing.result()
    say("interrupted")
    return wish.exit


async def _demonstrate(arguments: argparse.Namespace, store: SessionStore, display: Display) -> Exit:
    simulator = demo_simulator(arguments.vehicles, arguments.seed)
    print(
        f"Simulating {len(simulator.vehicles):,} vehicles with {simulator.total_sessions():,} sessions ...", flush=True
    )
    drift = Drift(simulator, Random(f"{arguments.seed}/drift"))
    witness = Witness(simulator, drift)
    await witness.look()
    reports = await _backfill(simulator, drift, store, display)
    await witness.check(store)
    list_failures(reports[-1].failures[:_FAILURES_TOLD], reports[-1].failed)
    display.print_pairs([*await summary_of(store, reports), *_against_truth(simulator, drift, witness)])
    return Exit.DONE if reports[-1].is_clean and not witness.found.total() else Exit.INCOMPLETE


async def _backfill(
    simulator: PoderoSimulator, drift: Drift, store: SessionStore, display: Display
) -> list[BackfillReport]:
    """Begin, end half-way, and go on."""
    first, second = Progress(), Progress()
    half_way = HalfWay(len(simulator.vehicles), first, drift)
    after = datetime.combine(simulator.last_day, time(), UTC) + timedelta(days=2)
    credentials = ClientCredentials(simulator.client_id, simulator.client_secret)
    reports: list[BackfillReport] = []
    async with (
        simulator,
        PoderoClient(simulator.org_id, credentials, base_url=simulator.base_url) as client,
    ):
        for progress, hook, stop in ((first, half_way, half_way.stop), (second, drift, None)):
            simulator.before_page = hook
            async with watched(progress, display, sys.stdout, min(display.EVERY_S, _LINE_EVERY_S)):
                report = await backfill(
                    client,
                    store,
                    simulator.first_day,
                    simulator.last_day,
                    include_hidden=True,
                    stop=stop,
                    progress=progress,
                    now=lambda: after,  # whatever the clock of this machine says
                )
            reports.append(report)
            if report.finished:
                break
            print(f"Interrupted: {report.done:,} vehicles are in the store. The same call goes on.", flush=True)
    return reports


def _display(*, live: bool) -> Display:
    if not live:
        return _plain
    from podero_async.cli._output import rich as _terminal  # noqa: PLC0415 - it needs rich, which is an extra

    return _terminal


def _against_truth(simulator: PoderoSimulator, drift: Drift, witness: Witness) -> Iterator[Pair]:
    faults = ", ".join(f"{count:,} {kind}" for kind, count in simulator.counts.faults.most_common())
    yield "faults", faults or "none"
    yield "changes", f"{len(drift.inserted):,} sessions inserted, {drift.removed:,} removed while the fleet was read"
    found = witness.found
    verdict = ", ".join(f"{found[kind]:,} {kind}" for kind in ("lost", "doubled", "altered", "foreign"))
    yield "truth", f"{verdict}: {'NOT what the server has' if found.total() else 'all of it is there, once'}"

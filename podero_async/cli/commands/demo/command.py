"""`podero-async demo`: backfills a simulated fleet under faults, stops, resumes, and checks every stored session."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime, time, timedelta
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import attrs

from podero_async import ClientCredentials, PoderoClient
from podero_async._concurrency import run_until
from podero_async.backfill import BackfillReport, Progress, SessionStore, backfill
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.progress import is_terminal, show_progress
from podero_async.cli._output.report import list_failures
from podero_async.cli._output.text import Pair, print_pairs
from podero_async.cli._runtime import Exit, UsageError, say
from podero_async.cli._signals import Signals
from podero_async.cli.commands.demo.fleet import ListChanges, StopHalfway, TruthCheck, demo_simulator
from podero_async.cli.commands.demo.summary import summary_of
from podero_async.cli.commands.report import write_page
from podero_async.errors import ConfigurationError
from podero_async.report import build_report
from podero_async.testing import Fault, PoderoSimulator

__all__ = ["CHANGE_RATE", "COMMAND", "FAULTS", "run"]

_DESCRIPTION = """\
Backfill a simulated fleet under faults, and check every session.

The server fails, stalls and revokes tokens, and sessions are inserted and
removed during the backfill, which stops half-way and is then resumed. The
exit code is 1 if a session is lost, doubled or altered, or if vehicles failed.
Needs no credentials and no network, and leaves no file without --keep.
"""
FAULTS = (
    # At each request the first match wins, so the rare faults come first.
    Fault(kind="status", status=429, headers={"Retry-After": "1"}, endpoint="sessions", nth={15, 300}),
    Fault(kind="token_revoked", endpoint="sessions", nth={10, 400}),
    Fault(kind="status", status=503, rate=0.03),
    Fault(kind="reset", rate=0.02),
    Fault(kind="truncated", rate=0.02),
    Fault(kind="hang", seconds=0.4, rate=0.02),
)
CHANGE_RATE = 0.1
"""Probability that a session is inserted or removed before a page is served."""
_MAX_FAILURES_LISTED = 5
_NAME = "demo.duckdb"
_MAX_LINE_EVERY_S = 1.0
_ShowProgress = Callable[[Progress], AbstractAsyncContextManager[None]]


@attrs.frozen(kw_only=True)
class Options:
    vehicles: int
    seed: int
    keep: Path | None
    plain: bool


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("fleet").add_argument
    vehicles = "number of vehicles (default: %(default)s)"
    add("--vehicles", type=shared.whole_number(1, 100_000), default=500, metavar="N", help=vehicles)
    seed = "seed of the fleet, the faults and the changes (default: %(default)s)"
    add("--seed", type=int, default=0, metavar="N", help=seed)
    add = parser.add_argument_group("output").add_argument
    keep = "leave the store and a page with its figures in this directory"
    shared.completes_files(add("--keep", type=Path, metavar="DIR", help=keep))
    add("--plain", action="store_true", help="print lines instead of a live bar, also on a terminal")


async def run(
    options: Options, invocation: Invocation, *, faults: Iterable[Fault] = FAULTS, change_rate: float = CHANGE_RATE
) -> Exit:
    """Make the fleet, backfill it, and print the report."""
    is_live = is_terminal(sys.stdout) and not options.plain
    if is_live:
        import rich  # noqa: F401, PLC0415 - a missing extra ends the command before its first output
    show = partial(
        show_progress, stream=sys.stdout, is_live=is_live, line_every_s=min(invocation.line_every_s, _MAX_LINE_EVERY_S)
    )
    with invocation.signals.gracefully() as stop, _path_of(options.keep, stop) as path:
        async with SessionStore(path) as store:
            simulator = demo_simulator(options.vehicles, options.seed, faults)
            changes = ListChanges(simulator, Random(f"{options.seed}/drift"), change_rate)
            demonstrating = asyncio.create_task(_demonstrate(simulator, changes, store, show))
            is_through = await run_until(stop.event, demonstrating)
            if options.keep and is_through:
                await _write_page(store, path.with_name("report.html"), simulator)
        if options.keep:
            print("\n".join(_suggestions(path)))
    if is_through:
        return demonstrating.result()
    say("interrupted")
    return stop.exit


@contextmanager
def _path_of(folder: Path | None, stop: Signals) -> Iterator[Path]:
    """Yield the path of the store: in the given directory, or in one that is removed at the end."""
    if folder is None:
        with TemporaryDirectory(prefix="podero-async-") as temporary:
            stop.on_forced_end.append(partial(shutil.rmtree, temporary, ignore_errors=True))
            yield Path(temporary) / _NAME
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _NAME
    if path.exists():
        raise UsageError(f"a store is in the way of the demo's: {path}")
    yield path


async def _write_page(store: SessionStore, target: Path, simulator: PoderoSimulator) -> None:
    try:
        report = await build_report(store, now=partial(_two_days_after, simulator))
        print_pairs([await write_page(report, target)])
    except ConfigurationError as error:
        say(error)


def _two_days_after(simulator: PoderoSimulator) -> datetime:
    """Return a time after the generated days, which may be later than this machine's clock."""
    return datetime.combine(simulator.last_day, time(), UTC) + timedelta(days=2)


def _suggestions(path: Path) -> Iterator[str]:
    quoted = shlex.quote(str(path))
    yield f"The store is kept. Try:\n  podero-async status --store {quoted}"
    for query in ("FROM monthly_savings ORDER BY actual_savings_eur DESC LIMIT 10", "DESCRIBE live_sessions"):
        yield f'  podero-async sql --store {quoted} "{query}"'
    yield f"  podero-async export --store {quoted} --output sessions.parquet"


async def _demonstrate(
    simulator: PoderoSimulator, changes: ListChanges, store: SessionStore, show: _ShowProgress
) -> Exit:
    vehicles, sessions = len(simulator.vehicles), simulator.total_sessions()
    print(f"Simulating {vehicles:,} vehicles with {sessions:,} sessions ...", flush=True)
    check = TruthCheck(simulator, changes)
    await check.remember()
    reports = await _backfill(simulator, changes, store, show)
    await check.compare(store)
    list_failures(reports[-1].failures[:_MAX_FAILURES_LISTED], reports[-1].failed)
    print_pairs([*await summary_of(store, reports), *_truth_pairs(simulator, changes, check)])
    return Exit.DONE if reports[-1].is_clean and not check.found.total() else Exit.INCOMPLETE


async def _backfill(
    simulator: PoderoSimulator, changes: ListChanges, store: SessionStore, show: _ShowProgress
) -> list[BackfillReport]:
    """Start a backfill, stop it half-way, and call it again."""
    first, second = Progress(), Progress()
    halfway = StopHalfway(len(simulator.vehicles), first, changes)
    credentials = ClientCredentials(simulator.client_id, simulator.client_secret)
    reports: list[BackfillReport] = []
    async with simulator, PoderoClient(simulator.org_id, credentials, base_url=simulator.base_url) as client:
        for progress, hook, stop in ((first, halfway, halfway.stop), (second, changes, None)):
            simulator.before_page = hook
            async with show(progress):
                report = await backfill(
                    client,
                    store,
                    simulator.first_day,
                    simulator.last_day,
                    include_hidden=True,
                    stop=stop,
                    progress=progress,
                    now=partial(_two_days_after, simulator),
                )
            reports.append(report)
            if report.finished:
                break
            print(f"Interrupted: {report.done:,} vehicles are in the store. The same call reads the rest.", flush=True)
    return reports


def _truth_pairs(simulator: PoderoSimulator, changes: ListChanges, check: TruthCheck) -> Iterator[Pair]:
    faults = ", ".join(f"{count:,} {kind}" for kind, count in simulator.counts.faults.most_common())
    yield "faults", faults or "none"
    yield "changes", f"{len(changes.inserted):,} sessions inserted, {changes.removed:,} removed during the backfill"
    found = check.found
    counts = ", ".join(f"{found[kind]:,} {kind}" for kind in ("lost", "doubled", "altered", "foreign"))
    yield "truth", f"{counts}: {'NOT what the server has' if found.total() else 'all of it is there, once'}"


COMMAND = Command("demo", _DESCRIPTION, Options, add_arguments, run)

"""`podero-async backfill`: fetches the sessions of a fleet into a store."""

from __future__ import annotations

import gc
import shlex
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import date, timedelta
from pathlib import Path

import attrs

from podero_async import PoderoClient
from podero_async._paging.window import Window
from podero_async.backfill import (
    ApiDownError,
    BackfillReport,
    Bounds,
    Progress,
    SessionStore,
    Shard,
    backfill,
    plan_backfill,
)
from podero_async.backfill._planner import kept_window, settings_of, utc_now
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._live.address import Address, address
from podero_async.cli._output.json import print_json
from podero_async.cli._output.report import list_failures, list_unproven, plan_pairs, report_pairs
from podero_async.cli._output.text import lines_of, print_pairs
from podero_async.cli._runtime import Exit, UsageError, say
from podero_async.cli._snapshot import write_snapshot
from podero_async.cli._vehicle_file import vehicles_from
from podero_async.models import VehicleRef

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Fetch the charging sessions of a fleet into a DuckDB file.

Reads the days that are missing in the file, and reads those again that may
still change: each day until a read --settle-days after its end. If a signal,
a crash or an outage ends the run, the same command reads the rest.
"""
_Vehicles = Iterator[VehicleRef] | None
_BOUNDS = Bounds()


@attrs.frozen(kw_only=True)
class Options(shared.StoreOptions):
    from_date: date
    to_date: date
    vehicles: str | None
    only_failed: bool
    include_hidden: bool
    settle_days: int
    fresh_for: timedelta
    shard: Shard | None
    external_ids: bool
    keep_unknown: bool
    max_vanished: float
    max_withdrawn: float
    max_failed: float
    max_concurrency: int
    requests_per_second: float | None
    snapshot: str | None
    serve: Address | None
    serve_publicly: bool
    dry_run: bool
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("what to read").add_argument
    shared.add_days(add)
    vehicles = (
        "file of user_id,vehicle_id lines, or the lines of `podero-async vehicles`; - is stdin"
        " (default: all vehicles of the organization)"
    )
    shared.completes_files(add("--vehicles", metavar="FILE", help=vehicles))
    failed = "only vehicles that failed before, or were not proven complete; the fleet is not listed"
    add("--only-failed", action="store_true", help=failed)
    shared.add_include_hidden(add)
    settle = "re-read a day until it was read N days after its end (default: %(default)s)"
    add("--settle-days", type=shared.whole_number(0, 36_500), default=30, metavar="N", help=settle)
    fresh = "do not re-read a day that was read less than HOURS ago (default: 12)"
    add("--fresh-for", type=shared.hours, default=timedelta(hours=12), metavar="HOURS", help=fresh)
    shard = "read only shard I of N of the users, such as 2/5; a user is always in the same shard"
    add("--shard", type=shared.shard, metavar="I/N", help=shard)
    external_ids = "do not store the partner's own ids of users, and remove those that are stored"
    add("--no-external-ids", action="store_false", dest="external_ids", help=external_ids)
    unknown = (
        "store the fields of sessions that this release does not know, as JSON; they may hold anything that the API"
        " sends, also personal data"
    )
    add("--keep-unknown", action="store_true", help=unknown)
    add = parser.add_argument_group(
        "checks, as shares from 0 to 1; beyond them, the run ends with exit code 1"
    ).add_argument
    vanished = "vehicles of the store that are no longer listed (default: %(default)s)"
    add("--max-vanished", type=shared.share, default=_BOUNDS.max_vanished, metavar="SHARE", help=vanished)
    withdrawn = "stored sessions that are no longer listed (default: %(default)s)"
    add("--max-withdrawn", type=shared.share, default=_BOUNDS.max_withdrawn, metavar="SHARE", help=withdrawn)
    failed = "vehicles that failed or were not proven complete (default: %(default)s)"
    add("--max-failed", type=shared.share, default=_BOUNDS.max_failed, metavar="SHARE", help=failed)
    shared.add_store(parser)
    shared.add_speed(parser)
    add = parser.add_argument_group("output").add_argument
    snapshot = "at the end, replace FILE by a consistent copy, which readers may hold open while the next run writes"
    shared.completes_files(add("--snapshot", metavar="FILE", help=snapshot))
    serve = (
        "show the run while it lasts at http://HOST:PORT/ for a browser, and at /metrics for Prometheus,"
        " such as 127.0.0.1:8081; both have counts only, no ids"
    )
    add("--serve", type=address, metavar="HOST:PORT", help=serve)
    publicly = "let --serve take a host that other machines can reach, such as 0.0.0.0"
    add("--serve-publicly", action="store_true", help=publicly)
    add("--dry-run", action="store_true", help="print what would be read, and change nothing")
    shared.add_json(add)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Run or plan the backfill, and print its report."""
    _check_options(options)
    with vehicles_from(options.vehicles, invocation.signals) as vehicles:
        async with shared.client_at_speed(
            options.max_concurrency, options.requests_per_second, invocation.retry
        ) as client:
            if options.dry_run:
                return await _plan(options, invocation, client, vehicles)
            progress = Progress()
            async with _served(options, invocation, client, progress):
                if vehicles is None and not options.only_failed and _is_new(options.store):
                    await _check_settings(client)
                return await _backfill(options, invocation, client, vehicles, progress)


@asynccontextmanager
async def _served(
    options: Options, invocation: Invocation, client: PoderoClient, progress: Progress
) -> AsyncIterator[None]:
    """Serve the live view while the block runs, if `--serve` asks for it."""
    if options.serve is None:
        yield
        return
    from podero_async.cli._live.server import serving  # noqa: PLC0415 - a server is seldom needed
    from podero_async.cli._live.watch import Watch  # noqa: PLC0415

    watch = Watch(progress=progress, statistics=client.statistics, from_date=options.from_date, to_date=options.to_date)
    async with serving(options.serve, watch) as url:
        if not invocation.is_quiet:
            say(f"the run can be followed at {url}")
        yield


async def _check_settings(client: PoderoClient) -> None:
    """Request the first users of a first run, so that a run with wrong settings leaves no store."""
    async with aclosing(client.users()) as users:
        await anext(users, None)


def _check_options(options: Options) -> None:
    if options.only_failed and options.vehicles is not None:
        raise UsageError("--only-failed and --vehicles exclude each other")
    if options.serve is not None and options.dry_run:
        raise UsageError("--serve and --dry-run exclude each other")
    if options.serve is not None and not options.serve.is_loopback and not options.serve_publicly:
        raise UsageError(
            f"--serve {options.serve}: other machines may reach this host; if they shall, add --serve-publicly"
        )
    with _naming_options():
        settings_of(
            options.from_date,
            options.to_date,
            include_hidden=options.include_hidden,
            settle_days=options.settle_days,
            fresh_for=options.fresh_for,
            started=utc_now(),
        )


@contextmanager
def _naming_options() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error).replace("from_date", "--from").replace("to_date", "--to")) from error


async def _check_kept(options: Options, store: SessionStore) -> None:
    with _naming_options():
        await kept_window(store, Window(options.from_date, options.to_date))


async def _plan(options: Options, invocation: Invocation, client: PoderoClient, vehicles: _Vehicles) -> Exit:
    is_new = _is_new(options.store)
    path = ":memory:" if is_new else options.store
    async with shared.opened(options, invocation.signals.event, read_only=not is_new, path=path) as store:
        await _check_kept(options, store)
        plan = await plan_backfill(
            client,
            store,
            options.from_date,
            options.to_date,
            vehicles=vehicles,
            only_failed=options.only_failed,
            include_hidden=options.include_hidden,
            settle_days=options.settle_days,
            fresh_for=options.fresh_for,
            shard=options.shard,
        )
    rate = options.requests_per_second
    if options.json:
        print_json(plan, least_seconds=plan.seconds_at(rate) if rate else None)
    else:
        print_pairs(plan_pairs(plan, rate))
        list_failures(plan.failures, len(plan.failures))
    return Exit.INCOMPLETE if plan.failures else Exit.DONE


def _is_new(path: str) -> bool:
    return not Path(path).exists()


async def _backfill(
    options: Options, invocation: Invocation, client: PoderoClient, vehicles: _Vehicles, progress: Progress
) -> Exit:
    with invocation.signals.gracefully() as stop:
        async with shared.opened(options, stop.event) as store:
            await _check_kept(options, store)
            if options.snapshot is not None:
                await store.check_snapshot(options.snapshot)
            gc.freeze()  # a full collection over all imported modules would block the event loop
            try:
                async with invocation.shown(progress):
                    report = await backfill(
                        client,
                        store,
                        options.from_date,
                        options.to_date,
                        vehicles=vehicles,
                        only_failed=options.only_failed,
                        include_hidden=options.include_hidden,
                        settle_days=options.settle_days,
                        fresh_for=options.fresh_for,
                        shard=options.shard,
                        keep_external_ids=options.external_ids,
                        keep_unknown=options.keep_unknown,
                        bounds=Bounds(
                            max_vanished=options.max_vanished,
                            max_withdrawn=options.max_withdrawn,
                            max_failed=options.max_failed,
                        ),
                        stop=stop.event,
                        progress=progress,
                    )
            except ApiDownError as error:
                await write_snapshot(store, options.snapshot, stop)
                invocation.summarize(*lines_of(report_pairs(error.report)), is_printed=not options.json)
                _list_failures(options, error.report)  # with --json, the report is part of the error's object
                raise
            failed = await write_snapshot(store, options.snapshot, stop)
        invocation.summarize(*lines_of(report_pairs(report)), is_printed=not options.json)
        if options.json:
            print_json(report, is_clean=report.is_clean)
        if report.finished:
            code = _exit_of(options, report)
            return code if failed is None else failed
        command = shlex.join(["podero-async", *invocation.argv])
        say(
            f"interrupted; the sessions received so far are stored; to read the rest, run the same command again: {command}"
        )
        return stop.exit


def _exit_of(options: Options, report: BackfillReport) -> Exit:
    _list_failures(options, report)
    if not options.json:
        list_unproven(report.unproven_vehicles, report.unproven)
        for alarm in report.alarms:
            say(alarm)
        if report.is_clean and (lost := report.failed + report.unproven):
            vehicles = f"{lost:,} of {report.vehicles:,} vehicles failed or were not proven complete"
            say(f"{vehicles}: an accepted share (--max-failed), so the exit code is 0; the next run reads them again")
    return Exit.DONE if report.is_clean else Exit.INCOMPLETE


def _list_failures(options: Options, report: BackfillReport) -> None:
    if not options.json:
        list_failures(report.failures, report.failed)


COMMAND = Command("backfill", _DESCRIPTION, Options, add_arguments, run, uses_api=True)

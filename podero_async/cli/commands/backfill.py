"""`podero-async backfill`: a fleet's sessions into a store, today and every night from now on."""

from __future__ import annotations

import argparse
import asyncio
import gc
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from podero_async import PoderoClient
from podero_async.backfill import (
    ApiDownError,
    BackfillReport,
    Progress,
    SessionStore,
    backfill,
    plan_backfill,
)
from podero_async.backfill._planner import check_window, utc_now
from podero_async.cli import _options as types
from podero_async.cli._output import text as _plain
from podero_async.cli._output.progress import display_on, watched
from podero_async.cli._output.report import list_failures, list_unproven, plan_pairs, print_json, report_pairs
from podero_async.cli._pace import add_pace, paced_client
from podero_async.cli._runtime import Exit, UsageError, say
from podero_async.cli._signals import wishes_to_stop
from podero_async.cli._vehicle_file import given_vehicles
from podero_async.models import VehicleRef

__all__ = ["add_to", "run"]

_ABOUT = """\
Bring every charging session of a fleet into a DuckDB file: what is missing of the days, and the
last days again. Whatever ends it, a signal, a crash, an outage: the same command goes on.
"""
_Vehicles = Iterator[VehicleRef] | None


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    about = "bring a fleet's charging sessions into a DuckDB file, and keep it up to date"
    parser = commands.add_parser(
        "backfill", help=about, description=_ABOUT, epilog=types.ENVIRONMENT, allow_abbrev=False
    )
    add = parser.add_argument
    types.add_store(parser)
    types.add_days(parser)
    add("--vehicles", metavar="FILE|-", help="lines of user_id,vehicle_id or of JSON (default: the whole organization)")
    add("--include-hidden", action="store_true", help="with the blips that the server's classifier hid")
    days = "of the newest days held, how many are read again for what came late (default: 7)"
    add("--refresh-days", type=types.whole_number(0, 36_500), default=7, metavar="N", help=days)
    add(
        "--shard",
        type=types.shard,
        metavar="I/N",
        help="only this share of the fleet, as in 2/5; the shares are stable",
    )
    add_pace(parser)
    add("--dry-run", action="store_true", help="only say what would be read; nothing is changed")
    add("--json", action="store_true", help="one JSON object on stdout as the report")
    return parser


async def run(arguments: argparse.Namespace) -> Exit:
    """Bring the sessions in, or say what would be."""
    _check_days(arguments)
    with given_vehicles(arguments.vehicles) as vehicles:
        async with paced_client(arguments) as client:
            return await (_plan if arguments.dry_run else _bring_in)(arguments, client, vehicles)


def _check_days(arguments: argparse.Namespace) -> None:
    try:
        check_window(
            arguments.first,
            arguments.last,
            include_hidden=arguments.include_hidden,
            refresh_days=arguments.refresh_days,
            today=utc_now().date(),
        )
    except ValueError as error:
        raise UsageError(f"--from and --to: {error}") from error


async def _plan(arguments: argparse.Namespace, client: PoderoClient, vehicles: _Vehicles) -> Exit:
    async with _store_to_look_at(arguments.store) as store:
        plan = await plan_backfill(
            client,
            store,
            arguments.first,
            arguments.last,
            vehicles=vehicles,
            include_hidden=arguments.include_hidden,
            refresh_days=arguments.refresh_days,
            shard=arguments.shard,
        )
    rate = arguments.requests_per_second
    if arguments.json:
        print_json(plan, least_seconds=plan.seconds_at(rate) if rate else None)
    else:
        _plain.print_pairs(plan_pairs(plan, rate))
        list_failures(plan.failures, len(plan.failures))
    return Exit.INCOMPLETE if plan.failures else Exit.DONE


def _store_to_look_at(path: str) -> SessionStore:
    # Where there is none yet, an empty one that leaves no file.
    return SessionStore(path, read_only=True) if Path(path).exists() else SessionStore(":memory:")


async def _bring_in(arguments: argparse.Namespace, client: PoderoClient, vehicles: _Vehicles) -> Exit:
    with wishes_to_stop() as wish:
        async with SessionStore(arguments.store) as store:
            gc.freeze()  # all is imported: walked over at every full collection, it would hold the loop up
            try:
                report = await _watched_backfill(arguments, client, store, vehicles, wish.event)
            except ApiDownError as error:
                _print(arguments, error.report)
                _list_failures(arguments, error.report)  # it may be one vehicle that fails, and no outage
                raise
        _print(arguments, report)
        if not report.finished:
            command = shlex.join(["podero-async", *arguments.argv])
            say(f"interrupted; what was received is in the store. To go on, run the same command again: {command}")
            return wish.exit
    return _verdict(arguments, report)


async def _watched_backfill(
    arguments: argparse.Namespace, client: PoderoClient, store: SessionStore, vehicles: _Vehicles, stop: asyncio.Event
) -> BackfillReport:
    progress, display = Progress(), display_on(sys.stderr)
    async with watched(progress, display, sys.stderr, display.EVERY_S):
        return await backfill(
            client,
            store,
            arguments.first,
            arguments.last,
            vehicles=vehicles,
            include_hidden=arguments.include_hidden,
            refresh_days=arguments.refresh_days,
            shard=arguments.shard,
            stop=stop,
            progress=progress,
        )


def _print(arguments: argparse.Namespace, report: BackfillReport) -> None:
    if arguments.json:
        print_json(report, is_clean=report.is_clean)
    else:
        _plain.print_pairs(report_pairs(report))


def _list_failures(arguments: argparse.Namespace, report: BackfillReport) -> None:
    if not arguments.json:
        list_failures(report.failures, report.failed)


def _verdict(arguments: argparse.Namespace, report: BackfillReport) -> Exit:
    _list_failures(arguments, report)
    if not arguments.json:
        list_unproven(report.unproven_vehicles, report.unproven)
        if report.rejected:
            say(f"{report.rejected:,} sessions could not be read: they stand in the store's table rejected_items")
    return Exit.DONE if report.is_clean and not report.rejected else Exit.INCOMPLETE

"""`podero-async verify`: compares a store with the API, and repairs it."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator

import attrs

from podero_async.backfill import Bounds, Difference, Progress, VerifyReport, verify
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._output.report import list_failures
from podero_async.cli._output.text import Pair, print_pairs
from podero_async.cli._runtime import Exit, say

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Re-read the settled days of a store, and compare the sessions with the API.

The exit code is 1 if sessions differ (with --repair: still differ), if ids
are stored more than once, if no read covers the day of a stored session, if a
session could not be read, or if a vehicle failed or could not be proven
complete. Without --repair, the store is not changed.
"""
_BOUNDS = Bounds()
_MAX_IDS = 3


@attrs.frozen(kw_only=True)
class Options(shared.StoreOptions):
    sample: int | None
    all: bool
    repair: bool
    settle_days: int
    max_withdrawn: float
    max_concurrency: int
    requests_per_second: float | None
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("what to read").add_argument
    number = shared.whole_number(1, 1_000_000_000)
    add("--sample", type=number, metavar="N", help="check N random vehicles (default: all)")
    everything = "compare provisional days, too; changes since the last backfill count as differences"
    add("--all", action="store_true", help=everything)
    add = parser.add_argument_group("repair").add_argument
    add("--repair", action="store_true", help="backfill the vehicles that differ, and compare them again")
    settle = "as in the backfills of the store (default: %(default)s)"
    add("--settle-days", type=shared.whole_number(0, 36_500), default=30, metavar="N", help=settle)
    withdrawn = "withdraw no sessions if a larger share is missing in the API (default: %(default)s)"
    add("--max-withdrawn", type=shared.share, default=_BOUNDS.max_withdrawn, metavar="SHARE", help=withdrawn)
    shared.add_store(parser)
    shared.add_speed(parser)
    shared.add_json(parser.add_argument_group("output").add_argument)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Compare, repair if asked for, and print the report."""
    progress = Progress()
    with invocation.signals.gracefully() as stop:
        async with (
            shared.client_at_speed(options.max_concurrency, options.requests_per_second, invocation.retry) as client,
            shared.opened(options, stop.event, read_only=not options.repair) as store,
            invocation.shown(progress),
        ):
            report = await verify(
                client,
                store,
                options.sample,
                include_provisional=options.all,
                repair=options.repair,
                settle_days=options.settle_days,
                bounds=Bounds(max_withdrawn=options.max_withdrawn),
                stop=stop.event,
                progress=progress,
            )
        _print(options, report)
        if not report.finished:
            say("interrupted; the report is about the vehicles that were read until then")
            return stop.exit
    if report.failed and report.failed == report.checked:
        return Exit.API
    return Exit.DONE if report.is_clean else Exit.INCOMPLETE


def _print(options: Options, report: VerifyReport) -> None:
    if options.json:
        print_json(report, is_clean=report.is_clean)
        return
    print_pairs(_pairs(report))
    if report.finished and not report.checked:
        days = "days" if options.all else "settled days; --all compares provisional days, too"
        say(f"nothing was compared: no vehicle of the fleet has {days}")
    for difference in report.differences:
        say(_difference_text(difference))
    if report.differing > len(report.differences):
        say(f"and {report.differing - len(report.differences):,} more vehicles that differ")
    if report.uncovered:
        count = f"{report.uncovered:,} stored sessions are of days that no read covers"
        say(f"{count}, so they were not compared: run a backfill over their days")
    if report.rejected:
        say(f"{report.rejected:,} sessions could not be read, so they were not compared: see the table rejected_items")
    if report.doubled:
        say(f"{report.doubled:,} ids are stored more than once: --repair keeps the newest row of each")
    list_failures(report.failures, report.failed)
    for alarm in report.alarms:
        say(alarm)


def _pairs(report: VerifyReport) -> Iterator[Pair]:
    yield "vehicles", f"{report.checked:,} checked, with {report.requests:,} requests; {report.left:,} left the fleet"
    uncovered = f"{report.uncovered:,} sessions of days that no read covers"
    yield "uncovered", f"{uncovered}; {report.left_sessions:,} of vehicles that left"
    yield "equal", f"{report.matching:,}"
    yield "different", f"{report.differing:,}, {report.repaired:,} of them repaired"
    yield "unreadable", f"{report.unreadable:,}; {report.rejected:,} sessions"
    yield "unproven", f"{report.unproven:,}"
    yield "failed", f"{report.failed:,}"


def _difference_text(difference: Difference) -> str:
    kinds = [
        (difference.missing, "only in the API"),
        (difference.surplus, "only in the store"),
        (difference.changed, "with other contents"),
        (difference.doubled, "stored more than once"),
    ]
    text = ", ".join(f"{kind}: {_ids_text(ids)}" for ids, kind in kinds if ids)
    return (
        f"vehicle {difference.vehicle.vehicle_id} of user {difference.vehicle.user_id},"
        f" {difference.from_date} to {difference.to_date}: {difference.sessions:,} sessions differ; {text}"
    )


def _ids_text(ids: tuple[str, ...]) -> str:
    return " ".join(ids[:_MAX_IDS]) + (" ..." if len(ids) > _MAX_IDS else "")


COMMAND = Command("verify", _DESCRIPTION, Options, add_arguments, run, uses_api=True)

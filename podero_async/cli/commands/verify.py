"""`podero-async verify`: asks the API again, and holds what it says against the receipts of a store."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from podero_async.backfill import Difference, SessionStore, VerifyReport, verify
from podero_async.cli import _options as types
from podero_async.cli._output import text as _plain
from podero_async.cli._output.report import Pair, list_failures, print_json
from podero_async.cli._pace import add_pace, paced_client
from podero_async.cli._runtime import Exit, say

__all__ = ["add_to", "run"]

_ABOUT = """\
Read again what the receipts of a store are about, and compare. Changes nothing. Exit code 1 if
something differs, failed, or could not be proven; sessions that ended since the last backfill
differ, too.
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    about = "ask the API again, and hold what it says against a store"
    parser = commands.add_parser("verify", help=about, description=_ABOUT, epilog=types.ENVIRONMENT, allow_abbrev=False)
    types.add_store(parser)
    number = types.whole_number(1, 1_000_000_000)
    parser.add_argument("--sample", type=number, metavar="N", help="so many receipts, drawn at random (default: all)")
    add_pace(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout as the report")
    return parser


async def run(arguments: argparse.Namespace) -> Exit:
    """Compare, and print."""
    async with paced_client(arguments) as client, SessionStore(arguments.store, read_only=True) as store:
        report = await verify(client, store, arguments.sample)
    if arguments.json:
        print_json(report, is_clean=report.is_clean)
    else:
        _plain.print_pairs(_pairs(report))
        for difference in report.differences:
            say(_text(difference))
        list_failures(report.failures, report.failed)
    if report.failed and report.failed == report.checked:
        return Exit.API
    return Exit.DONE if report.is_clean else Exit.INCOMPLETE


def _pairs(report: VerifyReport) -> Iterator[Pair]:
    yield "receipts", f"{report.checked:,} checked, with {report.requests:,} requests"
    yield "the same", f"{report.matching + report.superseded:,}"
    yield "differ", f"{report.differing:,}"
    yield "unproven", f"{report.unproven:,}"
    yield "failed", f"{report.failed:,}"


def _text(difference: Difference) -> str:
    return (
        f"vehicle {difference.vehicle.vehicle_id} of user {difference.vehicle.user_id},"
        f" {difference.from_date} to {difference.to_date}:"
        f" {len(difference.missing):,} sessions missing in the store, {len(difference.surplus):,} only there"
    )

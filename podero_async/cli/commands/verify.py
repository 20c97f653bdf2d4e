"""`podero-async verify`: compares a store with the API."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator

import attrs

from podero_async.backfill import Difference, SessionStore, VerifyReport, verify
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._output.report import list_failures
from podero_async.cli._output.text import Pair, print_pairs
from podero_async.cli._runtime import Exit, say

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Re-read the days recorded in a store, and compare the sessions.

Nothing is changed. Exit code 1 if anything differs, failed, or could not be
verified; sessions completed since the last backfill count as differences.
"""


@attrs.frozen(kw_only=True)
class Options:
    sample: int | None
    store: str
    max_concurrency: int
    requests_per_second: float | None
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("what to read").add_argument
    number = shared.whole_number(1, 1_000_000_000)
    add("--sample", type=number, metavar="N", help="check N random vehicles (default: all)")
    shared.add_store(parser)
    shared.add_speed(parser)
    shared.add_json(parser.add_argument_group("output").add_argument)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Compare, and print the report."""
    async with (
        shared.client_at_speed(options.max_concurrency, options.requests_per_second, invocation.retry) as client,
        SessionStore(options.store, read_only=True) as store,
    ):
        report = await verify(client, store, options.sample)
    if options.json:
        print_json(report, is_clean=report.is_clean)
    else:
        print_pairs(_pairs(report))
        for difference in report.differences:
            say(_difference_text(difference))
        list_failures(report.failures, report.failed)
    if report.failed and report.failed == report.checked:
        return Exit.API
    return Exit.DONE if report.is_clean else Exit.INCOMPLETE


def _pairs(report: VerifyReport) -> Iterator[Pair]:
    yield "windows", f"{report.checked:,} checked, with {report.requests:,} requests"
    yield "equal", f"{report.matching:,}"
    yield "different", f"{report.differing:,}"
    yield "unproven", f"{report.unproven:,}"
    yield "failed", f"{report.failed:,}"


def _difference_text(difference: Difference) -> str:
    return (
        f"vehicle {difference.vehicle.vehicle_id} of user {difference.vehicle.user_id},"
        f" {difference.from_date} to {difference.to_date}:"
        f" {len(difference.missing):,} sessions only in the API, {len(difference.surplus):,} only in the store"
    )


COMMAND = Command("verify", _DESCRIPTION, Options, add_arguments, run, uses_api=True)

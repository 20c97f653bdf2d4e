"""`podero-async runs`: prints the history of a store's backfills."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator

import attrs

from podero_async.backfill import RunStatus, SessionStore
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._runtime import Exit
from podero_async.cli.commands.status import run_text

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Print the history of a store's backfills, the newest first.

Shows what each run read, added, changed and withdrew, and its alarms. Sends no
request, needs no credentials, changes nothing. Runs are kept for 400 days.
"""


@attrs.frozen(kw_only=True)
class Options:
    store: str
    limit: int
    json: bool


@attrs.frozen
class _History:
    runs: list[RunStatus]


def add_arguments(parser: ArgumentParser) -> None:
    shared.add_store(parser)
    add = parser.add_argument_group("output").add_argument
    limit = "print the newest N runs (default: %(default)s)"
    add("--limit", type=shared.whole_number(1, 1_000_000), default=30, metavar="N", help=limit)
    shared.add_json(add)


async def run(options: Options, _: Invocation) -> Exit:
    """Read the records of the runs, and print them."""
    async with SessionStore(options.store, read_only=True) as store:
        runs = await store.runs(options.limit)
    if options.json:
        print_json(_History(runs))
    else:
        for each in runs:
            for line in _lines(each):
                print(line)
    return Exit.DONE


def _lines(run: RunStatus) -> Iterator[str]:
    yield run_text(run)
    read = f"{run.done:,} windows read, {run.failed:,} failed, {run.unproven:,} unproven"
    yield f"    {read}, {run.requests:,} requests, {run.retries:,} retries"
    yield (
        f"    {run.sessions_new:,} new, {run.sessions_changed:,} changed, {run.sessions_unchanged:,} unchanged,"
        f" {run.sessions_withdrawn:,} withdrawn, {run.rejected:,} unreadable"
    )
    for alarm in run.alarms:
        yield f"    {alarm}"


COMMAND = Command("runs", _DESCRIPTION, Options, add_arguments, run)

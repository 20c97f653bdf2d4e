"""`podero-async merge`: makes one store of the stores of several shards."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser

import attrs

from podero_async._concurrency import run_until
from podero_async.backfill import merge_stores
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._runtime import Exit, say

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Make one store of several, such as those of the shards of a fleet.

The new store has the sessions, the coverage and the history of all of them, and
backfills may go on with it. The given stores are only read. A signal ends the
merge, and leaves FILE as it was. Sends no request.
"""


@attrs.frozen(kw_only=True)
class Options:
    into: str
    stores: list[str]
    overwrite: bool
    memory_limit: int
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("stores").add_argument
    shared.completes_files(add("stores", nargs="+", metavar="STORE", help="a store, or a snapshot of one"))
    shared.completes_files(add("--into", type=shared.store, required=True, metavar="FILE", help="the new store"))
    overwrite = "replace an earlier merge, unless a backfill has written to it since"
    add("--overwrite", action="store_true", help=overwrite)
    shared.add_memory_limit(add)
    shared.add_json(parser.add_argument_group("output").add_argument)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Merge the stores."""
    with invocation.signals.gracefully() as stop:
        merging = asyncio.create_task(
            merge_stores(
                options.into, options.stores, overwrite=options.overwrite, memory_limit_mb=options.memory_limit
            )
        )
        if not await run_until(stop.event, merging):
            say("interrupted; nothing was written")
            return stop.exit
    merged = merging.result()
    if options.json:
        print_json(merged)
    else:
        doubled = f", {merged.doubled:,} of them in several stores" if merged.doubled else ""
        invocation.summarize(
            f"{merged.sessions:,} sessions of {merged.vehicles:,} vehicles written to {options.into}{doubled}"
        )
    return Exit.DONE


COMMAND = Command("merge", _DESCRIPTION, Options, add_arguments, run)

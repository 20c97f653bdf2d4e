"""`podero-async export`: the table of sessions as a file for other tools."""

from __future__ import annotations

import argparse
import asyncio

from podero_async._concurrency import run_until
from podero_async.backfill import SessionStore
from podero_async.cli import _options as types
from podero_async.cli._runtime import Exit, say
from podero_async.cli._signals import wishes_to_stop

__all__ = ["add_to", "run"]

_ABOUT = """\
Write the sessions of a store to a file; one that is there is replaced once the new one is whole.
Withdrawn sessions are written, too: their withdrawn_at says so. Asks no API. A signal ends it
at once, and leaves what was there before.
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    about = "write the sessions of a store to a Parquet, CSV or JSON lines file"
    parser = commands.add_parser("export", help=about, description=_ABOUT, allow_abbrev=False)
    add = parser.add_argument
    types.add_store(parser)
    add("--output", required=True, metavar="TARGET", help="the file; with --partition-by, a new or empty directory")
    add("--format", choices=("parquet", "csv", "jsonl"), default="parquet", help="of the file (default: parquet)")
    add("--partition-by", choices=("month",), help="one directory for each month of plug-in (UTC)")
    return parser


async def run(arguments: argparse.Namespace) -> Exit:
    """Write the file."""
    with wishes_to_stop() as wish:
        async with SessionStore(arguments.store, read_only=True) as store:
            exporting = asyncio.create_task(
                store.export(arguments.output, arguments.format, partition_by=arguments.partition_by)
            )
            if not await run_until(wish.event, exporting):
                say("interrupted; nothing was written")
                return wish.exit
    exported = exporting.result()
    files = f", {len(exported.files):,} files" if arguments.partition_by else ""
    print(f"{exported.rows:,} sessions written to {arguments.output}{files}")
    return Exit.DONE

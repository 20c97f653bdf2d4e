"""`podero-async export`: writes the sessions of a store to a file for other tools."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from typing import Literal

import attrs

from podero_async._concurrency import run_until
from podero_async.backfill import SessionStore
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._runtime import Exit, say, stop_on_signals

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Write the sessions of a store to a Parquet, CSV or JSON lines file.

An existing file is replaced when the new one is complete; a signal ends the
export and keeps the existing file. Withdrawn sessions are included, with their
withdrawn_at. Sends no request.
"""


@attrs.frozen(kw_only=True)
class Options:
    store: str
    output: str
    format: Literal["parquet", "csv", "jsonl"]
    partition_by: Literal["month"] | None


def add_arguments(parser: ArgumentParser) -> None:
    shared.add_store(parser)
    add = parser.add_argument_group("output").add_argument
    output = "the file; with --partition-by, a new or empty directory"
    shared.completes_files(add("--output", required=True, metavar="TARGET", help=output))
    formats = ("parquet", "csv", "jsonl")
    add("--format", choices=formats, default="parquet", help="format of the file (default: %(default)s)")
    add("--partition-by", choices=("month",), help="write one directory for each UTC month of plug-in")


async def run(options: Options, invocation: Invocation) -> Exit:
    """Write the file."""
    with stop_on_signals(invocation.shutdown_s) as stop:
        async with SessionStore(options.store, read_only=True) as store:
            exporting = asyncio.create_task(
                store.export(options.output, options.format, partition_by=options.partition_by)
            )
            if not await run_until(stop.event, exporting):
                say("interrupted; nothing was written")
                return stop.exit
    exported = exporting.result()
    files = f", {len(exported.files):,} files" if options.partition_by else ""
    print(f"{exported.rows:,} sessions written to {options.output}{files}")
    return Exit.DONE


COMMAND = Command("export", _DESCRIPTION, Options, add_arguments, run)

"""`podero-async export`: writes the sessions of a store to a file for other tools, or to stdout."""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import ArgumentParser
from datetime import datetime
from typing import Literal, cast

import attrs

from podero_async._concurrency import cancel_all, run_until
from podero_async.backfill import Exported, SessionStore
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._runtime import Exit, UsageError, say
from podero_async.cli._signals import StandardOutput

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Write the sessions of a store to a Parquet, CSV or JSON lines file.

An existing file is replaced when the new one is complete; a signal ends the
export and keeps the existing file. A database is never replaced. Withdrawn
sessions are included, with their withdrawn_at. Sends no request to the API.

The target may be in an object store: s3://bucket/prefix, gs://bucket/prefix or
abfss://container@account.dfs.core.windows.net/prefix, with the credentials of
the environment, a profile or the instance. AWS_ENDPOINT_URL_S3 names another
S3 server.
"""
_STDOUT = "-"
_CHUNK_BYTES = 65_536


@attrs.frozen(kw_only=True)
class Options(shared.StoreOptions):
    output: str
    format: Literal["parquet", "csv", "jsonl"]
    partition_by: Literal["month"] | None
    overwrite: bool
    since: datetime | None
    withdrawn: bool
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    shared.add_store(parser)
    add = parser.add_argument_group("what to write").add_argument
    since = f"only sessions that were added, changed or withdrawn after this time (changed_at): {shared.MOMENT}"
    add("--since", type=shared.moment, metavar="TIME", help=since)
    withdrawn = "leave out sessions that the server no longer returns"
    add("--no-withdrawn", action="store_false", dest="withdrawn", help=withdrawn)
    add = parser.add_argument_group("output").add_argument
    output = "the file or address, or - for stdout (CSV, JSON lines); with --partition-by, a new or empty directory or prefix"
    shared.completes_files(add("--output", required=True, metavar="TARGET", help=output))
    formats = ("parquet", "csv", "jsonl")
    add("--format", choices=formats, default="parquet", help="format of the file (default: %(default)s)")
    add("--partition-by", choices=("month",), help="write one directory for each UTC month of plug-in")
    overwrite = "with --partition-by, repeat an earlier export: only the months that changed are written"
    add("--overwrite", action="store_true", help=overwrite)
    shared.add_json(add)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Write the file."""
    if options.output == _STDOUT:
        return await _run_to_stdout(options, invocation)
    with invocation.signals.gracefully() as stop:
        async with shared.opened(options, stop.event, read_only=True) as store:
            exporting = asyncio.create_task(_export(options, store, options.output))
            if not await run_until(stop.event, exporting):
                is_remote = "://" in options.output
                say(f"interrupted; {'to complete the export, repeat it' if is_remote else 'nothing was written'}")
                return stop.exit
    exported = exporting.result()
    if options.json:
        print_json(exported)
    else:
        invocation.summarize(_summary(options, exported))
    return Exit.DONE


def _summary(options: Options, exported: Exported) -> str:
    if not options.partition_by:
        return f"{exported.rows:,} sessions written to {options.output}"
    files = f"{len(exported.files):,} files, of which {len(exported.written):,} were written"
    return f"{exported.rows:,} sessions in {options.output}: {files}"


async def _run_to_stdout(options: Options, invocation: Invocation) -> Exit:
    if options.format == "parquet" or options.partition_by or options.json:
        raise UsageError("--output - needs --format csv or jsonl, without --partition-by and --json")
    async with shared.opened(options, invocation.signals.event, read_only=True) as store:
        await _write_to_stdout(options, store)
    return Exit.DONE


async def _export(options: Options, store: SessionStore, target: str) -> Exported:
    return await store.export(
        target,
        options.format,
        partition_by=options.partition_by,
        include_withdrawn=options.withdrawn,
        since=options.since,
        overwrite=options.overwrite,
    )


async def _write_to_stdout(options: Options, store: SessionStore) -> None:
    """Export to a pipe, and write to stdout what arrives there."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        exporting = asyncio.create_task(_export(options, store, f"/dev/fd/{writing}"))
        exporting.add_done_callback(lambda _: os.close(writing))  # ends the pipe
        try:
            while chunk := await asyncio.to_thread(pipe.read, _CHUNK_BYTES):
                cast("StandardOutput", sys.stdout).write_bytes(chunk)
            await exporting
        finally:
            pipe.close()  # if the export writes, it fails now
            await cancel_all([exporting])


COMMAND = Command("export", _DESCRIPTION, Options, add_arguments, run)

"""`podero-async publish`: brings a PostgreSQL database to the state of a store."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser

import attrs

from podero_async._concurrency import run_until
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._runtime import Exit, say
from podero_async.publish import publish

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Publish the changes of a store to PostgreSQL.

Brings the schema podero of the database to the state of the store: sessions,
users, vehicles and coverage. One transaction writes the changes since the last
time; if it is killed, the same command does it again. Several stores, such as
those of shards, may have one target. FILE may be a snapshot. The password comes
from PGPASSWORD or ~/.pgpass, and all that is not in the URL from the variables
of libpq (PGHOST, PGUSER, ...). Sends no request to the API.
"""


@attrs.frozen(kw_only=True)
class Options(shared.StoreOptions):
    to: str
    full: bool
    drop_others: bool
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    shared.add_store(parser)
    add = parser.add_argument_group("target").add_argument
    add("--to", required=True, metavar="URL", help="postgresql://user@host/database?sslmode=verify-full")
    full = "compare all sessions, and replace those of a store that was restored from a copy"
    add("--full", action="store_true", help=full)
    others = "remove the rows of all other stores, such as those of shards that were merged into this one"
    add("--drop-others", action="store_true", help=others)
    shared.add_json(parser.add_argument_group("output").add_argument)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Publish the store."""
    with invocation.signals.gracefully() as stop:
        async with shared.opened(options, stop.event, read_only=True) as store:
            publishing = asyncio.create_task(
                publish(store, options.to, full=options.full, drop_others=options.drop_others)
            )
            if not await run_until(stop.event, publishing):
                say("interrupted; the same command publishes the rest")
                return stop.exit
    published = publishing.result()
    if options.json:
        print_json(published)
    else:
        removed = f"; {published.removed:,} rows removed" if published.removed else ""
        invocation.summarize(
            f"{published.sessions:,} sessions, {published.users:,} users, {published.vehicles:,} vehicles and"
            f" {published.coverage:,} spans of coverage added or changed{removed}"
        )
    return Exit.DONE


COMMAND = Command("publish", _DESCRIPTION, Options, add_arguments, run)

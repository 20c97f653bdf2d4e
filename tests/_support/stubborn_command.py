"""A command that opens a store, takes the first signal, and then does not end within a minute."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser

import attrs

from podero_async.backfill import SessionStore
from podero_async.cli._command import Command, Invocation
from podero_async.cli._runtime import Exit

__all__ = ["COMMAND"]


@attrs.frozen(kw_only=True)
class Options:
    store: str


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--store", required=True)


async def run(options: Options, invocation: Invocation) -> Exit:
    with invocation.signals.gracefully() as stop:
        async with SessionStore(options.store):
            print("started", flush=True)  # noqa: T201 - the test waits for it
            await stop.event.wait()
            print("stopping", flush=True)  # noqa: T201
            await asyncio.sleep(60)
    return stop.exit


COMMAND = Command("stubborn", "Do not end.\n", Options, add_arguments, run)

"""The snapshot at the end of a backfill, which a signal must not delay for long."""

from __future__ import annotations

import asyncio

from podero_async._concurrency import run_until
from podero_async.backfill import SessionStore, StoreError
from podero_async.cli._runtime import Exit, say
from podero_async.cli._signals import Signals

__all__ = ["write_snapshot"]

_RESERVE_S = 1.0
"""Seconds of the shutdown that are left for closing the store."""


async def write_snapshot(store: SessionStore, target: str | None, stop: Signals) -> Exit | None:
    """Replace the snapshot; if a signal or an error prevents that, return the exit code.

    After the first signal, a snapshot is written only as long as the shutdown lasts.
    """
    if target is None:
        return None
    writing = asyncio.create_task(store.snapshot(target))
    try:
        is_written = await (_in_time(writing, stop) if stop.event.is_set() else run_until(stop.event, writing))
    except StoreError as error:
        say(error)
        return Exit.STORE
    if is_written:
        return None
    say(f"interrupted; the snapshot was not replaced: {target}")
    return stop.exit


async def _in_time(writing: asyncio.Task[int], stop: Signals) -> bool:
    try:
        await asyncio.wait_for(writing, stop.left_s - _RESERVE_S)
    except TimeoutError:
        return False
    return True

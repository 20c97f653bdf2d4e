"""`podero-async forget`: erases a user or old days from a store."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import attrs

from podero_async._concurrency import run_until
from podero_async.backfill import SessionStore, StoreError
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._runtime import Exit, UsageError, say
from podero_async.cli._selection import add_user

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Erase a user or old days from a store, and keep later runs from fetching them.

Writes the file anew without the erased rows, so that no byte of them remains;
of a user, the store keeps a hash of the id. A signal ends it and leaves the
store as it was. Exports and snapshots that were made before still have what is
erased; publish removes it from PostgreSQL. --user and --before may be repeated;
an erased user's external id is unknown, so it gives exit code 2.
"""

_USER_OF = """
SELECT user_id FROM (
    SELECT external_user_id, user_id, last_seen_at AS seen_at, true AS is_current FROM users
    UNION ALL SELECT external_user_id, user_id, coalesce(until, since), false FROM ownership
) WHERE external_user_id = ? ORDER BY is_current DESC, seen_at DESC LIMIT 1
"""


@attrs.frozen(kw_only=True)
class Options(shared.StoreOptions):
    user: UUID | None
    external_id: str | None
    before: date | None
    json: bool


@attrs.frozen
class _Erased:
    sessions: int


def add_arguments(parser: ArgumentParser) -> None:
    add = add_user(parser.add_argument_group("what to erase"), "the user")
    before = "all sessions that were plugged in before this UTC day; later runs read no day before it"
    add("--before", type=shared.day, metavar="DAY", help=before)
    shared.add_store(parser)
    shared.add_json(parser.add_argument_group("output").add_argument)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Erase the user, or the days."""
    if options.before is not None and options.before > datetime.now(UTC).date():
        raise UsageError(f"--before is {options.before}, after today (UTC)")
    with invocation.signals.gracefully() as stop:
        _check_exists(options.store)  # it would be created
        async with shared.opened(options, stop.event) as store:
            if options.before is not None:
                erasing = asyncio.create_task(store.forget_before(options.before))
            else:
                user = options.user or await _find_user(store, options.external_id)
                erasing = asyncio.create_task(store.forget(user))
            if not await run_until(stop.event, erasing):
                say("interrupted; nothing was erased")
                return stop.exit
            kept_from = await store.backend.kept_from()
    if options.json:
        print_json(_Erased(erasing.result()))
    else:
        invocation.summarize(f"{erasing.result():,} sessions erased; {_outcome(options.before, kept_from)}")
    return Exit.DONE


def _outcome(before: date | None, kept_from: date | None) -> str:
    if before is None:
        return "later runs leave the user out"
    reason = "" if before == kept_from else f", since an earlier call has erased the days before {kept_from}"
    return f"later runs read no day before {kept_from}{reason}"


async def _find_user(store: SessionStore, external_id: str | None) -> str:
    """Return the id of the user with an external id, or of the last one that had it."""
    found = await store.query(_USER_OF, [external_id])
    if not found:
        raise UsageError(
            "no user of the store has this external id: it is mistyped, or the user was erased before, of whom the store"
            " keeps no external id; --user may be repeated"
        )
    return str(found[0]["user_id"])


def _check_exists(path: str) -> None:
    if not Path(path).exists():
        raise StoreError("no such store", path)


COMMAND = Command("forget", _DESCRIPTION, Options, add_arguments, run)

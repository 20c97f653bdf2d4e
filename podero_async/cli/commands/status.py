"""`podero-async status`: what a store holds, how fresh it is, and what failed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from podero_async.backfill import SessionStore
from podero_async.cli import _options as types
from podero_async.cli._output import text as _plain
from podero_async.cli._output.report import Pair, list_failures, print_json, under
from podero_async.cli._runtime import Exit

if TYPE_CHECKING:
    from podero_async.backfill.store.duckdb.queries import Coverage, RunStatus, StoreStatus

__all__ = ["add_to", "run"]

_ABOUT = """\
Say what a store holds: which days of how many vehicles, how fresh, and which vehicles failed.
Asks no API, needs no credentials, and changes nothing.
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    about = "say what a store holds, how fresh it is, and what failed"
    parser = commands.add_parser("status", help=about, description=_ABOUT, allow_abbrev=False)
    types.add_store(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


async def run(arguments: argparse.Namespace) -> Exit:
    """Snapshot, and print."""
    async with SessionStore(arguments.store, read_only=True) as store:
        status = await store.status()
    if arguments.json:
        print_json(status)
    else:
        _plain.print_pairs(_pairs(status, datetime.now(UTC)))
        list_failures(status.failed_vehicles, status.failures)
    return Exit.DONE


def _pairs(status: StoreStatus, now: datetime) -> Iterator[Pair]:
    yield "store", f"{status.path}, schema version {status.schema_version}"
    if status.org_id:
        yield "of", f"organization {status.org_id} at {status.origin}"
    yield "vehicles", f"{status.vehicles:,}"
    yield "sessions", f"{status.sessions:,}, of which {status.hidden:,} hidden and {status.withdrawn:,} withdrawn"
    if status.first_plug_in and status.last_plug_in:
        yield "plug-ins", f"{status.first_plug_in:%Y-%m-%d} to {status.last_plug_in:%Y-%m-%d}"
    yield "fetched", _ago(status.fetched_at, now)
    yield "lists", f"{status.verified:,} verified, {status.repaired:,} repaired, {status.unproven:,} unproven"
    yield "missing", f"{status.failures:,} failures, {status.rejected:,} sessions that could not be read"
    yield from under("coverage", [_days(part) for part in status.coverage])
    yield from under("runs", [_run(each) for each in status.runs])


def _days(part: Coverage) -> str:
    hidden = ", hidden sessions too" if part.include_hidden else ""
    return f"{part.from_date} to {part.held_to}{hidden}: {part.vehicles:,} vehicles"


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    hours = (now - moment) / timedelta(hours=1)
    ago = f"{hours * 60:,.0f} minutes" if hours < 2 else f"{hours:,.0f} hours"  # noqa: PLR2004
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {ago} ago"


def _run(status: RunStatus) -> str:
    end = f"finished {status.finished_at.astimezone(UTC):%H:%M}" if status.finished_at else f"{status.left:,} left"
    return (
        f"#{status.run_id} {status.started_at.astimezone(UTC):%Y-%m-%d %H:%M}: {status.vehicles:,} vehicles,"
        f" {status.from_date} to {status.to_date}, {end}"
    )

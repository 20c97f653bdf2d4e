"""`podero-async status`: prints the contents of a store, its age, and its failures."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import attrs

from podero_async.backfill import Coverage, RunStatus, StoreStatus
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._output.report import list_failures
from podero_async.cli._output.text import Pair, pairs_of, print_pairs
from podero_async.cli._runtime import Exit

__all__ = ["COMMAND", "age_text"]

_DESCRIPTION = """\
Print the contents of a store, its age and its failures.

Shows which days of how many vehicles are stored, when they were fetched, and
which vehicles failed. Sends no request, needs no credentials, changes nothing.
"""
_MAX_MINUTES = 120
"""If an age is longer, it is given in hours."""


@attrs.frozen(kw_only=True)
class Options(shared.StoreOptions):
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    shared.add_store(parser)
    shared.add_json(parser.add_argument_group("output").add_argument)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Read the status, and print it."""
    async with shared.opened(options, invocation.signals.event, read_only=True) as store:
        status = await store.status()
    if options.json:
        print_json(status)
    else:
        print_pairs(_pairs(status, datetime.now(UTC)))
        list_failures(status.failed_vehicles, status.failures)
    return Exit.DONE


def _pairs(status: StoreStatus, now: datetime) -> Iterator[Pair]:
    yield "store", f"{status.path}, schema version {status.schema_version}"
    if status.org_id:
        yield "owner", f"organization {status.org_id} at {status.origin}"
    yield "vehicles", f"{status.vehicles:,}"
    yield "sessions", f"{status.sessions:,}, including {status.hidden:,} hidden and {status.withdrawn:,} withdrawn"
    if status.first_plug_in and status.last_plug_in:
        yield "plug-ins", f"{status.first_plug_in:%Y-%m-%d} to {status.last_plug_in:%Y-%m-%d}"
    yield "fetched", age_text(status.fetched_at, now)
    yield "windows", f"{status.verified:,} verified, {status.repaired:,} repaired, {status.unproven:,} unproven"
    yield "missing", f"{status.failures:,} failures, {status.rejected:,} unreadable sessions"
    yield from pairs_of("coverage", [_coverage_text(part) for part in status.coverage])
    yield from pairs_of("runs", [_run_text(each) for each in status.runs])


def _coverage_text(part: Coverage) -> str:
    hidden = ", with hidden sessions" if part.include_hidden else ""
    return f"{part.from_date} to {part.held_to}{hidden}: {part.vehicles:,} vehicles"


def age_text(moment: datetime | None, now: datetime) -> str:
    """Return a time and its age."""
    if moment is None:
        return "never"
    minutes = (now - moment) / timedelta(minutes=1)
    age = f"{minutes:,.0f} minutes" if minutes < _MAX_MINUTES else f"{minutes / 60:,.0f} hours"
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {age} ago"


def _run_text(status: RunStatus) -> str:
    end = f"finished {status.finished_at.astimezone(UTC):%H:%M}" if status.finished_at else f"{status.left:,} left"
    return (
        f"#{status.run_id} {status.started_at.astimezone(UTC):%Y-%m-%d %H:%M}: {status.vehicles:,} vehicles,"
        f" {status.from_date} to {status.to_date}, {end}"
    )


COMMAND = Command("status", _DESCRIPTION, Options, add_arguments, run)

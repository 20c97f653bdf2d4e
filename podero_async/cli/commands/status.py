"""`podero-async status`: prints the contents of a store, its age, and its failures."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import attrs

from podero_async.backfill import Coverage, DayCounts, RunStatus, StoreStatus
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._output.report import days_text, list_failures
from podero_async.cli._output.text import Pair, pairs_of, print_pairs
from podero_async.cli._runtime import Exit, UsageError, say

__all__ = ["COMMAND", "age_text", "run_text"]

_DESCRIPTION = """\
Print the contents of a store, its age and its failures.

Shows which days of how many vehicles are settled, provisional (more may come)
and missing, and which vehicles failed. With --from, --to and --check, the exit
code is 0 if all days of all vehicles are settled, 6 if some are provisional,
and 1 if some are missing or the vehicles of a user could not be listed. Sends
no request, needs no credentials, changes nothing.
"""
_HOUR = timedelta(hours=1)
_MAX_MINUTES = 120
"""If an age is longer, it is given in hours."""


@attrs.frozen(kw_only=True)
class Options(shared.StoreOptions):
    from_date: date | None
    to_date: date | None
    include_hidden: bool
    check: bool
    max_age: timedelta | None
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    shared.add_store(parser)
    add = parser.add_argument_group("days").add_argument
    shared.add_days(add, required=False)
    shared.add_include_hidden(add)
    add("--check", action="store_true", help="tell by the exit code whether the days are settled")
    age = "end with exit code 1 if the newest read is older, also if there is none: for monitoring"
    parser.add_argument_group("age").add_argument("--max-age", type=shared.hours, metavar="HOURS", help=age)
    shared.add_json(parser.add_argument_group("output").add_argument)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Read the status, and print it."""
    first, last = options.from_date, options.to_date
    if (first is None) != (last is None):
        raise UsageError("--from and --to go together")
    if options.check and first is None:
        raise UsageError("--check needs --from and --to")
    async with shared.opened(options, invocation.signals.event, read_only=True) as store:
        status, days = await store.status(), None
        if first is not None and last is not None:
            try:
                days = await store.days(first, last, include_hidden=options.include_hidden)
            except ValueError as error:
                raise UsageError(f"--from and --to: {error}") from error
    now = datetime.now(UTC)
    if options.json:
        print_json(status, **({} if days is None else {"days": attrs.asdict(days)}))
    else:
        print_pairs(_pairs(status, now))
        if days is not None:
            print_pairs([("window", f"{first} to {last}: {days_text(days)}")])
        list_failures(status.failed_vehicles, status.failures)
    if options.max_age is not None and (status.fetched_at is None or now - status.fetched_at > options.max_age):
        say(f"the newest read: {age_text(status.fetched_at, now)}; --max-age is {options.max_age / _HOUR:g} hours")
        return Exit.INCOMPLETE
    return _exit_of(status, days) if options.check and days is not None else Exit.DONE


def _exit_of(status: StoreStatus, days: DayCounts) -> Exit:
    has_unlisted = any(failed.vehicle_id is None for failed in status.failed_vehicles)
    if has_unlisted or days.missing or not (days.settled or days.provisional):
        return Exit.INCOMPLETE
    return Exit.PROVISIONAL if days.provisional else Exit.DONE


def _pairs(status: StoreStatus, now: datetime) -> Iterator[Pair]:
    yield "store", f"{status.path}, schema version {status.schema_version}"
    if status.org_id:
        yield "owner", f"organization {status.org_id} at {status.origin}"
    if status.kept_from:
        yield "kept", f"days from {status.kept_from} on; older ones were erased"
    gone = f", {status.gone:,} no longer listed" if status.gone else ""
    unread = f", {status.unread:,} never read" if status.unread else ""
    yield "vehicles", f"{status.vehicles:,}{gone}{unread}"
    absent = f", and {status.absent:,} that may have been withdrawn" if status.absent else ""
    yield (
        "sessions",
        f"{status.sessions:,}, including {status.hidden:,} hidden and {status.withdrawn:,} withdrawn{absent}",
    )
    if status.first_plug_in and status.last_plug_in:
        yield "plug-ins", f"{status.first_plug_in:%Y-%m-%d} to {status.last_plug_in:%Y-%m-%d}"
    yield "fetched", age_text(status.fetched_at, now)
    more = f", and all days of the {status.unread:,} vehicles that were never read" if status.unread else ""
    yield "days", days_text(status) + more
    yield "failed", f"{status.failures:,} vehicles, {status.rejected:,} unreadable sessions"
    yield from pairs_of("coverage", [_coverage_text(part) for part in status.coverage])
    yield from pairs_of("runs", [run_text(each) for each in status.runs])


def _coverage_text(part: Coverage) -> str:
    hidden = ", with hidden sessions" if part.include_hidden else ""
    state = "settled" if part.is_settled else "provisional"
    return f"{part.from_date} to {part.to_date}, {state}{hidden}: {part.vehicles:,} vehicles"


def age_text(moment: datetime | None, now: datetime) -> str:
    """Return a time and its age."""
    if moment is None:
        return "never"
    minutes = (now - moment) / timedelta(minutes=1)
    age = f"{minutes:,.0f} minutes" if minutes < _MAX_MINUTES else f"{minutes / 60:,.0f} hours"
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {age} ago"


def run_text(run: RunStatus) -> str:
    """Return the record of a run in one line."""
    end = f"finished {run.finished_at.astimezone(UTC):%H:%M}" if run.finished_at else "interrupted"
    alarms = f", {len(run.alarms)} alarm{'s' * (len(run.alarms) > 1)}" if run.alarms else ""
    return (
        f"#{run.run_id} {run.started_at.astimezone(UTC):%Y-%m-%d %H:%M}: {run.vehicles:,} vehicles,"
        f" {run.from_date} to {run.to_date}, {end}{alarms}"
    )


COMMAND = Command("status", _DESCRIPTION, Options, add_arguments, run)

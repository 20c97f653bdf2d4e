"""Reports, for people and for programs: labels with texts, one JSON object, and the vehicles that are not well."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from podero_async.backfill import BackfillPlan, BackfillReport, FailedVehicle
from podero_async.cli._output.json import as_json
from podero_async.cli._runtime import say
from podero_async.models import VehicleRef

__all__ = ["Pair", "list_failures", "list_unproven", "plan_pairs", "print_json", "report_pairs", "under"]

Pair = tuple[str, str]


def print_json(report: attrs.AttrsInstance, **more: Any) -> None:
    """Print a report as one JSON object in one line."""
    fields = attrs.asdict(report, value_serializer=lambda _, __, value: as_json(value))
    print(json.dumps(fields | more))


def report_pairs(report: BackfillReport) -> Iterator[Pair]:
    """Say what a backfill did."""
    yield "window", _window(report.from_date, report.to_date, include_hidden=report.include_hidden)
    yield "vehicles", f"{report.vehicles:,}, of which {report.skipped:,} with nothing to read; {report.failed:,} failed"
    yield (
        "sessions",
        f"{report.sessions:,}: {report.new:,} new, {report.changed:,} changed, {report.unchanged:,} as before",
    )
    yield "others", f"{report.withdrawn:,} that are shown no more, {report.rejected:,} that could not be read"
    verdicts = f"{report.verified:,} verified, {report.repaired:,} repaired, {report.unproven:,} unproven"
    yield "lists", f"{report.done:,} read: {verdicts}"
    yield "requests", f"{report.requests:,}, of which {report.retries:,} retries, in {report.seconds:,.1f} s"


def plan_pairs(plan: BackfillPlan, requests_per_second: float | None) -> Iterator[Pair]:
    """Say what a backfill would do."""
    yield "vehicles", f"{plan.vehicles:,}, of which {plan.skipped:,} with nothing to read"
    yield "requests", f"{plan.least_requests:,} at least; lists of more than 200 sessions take more"
    if requests_per_second is None:
        yield "time", "as the API allows; name a rate to learn more, as in --requests-per-second 20"
    else:
        yield "time", f"{plan.seconds_at(requests_per_second):,.1f} s at least, at {requests_per_second:g} requests/s"
    windows = [f"{first} to {last}: {vehicles:,} vehicles" for first, last, vehicles in plan.windows]
    yield from under("windows", windows)


def under(label: str, texts: Sequence[str], most: int = 10) -> Iterator[Pair]:
    """Put several texts under one label."""
    more = [f"and {len(texts) - most:,} more"] if len(texts) > most else []
    for text in (*texts[:most], *more):
        yield label, text
        label = ""


def _window(first: object, last: object, *, include_hidden: bool) -> str:
    return f"{first} to {last}{', hidden sessions too' if include_hidden else ''}"


def list_failures(failures: Sequence[FailedVehicle], count: int) -> None:
    """List what failed on stderr."""
    for failed in failures:
        what = f"vehicle {failed.vehicle_id} of user" if failed.vehicle_id else "the list of vehicles of user"
        say(f"{what} {failed.user_id} failed: {failed.message}")
    _and_more(count - len(failures), "failed")


def list_unproven(vehicles: Sequence[VehicleRef], count: int) -> None:
    """List on stderr the vehicles that may have more sessions than were received."""
    for vehicle in vehicles:
        say(f"vehicle {vehicle.vehicle_id} of user {vehicle.user_id}: not proven complete")
    _and_more(count - len(vehicles), "not proven complete")


def _and_more(count: int, what: str) -> None:
    if count > 0:
        say(f"and {count:,} more {what}: the store names all of them")

"""Reports of backfills as text, and the lines on stderr about failed and unproven vehicles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from podero_async.backfill import BackfillPlan, BackfillReport, DayCounts, FailedVehicle, StoreStatus
from podero_async.cli._output.text import Pair, pairs_of
from podero_async.cli._runtime import say
from podero_async.models import VehicleRef

__all__ = ["days_text", "list_failures", "list_unproven", "plan_pairs", "report_pairs"]


def report_pairs(report: BackfillReport) -> Iterator[Pair]:
    """Describe a finished or interrupted backfill."""
    hidden = ", with hidden sessions" if report.include_hidden else ""
    yield "window", f"{report.from_date} to {report.to_date}{hidden}"
    gone = f", {report.vanished:,} no longer listed" if report.vanished else ""
    yield "vehicles", f"{report.vehicles:,}: {report.skipped:,} up to date, {report.failed:,} failed{gone}"
    yield "days", days_text(report)
    yield (
        "sessions",
        f"{report.sessions:,}: {report.new:,} new, {report.changed:,} changed, {report.unchanged:,} unchanged",
    )
    yield "other", f"{report.withdrawn:,} withdrawn by the server, {report.rejected:,} unreadable"
    verdicts = f"{report.verified:,} verified, {report.repaired:,} repaired, {report.unproven:,} unproven"
    yield "windows", f"{report.done:,} read: {verdicts}"
    yield "requests", f"{report.requests:,}, including {report.retries:,} retries, in {report.seconds:,.1f} s"


def days_text(counts: BackfillReport | StoreStatus | DayCounts) -> str:
    """Describe how many days of vehicles are settled, provisional and missing."""
    return (
        f"{counts.settled:,} settled, {counts.provisional:,} provisional, {counts.missing:,} missing (days of vehicles)"
    )


def plan_pairs(plan: BackfillPlan, requests_per_second: float | None) -> Iterator[Pair]:
    """Describe a planned backfill."""
    yield "vehicles", f"{plan.vehicles:,}: {plan.skipped:,} up to date"
    yield "requests", f"at least {plan.least_requests:,}; a window of 200 sessions or more takes several"
    if requests_per_second is None:
        yield "time", "unknown; pass --requests-per-second to get an estimate"
    else:
        seconds = plan.seconds_at(requests_per_second)
        yield "time", f"at least {seconds:,.1f} s at {requests_per_second:g} requests/s"
    windows = [f"{first} to {last}: {vehicles:,} vehicles" for first, last, vehicles in plan.windows]
    yield from pairs_of("windows", windows)


def list_failures(failures: Sequence[FailedVehicle], count: int) -> None:
    """List failures on stderr; if `count` is larger, tell how many more there are."""
    for failed in failures:
        if failed.user_id is None:
            say(f"some vehicles may be missing: {failed.message}")
            continue
        subject = f"vehicle {failed.vehicle_id} of user" if failed.vehicle_id else "the list of vehicles of user"
        say(f"{subject} {failed.user_id} failed: {failed.message}")
    _say_more(count - len(failures), "failed")


def list_unproven(vehicles: Sequence[VehicleRef], count: int) -> None:
    """List on stderr the vehicles that may have more sessions than were received."""
    for vehicle in vehicles:
        say(f"vehicle {vehicle.vehicle_id} of user {vehicle.user_id}: not proven complete")
    _say_more(count - len(vehicles), "not proven complete")


def _say_more(count: int, state: str) -> None:
    if count > 0:
        say(f"and {count:,} more {state}; the store lists all of them")

"""The alarms of a run: the reasons why its result is not to be trusted as a whole. No I/O."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

from podero_async.backfill._values import Bounds

__all__ = [
    "LONG_FAILED_DAYS",
    "FailureCounts",
    "Unread",
    "Vanished",
    "clock_alarm",
    "failed_alarms",
    "rejected_alarm",
    "too_many_absent",
    "too_many_vanished",
    "unread_alarm",
    "vanished_alarm",
    "withdrawn_alarm",
]

LONG_FAILED_DAYS = 3
"""A vehicle that has failed, or a row that was unreadable, for this long causes no alarm, as long as they are few."""
_MAX_LONG_FAILED = 0.05
_MAX_LONG_REJECTED = 0.05
_MIN_ABSENT = 10
_MAX_AHEAD = timedelta(days=1)


@attrs.frozen
class Vanished:
    """Known vehicles that a complete discovery did not list."""

    known: int = 0
    vanished: int = 0
    is_recorded: bool = True
    """Whether they were recorded as gone."""


@attrs.frozen
class FailureCounts:
    """The vehicles of a run that could not be read; a user with a failed vehicle list counts as one."""

    vehicles: int
    failed: int
    unproven: int
    long_failed: int
    """Of the failed and unproven vehicles, those that have failed for at least `LONG_FAILED_DAYS`."""
    rejected: int = 0
    """Stored rows of these vehicles that could not be read, also by earlier runs."""
    lately_rejected: int = 0
    """Of these, the rows that could not be read for the first time less than `LONG_FAILED_DAYS` ago."""


@attrs.frozen
class Unread:
    """Days of a finished run that were neither read nor failed."""

    days: int = 0
    vehicles: int = 0


def too_many_vanished(vanished: int, known: int, bound: float) -> bool:
    """Return whether the share of vanished vehicles looks like a fault of the API."""
    return vanished > bound * known and (vanished > 1 or vanished == known)


def too_many_absent(absent: int, live: int, bound: float) -> bool:
    """Return whether the share of absent sessions looks like a fault of the API:
    more than a few, or all of a small fleet's.
    """
    return absent > bound * live and (absent > _MIN_ABSENT or absent == live > 1)


def vanished_alarm(found: Vanished, bounds: Bounds) -> list[str]:
    """Return the alarm about vehicles that vanished, if they were not recorded as gone."""
    if found.is_recorded:
        return []
    count = f"{found.vanished:,} of {found.known:,} known vehicles are no longer listed ({_limit(bounds.max_vanished)})"
    return [f"{count}; none was recorded as gone: run once with --max-vanished 1 if they have left"]


def withdrawn_alarm(absent: int, live: int, bounds: Bounds) -> list[str]:
    """Return the alarm about absent sessions, if there are too many of them."""
    if not too_many_absent(absent, live, bounds.max_withdrawn):
        return []
    count = f"{absent:,} of {live:,} stored sessions were no longer listed ({_limit(bounds.max_withdrawn)})"
    return [f"{count}; none was withdrawn: run once with --max-withdrawn 1 if they were removed"]


def failed_alarms(counts: FailureCounts, bounds: Bounds) -> list[str]:
    """Return the alarms about vehicles that failed or were not proven complete, if there are too many of them."""
    lost = counts.failed + counts.unproven
    if counts.long_failed <= max(1, _MAX_LONG_FAILED * counts.vehicles):
        lost -= counts.long_failed
    if lost <= bounds.max_failed * counts.vehicles:
        return []
    of = f"of {counts.vehicles:,} vehicles"
    parts = [(counts.failed, f"{of} failed"), (counts.unproven, f"{of} were not proven complete")]
    remedy = "run again later, or pass a larger --max-failed"
    return [f"{count:,} {text} ({_limit(bounds.max_failed)}): {remedy}" for count, text in parts if count]


def rejected_alarm(counts: FailureCounts, received: int, rejected: int) -> list[str]:
    """Return the alarm about unreadable rows, if there are new ones, or if they are too many of the rows of the run."""
    if not counts.lately_rejected and rejected <= max(1, _MAX_LONG_REJECTED * (received + rejected)):
        return []
    lately = (
        f", {counts.lately_rejected:,} of them for less than {LONG_FAILED_DAYS} days" if counts.lately_rejected else ""
    )
    sessions = "1 session" if counts.rejected == 1 else f"{counts.rejected:,} sessions"
    return [f"{sessions} could not be read{lately}: the table rejected_items has them, and the reasons"]


def clock_alarm(now: datetime, server_time: datetime | None) -> list[str]:
    """Return the alarm about a clock that is a day or more ahead of the server's:
    no day after the server's is recorded as read.
    """
    if server_time is None or now - server_time < _MAX_AHEAD:
        return []
    ours, theirs = (f"{clock:%Y-%m-%d %H:%M} UTC" for clock in (now.astimezone(UTC), server_time))
    clocks = f"this machine's clock, {ours}, is ahead of the server's, {theirs}"
    return [f"{clocks}; later days than the server's were not recorded as read: correct the clock and run again"]


def unread_alarm(unread: Unread) -> list[str]:
    """Return the alarm about days that are missing though their vehicles were read: the clock went back during the run."""
    if not unread.days:
        return []
    count = f"{unread.days:,} days of {unread.vehicles:,} vehicles are missing, though the vehicles were read"
    return [f"{count}: the clock was set back during the run; check it, and run again"]


def _limit(bound: float) -> str:
    return f"at most a share of {bound:.3g} is accepted" if bound else "none is accepted"

"""Runs as values, and which days of a vehicle must be read, given those that the store holds. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from hashlib import sha256
from uuid import UUID

import attrs

from podero_async._paging.window import Window
from podero_async.models import VehicleRef

__all__ = [
    "FLEET",
    "Days",
    "Draft",
    "Run",
    "RunSettings",
    "StoreOwner",
    "WorkItem",
    "days_needed",
    "digest_of",
    "merged",
]

Days = tuple[date, date]
"""Inclusive days, from and to."""

FLEET = "the fleet"
"""The scope of a run over all that is discovered."""
_DAY = timedelta(days=1)


@attrs.frozen
class StoreOwner:
    """An organization, and where it is asked for: production and the sandbox are not the same."""

    org_id: str
    origin: str

    def __str__(self) -> str:
        return f"organization {self.org_id} at {self.origin}"


@attrs.frozen
class WorkItem:
    """One window of one vehicle to read, by its number in the run."""

    number: int
    vehicle: VehicleRef
    window: Window


@attrs.frozen
class RunSettings:
    """What makes a call the same call."""

    window: Window
    refresh_days: int
    scope: str
    """Which vehicles: the discovered fleet, or a digest of a list; and which share of them."""

    @property
    def is_of_fleet(self) -> bool:
        """Whether the vehicles are those that the organization lists."""
        return self.scope.startswith(FLEET)


@attrs.frozen
class Run:
    """A run as it stands."""

    run_id: int
    vehicles: int
    """In all."""
    tasks: int
    """Windows still to be read."""
    skipped: int
    """Vehicles of which nothing is to be read any more."""
    resumed: bool


@attrs.frozen
class Draft:
    """What a run would read."""

    vehicles: int
    skipped: int
    windows: tuple[tuple[date, date, int], ...]
    """From, to, of how many vehicles; the most frequent first."""


def merged(spans: Iterable[Days]) -> list[Days]:
    """Join spans that overlap or follow each other without a gap; oldest first."""
    joined: list[Days] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + _DAY:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def days_needed(window: Days, held: Iterable[Days], refresh_days: int) -> list[Days]:
    """Return the days of the window that are not held, and the last `refresh_days` that are; oldest first."""
    first, last = window
    inside = [(max(start, first), min(end, last)) for start, end in merged(held) if start <= last and end >= first]
    needed: list[Days] = []
    begin = first
    for start, end in inside:
        if begin < start:
            needed.append((begin, start - _DAY))
        begin = end + _DAY
    if begin <= last:
        needed.append((begin, last))
    if inside and refresh_days:
        newest = inside[-1][1]
        again = min(refresh_days - 1, (newest - first).days)
        needed.append((newest - again * _DAY, newest))
    return merged(needed)


def digest_of(ids: Iterable[UUID]) -> str:
    """Return the digest of a receipt, which no order changes: of SHA-256 over the ids' texts, sorted, the first half."""
    return sha256("".join(sorted(map(str, set(ids)))).encode()).hexdigest()[:32]

"""The values of a run, and the rule that says which days of a vehicle are read. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from hashlib import sha256
from uuid import UUID

import attrs

from podero_async._paging.window import Window
from podero_async.models import VehicleRef

__all__ = [
    "FLEET",
    "Days",
    "Limits",
    "Run",
    "RunSettings",
    "StoreOwner",
    "WorkItem",
    "days_needed",
    "digest_of",
    "merged",
    "scope_of_list",
]

Days = tuple[date, date]
"""The first and the last day, both inclusive."""

FLEET = "the fleet"
"""The scope of a run over the discovered fleet."""
_DAY = timedelta(days=1)


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds on memory and on the size of a transaction. The defaults suit fleets of every size."""

    max_batch_rows: int = 16_384
    max_batch_outcomes: int = 2_048
    max_wait_s: float = 1.0
    """How long an outcome waits at most until its batch is written."""
    roster_slice: int = 1_024
    """Vehicles that are added to the roster at a time."""
    work_slice: int = 512
    """Work items that are loaded at a time."""


@attrs.frozen
class StoreOwner:
    """The organization of a store and the origin of its API: production and the sandbox are different owners."""

    org_id: str
    origin: str

    def __str__(self) -> str:
        return f"organization {self.org_id} at {self.origin}"


@attrs.frozen
class WorkItem:
    """A window of a vehicle to read, with its number in the run."""

    number: int
    vehicle: VehicleRef
    window: Window


@attrs.frozen
class RunSettings:
    """The settings of a run. A later call with equal settings resumes the run."""

    window: Window
    refresh_days: int
    scope: str
    """The discovered fleet, or the digest of a list of vehicles; then the shard."""

    @property
    def is_of_fleet(self) -> bool:
        """Whether the run covers the discovered fleet."""
        return self.scope.startswith(FLEET)


@attrs.frozen
class Run:
    """A run and its remaining work."""

    run_id: int
    vehicles: int
    work_items: int
    """Number of work items that are still to be read."""
    skipped: int
    """Vehicles that need no request."""
    resumed: bool


def merged(spans: Iterable[Days]) -> list[Days]:
    """Join spans that overlap or adjoin; the oldest comes first."""
    joined: list[Days] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + _DAY:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def days_needed(window: Days, stored: Iterable[Days], refresh_days: int) -> list[Days]:
    """Return the missing days of the window and the last `refresh_days` stored days; the oldest come first."""
    first, last = window
    inside = [(max(start, first), min(end, last)) for start, end in merged(stored) if start <= last and end >= first]
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
    """Return the digest of a receipt: half of the SHA-256 of the distinct ids in sorted order."""
    return sha256("".join(sorted(map(str, set(ids)))).encode()).hexdigest()[:32]


def scope_of_list(slices: Iterable[Sequence[str]]) -> str:
    """Return the scope of a run over a list of vehicles.

    Args:
        slices: The distinct `user_id/vehicle_id` texts in sorted order, several at a time.
    """
    digest, vehicles = sha256(), 0
    for pairs in slices:
        digest.update("".join(pairs).encode())
        vehicles += len(pairs)
    return f"{vehicles} vehicles, {digest.hexdigest()[:16]}"

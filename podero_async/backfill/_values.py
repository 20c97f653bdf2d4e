"""The values of a run. No I/O."""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs

from podero_async._paging.window import Window
from podero_async.models import VehicleRef

__all__ = ["Bounds", "Limits", "Run", "RunSettings", "StoreOwner", "WorkItem"]


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds on memory and on the size of a transaction. The defaults suit fleets of every size."""

    max_batch_rows: int = 16_384
    max_batch_outcomes: int = 2_048
    max_wait_s: float = 1.0
    """How long an outcome waits at most until its batch is written."""
    log_every_s: float = 60.0
    """How often the progress is logged."""
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
class Bounds:
    """Bounds of a run, as shares from 0 to 1. Beyond a bound, the run ends with an alarm.

    A fault of the API can make a fleet, or its sessions, seem to vanish. So the run records nothing of the kind.
    """

    max_vanished: float = 0.1
    """Known vehicles that the API does not list any more."""
    max_withdrawn: float = 0.05
    """Stored sessions, of the days read, that the API does not list any more."""
    max_failed: float = 0.02
    """Vehicles that failed or could not be proven complete."""

    def __attrs_post_init__(self) -> None:
        for name, share in attrs.asdict(self).items():
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, not {share!r}")


@attrs.frozen
class WorkItem:
    """A window of a vehicle to read, with its number in the run."""

    number: int
    vehicle: VehicleRef
    window: Window
    asks_current: bool = False
    """Whether to ask for the current session before the read, so that the read can settle days."""
    is_confirming: bool = False
    """Whether the read decides about sessions that another read of the run did not return."""


@attrs.frozen
class RunSettings:
    """The window of a run, and the rules of its coverage."""

    window: Window
    """The days of the call, up to the day of the run."""
    settle_days: int
    fresh_for: timedelta
    started: datetime
    keep_unknown: bool = False
    """Whether the run keeps unknown fields of sessions."""


@attrs.frozen
class Run:
    """A run and its work."""

    run_id: int
    vehicles: int
    work_items: int
    skipped: int
    """Vehicles that need no request."""

"""The values that a store returns: its status, its coverage, its runs, and the result of an export."""

from datetime import date, datetime
from typing import Self

import attrs

from podero_async.backfill._report import FailedVehicle

__all__ = ["Coverage", "Exported", "Merged", "RunStatus", "StoreStatus"]


@attrs.frozen(kw_only=True)
class Coverage:
    """A span of days that was read, and the number of vehicles with this span."""

    from_date: date
    to_date: date
    include_hidden: bool
    is_settled: bool
    """Whether the days were read long enough after their end; if not, they are provisional."""
    vehicles: int


@attrs.frozen(kw_only=True)
class RunStatus:
    """The record of a run of a backfill."""

    run_id: int
    from_date: date
    to_date: date
    include_hidden: bool
    scope: str
    vehicles: int
    started_at: datetime
    finished_at: datetime | None
    """None if the run was interrupted, or has not ended yet."""
    done: int
    failed: int
    unproven: int
    sessions_new: int
    sessions_changed: int
    sessions_unchanged: int
    sessions_withdrawn: int
    rejected: int
    requests: int
    retries: int
    alarms: tuple[str, ...] = attrs.field(converter=tuple)


@attrs.frozen(kw_only=True)
class StoreStatus:
    """A summary of a store."""

    path: str
    schema_version: int
    org_id: str | None
    """The organization of the store; None if there was no backfill yet."""
    origin: str | None
    """The API's origin; None if there was no backfill yet."""
    kept_from: date | None
    """The first day that the store keeps, if `forget_before` has erased older ones."""
    vehicles: int
    """Vehicles that were listed or read at any time."""
    gone: int
    """Known vehicles that the last discovery did not list. Their days are not counted below."""
    unread: int
    """Listed vehicles of which no day was read. Their days are not counted below, since no first one is known."""
    settled: int
    """Days of vehicles, from a vehicle's first one to today, that were read long enough after their end."""
    provisional: int
    """Days of vehicles that were read, and for which more may come."""
    missing: int
    """Days of vehicles that were never read, or not proven complete."""
    sessions: int
    """All rows, including withdrawn and hidden sessions."""
    withdrawn: int
    absent: int
    """Sessions that a read did not return, and that a second read has to confirm before they are withdrawn."""
    hidden: int
    first_plug_in: datetime | None
    last_plug_in: datetime | None
    fetched_at: datetime | None
    """The time of the newest proven read."""
    rejected: int
    failures: int
    failed_vehicles: tuple[FailedVehicle, ...]
    """At most 100 of the failures."""
    coverage: tuple[Coverage, ...]
    """The spans of days with their number of vehicles; at most 100, the most frequent first."""
    runs: tuple[RunStatus, ...]
    """The newest ten runs, the newest first."""


@attrs.frozen(kw_only=True)
class Exported:
    """The result of an export."""

    rows: int
    """Sessions in all files of the export."""
    files: tuple[str, ...]
    written: tuple[str, ...]
    """The files that this export has written. The others are those of an earlier export, whose sessions have not changed."""

    @classmethod
    def of(cls, rows: int, file: str) -> Self:
        """Return the result of an export to one file."""
        return cls(rows=rows, files=(file,), written=(file,))


@attrs.frozen(kw_only=True)
class Merged:
    """The result of a merge."""

    stores: int
    vehicles: int
    sessions: int
    """Sessions of the new store, withdrawn ones included."""
    doubled: int
    """Sessions that were in more than one of the stores. Each is in the new store once."""

"""The values that a store returns: its status, its coverage, its runs, and the result of an export."""

from datetime import date, datetime

import attrs

from podero_async.backfill._report import FailedVehicle

__all__ = ["Coverage", "Exported", "RunStatus", "StoreStatus"]


@attrs.frozen(kw_only=True)
class Coverage:
    """Stored days, and the number of vehicles for which they are stored."""

    from_date: date
    held_to: date
    """The last day that had ended when it was read."""
    include_hidden: bool
    vehicles: int


@attrs.frozen(kw_only=True)
class RunStatus:
    """A run of a backfill."""

    run_id: int
    from_date: date
    to_date: date
    include_hidden: bool
    vehicles: int
    started_at: datetime
    finished_at: datetime | None
    left: int
    """Windows of vehicles that are still to be read; 0 for a finished run."""


@attrs.frozen(kw_only=True)
class StoreStatus:
    """A summary of a store."""

    path: str
    schema_version: int
    org_id: str | None
    """The organization of the store; None if there was no backfill yet."""
    origin: str | None
    """The API's origin; None if there was no backfill yet."""
    vehicles: int
    sessions: int
    """All rows, including withdrawn and hidden sessions."""
    withdrawn: int
    hidden: int
    first_plug_in: datetime | None
    last_plug_in: datetime | None
    fetched_at: datetime | None
    """The time of the newest receipt."""
    receipts: int
    verified: int
    repaired: int
    unproven: int
    """`verified`, `repaired` and `unproven` count the receipts by verdict."""
    rejected: int
    failures: int
    failed_vehicles: tuple[FailedVehicle, ...]
    """At most 100 of the failures."""
    coverage: tuple[Coverage, ...]
    """The stored days with their number of vehicles; at most 100, the most frequent first."""
    runs: tuple[RunStatus, ...]
    """The newest ten runs, the newest first."""


@attrs.frozen(kw_only=True)
class Exported:
    """The result of an export."""

    rows: int
    files: tuple[str, ...]

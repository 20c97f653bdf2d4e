"""The result of comparing a store with the API. Independent of the store and the client."""

from datetime import date

import attrs

from podero_async.backfill._report import FailedVehicle
from podero_async.models import VehicleRef

__all__ = ["Compared", "Difference", "Drawn", "VerifyReport"]


@attrs.frozen(kw_only=True)
class Difference:
    """A vehicle for which the API and the store have different sessions. Of each kind, at most 100 ids are listed."""

    vehicle: VehicleRef
    from_date: date
    to_date: date
    include_hidden: bool
    sessions: int
    """Number of sessions that differ."""
    missing: tuple[str, ...]
    """Ids that only the API has; also if the store has marked the session as withdrawn."""
    surplus: tuple[str, ...]
    """Ids that only the store has."""
    changed: tuple[str, ...]
    """Ids with other fields, or another vehicle, in the API."""
    doubled: tuple[str, ...] = ()
    """Ids that the store has more than once."""


@attrs.frozen(kw_only=True)
class Drawn:
    """The vehicles that a comparison reads, and the rows of the whole table that it cannot compare."""

    vehicles: int
    left: int = 0
    """Vehicles with comparable days that have left the fleet."""
    left_sessions: int = 0
    uncovered: int = 0
    doubled: int = 0


@attrs.frozen
class Compared:
    """The comparison of a batch of reads."""

    stored: int
    """Live rows of the days that were compared."""
    surplus: int
    """Of these, the rows that the API does not have."""
    unreadable: int
    """Vehicles without a difference that have unreadable rows on these days."""
    rejected: int
    """Unreadable rows of these days."""
    differences: list[Difference]


@attrs.frozen(kw_only=True)
class VerifyReport:
    """The result of comparing the stored days of vehicles with the current state of the API."""

    finished: bool
    """Whether all vehicles were read; if not, the call was stopped."""
    checked: int
    """Vehicles that were read: `matching + differing + unreadable + unproven + failed`."""
    matching: int
    """The API and the store have the same sessions with the same fields."""
    differing: int
    repaired: int
    """Vehicles that differed, and were equal when they were read again after the repair."""
    left: int
    """Vehicles that have left the fleet, so that the API does not list their sessions. They do not count as differences.

    A vehicle that is not found, though its user lists it, or though it is unknown whether the user does, has failed."""
    left_sessions: int
    """Stored sessions under users that no longer list the vehicle, and that no read has returned under another user."""
    uncovered: int
    """Stored sessions that lie wholly in days that no proven read of the vehicle covers, so that nothing is known of them."""
    doubled: int
    """Ids that the table has more than once, also for vehicles that were not drawn.

    A repair counts this number, `left_sessions` and `uncovered` anew.
    """
    unreadable: int
    """Vehicles without a difference, of which some sessions could not be read, so that these were not compared."""
    rejected: int
    """Sessions of the compared days that could not be read, also those of vehicles that differ."""
    unproven: int
    """The new read could not be proven complete, so it was not compared."""
    failed: int
    requests: int
    differences: tuple[Difference, ...]
    """At most 100 of the differences, as they were before the repair."""
    failures: tuple[FailedVehicle, ...]
    """At most 100 of the failures."""
    alarms: tuple[str, ...]
    """Reasons why the repair is not complete."""

    @property
    def is_clean(self) -> bool:
        """Whether at least one vehicle was compared, all others were, too, and none differs any more.

        If no day is settled yet, nothing was compared, so nothing is known. With unreadable, uncovered or doubled rows, the
        result is not clean. Sessions of vehicles that have left do not count, since the API does not list them.
        """
        is_compared = self.matching + self.differing > 0
        unknown = self.rejected or self.unproven or self.failed or self.uncovered or self.doubled
        return is_compared and self.finished and self.differing == self.repaired and not unknown

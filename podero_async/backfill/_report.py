"""What a backfill says of itself: while it runs, and at its end. Knows neither the store nor the client."""

from datetime import date
from typing import Literal, Self

import attrs

from podero_async._flow.limiter import Limiter
from podero_async.models import Completeness, VehicleFailure, VehicleRef

__all__ = ["BackfillReport", "FailedVehicle", "Progress", "Written"]

_MAX_LISTED = 100
"""Failed and unproven vehicles that a report names; the counts are of all, and so is the store."""


@attrs.frozen(kw_only=True)
class FailedVehicle:
    """A vehicle whose sessions could not be fetched, or a user whose vehicles could not be listed."""

    user_id: str
    vehicle_id: str | None
    """None where it was the user's list of vehicles that failed."""
    kind: str
    """The error's class name."""
    message: str

    @classmethod
    def of(cls, failure: VehicleFailure) -> Self:
        """Take from a failure what can be listed."""
        return cls(
            user_id=str(failure.user_id),
            vehicle_id=str(failure.vehicle.vehicle_id) if failure.vehicle else None,
            kind=type(failure.error).__name__,
            message=str(failure.error),
        )


@attrs.frozen
class Written:
    """What one transaction did to the table of sessions."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    rejected: int = 0


@attrs.frozen(kw_only=True)
class BackfillReport:
    """What one call of `backfill` did. Counts are of this call alone, except where they say otherwise."""

    from_date: date
    to_date: date
    include_hidden: bool
    run_id: int | None
    """None where it was stopped before its vehicles were known."""
    resumed: bool
    """Whether it went on with a run that an earlier call left unfinished."""
    finished: bool
    """Whether every vehicle was tried; False where the run was interrupted, and the same call goes on."""
    vehicles: int
    """How many vehicles the run is about."""
    done: int
    """Vehicles read and committed; a vehicle of two windows counts twice."""
    skipped: int
    """Vehicles that cost no request: this run had done them before, or nothing of them was missing."""
    failed: int
    """Vehicles that failed, and users of the whole run whose vehicles could not be listed."""
    verified: int
    repaired: int
    unproven: int
    """Vehicles of the whole run: those that an interrupted call left unproven, too, since they are not read again."""
    failures: tuple[FailedVehicle, ...]
    """The first hundred of them."""
    unproven_vehicles: tuple[VehicleRef, ...]
    """The first hundred of them."""
    sessions: int
    """Rows received: `new + changed + unchanged`."""
    new: int
    changed: int
    unchanged: int
    withdrawn: int
    """Rows that the store held, and that a proven read of their days no longer showed."""
    rejected: int
    """Rows of the whole run that could not be read; they stand in `rejected_items`."""
    requests: int
    retries: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether the run is finished, with every vehicle proven complete."""
        return self.finished and not self.failed and not self.unproven


@attrs.define(kw_only=True)
class Progress:
    """A backfill as it stands: hand one to `backfill`, and look at it whenever you like, from the same event loop."""

    phase: Literal["starting", "discovering", "fetching", "ended"] = "starting"
    vehicles: int = 0
    """How many vehicles the run is about; while discovering, how many were found so far."""
    tasks: int = 0
    """Windows of vehicles to read in this call."""
    skipped: int = 0
    received: int = 0
    """Windows of vehicles read, failed ones included; some wait for their commit."""
    received_sessions: int = 0
    failed: int = 0
    outages: int = 0
    """Of the failures of this call, those that an outage brings."""
    answered: int = 0
    """Windows that were read, or refused by an API that answers."""
    requests: int = 0
    retries: int = 0
    verdicts: dict[Completeness, int] = attrs.field(factory=lambda: dict.fromkeys(Completeness, 0))
    committed: Written = Written()
    """What stands in the store since this call began."""
    failures: list[FailedVehicle] = attrs.field(factory=list)
    unproven_vehicles: list[VehicleRef] = attrs.field(factory=list)
    unproven_before: int = 0
    """Vehicles that an interrupted call of this run left unproven."""
    rejected_before: int = 0
    """Rows that it could not read."""
    _throttle: Limiter | None = attrs.field(default=None, alias="throttle")

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return self._throttle.in_flight if self._throttle else 0

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return self._throttle.limit if self._throttle else 0

    @property
    def pauses(self) -> int:
        """How often the server asked the whole client to wait, since the client was made."""
        return self._throttle.pauses if self._throttle else 0

    @property
    def met_only_outages(self) -> bool:
        """Whether all that was tried failed as it does while the API is down; where nothing was tried it did not."""
        if self.received:
            return not self.answered
        return not self.vehicles and 0 < self.failed == self.outages

    def watch(self, throttle: Limiter) -> None:
        """Take `in_flight`, `limit` and `pauses` from there."""
        self._throttle = throttle

    def count_failure(self, failed: FailedVehicle, *, is_outage: bool) -> None:
        """Note a failure."""
        self.failed += 1
        self.outages += is_outage
        if len(self.failures) < _MAX_LISTED:
            self.failures.append(failed)

    def count_read(self, vehicle: VehicleRef, verdict: Completeness, sessions: int) -> None:
        """Note a vehicle whose window was read."""
        self.answered += 1
        self.verdicts[verdict] += 1
        self.received_sessions += sessions
        if verdict is Completeness.UNPROVEN:
            self._list_unproven(vehicle)

    def count_before(self, failures: list[FailedVehicle], unproven: list[VehicleRef], rejected: int) -> None:
        """Note what an interrupted call of this run found wrong, and this one will not look at again."""
        for failed in failures:
            self.count_failure(failed, is_outage=False)
        self.unproven_before, self.rejected_before = len(unproven), rejected
        for vehicle in unproven:
            self._list_unproven(vehicle)

    def _list_unproven(self, vehicle: VehicleRef) -> None:
        if len(self.unproven_vehicles) < _MAX_LISTED:
            self.unproven_vehicles.append(vehicle)

    def count_commit(self, written: Written) -> None:
        """Note what a transaction did."""
        before, now = attrs.astuple(self.committed), attrs.astuple(written)
        self.committed = Written(*(one + other for one, other in zip(before, now, strict=True)))

    def report(
        self,
        *,
        from_date: date,
        to_date: date,
        include_hidden: bool,
        run_id: int | None,
        resumed: bool,
        finished: bool,
        seconds: float,
    ) -> BackfillReport:
        """Return the report of the call."""
        done = self.committed
        return BackfillReport(
            from_date=from_date,
            to_date=to_date,
            include_hidden=include_hidden,
            run_id=run_id,
            resumed=resumed,
            finished=finished,
            seconds=seconds,
            vehicles=self.vehicles,
            done=sum(self.verdicts.values()),
            skipped=self.skipped,
            failed=self.failed,
            verified=self.verdicts[Completeness.VERIFIED],
            repaired=self.verdicts[Completeness.REPAIRED],
            unproven=self.verdicts[Completeness.UNPROVEN] + self.unproven_before,
            failures=tuple(self.failures),
            unproven_vehicles=tuple(self.unproven_vehicles),
            sessions=done.new + done.changed + done.unchanged,
            new=done.new,
            changed=done.changed,
            unchanged=done.unchanged,
            withdrawn=done.withdrawn,
            rejected=done.rejected + self.rejected_before,
            requests=self.requests,
            retries=self.retries,
        )

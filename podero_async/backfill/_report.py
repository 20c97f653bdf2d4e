"""The plan, the progress and the report of a backfill. Independent of the store and the client."""

from datetime import date
from typing import Literal, Self

import attrs

from podero_async._flow.limiter import Limiter
from podero_async._flow.retry import RequestStats
from podero_async._paging.window import Window
from podero_async.backfill._coverage import DayCounts
from podero_async.backfill._values import Run
from podero_async.models import Completeness, VehicleFailure, VehicleRef

__all__ = ["BackfillPlan", "BackfillReport", "FailedVehicle", "Progress", "Written"]

_MAX_LISTED = 100


@attrs.frozen(kw_only=True)
class FailedVehicle:
    """A vehicle whose sessions could not be fetched, a user with a failed vehicle list, or an incomplete list of users."""

    user_id: str | None
    """None if the list of users is incomplete, so that some vehicles may be missing."""
    vehicle_id: str | None
    """None if the user's vehicle list failed, or one of its vehicles has no readable id."""
    kind: str
    """The class name of the error."""
    message: str

    @classmethod
    def of(cls, failure: VehicleFailure) -> Self:
        """Describe a failure as text."""
        return cls(
            user_id=str(failure.user_id),
            vehicle_id=str(failure.vehicle.vehicle_id) if failure.vehicle else None,
            kind=type(failure.error).__name__,
            message=str(failure.error),
        )


@attrs.frozen
class Written:
    """The number of sessions that transactions added, changed, confirmed, withdrew and rejected."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    rejected: int = 0

    @property
    def received(self) -> int:
        """The number of sessions that reads returned in readable form."""
        return self.new + self.changed + self.unchanged

    def __add__(self, other: "Written") -> "Written":
        pairs = zip(attrs.astuple(self), attrs.astuple(other), strict=True)
        return Written(*(one + another for one, another in pairs))


@attrs.frozen(kw_only=True)
class BackfillPlan:
    """The work of a backfill, determined without reading a session or changing the store."""

    vehicles: int
    skipped: int
    """Vehicles that need no request."""
    least_requests: int
    """One request for each window of a vehicle, and one for each current session that is asked for.

    A list of 200 sessions or more needs more."""
    windows: tuple[tuple[date, date, int], ...]
    """First day, last day and number of vehicles; the most frequent window comes first."""
    failures: tuple[FailedVehicle, ...] = ()
    """Users with a failed vehicle list, and an incomplete list of users."""

    def seconds_at(self, requests_per_second: float) -> float:
        """Return the minimum duration at a request rate, in seconds."""
        return self.least_requests / requests_per_second


@attrs.frozen(kw_only=True)
class BackfillReport:
    """The result of one call of `backfill`. The counts are of this call, unless a field says otherwise."""

    from_date: date
    """The first day of the window, or the first one that the store keeps."""
    to_date: date
    include_hidden: bool
    run_id: int | None
    """None if the call was stopped before its vehicles were known."""
    finished: bool
    """Whether every vehicle was tried. If not, the same call reads the rest."""
    alarms: tuple[str, ...]
    """Why the result is not clean: one line for each reason, with the numbers and what to do."""
    vehicles: int
    """Vehicles of the run."""
    done: int
    """Vehicles that were read and committed; a vehicle with two windows counts twice."""
    skipped: int
    """Vehicles that needed no request: their days are settled, or were read a short time ago."""
    failed: int
    """Vehicles that failed, users with a failed vehicle list, and an incomplete list of users."""
    vanished: int
    """Known vehicles that the API did not list. Their sessions stay."""
    verified: int
    repaired: int
    unproven: int
    failures: tuple[FailedVehicle, ...]
    """At most 100 of the failures."""
    unproven_vehicles: tuple[VehicleRef, ...]
    """At most 100 of the unproven vehicles."""
    sessions: int
    """Received rows: `new + changed + unchanged`."""
    new: int
    changed: int
    unchanged: int
    withdrawn: int
    """Stored rows that two proven reads of their days no longer returned."""
    rejected: int
    """Unreadable rows; the table `rejected_items` holds them.

    They are an alarm if some are new, also those of an earlier run that was killed, or if they are over 5 % of the rows.
    """
    settled: int
    """Days of vehicles in the window, up to today, that were read long enough after their end."""
    provisional: int
    """Days of vehicles that were read, and for which more may come. Later runs read them again."""
    missing: int
    """Days of vehicles that were never read, or not proven complete."""
    requests: int
    retries: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether the run is finished and has no alarm.

        Days may still be provisional, and the days of a tolerated share of failed vehicles missing: see `missing`.
        """
        return self.finished and not self.alarms


@attrs.define(kw_only=True)
class Progress(RequestStats):
    """The live state of a backfill. Pass one to `backfill` and read it at any time from the same event loop.

    `requests` and `retries` count those of the discovery as they are made, and those of a window when it has been read.
    """

    phase: Literal["starting", "discovering", "fetching", "ended"] = "starting"
    vehicles: int = 0
    """Vehicles of the run; during discovery, the vehicles found so far."""
    work_items: int = 0
    """Windows of vehicles to read in this call."""
    skipped: int = 0
    received: int = 0
    """Windows that were read or have failed; some of them are not committed yet."""
    received_sessions: int = 0
    failed: int = 0
    outages: int = 0
    """Failures of this call that are typical of an outage."""
    answered: int = 0
    """Windows that the API returned or refused."""
    verdicts: dict[Completeness, int] = attrs.field(factory=lambda: dict.fromkeys(Completeness, 0))
    committed: Written = Written()
    """Changes that this call has committed."""
    failures: list[FailedVehicle] = attrs.field(factory=list)
    """At most 100 of the failures."""
    failed_by_kind: dict[str, int] = attrs.field(factory=dict)
    """The number of failures by the class name of the error."""
    unproven_vehicles: list[VehicleRef] = attrs.field(factory=list)
    vanished: int = 0
    """Known vehicles that the API did not list."""
    alarms: list[str] = attrs.field(factory=list)
    """Why the run is not clean, as far as it is known yet."""
    _limiter: Limiter | None = None

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return self._limiter.in_flight if self._limiter else 0

    @property
    def limit(self) -> int:
        """The current concurrency limit."""
        return self._limiter.limit if self._limiter else 0

    @property
    def pauses(self) -> int:
        """How often the server has paused the client since the client was created."""
        return self._limiter.pauses if self._limiter else 0

    @property
    def is_breaker_open(self) -> bool:
        """Whether all recent requests to an endpoint have failed, so that only probes are sent to it."""
        return self._limiter is not None and self._limiter.breakers.has_open

    @property
    def met_only_outages(self) -> bool:
        """Whether every attempt failed as in an outage; False if nothing was attempted."""
        if self.received:
            return not self.answered
        return not self.vehicles and 0 < self.failed == self.outages

    def watch(self, limiter: Limiter) -> None:
        """Read `in_flight`, `limit`, `pauses` and `is_breaker_open` from a limiter."""
        self._limiter = limiter

    def count_failure(self, failed: FailedVehicle, *, is_outage: bool) -> None:
        """Count a failure."""
        self.failed += 1
        self.failed_by_kind[failed.kind] = self.failed_by_kind.get(failed.kind, 0) + 1
        self.outages += is_outage
        if len(self.failures) < _MAX_LISTED:
            self.failures.append(failed)

    def count_read(self, vehicle: VehicleRef, verdict: Completeness, sessions: int) -> None:
        """Count a window that was read."""
        self.answered += 1
        self.verdicts[verdict] += 1
        self.received_sessions += sessions
        if verdict is Completeness.UNPROVEN and len(self.unproven_vehicles) < _MAX_LISTED:
            self.unproven_vehicles.append(vehicle)

    def report(
        self, window: Window, run: Run | None, days: DayCounts, *, finished: bool, seconds: float
    ) -> BackfillReport:
        """Return the report of the call."""
        written = self.committed
        left = self.work_items - self.received
        unfinished = [] if finished else [f"the run ended early, with {left:,} windows to read: run it again"]
        return BackfillReport(
            **attrs.asdict(window),
            run_id=run.run_id if run else None,
            finished=finished,
            alarms=(*unfinished, *self.alarms),
            seconds=seconds,
            vehicles=self.vehicles,
            done=sum(self.verdicts.values()),
            skipped=self.skipped,
            failed=self.failed,
            failures=tuple(self.failures),
            vanished=self.vanished,
            unproven_vehicles=tuple(self.unproven_vehicles),
            sessions=written.received,
            requests=self.requests,
            retries=self.retries,
            verified=self.verdicts[Completeness.VERIFIED],
            repaired=self.verdicts[Completeness.REPAIRED],
            unproven=self.verdicts[Completeness.UNPROVEN],
            **attrs.asdict(written),
            **attrs.asdict(days),
        )

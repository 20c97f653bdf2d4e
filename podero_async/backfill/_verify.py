"""The verification of a store: reads its days again, compares the sessions, and repairs the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from datetime import datetime
from uuid import UUID

import attrs

from podero_async._client import PoderoClient
from podero_async._concurrency import run_until
from podero_async._failures import is_fatal, is_outage_sign
from podero_async._fleet.worker_pool import Fetched
from podero_async._flow.retry import RequestStats
from podero_async.backfill._alarms import withdrawn_alarm
from podero_async.backfill._backfill import backfill
from podero_async.backfill._client_access import discover_fleet, limiter_of, owner_of, read_windows
from podero_async.backfill._comparison import Compared, Difference, Drawn, VerifyReport
from podero_async.backfill._planner import check_owner, utc_now
from podero_async.backfill._report import FailedVehicle, Progress
from podero_async.backfill._values import Bounds, Limits, WorkItem
from podero_async.backfill._writer import BatchWriter
from podero_async.backfill.store import SessionStore
from podero_async.errors import NotFoundError, PoderoError
from podero_async.models import Completeness, VehicleFailure, VehicleRef

__all__ = ["verify"]

_MAX_LISTED = 100
_MAX_NOT_FOUND = 10_000  # which bounds the memory; more vehicles do not leave between a run and a comparison
_DEFAULT_BOUNDS, _DEFAULT_LIMITS = Bounds(), Limits()


async def verify(
    client: PoderoClient,
    store: SessionStore,
    sample: int | None = None,
    *,
    include_provisional: bool = False,
    repair: bool = False,
    settle_days: int = 30,
    bounds: Bounds = _DEFAULT_BOUNDS,
    stop: asyncio.Event | None = None,
    progress: Progress | None = None,
    now: Callable[[], datetime] = utc_now,
    limits: Limits = _DEFAULT_LIMITS,
) -> VerifyReport:
    """Read the settled days of each vehicle again, and compare the sessions with the rows of the store.

    Each vehicle is one work item: usually one request. If some are not found, the users, and the vehicles of their users,
    are listed, since only a vehicle that its user no longer lists has left. Ids and all fields are compared. Rows of the
    whole table that cannot be compared are counted: those of vehicles that have left, those that no read covers, and
    doubled ids. Without `repair`, the store is unchanged and may be open for reading only. Memory use does not grow with
    the fleet.

    A repair removes doubled rows, makes the days of the vehicles that differ provisional, and runs a backfill of these
    vehicles: so their sessions are written, and withdrawn, by the rules of every backfill. Then these vehicles are
    compared once more.

    Args:
        client: Reads the sessions.
        store: An open store.
        sample: The number of vehicles to check, drawn at random; None checks all of them.
        include_provisional: Whether to compare provisional days, too. Their sessions may differ without an error:
            sessions that ended after the last run are missing until the next run.
        repair: Whether to repair the vehicles that differ.
        settle_days: As in the store's backfills; for the repair.
        bounds: If the API lacks a larger share of the stored sessions than `max_withdrawn`, the repair withdraws none.
        stop: If this event is set, the call cancels the other reads, and reports the vehicles that were compared.
        progress: Is updated during the call.
        now: Returns the time; for tests.
        limits: Bounds on batches and slices; for tests.

    Raises:
        ValueError: `sample` is less than 1.
        ForeignStoreError: The store belongs to another organization, or to the same one at another origin.
        ApiDownError: The API became unavailable during the repair.
        AuthenticationError: The credentials were refused.
        StoreError: The store could not be read, or repaired.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample must be at least 1, not {sample}")
    await check_owner(store, owner_of(client))
    progress, stop = progress or Progress(), stop or asyncio.Event()
    progress.watch(limiter_of(client))
    drawn = await store.backend.draw_comparison(sample, include_provisional=include_provisional)
    progress.vehicles = progress.work_items = drawn.vehicles
    progress.phase = "fetching"
    comparison = _Comparison(client, store, progress, now, limits)
    try:
        is_finished = await comparison.run_until_done(stop)
        report = comparison.report(drawn, finished=is_finished)
        if repair and (report.differing or report.doubled) and is_finished:
            return await _Repair(comparison, settle_days, bounds, stop).repair(report)
        return report
    finally:
        progress.phase = "ended"


@attrs.define
class _Comparison:
    """Reads the drawn vehicles, and compares them in batches."""

    client: PoderoClient
    store: SessionStore
    progress: Progress
    now: Callable[[], datetime]
    limits: Limits
    compared: int = 0
    """Vehicles with a proven read."""
    left: int = 0
    unproven: int = 0
    failed: int = 0
    differing: int = 0
    unreadable: int = 0
    rejected: int = 0
    stored: int = 0
    surplus: int = 0
    differences: list[Difference] = attrs.field(factory=list)
    failures: list[FailedVehicle] = attrs.field(factory=list)
    not_found: dict[VehicleRef, FailedVehicle] = attrs.field(factory=dict)
    """Vehicles that the API did not find: they have left, or their reads have failed."""

    async def run_until_done(self, stop: asyncio.Event) -> bool:
        """Compare all drawn vehicles; return False if the event was set before."""
        builder = self.store.backend.new_comparison(self.limits, self._take)
        writer = BatchWriter(builder, self.progress, max_wait_s=self.limits.max_wait_s, now=self.now)
        try:
            is_through = await run_until(stop, asyncio.create_task(self._read(writer), name="podero_async verify"))
            self._fail(self.not_found.values())
            await writer.drain()
        finally:
            await writer.aclose()
        return is_through

    async def _read(self, writer: BatchWriter) -> None:
        items = self.store.backend.compared_items(self.limits.work_slice)
        async with read_windows(self.client, items) as stream:
            async for item, outcome in stream:
                self._count(item, outcome)
                if not isinstance(outcome, VehicleFailure) and outcome.completeness is not Completeness.UNPROVEN:
                    self.compared += 1
                    await writer.put(item, outcome, self.now(), None)
        if self.not_found:
            await self._find_left()

    async def _find_left(self) -> None:
        """Count the vehicles that were not found as left if their users no longer list them."""
        users, stats = {vehicle.user_id for vehicle in self.not_found}, RequestStats()
        listed, unlisted = set[VehicleRef](), set[UUID]()
        try:
            async with aclosing(discover_fleet(self.client, stats, lambda user: user.id in users)) as fleet:
                async for each in fleet:
                    if isinstance(each, VehicleFailure):
                        unlisted.add(each.user_id)
                    elif each in self.not_found:
                        listed.add(each)
        except PoderoError as error:
            if is_fatal(error):
                raise
            unlisted = users
        finally:
            self.progress.requests += stats.requests
            self.progress.retries += stats.retries
        failed = {each: text for each, text in self.not_found.items() if each in listed or each.user_id in unlisted}
        self.left += len(self.not_found) - len(failed)
        self.not_found = failed

    def _count(self, item: WorkItem, outcome: Fetched) -> None:
        progress = self.progress
        progress.received += 1
        progress.requests += outcome.requests
        progress.retries += outcome.retries
        if not isinstance(outcome, VehicleFailure):
            progress.count_read(item.vehicle, outcome.completeness, outcome.count)
            self.unproven += outcome.completeness is Completeness.UNPROVEN
        elif isinstance(outcome.error, NotFoundError) and len(self.not_found) < _MAX_NOT_FOUND:
            self.not_found[item.vehicle] = FailedVehicle.of(outcome)
        else:
            self._fail([FailedVehicle.of(outcome)], is_outage=is_outage_sign(outcome.error))

    def _fail(self, failures: Iterable[FailedVehicle], *, is_outage: bool = False) -> None:
        for failed in failures:
            self.progress.count_failure(failed, is_outage=is_outage)
            self.failed += 1
            if len(self.failures) < _MAX_LISTED:
                self.failures.append(failed)

    def _take(self, found: Compared) -> None:
        self.stored += found.stored
        self.surplus += found.surplus
        self.unreadable += found.unreadable
        self.rejected += found.rejected
        self.differing += len(found.differences)
        self.differences += found.differences[: _MAX_LISTED - len(self.differences)]

    @property
    def equal(self) -> int:
        """Vehicles of which all sessions were compared, and none differs."""
        return self.compared - self.differing - self.unreadable

    def report(self, drawn: Drawn, *, finished: bool) -> VerifyReport:
        return VerifyReport(
            finished=finished,
            checked=self.compared + self.unproven + self.failed,
            matching=self.equal,
            differing=self.differing,
            repaired=0,
            left=drawn.left + self.left,
            left_sessions=drawn.left_sessions,
            uncovered=drawn.uncovered,
            doubled=drawn.doubled,
            unreadable=self.unreadable,
            rejected=self.rejected,
            unproven=self.unproven,
            failed=self.failed,
            requests=self.progress.requests,
            differences=tuple(self.differences),
            failures=tuple(self.failures),
            alarms=(),
        )


@attrs.define
class _Repair:
    """Repairs the vehicles for which a comparison found differences."""

    found: _Comparison
    settle_days: int
    bounds: Bounds
    stop: asyncio.Event

    async def repair(self, report: VerifyReport) -> VerifyReport:
        """Repair the vehicles, compare them again, and return the report with the number of repaired vehicles."""
        found, backend = self.found, self.found.store.backend
        alarms = withdrawn_alarm(found.surplus, found.stored, self.bounds)
        # The vehicles that differ are few, so the share of their sessions says nothing: that of all vehicles counts.
        bounds = self.bounds if alarms else attrs.evolve(self.bounds, max_withdrawn=1)
        requests = report.requests
        for include_hidden, last_day in await backend.unsettle_differing():
            run = await backfill(
                found.client,
                found.store,
                last_day,
                last_day,
                vehicles=backend.differing_vehicles(include_hidden, found.limits.roster_slice),
                include_hidden=include_hidden,
                settle_days=self.settle_days,
                bounds=bounds,
                stop=self.stop,
                now=found.now,
                limits=found.limits,
            )
            requests += run.requests
            alarms += [alarm for alarm in run.alarms if alarm not in alarms]
        drawn = await backend.draw_differing()
        again = _Comparison(found.client, found.store, Progress(), found.now, found.limits)
        is_finished = await again.run_until_done(self.stop)
        return attrs.evolve(
            report,
            finished=is_finished,
            repaired=again.equal,
            left_sessions=drawn.left_sessions,
            uncovered=drawn.uncovered,
            doubled=drawn.doubled,
            requests=requests + again.progress.requests,
            alarms=tuple(alarms),
        )

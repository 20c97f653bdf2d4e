"""The backfill: plans a run, reads its vehicles, commits their sessions in batches, and withdraws absent ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import date, datetime, timedelta

import attrs

from podero_async._client import PoderoClient
from podero_async._concurrency import run_until
from podero_async._failures import is_outage_sign
from podero_async._fleet.worker_pool import Fetched
from podero_async._paging.window import Window
from podero_async.backfill._alarms import clock_alarm, failed_alarms, rejected_alarm, unread_alarm, withdrawn_alarm
from podero_async.backfill._client_access import ItemReader, is_down, limiter_of, owner_of, server_time
from podero_async.backfill._coverage import DayCounts
from podero_async.backfill._planner import DEFAULT_BOUNDS, DEFAULT_FRESH_FOR, Planner, Vehicles, settings_of, utc_now
from podero_async.backfill._report import BackfillReport, FailedVehicle, Progress, Written
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import Bounds, Limits, Run, WorkItem
from podero_async.backfill._writer import BatchWriter
from podero_async.backfill.errors import ApiDownError, StoreError
from podero_async.backfill.store import SessionStore
from podero_async.errors import NotFoundError, PoderoError
from podero_async.models import Completeness, VehicleFailure

__all__ = ["backfill"]

_logger = logging.getLogger("podero_async")

_DOWN_AFTER = 10  # failures in a row, if the retry budget is spent as well
_DEFAULT_LIMITS = Limits()


async def backfill(
    client: PoderoClient,
    store: SessionStore,
    from_date: date,
    to_date: date,
    *,
    vehicles: Vehicles = None,
    include_hidden: bool = False,
    settle_days: int = 30,
    fresh_for: timedelta = DEFAULT_FRESH_FOR,
    only_failed: bool = False,
    shard: Shard | None = None,
    keep_external_ids: bool = True,
    keep_unknown: bool = False,
    bounds: Bounds = DEFAULT_BOUNDS,
    stop: asyncio.Event | None = None,
    progress: Progress | None = None,
    now: Callable[[], datetime] = utc_now,
    limits: Limits = _DEFAULT_LIMITS,
) -> BackfillReport:
    """Write a fleet's charging sessions into a store.

    It reads the missing days of the window, and all provisional days up to its end.

    A day is missing until it is read, and provisional until it was read `settle_days` after its end, since the API lists
    a session once it is completed, under the day of its plug-in. Provisional days of earlier runs are read again, also
    before `from_date`. Days that were read less than `fresh_for` ago are not: so the same call, made again after a crash,
    a signal or an outage, reads the rest.

    Each batch of vehicles (thousands of sessions, or all that arrived within a second) is one transaction, so the store
    stays consistent if the process is killed. If a vehicle fails, the failure is stored and counted, the other vehicles
    go on, and the next run tries the vehicle again. Memory use does not grow with the fleet. If the caller is cancelled,
    committed batches stay. The log has a line with the progress each minute, at INFO.

    Args:
        client: Reads the sessions.
        store: An open store.
        from_date: First UTC day, inclusive.
        to_date: Last UTC day, inclusive. Days after today are not read.
        vehicles: The vehicles to read; None discovers the organization's fleet.
        include_hidden: Whether to read sessions that the server hides, too.
        settle_days: Days after the end of a day until a read settles it. A session that lasts longer is still found if
            the API shows it as the vehicle's current session.
        fresh_for: How long a provisional day is not read again.
        only_failed: Whether to read only vehicles whose last read failed or was not proven complete, and the vehicles of
            users whose list failed. The fleet is not discovered.
        shard: Restricts the run to the vehicles of one shard of the users.
        keep_external_ids: Whether the store keeps the partner's own ids of users. If not, those that it has are removed
            from its tables; a snapshot made after that has no byte of them.
        keep_unknown: Whether the store keeps the fields of sessions that this release does not know, as JSON in the column
            `sessions.unknown_fields`. They may hold anything that the API sends, also personal data. A run without it
            leaves those that are stored as they are.
        bounds: Shares of vehicles and sessions beyond which the run ends with an alarm.
        stop: If this event is set, the run commits the received outcomes, cancels the other reads and ends.
        progress: Is updated during the run.
        now: Returns the time; for tests.
        limits: Bounds on batches and slices; for tests.

    Raises:
        ValueError: The window is invalid, lies in the future or has erased days only, or a setting is out of range.
        ApiDownError: The API is unavailable: too many requests failed in a row, or all of them did. Received outcomes
            are committed.
        AuthenticationError: The credentials were refused. Received outcomes are committed.
        ForeignStoreError: The store belongs to another organization, or to the same one at another origin.
        StoreError: The store could not be written. It contains all batches before the failed one.
        PoderoError: The organization's users could not be listed.
    """
    settings = settings_of(
        from_date,
        to_date,
        include_hidden=include_hidden,
        settle_days=settle_days,
        fresh_for=fresh_for,
        started=now(),
        keep_unknown=keep_unknown,
    )
    progress = progress or Progress()
    progress.watch(limiter_of(client))
    planner = Planner(client, store, settings, shard, progress, bounds, limits, only_failed, keep_external_ids)
    window = Window(from_date, to_date, include_hidden)
    return await _Backfill(planner, window, now).run_until_done(vehicles, stop or asyncio.Event())


@attrs.define
class _Backfill:
    """One call of `backfill`."""

    planner: Planner
    window: Window
    now: Callable[[], datetime]
    run: Run | None = None
    writer: BatchWriter | None = None
    is_down: bool = False
    failures_in_a_row: int = 0
    log_timer: asyncio.TimerHandle | None = None

    async def run_until_done(self, vehicles: Vehicles, stop: asyncio.Event) -> BackfillReport:
        clock, progress = asyncio.get_running_loop().time, self.planner.progress
        began = clock()
        self._log_later()
        try:
            try:
                reading = asyncio.create_task(self._read_all(vehicles), name="podero_async backfill")
                is_through = await run_until(stop, reading)
            except PoderoError as error:
                if not isinstance(error, StoreError):
                    await self._drain()
                raise
            await self._drain()
        finally:
            if self.log_timer is not None:
                self.log_timer.cancel()
            if self.writer is not None:
                await self.writer.aclose()
            progress.phase = "ended"
        report = await self._report(finished=is_through and not self.is_down, seconds=clock() - began)
        if self.is_down:
            raise ApiDownError("the API is down: all recent requests failed, and the retry budget is spent", report)
        if report.finished and progress.met_only_outages:
            raise ApiDownError("the API is down: every request failed", report)
        return report

    def _log_later(self) -> None:
        self.log_timer = asyncio.get_running_loop().call_later(self.planner.limits.log_every_s, self._log)

    def _log(self) -> None:
        now = self.planner.progress
        _logger.info(
            "backfill (%s): %d vehicles, %d of %d windows read, %d sessions, %d failed, %d requests",
            *(now.phase, now.vehicles, now.received, now.work_items, now.received_sessions, now.failed, now.requests),
        )
        self._log_later()

    async def _read_all(self, vehicles: Vehicles) -> None:
        planner, progress = self.planner, self.planner.progress
        backend, limits = planner.store.backend, planner.limits
        self.run = run = await planner.plan_run(vehicles)
        builder = backend.new_batch(
            run.run_id, limits, owner_of(planner.client), keep_unknown=planner.settings.keep_unknown
        )
        self.writer = writer = BatchWriter(builder, progress, max_wait_s=limits.max_wait_s, now=self.now)
        progress.phase = "fetching"
        include_hidden = planner.settings.window.include_hidden
        await self._read(writer, backend.work_items(include_hidden, limits.work_slice))
        if not self.is_down:
            await writer.drain()
            await self._decide_absent(run, writer)

    async def _read(self, writer: BatchWriter, items: AsyncGenerator[WorkItem, None] | Iterator[WorkItem]) -> set[int]:
        """Read work items; return the numbers of the confirming ones that say which sessions exist."""
        done: set[int] = set()
        settings = self.planner.settings
        reader = ItemReader(self.planner.client, self.now, settings.settle_days, settings.keep_unknown)
        async with reader.read(items) as stream:
            async for item, outcome in stream:
                if item.is_confirming and await self._says_which_exist(item, outcome):
                    done.add(item.number)
                if item.number in done and isinstance(outcome, VehicleFailure):
                    self.planner.progress.received += 1
                    self.planner.progress.requests += outcome.requests
                    self.planner.progress.retries += outcome.retries
                    continue
                self._count(item, outcome)
                await writer.put(item, outcome, *reader.time_of(item))
                if self.is_down:
                    break
        return done

    async def _says_which_exist(self, item: WorkItem, outcome: Fetched) -> bool:
        if not isinstance(outcome, VehicleFailure):
            return outcome.completeness is not Completeness.UNPROVEN
        # The row's own user is in the roster. If another user no longer has the vehicle, this user is shown no session of it.
        is_gone = isinstance(outcome.error, NotFoundError)
        return is_gone and not await self.planner.store.backend.is_in_roster(item.vehicle)

    async def _decide_absent(self, run: Run, writer: BatchWriter) -> None:
        """Read the vehicles again whose stored sessions are absent, and withdraw the sessions that stay absent."""
        planner, progress = self.planner, self.planner.progress
        backend = planner.store.backend
        absent, live = await backend.absent_share(run.run_id)
        if alarm := withdrawn_alarm(absent, live, planner.bounds):
            progress.alarms += alarm
        elif absent:
            items = await backend.confirming_items(planner.settings.window.include_hidden, run.work_items + 1)
            progress.work_items += len(items)
            done = await self._read(writer, iter(items))
            if not self.is_down:
                await writer.drain()
                withdrawn = await backend.withdraw_absent(run.run_id, done, self.now())
                progress.committed += Written(withdrawn=withdrawn)

    def _count(self, item: WorkItem, outcome: Fetched) -> None:
        progress = self.planner.progress
        progress.received += 1
        progress.requests += outcome.requests
        progress.retries += outcome.retries
        if not isinstance(outcome, VehicleFailure):
            progress.count_read(item.vehicle, outcome.completeness, outcome.count)
            self.failures_in_a_row = 0
            return
        in_outage = is_outage_sign(outcome.error)
        progress.count_failure(FailedVehicle.of(outcome), is_outage=in_outage)
        progress.answered += not in_outage
        self.failures_in_a_row = self.failures_in_a_row + 1 if in_outage else 0
        self.is_down = self.failures_in_a_row >= _DOWN_AFTER and is_down(self.planner.client)

    async def _drain(self) -> None:
        if self.writer is not None:
            await self.writer.drain()

    async def _report(self, *, finished: bool, seconds: float) -> BackfillReport:
        """Return the report of the call, and store it with the run."""
        planner, progress, run = self.planner, self.planner.progress, self.run
        backend, days = planner.store.backend, DayCounts()
        if run is not None:
            if not planner.is_of_fleet:
                await backend.record_read(run.run_id, self.now(), keep_external_ids=planner.keep_external_ids)
            failures = await backend.count_failures(run.run_id, self.now())
            progress.alarms += failed_alarms(failures, planner.bounds)
            written = progress.committed
            progress.alarms += rejected_alarm(failures, written.received, written.rejected)
            days, unread = await backend.count_days(planner.settings)
            by_clock = clock_alarm(self.now(), server_time(planner.client))
            progress.alarms += by_clock or (unread_alarm(unread) if finished else [])
        window = attrs.evolve(self.window, from_date=planner.settings.window.from_date)  # without erased days
        report = progress.report(window, run, days, finished=finished, seconds=seconds)
        if run is not None:
            await backend.end_run(run.run_id, report, self.now() if finished else None)
        return report

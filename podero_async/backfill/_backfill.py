"""The backfill: plans a run, reads its vehicles, and commits their sessions in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial

import attrs

from podero_async._client import PoderoClient
from podero_async._concurrency import run_until
from podero_async._failures import is_outage_sign
from podero_async._fleet.worker_pool import Outcome
from podero_async.backfill._client_access import is_down, limiter_of, read_items
from podero_async.backfill._planner import Planner, Vehicles, check_window, utc_now
from podero_async.backfill._report import BackfillReport, FailedVehicle, Progress
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import Limits, Run, WorkItem
from podero_async.backfill._writer import BatchWriter
from podero_async.backfill.errors import ApiDownError, StoreError
from podero_async.backfill.store import SessionStore
from podero_async.errors import PoderoError
from podero_async.models import VehicleFailure

__all__ = ["backfill"]

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
    refresh_days: int = 7,
    shard: Shard | None = None,
    stop: asyncio.Event | None = None,
    progress: Progress | None = None,
    now: Callable[[], datetime] = utc_now,
    limits: Limits = _DEFAULT_LIMITS,
) -> BackfillReport:
    """Write a fleet's charging sessions into a store: the missing days of the window, and the newest stored days again.

    Each batch of vehicles (thousands of sessions, or all that arrived within a second) is one transaction, so the store
    stays consistent if the process is killed. If a vehicle fails, the failure is stored and counted, the other vehicles
    go on, and the next run tries the vehicle again. Memory use does not grow with the fleet. If the caller is cancelled,
    committed batches stay and the same call resumes the run.

    A run consists of its window, its settings and its vehicles. The same call resumes the run until every vehicle was
    tried. If the window includes the day of the call, a run is resumed on the same UTC day only. Vehicles with a receipt
    of the run cost no request. After a run is finished, the same call starts a new one, which re-reads the newest
    `refresh_days` stored days.

    Args:
        client: Reads the sessions.
        store: An open store.
        from_date: First UTC day, inclusive.
        to_date: Last UTC day, inclusive. A day counts as stored only if it was read after it had ended (UTC).
        vehicles: The vehicles to read; None discovers the organization's fleet.
        include_hidden: Whether to read sessions that the server hides, too.
        refresh_days: How many of the newest stored days are read again, to pick up late changes.
        shard: Restricts the run to one shard of the vehicles.
        stop: If this event is set, the run commits the received outcomes, cancels the other reads and ends.
        progress: Is updated during the run.
        now: Returns the time; for tests.
        limits: Bounds on batches and slices; for tests.

    Raises:
        ValueError: The window is invalid or lies in the future.
        ApiDownError: The API is unavailable: too many requests failed in a row, or all of them did. Received outcomes
            are committed.
        AuthenticationError: The credentials were refused. Received outcomes are committed.
        ForeignStoreError: The store belongs to another organization, or to the same one at another origin.
        StoreError: The store could not be written. It contains all batches before the failed one.
        PoderoError: The organization's users could not be listed.
    """
    started = now()
    window = check_window(
        from_date, to_date, include_hidden=include_hidden, refresh_days=refresh_days, today=started.date()
    )
    progress = progress or Progress()
    progress.watch(limiter_of(client))
    planner = Planner(client, store, window, refresh_days, shard, progress, started, limits)
    return await _Backfill(planner, now).run_until_done(vehicles, stop or asyncio.Event())


@attrs.define
class _Backfill:
    """One call of `backfill`."""

    planner: Planner
    now: Callable[[], datetime]
    run: Run | None = None
    writer: BatchWriter | None = None
    is_down: bool = False
    failures_in_a_row: int = 0

    async def run_until_done(self, vehicles: Vehicles, stop: asyncio.Event) -> BackfillReport:
        clock, progress = asyncio.get_running_loop().time, self.planner.progress
        began = clock()
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
            if self.writer is not None:
                await self.writer.aclose()
            progress.phase = "ended"
        is_finished = is_through and not self.is_down
        if is_finished and self.run is not None:
            await self.planner.store.backend.finish_run(self.run.run_id, self.now())
        report = progress.report(self.planner.window, self.run, finished=is_finished, seconds=clock() - began)
        if self.is_down:
            raise ApiDownError("the API is down: all recent requests failed, and the retry budget is spent", report)
        if is_finished and progress.met_only_outages:
            raise ApiDownError("the API is down: every request failed", report)
        return report

    async def _read_all(self, vehicles: Vehicles) -> None:
        planner, progress = self.planner, self.planner.progress
        backend, limits = planner.store.backend, planner.limits
        self.run = run = await planner.plan_run(vehicles)
        yesterday = planner.started.date() - timedelta(days=1)
        builder = backend.new_batch(run.run_id, yesterday, limits)
        self.writer = BatchWriter(builder, progress, max_wait_s=limits.max_wait_s, now=self.now)
        progress.phase = "fetching"
        items = backend.work_items(run.run_id, planner.window.include_hidden, limits.work_slice)
        async with read_items(planner.client, items) as stream:
            async for item, outcome in stream:
                await self.writer.put(item, outcome, partial(self._count, item, outcome))
                if self.is_down:
                    return

    def _count(self, item: WorkItem, outcome: Outcome) -> None:
        progress = self.planner.progress
        progress.received += 1
        progress.requests += outcome.requests
        progress.retries += outcome.retries
        if not isinstance(outcome, VehicleFailure):
            progress.count_read(item.vehicle, outcome.completeness, len(outcome.sessions))
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

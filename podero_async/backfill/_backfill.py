"""The backfill: plan a run, read its vehicles, and commit them batch by batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import attrs

from podero_async._client import PoderoClient
from podero_async._concurrency import run_until
from podero_async._failures import is_outage_sign
from podero_async._fleet.worker_pool import Outcome
from podero_async.backfill._client_access import is_down, limiter_of, reads
from podero_async.backfill._planner import Planning, Vehicles, check_window, utc_now
from podero_async.backfill._report import BackfillReport, FailedVehicle, Progress
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import Run, WorkItem
from podero_async.backfill.errors import ApiDownError, StoreError
from podero_async.backfill.store._session_store import SessionStore
from podero_async.errors import PoderoError
from podero_async.models import VehicleFailure

if TYPE_CHECKING:
    from podero_async.backfill._writer import BatchWriter

__all__ = ["backfill"]

_TASKS_AT_ONCE = 512
_DOWN_AFTER = 10  # failures in a row, once no retry can be afforded


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
) -> BackfillReport:
    """Bring a fleet's charging sessions into a store: what is missing of the window, and the last days again.

    A batch of vehicles (some thousand sessions, or what came within a second) is one transaction, so that a process
    that is killed leaves a store that is right. The same call then goes on where that one stood. A vehicle's failure is
    stored and counted, and the others go on; the next run tries it again. Memory does not grow with the fleet.

    A run is its window, its settings and its vehicles. Until each vehicle was tried, the same call goes on with it (on
    the same UTC day, or where the window was all in the past); vehicles that have their receipt cost no request. Once
    it is finished, the same call is a new run, which reads the last `refresh_days` again.

    Args:
        client: Where to read.
        store: Where to write; open.
        from_date: First UTC day, inclusive.
        to_date: Last UTC day, inclusive. A day counts as held once it was over when it was read.
        vehicles: Which vehicles; None discovers the organization's fleet.
        include_hidden: Whether sessions that the server's classifier hid are read, too.
        refresh_days: How many of the newest days that the store holds are read again, for what came late or changed.
        shard: Only this share of the vehicles.
        stop: When set, the run ends: what was received is committed, what is under way is given up.
        progress: Kept up to date while the run goes on.
        now: The time, for tests.

    Raises:
        ValueError: The window is none, or all of its days are still to come.
        ApiDownError: So much failed in a row that no vehicle would go better, or all that was tried failed as it does
            in an outage; what was received is committed.
        AuthenticationError: The credentials were refused; what was received is committed.
        ForeignStoreError: The store is for another organization, or for the same one at another origin.
        StoreError: The store cannot be written; it is as the last batch left it.
        PoderoError: The organization's users could not be listed.
    """
    started = now()
    window = check_window(
        from_date, to_date, include_hidden=include_hidden, refresh_days=refresh_days, today=started.date()
    )
    progress = progress or Progress()
    progress.watch(limiter_of(client))
    planning = Planning(client, store, window, refresh_days, shard, progress, started)
    return await _Backfill(planning, now).run(vehicles, stop)


@attrs.define
class _Backfill:
    """One call of `backfill`."""

    planning: Planning
    now: Callable[[], datetime]
    run_: Run | None = None
    writer: BatchWriter | None = None
    is_down: bool = False
    failures_in_a_row: int = 0

    async def run(self, vehicles: Vehicles, stop: asyncio.Event | None) -> BackfillReport:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            try:
                reading = asyncio.create_task(self._read_all(vehicles), name="podero_async backfill")
                is_through = await run_until(stop or asyncio.Event(), reading)
            except PoderoError as error:
                if not isinstance(error, StoreError):
                    await self._drain()
                raise
            await self._drain()
        finally:
            if self.writer is not None:
                await self.writer.aclose()
            self.planning.progress.phase = "ended"
        is_finished = is_through and not self.is_down
        if is_finished:
            await self._finish()
        report = self._report(is_finished, clock() - began)
        if self.is_down:
            raise ApiDownError("the API is down: nothing but failures, and the retry budget is spent", report)
        if is_finished and self.planning.progress.met_only_outages:
            raise ApiDownError("the API is down: all that was tried failed", report)
        return report

    async def _read_all(self, vehicles: Vehicles) -> None:
        from podero_async.backfill._writer import BatchWriter  # noqa: PLC0415

        planning = self.planning
        self.run_ = run = await planning.run(vehicles)
        complete_until = planning.started.date() - timedelta(days=1)
        self.writer = BatchWriter(planning.store, run.run_id, complete_until, planning.progress, self.now)
        planning.progress.phase = "fetching"
        async with reads(planning.client, self._tasks(run)) as stream:
            async for task, result in stream:
                await self.writer.put(task, result, partial(self._count, task, result))
                if self.is_down:
                    return

    async def _tasks(self, run: Run) -> AsyncGenerator[WorkItem, None]:
        from podero_async.backfill.store.duckdb.runs import next_tasks, open_tasks  # noqa: PLC0415

        call, place = self.planning.store.call, 0
        await call(open_tasks, run.run_id)
        while piece := await call(next_tasks, self.planning.window.include_hidden, place, _TASKS_AT_ONCE):
            for task in piece:
                yield task
            place += len(piece)

    def _count(self, task: WorkItem, result: Outcome) -> None:
        progress = self.planning.progress
        progress.received += 1
        progress.requests += result.requests
        progress.retries += result.retries
        if not isinstance(result, VehicleFailure):
            progress.count_read(task.vehicle, result.completeness, len(result.sessions))
            self.failures_in_a_row = 0
            return
        in_outage = is_outage_sign(result.error)
        progress.count_failure(FailedVehicle.of(result), is_outage=in_outage)
        progress.answered += not in_outage
        self.failures_in_a_row = self.failures_in_a_row + 1 if in_outage else 0
        self.is_down = self.failures_in_a_row >= _DOWN_AFTER and is_down(self.planning.client)

    async def _drain(self) -> None:
        if self.writer is not None:
            await self.writer.drain()

    async def _finish(self) -> None:
        from podero_async.backfill.store.duckdb.upsert import finish_run  # noqa: PLC0415

        if self.run_ is not None:
            await self.planning.store.call(finish_run, self.run_.run_id, self.now())

    def _report(self, is_finished: bool, seconds: float) -> BackfillReport:
        window, run = self.planning.window, self.run_
        return self.planning.progress.report(
            from_date=window.from_date,
            to_date=window.to_date,
            include_hidden=window.include_hidden,
            run_id=run.run_id if run else None,
            resumed=run.resumed if run else False,
            finished=is_finished,
            seconds=seconds,
        )

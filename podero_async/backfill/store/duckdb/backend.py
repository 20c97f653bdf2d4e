"""The backend: implements the store's protocol over the modules of SQL, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import duckdb

from podero_async._concurrency import outlast
from podero_async._paging.window import Window
from podero_async.backfill._alarms import FailureCounts, Unread, Vanished
from podero_async.backfill._comparison import Compared, Drawn
from podero_async.backfill._coverage import DayCounts
from podero_async.backfill._forgotten import ForgottenUsers
from podero_async.backfill._report import BackfillPlan, BackfillReport, Written
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import Limits, Run, RunSettings, StoreOwner, WorkItem
from podero_async.backfill.errors import StoreError
from podero_async.backfill.store._status import Exported, Merged, RunStatus, StoreStatus
from podero_async.backfill.store._tables import StoreTables
from podero_async.backfill.store.duckdb import absence, comparison, queries, runs, schema, upsert, vehicles, work
from podero_async.backfill.store.duckdb.batch_builder import ArrowBatchBuilder
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.connection import close_store, open_store, translated
from podero_async.backfill.store.duckdb.export import Export
from podero_async.backfill.store.duckdb.forgotten import Forget, forgotten_users
from podero_async.backfill.store.duckdb.interruptible import run_interruptible
from podero_async.backfill.store.duckdb.merge import Merge
from podero_async.backfill.store.duckdb.retention import kept_from
from podero_async.backfill.store.duckdb.snapshot import Snapshot, check_snapshot
from podero_async.backfill.store.duckdb.stream import NextRows, Query, RowStream
from podero_async.backfill.store.duckdb.tables import ReadTables
from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = ["DuckDBBackend"]

P = ParamSpec("P")
T = TypeVar("T")


class DuckDBBackend:
    """A DuckDB file with one thread, which runs one operation after another."""

    def __init__(self, path: str, *, read_only: bool, memory_limit_mb: int) -> None:
        self._path = path
        self._read_only = read_only
        self._memory_limit_mb = memory_limit_mb
        self._thread: ThreadPoolExecutor | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._resolved = Path()

    async def call(
        self, work: Callable[Concatenate[duckdb.DuckDBPyConnection, P], T], /, *args: P.args, **options: P.kwargs
    ) -> T:
        """Run a function on the connection in the thread. If the caller is cancelled, the function still runs to its end.

        Raises:
            StoreError: The store is not open, or the database or the disk reported an error.
        """
        connection = self._connection
        if connection is None:
            raise StoreError("the store is not open", self._path)

        def do() -> T:
            with translated(self._path):
                return work(connection, *args, **options)

        return await self._in_thread(do)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise StoreError("the store is not open", self._path)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- the file ---

    async def open(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podero_async store")
        await self._in_thread(self._open)

    def _open(self) -> None:
        # The thread stores the connection: the coroutine may be cancelled, and would leave the file open.
        self._resolved = Path(self._path).resolve()  # the process may change its directory later
        self._connection = open_store(self._path, read_only=self._read_only, memory_limit_mb=self._memory_limit_mb)

    async def close(self) -> str:
        thread, self._thread = self._thread, None
        if thread is None:
            return ""
        # The thread runs this after all operations that cancelled callers have left.
        closing = asyncio.get_running_loop().run_in_executor(thread, self._close)
        thread.shutdown(wait=False)
        return await outlast(closing)

    def _close(self) -> str:
        connection, self._connection = self._connection, None
        if connection is None:
            return ""
        with translated(self._path):
            return close_store(connection, self._resolved)

    async def owner(self) -> StoreOwner | None:
        return await self.call(schema.owner_of)

    # --- runs ---

    async def clear_roster(self) -> None:
        await self.call(vehicles.clear_roster)

    async def add_to_roster(self, users: list[User], found: list[VehicleRef], failures: list[VehicleFailure]) -> None:
        await self.call(vehicles.add_to_roster, users, found, failures)

    async def is_in_roster(self, vehicle: VehicleRef) -> bool:
        return await self.call(vehicles.is_in_roster, vehicle)

    async def record_fleet(
        self,
        shard: Shard | None,
        now: datetime,
        max_vanished: float,
        *,
        is_complete: bool,
        keep_external_ids: bool,
    ) -> Vanished:
        options = {"is_complete": is_complete, "keep_external_ids": keep_external_ids}
        return await self.call(vehicles.record_fleet, shard, now, max_vanished, **options)

    async def record_read(self, run_id: int, now: datetime, *, keep_external_ids: bool) -> None:
        await self.call(vehicles.record_read, run_id, now, keep_external_ids=keep_external_ids)

    async def failed(self) -> list[tuple[UUID, UUID | None]]:
        return await self.call(vehicles.failed)

    async def draft_run(self, settings: RunSettings) -> BackfillPlan:
        return await self.call(work.draft_run, settings)

    async def start_run(self, settings: RunSettings, scope: str, *, is_of_fleet: bool) -> Run:
        return await self.call(runs.start_run, settings, scope, is_of_fleet=is_of_fleet)

    async def work_items(self, include_hidden: bool, slice_size: int) -> AsyncGenerator[WorkItem, None]:
        position = 0
        while items := await self.call(work.next_work, include_hidden, position, slice_size):
            for item in items:
                yield item
            position += len(items)

    def new_batch(
        self, run_id: int, limits: Limits, owner: StoreOwner, *, keep_unknown: bool = False
    ) -> ArrowBatchBuilder:
        return ArrowBatchBuilder(Batch(run_id, owner, keep_unknown), limits, self.write_batch)

    async def write_batch(self, batch: Batch, at: datetime) -> Written:
        return await self.call(upsert.write_batch, batch, at)

    async def absent_share(self, run_id: int) -> tuple[int, int]:
        return await self.call(absence.absent_share, run_id)

    async def confirming_items(self, include_hidden: bool, first_number: int) -> list[WorkItem]:
        return await self.call(absence.confirming_items, include_hidden, first_number)

    async def withdraw_absent(self, run_id: int, done: set[int], now: datetime) -> int:
        return await self.call(absence.conclude, run_id, done, now)

    async def count_failures(self, run_id: int, now: datetime) -> FailureCounts:
        return await self.call(runs.count_failures, run_id, now)

    async def count_days(self, settings: RunSettings) -> tuple[DayCounts, Unread]:
        return await self.call(work.count_roster_days, settings)

    async def end_run(self, run_id: int, report: BackfillReport, finished_at: datetime | None) -> None:
        await self.call(runs.end_run, run_id, report, finished_at)

    # --- reading ---

    async def status(self, now: datetime) -> StoreStatus:
        return await self.call(queries.read_status, self._path, now)

    async def count_window(self, window: Window, today: date) -> DayCounts:
        return await self.call(queries.count_window, window, today)

    async def runs(self, limit: int | None) -> list[RunStatus]:
        return await self.call(queries.read_runs, limit)

    # --- verification ---

    async def draw_comparison(self, sample: int | None, *, include_provisional: bool) -> Drawn:
        return await self.call(comparison.draw, sample, include_provisional=include_provisional)

    async def draw_differing(self) -> Drawn:
        return await self.call(comparison.draw_differing)

    async def compared_items(self, slice_size: int) -> AsyncGenerator[WorkItem, None]:
        position = 0
        while items := await self.call(comparison.next_compared, position, slice_size):
            for item in items:
                yield item
            position += len(items)

    def new_comparison(self, limits: Limits, on_compared: Callable[[Compared], None]) -> ArrowBatchBuilder:
        async def compare(batch: Batch, _: datetime) -> Written:
            on_compared(await self.call(comparison.compare, batch))
            return Written()

        return ArrowBatchBuilder(Batch(0), limits, compare)

    async def unsettle_differing(self) -> list[tuple[bool, date]]:
        return await self.call(comparison.unsettle)

    async def differing_vehicles(self, include_hidden: bool, slice_size: int) -> AsyncGenerator[VehicleRef, None]:
        position = 0
        while found := await self.call(comparison.next_differing, include_hidden, position, slice_size):
            for vehicle in found:
                yield vehicle
            position += len(found)

    # --- queries and exports ---

    async def query(self, sql: str, values: Sequence[Any] | None) -> list[dict[str, Any]]:
        return await run_interruptible(self.call, Query(target=self._path, sql=sql, values=values))

    async def stream(self, sql: str, max_rows: int) -> AsyncGenerator[tuple[list[str], list[tuple[Any, ...]]], None]:
        stream = RowStream(sql, max_rows)
        try:
            while rows := await run_interruptible(self.call, NextRows(target=self._path, stream=stream)):
                yield stream.columns, rows
            yield stream.columns, []
        finally:
            await self.call(stream.close)

    async def export(self, target: str, kind: str, **options: Any) -> Exported:
        return await run_interruptible(self.call, Export(target=target, store=self._resolved, kind=kind, **options))

    async def read_tables(self, read: Callable[[StoreTables], T], on_cancel: Callable[[], object]) -> T:
        return await run_interruptible(self.call, ReadTables(target=self._path, read=read, on_cancel=on_cancel))

    async def snapshot(self, target: str) -> int:
        return await run_interruptible(self.call, Snapshot(target=target, store=self._resolved))

    async def check_snapshot(self, target: str) -> None:
        await self._in_thread(partial(check_snapshot, target, self._resolved))

    async def merge(self, target: str, stores: Sequence[str], *, overwrite: bool) -> Merged:
        return await run_interruptible(self.call, Merge(target=target, stores=stores, overwrite=overwrite))

    async def forget(self, user_id: UUID) -> int:
        return await self._forget(user_id=user_id)

    async def forget_before(self, day: date) -> int:
        return await self._forget(before=day)

    async def _forget(self, *, user_id: UUID | None = None, before: date | None = None) -> int:
        operation = Forget(target=self._path, store=self._resolved, user_id=user_id, before=before)
        return await run_interruptible(self.call, operation)

    async def kept_from(self) -> date | None:
        return await self.call(kept_from)

    async def forgotten_users(self) -> ForgottenUsers:
        return await self.call(forgotten_users)

"""The backend: implements the store's protocol over the modules of SQL, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import duckdb

from podero_async._concurrency import outlast
from podero_async.backfill._report import BackfillPlan, Findings, Written
from podero_async.backfill._values import Limits, Run, RunSettings, StoreOwner, WorkItem
from podero_async.backfill.errors import StoreError
from podero_async.backfill.store._status import Exported, StoreStatus
from podero_async.backfill.store.duckdb import queries, roster, runs, schema, upsert
from podero_async.backfill.store.duckdb.columns import ArrowBatchBuilder, Batch
from podero_async.backfill.store.duckdb.connection import close_store, open_store, translated
from podero_async.backfill.store.duckdb.export import Export
from podero_async.backfill.store.duckdb.interruptible import run_interruptible
from podero_async.backfill.store.duckdb.snapshot import Snapshot
from podero_async.models import VehicleFailure, VehicleRef

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

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            # The thread runs this after all operations that cancelled callers have left.
            closing = asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)
            await outlast(closing)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with translated(self._path):
                close_store(connection, self._resolved)

    async def owner(self) -> StoreOwner | None:
        return await self.call(schema.owner_of)

    async def claim(self, owner: StoreOwner) -> None:
        await self.call(schema.claim, owner)

    # --- runs ---

    async def clear_roster(self) -> None:
        await self.call(roster.clear_roster)

    async def add_to_roster(self, vehicles: list[VehicleRef], failures: list[VehicleFailure]) -> None:
        await self.call(roster.add_to_roster, vehicles, failures)

    async def roster_scope(self) -> str:
        return await self.call(roster.roster_scope)

    async def resume_run(self, settings: RunSettings, today: date) -> Run | None:
        return await self.call(runs.resume_run, settings, today)

    async def start_run(self, settings: RunSettings, now: datetime) -> Run:
        return await self.call(runs.start_run, settings, now)

    async def draft_run(self, settings: RunSettings, unfinished: Run | None) -> BackfillPlan:
        return await self.call(runs.draft_run, settings, unfinished)

    async def findings_of(self, run_id: int) -> Findings:
        return await self.call(runs.findings_of, run_id)

    async def work_items(self, run_id: int, include_hidden: bool, slice_size: int) -> AsyncGenerator[WorkItem, None]:
        await self.call(runs.open_work, run_id)
        position = 0
        while items := await self.call(runs.next_work, include_hidden, position, slice_size):
            for item in items:
                yield item
            position += len(items)

    def new_batch(self, run_id: int, complete_until: date, limits: Limits) -> ArrowBatchBuilder:
        return ArrowBatchBuilder(run_id, complete_until, limits, self.write_batch)

    async def write_batch(self, batch: Batch) -> Written:
        return await self.call(upsert.write_batch, batch)

    async def finish_run(self, run_id: int, now: datetime) -> None:
        await self.call(runs.finish_run, run_id, now)

    # --- reading ---

    async def status(self) -> StoreStatus:
        return await self.call(queries.read_status, self._path)

    async def sample_receipts(self, sample: int | None) -> list[tuple[WorkItem, str]]:
        return await self.call(queries.sample_receipts, sample)

    async def stored_ids(self, item: WorkItem) -> set[UUID]:
        return await self.call(queries.stored_ids, item)

    async def query(self, sql: str, values: Sequence[Any] | None) -> list[dict[str, Any]]:
        return await self.call(queries.read_rows, sql, values)

    async def export(self, target: str, kind: str, **options: Any) -> Exported:
        return await run_interruptible(self.call, Export(target=target, store=self._resolved, kind=kind, **options))

    async def snapshot(self, target: str) -> int:
        return await run_interruptible(self.call, Snapshot(target=target, store=self._resolved))

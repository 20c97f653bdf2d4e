"""Between the fetch and the store: gathers outcomes into batches, and writes one while the next is gathered.

Imports what the extra brings: only where a store is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, datetime

from podero_async._fleet.worker_pool import Outcome
from podero_async.backfill._report import Progress
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store._session_store import SessionStore
from podero_async.backfill.store.duckdb.columns import ROWS_AT_ONCE, Batch, SessionColumns
from podero_async.backfill.store.duckdb.upsert import write_batch
from podero_async.models import VehicleFailure, VehicleSessions

__all__ = ["BatchWriter"]

_MAX_WAIT_S = 1.0  # that an outcome waits for its batch to fill


class BatchWriter:
    """Commit outcomes in batches, when a batch is full or its first outcome has waited a second.

    At most two batches are held: one that is written, one that fills. A caller with more waits.
    """

    def __init__(
        self, store: SessionStore, run_id: int, complete_until: date, progress: Progress, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._complete_until = complete_until
        self._progress = progress
        self._now = now
        self._batch = self._new_batch()
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def put(self, task: WorkItem, result: Outcome, taken: Callable[[], object] = lambda: None) -> None:
        """Take a task's result; wait, where two batches are full.

        Args:
            task: What was asked for.
            result: What came.
            taken: Called as soon as the result is in a batch, which a cancelled caller leaves there.

        Raises:
            StoreError: A batch could not be written. Nothing more is taken.
        """
        at = self._now()
        took_long = False
        if isinstance(result, VehicleFailure):
            self._batch.add_failure(task, result.error, at)
        else:
            built = await self._built_ahead(task, result)
            took_long = self._batch.add(task, result, built, result.sessions[len(built) * ROWS_AT_ONCE :], at)
        taken()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MAX_WAIT_S, self._on_timer)
        if took_long:
            await asyncio.sleep(0)
        if self._batch.is_full:
            await self._written()
            self._begin()

    async def drain(self) -> None:
        """Commit what was taken."""
        await self._written()
        self._begin()
        await self._written()

    async def aclose(self) -> None:
        """Wait for the batch that is being written, and give up the one that fills."""
        self._stop_timer()
        if self._writing is not None:
            await asyncio.wait([self._writing])
            self._writing.exception()  # taken note of: whoever leaves early does not ask

    async def _built_ahead(self, task: WorkItem, result: VehicleSessions) -> list[SessionColumns]:
        """Build the columns of a long list piece by piece, and let others have their turns in between."""
        built = []
        for start in range(0, len(result.sessions) - ROWS_AT_ONCE, ROWS_AT_ONCE):
            rows = result.sessions[start : start + ROWS_AT_ONCE]
            built.append(SessionColumns.of([(task.number, row) for row in rows]))
            await asyncio.sleep(0)
        return built

    def _new_batch(self) -> Batch:
        return Batch(self._run_id, self._complete_until)

    async def _written(self) -> None:
        self._stop_timer()  # it must not begin another one between the end of this one and its waiter's turn
        if self._writing is not None:
            await asyncio.shield(self._writing)  # a transaction is not left half-way
            self._writing = None

    def _begin(self) -> None:
        self._stop_timer()
        if self._batch.outcomes:
            batch, self._batch = self._batch, self._new_batch()
            batch.seal()
            self._writing = asyncio.create_task(self._write(batch), name="podero_async batch")

    async def _write(self, batch: Batch) -> None:
        self._progress.count_commit(await self._store.call(write_batch, batch))

    def _on_timer(self) -> None:
        if self._writing is None or (self._writing.done() and self._writing.exception() is None):
            self._begin()
        else:  # it is being written still: look again soon
            self._timer = asyncio.get_running_loop().call_later(_MAX_WAIT_S / 10, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

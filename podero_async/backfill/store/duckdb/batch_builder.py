"""The builder of batches.

Sessions are converted in the event loop, at most 255 at a time as they arrive, in 1 to 2 ms. A conversion in the writing
thread would hold the interpreter's lock and delay each system call of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from functools import partial
from hashlib import sha256

from podero_async.backfill._report import Written
from podero_async.backfill._values import Limits, StoreOwner, WorkItem
from podero_async.backfill.store._protocol import CommitBatch
from podero_async.backfill.store.duckdb.columns import ROWS_PER_SLICE, Batch, SessionColumns, encoded
from podero_async.models import VehicleSessions

__all__ = ["ArrowBatchBuilder"]


class ArrowBatchBuilder:
    """Gathers the outcomes of a run in a batch. When the batch is sealed, a new one starts."""

    def __init__(
        self,
        run_id: int,
        limits: Limits,
        write: Callable[[Batch, datetime], Awaitable[Written]],
        owner: StoreOwner | None = None,
    ) -> None:
        self._limits = limits
        self._write = write
        self._batch = Batch(run_id, owner)

    @property
    def is_empty(self) -> bool:
        return not self._batch.outcomes

    @property
    def is_full(self) -> bool:
        batch, limits = self._batch, self._limits
        return batch.rows >= limits.max_batch_rows or batch.outcomes >= limits.max_batch_outcomes

    async def add(self, item: WorkItem, outcome: VehicleSessions, at: datetime, settle_to: date | None) -> None:
        if self._batch.is_slice_pending:
            self._batch.convert_pending()
            await asyncio.sleep(0)
        converted, contents = [], sha256()
        for start in range(0, len(outcome.sessions) - ROWS_PER_SLICE, ROWS_PER_SLICE):
            rows = outcome.sessions[start : start + ROWS_PER_SLICE]
            converted.append(SessionColumns.of([(item.number, row) for row in rows]))
            contents.update(encoded(rows))
            await asyncio.sleep(0)
        # The batch may have been sealed during the conversion: from here on, nothing is awaited.
        self._batch.add(item, outcome, at, settle_to, converted=converted, contents=contents)

    def add_failure(self, item: WorkItem, error: Exception, at: datetime) -> None:
        self._batch.add_failure(item, error, at)

    def seal(self) -> CommitBatch:
        batch, self._batch = self._batch, Batch(self._batch.run_id, self._batch.owner)
        batch.convert_pending()
        return partial(self._write, batch)

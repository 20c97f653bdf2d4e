"""The builder of batches: it keeps pages as they are, and the writing thread makes columns of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from functools import partial

from podero_async._fleet.vehicle import FetchedSessions
from podero_async.backfill._report import Written
from podero_async.backfill._values import Limits, WorkItem
from podero_async.backfill.store._protocol import CommitBatch
from podero_async.backfill.store.duckdb.columns import Batch

__all__ = ["ArrowBatchBuilder"]

_MAX_UNKNOWN_LENGTH = 32 << 20  # characters: twice that of rows without unknown fields


class ArrowBatchBuilder:
    """Gathers the outcomes of a run in a batch. When the batch is sealed, a new one starts."""

    def __init__(
        self,
        first: Batch,
        limits: Limits,
        write: Callable[[Batch, datetime], Awaitable[Written]],
    ) -> None:
        self._limits = limits
        self._write = write
        self._batch = first

    @property
    def is_empty(self) -> bool:
        return not self._batch.outcomes

    @property
    def is_full(self) -> bool:
        batch, limits = self._batch, self._limits
        is_long = batch.rows >= limits.max_batch_rows or batch.unknown_length >= _MAX_UNKNOWN_LENGTH
        return is_long or batch.outcomes >= limits.max_batch_outcomes

    def add(self, item: WorkItem, outcome: FetchedSessions, at: datetime, settle_to: date | None) -> None:
        self._batch.add(item, outcome, at, settle_to)

    def add_failure(self, item: WorkItem, error: Exception, at: datetime) -> None:
        self._batch.add_failure(item, error, at)

    def seal(self) -> CommitBatch:
        batch, self._batch = self._batch, self._batch.successor()
        return partial(self._write, batch)

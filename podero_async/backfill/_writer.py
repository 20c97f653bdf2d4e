"""The writer of a backfill: gathers outcomes into batches, and writes one batch while the next one fills."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, datetime

from podero_async._concurrency import wait_for_all
from podero_async._fleet.worker_pool import Fetched
from podero_async.backfill._report import Progress
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store import BatchBuilder, CommitBatch
from podero_async.models import VehicleFailure

__all__ = ["BatchWriter"]


class BatchWriter:
    """Commits outcomes in batches: when a batch is full, or when its first outcome has waited for `max_wait_s`.

    At most two batches are in memory: one is written, one fills. `put` waits if both are full.
    """

    def __init__(
        self, builder: BatchBuilder, progress: Progress, *, max_wait_s: float, now: Callable[[], datetime]
    ) -> None:
        self._builder = builder
        self._progress = progress
        self._max_wait_s = max_wait_s
        self._now = now
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def put(
        self,
        item: WorkItem,
        outcome: Fetched,
        at: datetime,
        settle_to: date | None,
    ) -> None:
        """Add the outcome of a work item, and wait if two batches are full. If the wait is cancelled, the outcome stays.

        Args:
            item: The work item.
            outcome: Its outcome.
            at: The time of the read.
            settle_to: The last day that the read settles; None if it settles none.

        Raises:
            StoreError: A batch could not be written. The writer takes no more outcomes.
        """
        if isinstance(outcome, VehicleFailure):
            self._builder.add_failure(item, outcome.error, at)
        else:
            self._builder.add(item, outcome, at, settle_to)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._max_wait_s, self._on_timer)
        if self._builder.is_full:
            await self._wait_for_write()
            self._start_write()

    async def drain(self) -> None:
        """Commit all outcomes that were added."""
        await self._wait_for_write()
        self._start_write()
        await self._wait_for_write()

    async def aclose(self) -> None:
        """Wait for the batch that is being written, and discard the batch that fills."""
        self._stop_timer()
        if self._writing is not None:
            try:
                await wait_for_all([self._writing])
            finally:
                self._writing.exception()  # retrieved, so that asyncio does not log it

    async def _wait_for_write(self) -> None:
        # Otherwise the timer could start the next write before this coroutine resumes, and its error would be lost.
        self._stop_timer()
        if self._writing is not None:
            await asyncio.shield(self._writing)  # a cancellation must not interrupt a transaction
            self._writing = None

    def _start_write(self) -> None:
        self._stop_timer()
        if not self._builder.is_empty:
            self._writing = asyncio.create_task(self._write(self._builder.seal()), name="podero_async batch")

    async def _write(self, commit: CommitBatch) -> None:
        written = await commit(self._now())
        self._progress.committed += written

    def _on_timer(self) -> None:
        if self._writing is None or (self._writing.done() and self._writing.exception() is None):
            self._start_write()
        else:  # the previous batch is still being written
            self._timer = asyncio.get_running_loop().call_later(self._max_wait_s / 10, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

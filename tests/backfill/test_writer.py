"""The writer commits one batch while the next one fills, and reports every error of a commit."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Any

import pytest

from podero_async import VehicleRef
from podero_async._paging.window import Window
from podero_async.backfill import Progress
from podero_async.backfill._report import Written
from podero_async.backfill._values import WorkItem
from podero_async.backfill._writer import BatchWriter
from podero_async.backfill.store import CommitBatch
from podero_async.errors import TransportError
from podero_async.models import VehicleFailure
from tests._support.clients import USER, VEHICLE

DAY = date(2026, 1, 1)
ITEM = WorkItem(1, VehicleRef(user_id=USER, vehicle_id=VEHICLE), Window(DAY, DAY))
FAILURE = VehicleFailure(
    user_id=USER, vehicle=ITEM.vehicle, error=TransportError("the connection was lost", "GET", "/sessions")
)


class GatedBuilder:
    """Builds batches. A commit ends when its gate is opened; the second one fails."""

    def __init__(self) -> None:
        self.gates = [asyncio.Event(), asyncio.Event()]
        self.commits = 0
        self.is_empty = True
        self.is_full = False

    def add(self, *_: Any) -> None:
        self.is_empty = False

    def add_failure(self, *_: Any) -> None:
        self.is_empty = False

    def seal(self) -> CommitBatch:
        self.is_empty = True
        return self._commit

    async def _commit(self, _: datetime) -> Written:
        self.commits += 1
        number = self.commits
        await self.gates[number - 1].wait()
        if number == len(self.gates):
            raise OSError("disk full")
        return Written(new=1)


async def test_a_batch_that_becomes_due_at_the_end_of_another_commit_is_awaited() -> None:
    """`drain` raises the error of a commit that a timer would have started in the same cycle of the event loop."""
    builder, progress = GatedBuilder(), Progress()
    writer = BatchWriter(builder, progress, max_wait_s=0.0, now=lambda: datetime.now(UTC))
    await writer.put(ITEM, FAILURE, datetime.now(UTC), None)
    while not builder.commits:  # the timer starts the first commit
        await asyncio.sleep(0)
    await writer.put(ITEM, FAILURE, datetime.now(UTC), None)
    draining = asyncio.create_task(writer.drain())
    await asyncio.sleep(0)
    for gate in builder.gates:
        gate.set()
        await asyncio.sleep(0.001)
    with pytest.raises(OSError, match="disk full"):
        await draining
    await writer.aclose()
    assert progress.committed == Written(new=1)

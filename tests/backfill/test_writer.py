"""Between the fetch and the store: one batch is written while the next fills, and no failure of either is lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Any, cast

import pytest

from podero_async import VehicleRef
from podero_async._paging.window import Window
from podero_async.backfill import Progress, SessionStore
from podero_async.backfill._report import Written
from podero_async.backfill._values import WorkItem
from podero_async.backfill._writer import BatchWriter
from podero_async.errors import TransportError
from podero_async.models import VehicleFailure
from tests._support.clients import USER, VEHICLE

DAY = date(2026, 1, 1)
TASK = WorkItem(1, VehicleRef(user_id=USER, vehicle_id=VEHICLE), Window(DAY, DAY))
FAILURE = VehicleFailure(
    user_id=USER, vehicle=TASK.vehicle, error=TransportError("the connection was lost", "GET", "/sessions")
)


class Slow:
    """A store whose writes end when they are told to; the second one fails."""

    def __init__(self) -> None:
        self.gates = [asyncio.Event(), asyncio.Event()]
        self.writes = 0

    async def call(self, *_: Any) -> Written:
        self.writes += 1
        write = self.writes
        await self.gates[write - 1].wait()
        if write == len(self.gates):
            raise OSError("disk full")
        return Written(new=1)


async def test_a_batch_that_is_due_as_another_is_written_is_not_lost_track_of() -> None:
    """A full disk would go unnoticed, and the run be closed without its last vehicles."""
    store = Slow()
    writer = BatchWriter(cast(SessionStore, store), 1, DAY, Progress(), lambda: datetime.now(UTC))
    await writer.put(TASK, FAILURE)
    writer._begin()
    await writer.put(TASK, FAILURE)
    draining = asyncio.create_task(writer.drain())
    await asyncio.sleep(0)
    assert writer._writing is not None

    def fire(_: object) -> None:
        if writer._timer is not None and not writer._timer.cancelled():
            writer._on_timer()

    writer._writing.add_done_callback(fire)  # the timer is due in that very turn of the loop
    store.gates[0].set()
    await asyncio.sleep(0.001)
    store.gates[1].set()
    with pytest.raises(OSError, match="disk full"):
        await draining
    await writer.aclose()

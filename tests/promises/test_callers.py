"""Many callers of one client, beside a backfill of the same client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

from podero_async import PoderoClient
from podero_async.backfill import SessionStore, backfill
from podero_async.testing import Fault, PoderoSimulator

CALLERS, CALLS = 300, 5


async def median_of_calls(client: PoderoClient, simulator: PoderoSimulator) -> float:
    """Let all callers ask for a live session several times, and return the median of their times in seconds."""
    vehicle, seconds = simulator.vehicles[0], list[float]()

    async def caller() -> None:
        for _ in range(CALLS):
            begin = time.perf_counter()
            await client.current_session(vehicle.user_id, vehicle.vehicle_id)
            seconds.append(time.perf_counter() - begin)

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(caller())
    return median(seconds)


@pytest.mark.soak
@pytest.mark.podero(users=1000, vehicles=3000, sessions_per_vehicle=20, latency_s=0.05)
async def test_callers_beside_a_backfill(
    podero_simulator: PoderoSimulator,
    podero_client: PoderoClient,
    path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """The median call of 300 concurrent callers beside a backfill is reported with that on an idle client."""
    podero_simulator.add_fault(Fault(kind="hang", endpoint="sessions", vehicle=podero_simulator.vehicles[-1]))
    await median_of_calls(podero_client, podero_simulator)
    idle = await median_of_calls(podero_client, podero_simulator)
    async with SessionStore(path) as store:
        days = podero_simulator.first_day, podero_simulator.last_day
        running = asyncio.create_task(backfill(podero_client, store, *days))
        while podero_simulator.counts.requests["sessions"] < 100:
            await asyncio.sleep(0.01)
        before = podero_simulator.counts.requests["sessions"]
        beside = await median_of_calls(podero_client, podero_simulator)
        read = podero_simulator.counts.requests["sessions"] - before
        assert not running.done()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    record_property(
        "figure",
        f"median {idle:.3f} s idle, {beside:.3f} s beside a backfill ({beside / idle:.2f}), {read} reads meanwhile",
    )

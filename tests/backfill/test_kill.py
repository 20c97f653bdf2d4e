"""A backfill process that is killed at any moment leaves a consistent store, and the next one completes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import attrs
import pytest

from podero_async.testing import PoderoSimulator, parse_fault
from tests._support.backfill_process import CONCURRENCY, start
from tests._support.expected_rows import assert_equal, truth_of

FAULTS = "status:503@3%", "sessions/reset@2%", "sessions/truncated@2%", "sessions/malformed_json@1%"
BUFFERED = 16
"""The outcomes that the worker pool has ready for the writer."""
PIPE = asyncio.subprocess.PIPE


@attrs.frozen(kw_only=True)
class Scale:
    """The size of the fleet, the number of kills, the requests before each, and the vehicles of a batch."""

    users: int
    vehicles: int
    sessions: int
    latency_s: float
    kills: int
    kill_within: int
    batch: int

    def simulator(self) -> PoderoSimulator:
        return PoderoSimulator(
            users=self.users,
            vehicles=self.vehicles,
            sessions_per_vehicle=self.sessions,
            latency_s=self.latency_s,
            faults=map(parse_fault, FAULTS),
        )


SMALL = Scale(users=40, vehicles=200, sessions=20, latency_s=0.1, kills=3, kill_within=70, batch=4)
LARGE = Scale(users=200, vehicles=3000, sessions=50, latency_s=0.4, kills=50, kill_within=120, batch=10)


async def _kill_and_resume(sim: PoderoSimulator, path: Path, scale: Scale) -> None:
    """Kill processes at random moments while they read, and let the last one finish."""
    rng = Random(scale.kills)
    for _ in range(scale.kills):
        process = await start(sim, path, scale.batch, stdout=PIPE)
        last = sim.counts.requests["sessions"] + rng.randint(1, scale.kill_within)
        while sim.counts.requests["sessions"] < last and process.returncode is None:
            await asyncio.sleep(0.005)
        await asyncio.sleep(rng.uniform(0, scale.latency_s))
        assert process.returncode is None, "the backfill ended before the last kill"
        process.kill()
        await process.communicate()
    process = await start(sim, path, scale.batch, stdout=PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.split()[2] == b"0", "no vehicle failed"


@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(SMALL, marks=pytest.mark.slow, id="small"),
        pytest.param(LARGE, marks=pytest.mark.soak, id="large"),
    ],
)
async def test_kills_lose_and_duplicate_no_session(
    scale: Scale, tmp_path: Path, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """After several kills the store equals the server's data, and each kill costs at most two batches and a few requests."""
    if scale is LARGE:
        scale = attrs.evolve(scale, kills=round(scale.kills * soak_scale))
    path = tmp_path / "fleet.duckdb"
    async with scale.simulator() as sim:
        await _kill_and_resume(sim, path, scale)
        truth = truth_of(sim, include_hidden=True)
        await assert_equal(path, truth)

    a_vehicle = len(truth) / len(sim.vehicles)
    broken = sum(sim.counts.faults[kind] for kind in ("truncated", "reset", "malformed_json"))
    again = round(sim.counts.rows_served - len(truth) - broken * a_vehicle)
    # A kill loses at most two batches, the buffer of the worker pool, and two vehicles for each slot.
    assert again <= scale.kills * (2 * scale.batch + BUFFERED + 2 * CONCURRENCY) * a_vehicle
    counts = f"{scale.kills} kills, {len(truth)} rows: 0 lost, 0 doubled, {again} fetched again"
    record_property("figure", f"{counts}, {broken} pages broken by faults")

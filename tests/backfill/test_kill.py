"""A process that is killed, at any moment, leaves a store that is right; the same call then goes on."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from podero_async.testing import PoderoSimulator, parse_fault
from tests._support.backfill_process import CONCURRENCY
from tests._support.expected_rows import assert_equal, truth_of

ROOT = Path(__file__).parents[2]
FAULTS = "status:503@3%", "sessions/reset@2%", "sessions/truncated@2%", "sessions/malformed_json@1%"


async def _start(sim: PoderoSimulator, path: Path, wait_s: float) -> asyncio.subprocess.Process:
    arguments = [path, sim.base_url, sim.org_id, sim.client_id, sim.client_secret, sim.first_day, sim.last_day, wait_s]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests._support.backfill_process",
        *map(str, arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )


async def _until_reading(sim: PoderoSimulator, seen: int, process: asyncio.subprocess.Process) -> None:
    """Wait until the process asks for sessions: a kill before that would prove nothing."""
    while sim.counts.requests["sessions"] == seen and process.returncode is None:
        await asyncio.sleep(0.005)


async def _kill_and_resume(sim: PoderoSimulator, path: Path, *, kills: int, within_s: float, wait_s: float) -> None:
    """Kill so many processes at random moments of their reading, and let the next one finish."""
    rng = Random(kills)
    for _ in range(kills):
        process = await _start(sim, path, wait_s)
        await _until_reading(sim, sim.counts.requests["sessions"], process)
        await asyncio.sleep(rng.uniform(0, within_s))
        assert process.returncode is None, "the backfill ended before the last kill"
        process.kill()
        await process.communicate()
    process = await _start(sim, path, wait_s)
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.split()[2] == b"0", "no vehicle failed"


async def _prove(sim: PoderoSimulator, path: Path, *, kills: int, within_s: float, wait_s: float) -> str:
    """Return a figure to quote."""
    await _kill_and_resume(sim, path, kills=kills, within_s=within_s, wait_s=wait_s)
    truth = truth_of(sim, include_hidden=True)
    await assert_equal(path, truth)

    a_vehicle = len(truth) / len(sim.vehicles)
    spoilt = sum(sim.counts.faults[kind] for kind in ("truncated", "reset", "malformed_json"))
    again = round(sim.counts.rows_served - len(truth) - spoilt * a_vehicle)
    # What a kill takes with it: a batch (what came within the wait, and while it was written), and what was under way.
    a_batch = ((wait_s + 0.3) / sim.latency_s + 2) * CONCURRENCY * a_vehicle
    assert again <= kills * a_batch
    return (
        f"{kills} kills, {len(truth)} rows: 0 lost, 0 doubled, {again} fetched again, {spoilt} pages spoilt by faults"
    )


async def test_five_kills_lose_and_double_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A user whose job is killed again and again would otherwise find sessions missing, or twice."""
    faults = map(parse_fault, FAULTS)
    async with PoderoSimulator(users=40, vehicles=300, sessions_per_vehicle=20, latency_s=0.1, faults=faults) as sim:
        record_property("figure", await _prove(sim, tmp_path / "fleet.duckdb", kills=5, within_s=0.5, wait_s=0.1))


@pytest.mark.soak
async def test_fifty_kills_of_a_large_backfill_lose_and_double_nothing(
    tmp_path: Path, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The same with 2,000 vehicles, 100,000 sessions and 50 kills."""
    faults = map(parse_fault, FAULTS)
    async with PoderoSimulator(users=200, vehicles=2000, sessions_per_vehicle=50, latency_s=0.4, faults=faults) as sim:
        kills = round(50 * soak_scale)
        record_property("figure", await _prove(sim, tmp_path / "fleet.duckdb", kills=kills, within_s=2.5, wait_s=1.0))

"""Nothing holds up the event loop: not a large list, not decoding, not a token's renewal, not the store's writer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from podero_async.testing import PoderoSimulator

ROOT = Path(__file__).parents[1]
LONGEST_MS = 20.0


async def longest(store: Path, *, users: int, vehicles: int, sessions: int, lifetime_s: float) -> str:
    """Measure in a fresh process, hold it to the bound, and return a figure to quote."""
    async with PoderoSimulator(
        users=users, vehicles=vehicles, sessions_per_vehicle=sessions, seed=7, token_lifetime_s=lifetime_s
    ) as sim:
        words = ["-m", "tests.holding", store, sim.org_id, sim.base_url, sim.client_id, sim.client_secret]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *map(str, [*words, sim.first_day, sim.last_day]), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        tokens = sim.counts.requests["token"]
    assert process.returncode == 0
    callback_ms, collector_ms, *done = map(float, output.split())
    assert done == [users, vehicles, vehicles]
    assert tokens > 1, "tokens were renewed meanwhile"
    assert callback_ms < LONGEST_MS
    return (
        f"{callback_ms:.1f} ms the longest callback, {collector_ms:.1f} ms the collector's longest pause;"
        f" {users:,} users, {vehicles * sessions:,} sessions read twice, {tokens} tokens"
    )


async def test_no_callback_holds_the_loop_for_20_ms(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A bot that shares the loop would stutter whenever a fleet is read."""
    figure = await longest(tmp_path / "fleet.duckdb", users=3000, vehicles=60, sessions=300, lifetime_s=0.5)
    record_property("figure", figure)


@pytest.mark.soak
async def test_no_callback_holds_the_loop_for_20_ms_in_the_long_run(
    tmp_path: Path, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The longer the lists, the longer the pauses might be."""
    vehicles = round(300 * soak_scale)
    figure = await longest(tmp_path / "fleet.duckdb", users=20_000, vehicles=vehicles, sessions=1900, lifetime_s=5.0)
    record_property("figure", figure)

"""A process that runs for months holds what it held on its first day."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from podero_async.testing import PoderoSimulator

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
MAX_GAINED = {"clients": 4 * MIB, "sessions": 8 * MIB}
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured through /proc, which Linux has")


async def gained(what: str, count: int) -> str:
    """Measure in a fresh process, hold it to the bound, and return a figure to quote."""
    async with PoderoSimulator(users=4, vehicles=20, sessions_per_vehicle=500, seed=6) as sim:
        words = [
            "-m",
            "tests._support.leak_probe",
            what,
            count,
            sim.org_id,
            sim.base_url,
            sim.client_id,
            sim.client_secret,
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *map(str, [*words, sim.first_day, sim.last_day]), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    memory, descriptors, done = map(int, output.split())
    assert done >= count
    assert descriptors <= 0
    assert memory < MAX_GAINED[what]
    return f"{done:,} {what}: {memory / MIB:.1f} MiB, {descriptors} file descriptors gained"


@needs_proc
@pytest.mark.parametrize(("what", "count"), [("clients", 40), ("sessions", 30_000)])
async def test_nothing_is_kept(what: str, count: int, record_property: Callable[[str, object], None]) -> None:
    """A client for each request, or one for all, would fill a service's memory or use up its file descriptors."""
    record_property("figure", await gained(what, count))


@needs_proc
@pytest.mark.soak
@pytest.mark.parametrize(("what", "count"), [("clients", 500), ("sessions", 1_000_000)])
async def test_nothing_is_kept_in_the_long_run(
    what: str, count: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """What is lost drop by drop shows only after a while."""
    record_property("figure", await gained(what, round(count * soak_scale)))

"""Clients and sessions leak neither memory nor file descriptors."""

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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measured through /proc, which Linux has")
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param("clients", 40, marks=pytest.mark.slow),
        pytest.param("sessions", 30_000, marks=pytest.mark.slow),
        pytest.param("clients", 500, marks=pytest.mark.soak),
        pytest.param("sessions", 1_000_000, marks=pytest.mark.soak),
    ],
)
async def test_using_clients_leaks_nothing(
    kind: str, count: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """A process that opens many clients, or reads many sessions with one, gains a few MiB and no file descriptor."""
    count = round(count * soak_scale)
    async with PoderoSimulator(users=4, vehicles=20, sessions_per_vehicle=500, seed=6) as sim:
        arguments = [kind, count, sim.org_id, sim.base_url, sim.client_id, sim.client_secret]
        command = ["-m", "tests._support.leak_probe", *map(str, [*arguments, sim.first_day, sim.last_day])]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    gained_bytes, descriptors, done = map(int, output.split())
    assert done >= count
    assert descriptors <= 0
    assert gained_bytes < MAX_GAINED[kind]
    record_property("figure", f"{done:,} {kind}: {gained_bytes / MIB:.1f} MiB, {descriptors} file descriptors gained")

"""A backfill in a process of its own, which tests kill or interrupt: see `start`."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

from podero_async import ClientCredentials, PoderoClient, RetryPolicy, ThrottlePolicy
from podero_async.backfill import SessionStore, backfill
from podero_async.backfill._values import Limits
from podero_async.testing import PoderoSimulator

CONCURRENCY = 16
ROOT = Path(__file__).parents[2]


async def start(sim: PoderoSimulator, path: Path, batch: int, **pipes: Any) -> asyncio.subprocess.Process:
    """Start a backfill of a simulator's fleet, which commits batches of that many vehicles."""
    arguments = [path, sim.base_url, sim.org_id, sim.client_id, sim.client_secret, sim.first_day, sim.last_day, batch]
    command = [sys.executable, "-W", "always", "-m", "tests._support.backfill_process", *map(str, arguments)]
    return await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes
    )


async def until_reading(sim: PoderoSimulator, process: asyncio.subprocess.Process) -> None:
    """Wait until the process requests sessions, or has ended."""
    before = sim.counts.requests["sessions"]
    while sim.counts.requests["sessions"] == before and process.returncode is None:
        await asyncio.sleep(0.005)


async def main(
    path: str, url: str, org_id: str, client_id: str, client_secret: str, first: str, last: str, batch: str
) -> None:
    """Start or resume the backfill, and print how many vehicles were read, skipped, and failed."""
    throttle = ThrottlePolicy(max_concurrency=CONCURRENCY, adaptive=False)
    retry = RetryPolicy(backoff_initial=0.001, backoff_max=0.01, budget=1_000_000)
    credentials, window = (
        ClientCredentials(client_id, client_secret),
        (date.fromisoformat(first), date.fromisoformat(last)),
    )
    limits = Limits(max_batch_outcomes=int(batch), max_wait_s=3600)
    async with (
        PoderoClient(org_id, credentials, base_url=url, retry=retry, throttle=throttle) as client,
        SessionStore(path) as store,
    ):
        report = await backfill(client, store, *window, include_hidden=True, limits=limits)
        print(report.done, report.skipped, report.failed)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

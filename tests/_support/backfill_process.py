"""A backfill in a process of its own, to be killed: `python -m tests._support.backfill_process STORE URL ORG ID SECRET FROM TO WAIT`."""

from __future__ import annotations

import asyncio
import sys
from datetime import date

from podero_async import ClientCredentials, PoderoClient, RetryPolicy, ThrottlePolicy
from podero_async.backfill import SessionStore, backfill
from podero_async.backfill import _writer as writer

CONCURRENCY = 16


async def main(
    path: str, url: str, org_id: str, client_id: str, client_secret: str, first: str, last: str, wait_s: str
) -> None:
    """Go on with the backfill, and print how many vehicles this call read."""
    writer._MAX_WAIT_S = float(wait_s)
    throttle = ThrottlePolicy(max_concurrency=CONCURRENCY, adaptive=False)
    retry = RetryPolicy(backoff_initial=0.001, backoff_max=0.01, budget=1_000_000)
    async with (
        PoderoClient(
            org_id, ClientCredentials(client_id, client_secret), base_url=url, retry=retry, throttle=throttle
        ) as client,
        SessionStore(path) as store,
    ):
        report = await backfill(client, store, date.fromisoformat(first), date.fromisoformat(last), include_hidden=True)
        print(report.done, report.skipped, report.failed)  # noqa: T201 - read by the test


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

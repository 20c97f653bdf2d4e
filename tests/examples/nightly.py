"""A nightly job: bring the fleet's new sessions into a DuckDB file. Run it again after any failure: it reads the rest."""

import asyncio
import sys
from datetime import UTC, date, datetime

from podero_async import PoderoClient
from podero_async.backfill import SessionStore, backfill


async def nightly(path: str) -> bool:
    """Return whether every vehicle was read, with few failures and nothing implausible."""
    today = datetime.now(UTC).date()
    async with PoderoClient.from_env() as client, SessionStore(path) as store:
        report = await backfill(client, store, date(2026, 1, 1), today)
    return report.is_clean


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(nightly("fleet.duckdb")) else 1)

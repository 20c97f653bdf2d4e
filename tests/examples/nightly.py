"""A nightly job: bring the fleet's new sessions into a DuckDB file. Run it again after any failure: it reads the rest."""

import asyncio
import sys
from datetime import UTC, date, datetime

from podero_async import AuthenticationError, ConfigurationError, PermissionDeniedError, PoderoClient
from podero_async.backfill import SessionStore, StoreError, backfill

FINAL = (AuthenticationError, ConfigurationError, PermissionDeniedError, StoreError)
"""Errors after which another try fails, too, until a person acts. They are the exit codes 2, 3 and 5 of the command."""


async def nightly(path: str, day: date | None = None) -> bool:
    """Return whether every vehicle was read, with few failures and nothing implausible.

    Args:
        path: The DuckDB file.
        day: A scheduler's day, such as `{{ ds }}` of Airflow. Without it, all days of 2026 until today are read.
    """
    first, last = (day, day) if day else (date(2026, 1, 1), datetime.now(UTC).date())
    async with PoderoClient.from_env() as client, SessionStore(path) as store:
        report = await backfill(client, store, first, last)
    return report.is_clean


async def copy_for_readers(path: str, copy: str) -> None:
    """Replace a copy of the store, which notebooks may hold open while the next run writes."""
    async with SessionStore(path, read_only=True) as store:
        await store.snapshot(copy)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(nightly("fleet.duckdb")) else 1)

"""The sessions of a store that have changed, to any destination of dlt. Run it after each backfill.

Withdrawn sessions arrive with their `withdrawn_at`. Users and days that the store has forgotten must be deleted in the
destination.
"""

import sys
from collections.abc import AsyncIterator
from typing import Any

import dlt

from podero_async.backfill import SessionStore


@dlt.resource(name="sessions", primary_key="id", write_disposition="merge")
async def changed_sessions(path: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the sessions after the newest change of the last run, whose number dlt stores with the rows."""
    numbers = dlt.current.resource_state()
    async with SessionStore(path, read_only=True) as store:
        (meta,) = await store.query("SELECT value AS store_id FROM meta WHERE key = 'store_id'")
        changed = f"FROM sessions WHERE epoch_us(changed_at) > {numbers.get(meta['store_id'], 0):d}"
        async for names, rows in store.stream(f"SELECT * EXCLUDE (fetched_at, absent_at) {changed}"):
            yield [dict(zip(names, row, strict=True)) for row in rows]
        (newest,) = await store.query("SELECT coalesce(max(epoch_us(changed_at)), 0) AS number FROM sessions")
    numbers[meta["store_id"]] = newest["number"]


if __name__ == "__main__":
    path, destination = sys.argv[1:]
    print(dlt.pipeline("podero_changes", destination=destination, dataset_name="podero").run(changed_sessions(path)))

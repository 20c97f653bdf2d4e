"""The rows of a query as a stream."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from podero_async.backfill import SessionStore, StoreError

FOREVER = "SELECT sum(hash(a.range) % 7 + hash(b.range) % 5) FROM range(1000000000) a, range(1000000000) b"


async def test_rows_come_in_slices(path: Path) -> None:
    """Each slice has the names of the columns and at most `max_rows` rows; between two slices, other queries run."""
    async with (
        SessionStore(path) as store,
        aclosing(store.stream("SELECT range AS n FROM range(10)", max_rows=4)) as rows,
    ):
        sizes = []
        async for names, some in rows:
            assert names == ["n"]
            sizes.append(len(some))
            assert await store.query("SELECT 1 AS one") == [{"one": 1}]
        assert (sum(sizes), max(sizes), sizes[-1]) == (10, 4, 0)


async def test_a_query_that_is_left_or_cancelled_ends_at_once(path: Path) -> None:
    """A caller that leaves or is cancelled does not wait for the rest, and the store works and closes afterwards."""
    async with asyncio.timeout(60), SessionStore(path) as store:
        async with aclosing(store.stream("SELECT range AS n FROM range(1000000000)")) as rows:
            await anext(rows)
        async with aclosing(store.stream(FOREVER)) as rows:
            reading = asyncio.create_task(anext(rows))
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        reading_all = asyncio.create_task(store.query(FOREVER))
        await asyncio.sleep(0.05)
        reading_all.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading_all
        assert await store.query("SELECT 1 AS one") == [{"one": 1}]


async def test_a_wrong_query_is_a_store_error(path: Path) -> None:
    """The error comes from the first step of the iteration; times are in UTC in each time zone of the machine."""
    async with SessionStore(path) as store:
        async with aclosing(store.stream("SELEC")) as rows:
            with pytest.raises(StoreError, match="SELEC"):
                await anext(rows)
        async with aclosing(store.stream("SELECT '2026-01-01 00:00:00'::TIMESTAMPTZ AT TIME ZONE 'UTC' AS t")) as rows:
            _, ((moment,),) = await anext(rows)
            assert str(moment) == "2026-01-01 00:00:00"

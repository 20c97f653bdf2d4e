"""A backfill that is stopped at any of its steps leaves nothing but a store that is right; the same call completes it."""

from __future__ import annotations

from pathlib import Path

from podero_async.backfill import SessionStore
from tests.stepping import Sweep, by_cancelling, settled, what_is_open


async def test_a_stop_while_a_store_is_opened_or_closed_leaves_it_closed(path: Path) -> None:
    """A job that is cancelled as it begins could not open its store again, until its process ends."""

    async def opened() -> None:
        async with SessionStore(path):
            pass

    before = what_is_open()
    for steps in Sweep():
        await by_cancelling(opened(), steps)
        assert await settled(before) == before
        await opened()
        assert list(path.parent.iterdir()) == [path]
        path.unlink()

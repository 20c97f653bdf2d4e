"""The memory budget: a bound on the pages that are held in memory at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

__all__ = ["MemoryBudget"]


class MemoryBudget:
    """Bound the pages of all lists that are being read.

    Lists of up to half of the budget share it; first come, first served. Of the larger ones, one is read at a time, beside
    the others: it would have to wait until almost all of these have ended, and let none begin. A cancelled `acquire` takes
    nothing.
    """

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._large = asyncio.Lock()
        self._entrance = asyncio.Lock()
        self._released = asyncio.Event()
        self.pages_held = 0
        """How many pages of the smaller lists are acquired and not yet released."""

    async def acquire(self, pages: int) -> Callable[[], None]:
        """Wait until a list of that length may be read. Return a function that releases its pages."""
        if pages * 2 > self._max_pages:
            await self._large.acquire()
            return self._large.release
        async with self._entrance:
            while self.pages_held + pages > self._max_pages:
                self._released.clear()
                await self._released.wait()
            self.pages_held += pages
        return partial(self._release, pages)

    def _release(self, pages: int) -> None:
        self.pages_held -= pages
        self._released.set()

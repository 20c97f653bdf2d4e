"""The memory budget: a bound on the pages that are held in memory at once."""

from __future__ import annotations

import asyncio

__all__ = ["MemoryBudget"]


class MemoryBudget:
    """Bound the pages of all lists that are being read; first come, first served.

    A list with more pages than the budget takes the whole budget, so it is read alone. A cancelled `acquire` takes
    nothing.
    """

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._pages_held = 0
        self._entrance = asyncio.Lock()
        self._released = asyncio.Event()

    @property
    def pages_held(self) -> int:
        """How many pages are acquired and not yet released."""
        return self._pages_held

    async def acquire(self, pages: int) -> int:
        """Wait until the budget has enough pages left, take them, and return how many were taken."""
        taken = min(pages, self._max_pages)
        async with self._entrance:
            while self._pages_held + taken > self._max_pages:
                self._released.clear()
                await self._released.wait()
            self._pages_held += taken
        return taken

    def release(self, pages: int) -> None:
        """Return pages to the budget."""
        self._pages_held -= pages
        self._released.set()

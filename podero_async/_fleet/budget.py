"""The memory budget: a bound on the pages that are held at once."""

from __future__ import annotations

import asyncio

__all__ = ["MemoryBudget"]


class MemoryBudget:
    """Bounds the pages of all lists that are under way at once; first come, first served.

    A list that is larger than all there is waits until it is the only one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._entrance = asyncio.Lock()
        self._left = asyncio.Event()

    async def enter(self, pages: int) -> int:
        """Wait until there is room for so many pages, or for the most there can be; take it, and return how much it is."""
        taken = min(pages, self._most)
        async with self._entrance:
            while self._taken + taken > self._most:
                self._left.clear()
                await self._left.wait()
            self._taken += taken
        return taken

    def leave(self, pages: int) -> None:
        """Give room back."""
        self._taken -= pages
        self._left.set()

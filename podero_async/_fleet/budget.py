"""The memory budget: a bound on the pages that are held in memory at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

import attrs

__all__ = ["MemoryBudget"]


@attrs.define(eq=False)
class _Share:
    """The pages of one list."""

    pages: int
    admitted: asyncio.Future[None]
    has_passed: bool = False
    """Whether an earlier list was waiting when this one was admitted."""


class MemoryBudget:
    """Bound the pages of all lists that are being read.

    Lists are admitted in the order of their arrival. While one of them waits, later lists that fit pass it, so neither a
    list whose server hangs nor a long list that waits stops the others.

    Passing cannot starve a list: the lists that passed another hold less than half of the budget together, and one list
    takes at most the rest, however long it is. So the first waiting list is admitted at the latest when all lists that
    passed none have ended. A cancelled `acquire` takes nothing.
    """

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self.max_share = max_pages // 2 + 1
        """The most pages that one list takes: over a half, so that two such lists are not read at once."""
        self._max_passing = max_pages - self.max_share
        self._passing = 0
        self._waiting: deque[_Share] = deque()
        self.pages_held = 0
        """How many pages are acquired and not yet released."""

    async def acquire(self, pages: int) -> Callable[[], None]:
        """Wait until these pages of a list fit into the budget, take them, and return the function that releases them."""
        share = _Share(min(pages, self.max_share), asyncio.get_running_loop().create_future())
        self._waiting.append(share)
        self._admit()
        try:
            await share.admitted
        except asyncio.CancelledError:
            if share.admitted.cancelled():
                self._admit()  # the lists behind this one may go now
            else:
                self._release(share)  # admitted just before the cancellation
            raise
        return partial(self._release, share)

    def _release(self, share: _Share) -> None:
        self.pages_held -= share.pages
        self._passing -= share.pages if share.has_passed else 0
        self._admit()

    def _admit(self) -> None:
        """Admit all lists that may be read now."""
        still_waiting: deque[_Share] = deque()
        for share in self._waiting:
            if share.admitted.done():  # cancelled
                continue
            if not self._fits(share.pages, passes=bool(still_waiting)):
                still_waiting.append(share)
                continue
            share.has_passed = bool(still_waiting)
            share.admitted.set_result(None)
            self.pages_held += share.pages
            self._passing += share.pages if share.has_passed else 0
        self._waiting = still_waiting

    def _fits(self, pages: int, *, passes: bool) -> bool:
        return self.pages_held + pages <= self._max_pages and not (passes and self._passing + pages > self._max_passing)

"""Read one vehicle's list whole, and say whether it was proven: in one answer, by overlapping pages, or day by day.

Knows how to ask for a page, through a function given to it; what pages prove is `_pages`' business.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from math import ceil
from typing import Any

from podero_async._paging.overlap import OverlapReader
from podero_async._paging.page import NewRows, Page
from podero_async._paging.window import Window
from podero_async.models import Completeness

__all__ = ["Fetch", "SessionListReader"]

Fetch = Callable[[Window, int], Coroutine[Any, Any, Page]]
"""Fetch the page of a window that starts at an offset."""

_MAX_GROWTH = 1000  # rows that a list may gain while it is read by days
_FILL = 0.7  # how full a window of days is planned, so that few have to be halved again


class SessionListReader:
    """Read the sessions of one vehicle in a window of days, each once.

    After `pieces` ended, `completeness` is the verdict, `total` the server's count as last seen, and `doubt` what
    stands against the proof where there is none. At most `ahead` pages are asked for or kept ahead of the taker.
    """

    def __init__(self, fetch: Fetch, window: Window, first: Page, *, ahead: int) -> None:
        self._fetch = fetch
        self._window = window
        self._first = first
        self._ahead = ahead
        self._seen: set[str] = set()
        self._trusted_order = self._saw_disorder = self._days_are_ignored = False
        self.completeness = Completeness.VERIFIED
        self.total = 0
        self.doubt = ""

    async def pieces(self) -> AsyncGenerator[NewRows, None]:
        """Yield the list's rows, page by page as they are proven; what cannot be proven comes last.

        Raises:
            CompletenessError: The list makes no progress, whatever the offset.
        """
        if self._first.is_whole_and_distinct:
            self.total = self._first.total
            yield NewRows(self._first, None)
            return
        async with aclosing(self._from(self._window, self._first)) as pages:
            async for page in pages:
                piece = NewRows.of(page, self._seen)
                if not piece.is_empty:
                    yield piece

    async def _from(self, window: Window, first: Page, part_of: Page | None = None) -> AsyncGenerator[Page, None]:
        """Yield a window's pages, of which the first is in."""
        if first.is_whole:
            self.total += first.total
            yield first
            return
        if part_of and window.days > 1 and first.count == part_of.count and not first.is_inconsistent:
            # A full page: there is more. A shorter one that claims more is a server that miscounts.
            rest = self._read_by_days(window, first)
        else:
            rest = self._read_by_overlap(window, first)
        async with aclosing(rest) as pages:
            async for page in pages:
                yield page

    async def _read_by_overlap(self, window: Window, first: Page) -> AsyncGenerator[Page, None]:
        chain = OverlapReader(lambda offset: self._fetch(window, offset), first, ahead=self._ahead)
        async with aclosing(chain.pages()) as pages:
            async for page in pages:
                yield page
        if chain.was_repaired:
            self._repaired()
        self._trusted_order |= chain.is_proven
        self._saw_disorder |= chain.is_unordered
        if self._trusted_order and self._saw_disorder:
            self._doubt("an order that a part of the list was proven by did not last")
        if chain.is_proven:
            self.total += chain.last.total
            return
        if chain.is_inconsistent or window.days == 1:
            self._doubt(chain.doubt)
            self.total += chain.last.total
            rest = chain.rest()
        else:
            rest = self._read_by_days(window, first)
        async with aclosing(rest) as pages:
            async for page in pages:
                yield page

    async def _read_by_days(self, window: Window, first: Page) -> AsyncGenerator[Page, None]:
        self._repaired()
        before = self.total
        parts = ceil(first.total / (_FILL * max(1, first.count)))
        for part in window.split(min(window.days, max(2, parts))):
            async with aclosing(self._from(part, await self._fetch(part, 0), part_of=first)) as pages:
                async for page in pages:
                    yield page
            if self.total - before > 2 * first.total + _MAX_GROWTH:
                self._doubt("windows of days list more than the whole: the server takes no note of them")
                self._days_are_ignored = True
            if self._days_are_ignored:  # then the largest window has it all
                self.total = before + first.total
                return

    def _repaired(self) -> None:
        if self.completeness is Completeness.VERIFIED:
            self.completeness = Completeness.REPAIRED

    def _doubt(self, doubt: str) -> None:
        self.completeness = Completeness.UNPROVEN
        self.doubt = self.doubt or doubt

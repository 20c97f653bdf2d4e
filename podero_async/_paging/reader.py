"""Read one vehicle's list completely, in one page, by overlapping pages or split by days, and give the verdict."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from math import ceil
from typing import Any

from podero_async._paging.overlap import OverlapReader
from podero_async._paging.page import NewRows, Page
from podero_async._paging.window import Window
from podero_async.models import Completeness

__all__ = ["SessionListReader"]

Fetch = Callable[[Window, int], Coroutine[Any, Any, Page]]
"""Fetches the page of a window that starts at an offset."""

_TARGET_FILL = 0.7  # planned rows of a split window as a fraction of a page, so that few windows are split again
_MAX_ROWS_GAINED = 1000  # by a list that is read by days; if it doubles and gains more, the server ignores the days


class SessionListReader:
    """Reads the sessions of one vehicle in a window of days, each once.

    After `new_rows` has ended, `completeness` is the verdict, `total` the server's last count of the sessions, and
    `reason` says why the list is UNPROVEN.

    Args:
        fetch: Fetches the page of a window at an offset.
        window: The days to read.
        first: The window's page at offset 0.
        ahead: Maximum number of pages that are requested, or kept, before the caller asks for them.
    """

    def __init__(self, fetch: Fetch, window: Window, first: Page, *, ahead: int) -> None:
        self._fetch = fetch
        self._window = window
        self._first = first
        self._ahead = ahead
        self._seen: set[str] = set()
        self._has_proven_order = self._has_met_disorder = self._ignores_days = False
        self.completeness = Completeness.VERIFIED
        self.total = 0
        self.reason = ""

    async def new_rows(self) -> AsyncGenerator[NewRows, None]:
        """Yield the new rows of each page, first those that are proven.

        Close the generator (`contextlib.aclosing`): that cancels the requests under way.

        Raises:
            CompletenessError: The server returns the first page for every offset.
        """
        if self._first.is_whole_and_distinct:
            self.total = self._first.total
            yield NewRows(self._first, None)
            return
        async with aclosing(self._pages(self._window, self._first)) as pages:
            async for page in pages:
                rows = NewRows.of(page, self._seen)
                if not rows.is_empty:
                    yield rows

    def _pages(self, window: Window, first: Page, *, split_from: Page | None = None) -> AsyncGenerator[Page, None]:
        """Return the pages of a window, of which the first is given. There are three cases:

        1. The first page is the whole list. It proves itself.
        2. The window comes from a split, and its first page is as full as before the split. It is split again. (A
           shorter page with a higher total comes from a server that miscounts.)
        3. Else the window is read by overlapping pages.
        """
        if first.is_whole:
            return self._read_one(first)
        if split_from and window.days > 1 and first.count == split_from.count and not first.is_inconsistent:
            return _flatten(self._read_by_days(window, first))
        return _flatten(self._read_by_overlap(window, first))

    async def _read_one(self, page: Page) -> AsyncGenerator[Page, None]:
        self.total += page.total
        yield page

    async def _read_by_overlap(self, window: Window, first: Page) -> AsyncGenerator[AsyncGenerator[Page, None], None]:
        reader = OverlapReader(lambda offset: self._fetch(window, offset), first, ahead=self._ahead)
        yield reader.pages()
        if reader.was_repaired:
            self._mark_repaired()
        self._has_proven_order |= reader.is_proven
        self._has_met_disorder |= reader.is_unordered
        if self._has_proven_order and self._has_met_disorder:
            self._mark_unproven("only a part of the list is sorted by plug-in time")
        if reader.is_proven:
            self.total += reader.last.total
        elif reader.is_inconsistent or window.days == 1:  # days would prove nothing more, or cannot be split
            self._mark_unproven(reader.reason)
            self.total += reader.last.total
            yield reader.rest()
        else:
            yield _flatten(self._read_by_days(window, first))

    async def _read_by_days(self, window: Window, first: Page) -> AsyncGenerator[AsyncGenerator[Page, None], None]:
        self._mark_repaired()
        before = self.total
        parts = ceil(first.total / (_TARGET_FILL * max(1, first.count)))
        for part in window.split(min(window.days, max(2, parts))):
            yield self._pages(part, await self._fetch(part, 0), split_from=first)
            if self.total - before > 2 * first.total + _MAX_ROWS_GAINED:
                self._mark_unproven("windows of days list more sessions than the whole: the server ignores the days")
                self._ignores_days = True
            if self._ignores_days:  # then each window has listed all sessions
                self.total = before + first.total
                return

    def _mark_repaired(self) -> None:
        if self.completeness is Completeness.VERIFIED:
            self.completeness = Completeness.REPAIRED

    def _mark_unproven(self, reason: str) -> None:
        self.completeness = Completeness.UNPROVEN
        self.reason = self.reason or reason


async def _flatten(sources: AsyncGenerator[AsyncGenerator[Page, None], None]) -> AsyncGenerator[Page, None]:
    """Yield the pages of each source in turn. Leaving early closes the current source, then `sources`."""
    async with aclosing(sources):
        async for source in sources:
            async with aclosing(source) as pages:
                async for page in pages:
                    yield page

"""Read a list by overlapping pages: each joined to the one before, re-read where it does not, until the end is proven.

Knows how to ask for a page, through a function given to it; what pages prove is `_pages`' business.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from math import ceil
from typing import Any, NoReturn

from podero_async._concurrency import map_in_order
from podero_async._paging.page import Page
from podero_async._paging.proof import Order, joins, order_of, runs
from podero_async.errors import CompletenessError

__all__ = ["OverlapReader"]

_OVERLAP = 5  # rows that neighbours share; fewer cost repairs under change, more cost requests
_MIN_OVERLAP = 2  # a single shared row might be one of several of the same time
_MIN_EVIDENCE = 50  # rows on the first page, or on later ones: a few rows may look sorted by chance
_MAX_REREADS = 8  # at one gap
_MAX_IDLE = 50  # pages in a row with nothing new
_MAX_STALLS = 3  # answers in a row with the first page's rows, before the list is taken to ignore the offset


class _BrokenError(Exception):
    """Overlapping pages will not prove this list."""


class OverlapReader:
    """Overlapping pages from the first to the one that reaches the end of the list.

    `last` is the page up to whose end nothing is missing. When `pages` ended, `is_proven` says whether that is all;
    if not, `doubt` says why: `is_unordered` where the list has no order, and `is_inconsistent` where the server
    contradicted itself, so that no other way of asking will prove it either.
    """

    def __init__(self, fetch: Callable[[int], Coroutine[Any, Any, Page]], first: Page, *, ahead: int) -> None:
        self._fetch = fetch
        self._ahead = ahead
        self._order = order_of(first)
        self._size = first.count  # what the server gives for a page; it may be less than it is asked for
        self._overlap = min(_OVERLAP, first.count - 1)
        self._step = max(0, first.count - self._overlap)
        total = 0 if first.is_inconsistent else first.total
        self._planned = range(self._step, total - self._overlap, self._step) if self._step else range(0)
        self._rereads_left = 8 + len(self._planned) // 2
        self._requests_left = 16 + 2 * len(self._planned)
        self._first = first
        self._stalls = 0
        self._evidence = 0
        self.last = first
        self.is_proven = first.is_whole
        self.is_inconsistent = False
        self.is_unordered = False
        self.was_repaired = False
        self.doubt = ""

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield the pages of the chain in the list's order, until it is proven or broken.

        Raises:
            CompletenessError: The list makes no progress, whatever the offset.
        """
        yield self._first
        if self._first.is_whole:
            return
        try:
            order = self._usable_order()
            async with aclosing(map_in_order(self._fetch, self._planned, ahead=self._ahead)) as planned:
                idle = 0
                async for page in planned:
                    before = self.last
                    for joined in await self._lead_to(page, order):
                        yield joined
                    if self.is_proven:
                        return
                    idle = idle + 1 if self.last is before else 0
                    self._check_idle(idle)
            while not self.is_proven:
                for joined in await self._follow(order):
                    yield joined
        except _BrokenError as broken:
            self.doubt = str(broken)

    async def rest(self) -> AsyncGenerator[Page, None]:
        """Yield what follows the broken chain, as far as the server gives rows; it proves nothing."""
        offset = self.last.end
        known: set[str] = set()
        idle = 0
        for _ in range(self._requests_left + ceil(max(0, self.last.total - offset) / max(1, self._step))):
            page = await self._fetch(offset)
            idle = idle + 1 if known.issuperset(page.ids) else 0
            if not page.count or idle > _MAX_IDLE:
                return
            known.update(page.ids)
            self._count_stall(page)
            yield page
            offset = page.end
            if page.end == page.total and not self.is_inconsistent:
                return

    def _usable_order(self) -> Order:
        if self.last.is_inconsistent:
            self.is_inconsistent = True
            raise _BrokenError("the server's total contradicts its rows")
        if self._order is None:
            self._break_for_disorder()
        if self._overlap < _MIN_OVERLAP:
            raise _BrokenError("the server's pages are too short to overlap")
        return self._order

    async def _lead_to(self, page: Page, order: Order) -> list[Page]:
        """Return the pages that continue the chain up to `page`: itself, and bridges where it leaves a gap."""
        found: list[Page] = []
        self._check(page, order)
        offset = self.last.end - self._size // 2
        rereads = 0
        while not joins(self.last, page, order):
            rereads += 1
            if rereads > _MAX_REREADS:
                raise _BrokenError("the list changes faster than it can be read")
            if page.count and not self._is_ahead(page, order):
                return found  # the list moved so far that this page lies before the end of the last
            bridge = await self._reread(max(0, offset), order)
            if bridge.count and not self._is_ahead(bridge, order):
                offset += self._step
            elif joins(self.last, bridge, order):
                found.append(bridge)
                self._accept(bridge, order)
                if self.is_proven:
                    return found
                offset = bridge.end - self._size // 2
            else:
                offset -= self._step
        found.append(page)
        self._accept(page, order)
        return found

    async def _follow(self, order: Order) -> list[Page]:
        """Read on from the last page: the list has grown, or a full page said that it ends there."""
        before = self.last
        found = await self._lead_to(await self._ask(before.end - self._overlap), order)
        if self.last is before and not self.is_proven:
            self._check(await self._ask(before.end), order)  # rows that are counted, but never shown?
            raise _BrokenError("the list changes faster than it can be read")
        return found

    async def _reread(self, offset: int, order: Order) -> Page:
        self._rereads_left -= 1
        if self._rereads_left < 0:
            raise _BrokenError("the list changes faster than it can be read")
        self.was_repaired = True
        page = await self._ask(offset)
        self._check(page, order)
        return page

    async def _ask(self, offset: int) -> Page:
        self._requests_left -= 1
        if self._requests_left < 0:
            raise _BrokenError("the list grows faster than it can be read")
        return await self._fetch(offset)

    def _check(self, page: Page, order: Order) -> None:
        if page.is_inconsistent:
            self.is_inconsistent = True
            raise _BrokenError("the server's total contradicts its rows")
        if not runs(page, order):
            self._break_for_disorder()
        self._count_stall(page)

    def _check_idle(self, pages: int) -> None:
        if pages > _MAX_IDLE:
            raise _BrokenError("page after page, the list shows nothing new")

    def _break_for_disorder(self) -> NoReturn:
        self.is_unordered = True
        raise _BrokenError("the list has no order by plug-in time")

    def _count_stall(self, page: Page) -> None:
        first = self._first  # a few rows may come again by chance
        if page.count > _OVERLAP and page.offset >= first.end and (page.ids, page.total) == (first.ids, first.total):
            self._stalls += 1
            if self._stalls == _MAX_STALLS:
                raise CompletenessError("the list makes no progress", first.count, first.total)
        else:
            self._stalls = 0

    def _is_ahead(self, page: Page, order: Order) -> bool:
        """Say whether a page that fits the order reaches further than the chain does."""
        start, end = self.last.times[-1], page.times[-1]
        return start is not None and end is not None and order.precedes(start, end)

    def _accept(self, page: Page, order: Order) -> None:
        self._evidence += page.count
        if page.end == page.total:
            # A short page at the end says twice that it is the end. A full one says so only by its total, and is
            # read once more from its end: a total that lies must not cut the list short.
            self.is_proven = page.count < self._size
            if self.is_proven and max(self._first.count, self._evidence) < _MIN_EVIDENCE:
                self.is_proven = False
                raise _BrokenError("the list is too short to show its order")
        else:
            self._size = min(self._size, page.count)
        if self._is_ahead(page, order):
            self.last = page

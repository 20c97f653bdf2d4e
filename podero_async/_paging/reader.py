"""Read one vehicle's list completely, by overlapping pages, by days or plainly, and give the verdict."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from math import ceil
from typing import Any

from podero_async._decode import PageRows, RowId
from podero_async._paging.balance import Balance, rows_needed
from podero_async._paging.overlap import OverlapReader, refusal_of
from podero_async._paging.page import Page
from podero_async._paging.plain import read_plainly
from podero_async._paging.window import Window
from podero_async.errors import ApiError
from podero_async.models import Completeness

__all__ = ["SessionListReader"]

Fetch = Callable[[Window, int], Coroutine[Any, Any, Page]]
"""Fetches the page of a window that starts at an offset."""

_MAX_PASSES = 4  # over the whole list by overlap, and over its days; a list may change during each of them
_MAX_REPEATS = 10  # requests that are repeated because a page's total contradicts its rows
_MAX_SAME_PAGES = 3  # in a row; as many show a property of the server
_CAPPED_TOTAL = 10_000  # search engines count no further by default, so that the list may be longer
_TARGET_FILL = 0.7  # planned rows of a split window as a fraction of a page, so that few windows are split again
_MAX_ROWS_GAINED = 1000  # if the days count twice the total and this many more, the server ignores the days
_MAX_UNPROVEN_PARTS = 8  # per window; more come from a server that miscounts
_MAX_ROWS_PER_DAY = 288  # a plug-in every five minutes
_MIN_ROWS_READ_PLAINLY = 5000  # before a list is given up as endless


class SessionListReader:
    """Reads the sessions of one vehicle in a window of days, each once.

    After `new_rows` has ended, `completeness` is the verdict, `total` the server's last count of the sessions, and
    `reason` says why the list is UNPROVEN.

    Args:
        fetch: Fetches the page of a window at an offset.
        window: The days to read.
        first: The window's page at offset 0.
        ahead: Maximum number of pages that are requested, or kept, before the caller asks for them.
        overlap_reader: Makes the readers of overlapping pages.
    """

    def __init__(
        self,
        fetch: Fetch,
        window: Window,
        first: Page,
        *,
        ahead: int,
        overlap_reader: Callable[..., OverlapReader] = OverlapReader,
    ) -> None:
        self._fetch = fetch
        self._window = window
        self._first = first
        self._overlap_reader = partial(overlap_reader, ahead=ahead)
        self._seen: set[RowId] = set()
        self._balance = Balance(self._seen)
        self._day_rows: set[RowId] = set()
        self._day_totals = self._unproven_parts = 0
        self._is_split_useless = False
        self._has_proven_order = self._has_met_disorder = False
        self._repeats_left = _MAX_REPEATS
        self.completeness = Completeness.VERIFIED
        self.total = first.total
        self.reason = ""

    async def new_rows(self) -> AsyncGenerator[PageRows, None]:
        """Yield the new rows of each page, first those that are proven.

        Close the generator (`contextlib.aclosing`): that cancels the requests under way.

        Raises:
            CompletenessError: The server returns the first page for every offset.
        """
        if self._first.is_whole:
            yield self._first.rows
            return
        async with aclosing(_flatten(self._read_all())) as pages:
            async for page in pages:
                if rows := page.new_rows(self._seen):
                    yield rows

    # The strategies yield generators of pages, and `_flatten` reads one after the other.

    async def _read_all(self) -> AsyncGenerator[AsyncGenerator[Page, None], None]:
        """Read by overlapping pages, then by days, then by plain paging, until the list is proven complete."""
        first = await self._repeat(self._window, self._first)
        self.total = first.total
        if first.is_whole:
            yield _one(first)
            return
        yield _flatten(self._read_by_overlap(first))
        if self.reason and self._window.days > 1:
            self._mark_repaired()
            yield _flatten(self._read_by_days(first))
        if self.reason:
            self.completeness = Completeness.UNPROVEN
            yield self._read_plainly(self._window)

    async def _read_by_overlap(self, first: Page) -> AsyncGenerator[AsyncGenerator[Page, None], None]:
        """Read the whole window until it is proven and its rows are as many as its totals say. Else set `reason`."""
        if first.total == _CAPPED_TOTAL:
            self._set_reason(f"the server may count no further than {_CAPPED_TOTAL}")
            yield _one(first)
            return
        for number in range(_MAX_PASSES):
            before = len(self._seen), self.total
            self._balance.begin_pass(first)
            reader = self._overlap_reader(partial(self._request, self._window), first)
            yield self._balanced(reader.pages())
            self._take_note(reader)
            if not reader.is_proven:
                self._set_reason(reader.reason)
                return
            if self._balance.holds(is_aligned=reader.is_aligned):
                return
            self._mark_repaired()
            newest = await self._request(self._window, reader.newest_offset)
            yield self._balanced(_one(newest))
            if self._balance.holds(is_aligned=reader.is_aligned) or (number and self._balance.holds_for_a_busy_list()):
                return
            if (len(self._seen), self.total) == before:  # another pass would find nothing either
                break
            first = await self._request(self._window, 0) if newest.offset else newest
        self._set_reason(f"the pages list {len(self._seen)} sessions of {self.total}")

    async def _read_by_days(self, first: Page) -> AsyncGenerator[AsyncGenerator[Page, None], None]:
        """Read the window by days until the rows are as many as the whole window's totals say. Else set `reason`."""
        self.reason = ""
        totals = [max(first.total, self._balance.largest_total)]
        known = self._seen.union(first.ids)
        for number in range(1, _MAX_PASSES + 1):
            self._day_totals, before = 0, len(self._day_rows)
            yield _flatten(self._split(self._window, first))
            if self.reason:
                return
            again = await self._request(self._window, 0)
            yield _one(again)
            if again.is_inconsistent:
                self._set_reason(
                    f"the days list {len(self._day_rows)} sessions, and the whole window's total is impossible"
                )
                return
            # The days have to list all sessions that the whole window listed before and still lists.
            are_inclusive = not known.intersection(again.ids) - self._day_rows
            if are_inclusive and len(self._day_rows) >= rows_needed(number, totals, max(totals[-1], again.total)):
                return
            if (len(self._day_rows), again.total) == (before, totals[-1]):
                break
            totals.append(again.total)
        self._set_reason(f"the days list {len(self._day_rows)} sessions of {totals[-1]}")

    async def _split(self, window: Window, first: Page) -> AsyncGenerator[AsyncGenerator[Page, None], None]:
        """Read the parts of a window, of which the first page is given."""
        page_size = max(1, first.count)
        total = max(0, min(first.total, window.days * page_size))  # an absurd total overflows a float
        count = ceil(total / (_TARGET_FILL * page_size))
        for part in window.split(min(window.days, max(2, count))):
            try:
                page = await self._request(part, 0)
            except ApiError as error:
                self._give_up_days(f"the server refuses to list fewer days: {refusal_of(error, is_later_page=False)}")
                return
            yield _flatten(self._read_part(part, page, split_from=first))
            if page.is_mostly_outside(part) or self._day_totals > 2 * self.total + _MAX_ROWS_GAINED:
                self._give_up_days("the server ignores the days")
            if self._is_split_useless:
                return

    async def _read_part(
        self, part: Window, first: Page, *, split_from: Page
    ) -> AsyncGenerator[AsyncGenerator[Page, None], None]:
        """Read a part of a split window. There are three cases:

        1. The first page is the whole part. It proves itself.
        2. The first page is as full as before the split. The part is split again. (A shorter page with a higher total
           comes from a server that miscounts.)
        3. Else the part is read by overlapping pages. If these prove nothing, the part is split again, too.
        """
        if first.is_whole or first.is_mostly_outside(part):
            self._day_totals += first.total
            yield self._from_days(_one(first))
            return
        is_full = first.count == split_from.count and not first.is_inconsistent
        if not is_full or part.days == 1:
            reader = self._overlap_reader(partial(self._request, part), first)
            yield self._from_days(reader.pages())
            self._take_note(reader)
            if reader.is_proven:
                self._day_totals += reader.last.total
                return
            self._unproven_parts += 1
            if reader.is_inconsistent or self._unproven_parts == _MAX_UNPROVEN_PARTS:
                self._give_up_days(reader.reason)
                return
            if part.days == 1:
                self._set_reason(reader.reason)
                yield self._from_days(self._read_plainly(part))
                return
        yield _flatten(self._split(part, first))

    def _read_plainly(self, window: Window) -> AsyncGenerator[Page, None]:
        max_offset = max(self.total, _MIN_ROWS_READ_PLAINLY, window.days * _MAX_ROWS_PER_DAY)
        return read_plainly(partial(self._request, window), self._first, self._seen, max_offset=max_offset)

    async def _request(self, window: Window, offset: int) -> Page:
        page = await self._repeat(window, await self._fetch(window, offset))
        if window == self._window:
            self._balance.add_total(page)
            self.total = page.total
        return page

    async def _repeat(self, window: Window, page: Page) -> Page:
        """Request a page again while its total contradicts it: a session may have been removed before it was counted."""
        same = 1
        while page.is_inconsistent and same < _MAX_SAME_PAGES and self._repeats_left > 0:
            self._repeats_left -= 1
            self._mark_repaired()
            again = await self._fetch(window, page.offset)
            same = same + 1 if (again.total, again.ids) == (page.total, page.ids) else 1
            page = again
        return page

    # The next two methods note the rows of the pages that they pass on.

    async def _balanced(self, pages: AsyncGenerator[Page, None]) -> AsyncGenerator[Page, None]:
        async with aclosing(pages):
            async for page in pages:
                self._balance.add_rows(page)
                yield page

    async def _from_days(self, pages: AsyncGenerator[Page, None]) -> AsyncGenerator[Page, None]:
        async with aclosing(pages):
            async for page in pages:
                self._day_rows.update(page.ids)
                yield page

    def _take_note(self, reader: OverlapReader) -> None:
        if reader.was_repaired:
            self._mark_repaired()
        self._has_proven_order |= reader.is_proven
        self._has_met_disorder |= reader.is_unordered
        if self._has_proven_order and self._has_met_disorder:
            self._set_reason("only a part of the list is sorted by plug-in time")

    def _give_up_days(self, reason: str) -> None:
        self._set_reason(reason)
        self._is_split_useless = True

    def _mark_repaired(self) -> None:
        if self.completeness is Completeness.VERIFIED:
            self.completeness = Completeness.REPAIRED

    def _set_reason(self, reason: str) -> None:
        self.reason = self.reason or reason


async def _one(page: Page) -> AsyncGenerator[Page, None]:
    yield page


async def _flatten(sources: AsyncGenerator[AsyncGenerator[Page, None], None]) -> AsyncGenerator[Page, None]:
    """Yield the pages of each source in turn. Leaving early closes the current source, then `sources`."""
    async with aclosing(sources):
        async for source in sources:
            async with aclosing(source) as pages:
                async for page in pages:
                    yield page

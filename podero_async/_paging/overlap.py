"""Read a list by overlapping pages, and read parts of it again until every page overlaps the next."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, NoReturn

from podero_async._concurrency import map_in_order
from podero_async._paging.page import Page
from podero_async._paging.proof import Order, fits, is_aligned, order_of, overlaps
from podero_async.errors import ApiError, RequestTimeoutError, ServerError

__all__ = ["REFUSED_PAGE_STATUSES", "OverlapReader", "refusal_of"]

_OVERLAP_ROWS = 5  # fewer leave more gaps when the list changes, more cost more requests
_MIN_ROWS_TO_SHOW_ORDER = 50  # fewer rows may be sorted by chance

_MIN_OVERLAP_ROWS = 2  # the time of a single shared row may be the time of other rows, too
_MAX_REREADS_PER_GAP = 8  # a gap that survives them shows that the list changes faster than it can be read
_MAX_PAGES_WITHOUT_PROGRESS = 50  # in a row; more come from a server that repeats itself
_GAPS_REMAIN = "the list changes faster than it can be read, or the server leaves rows out of its pages"
REFUSED_PAGE_STATUSES = frozenset({400, 404, 416, 422})
_UNAVAILABLE = 503  # says nothing about the page
_MAX_REPEATS_OF_FIRST_PAGE = 3  # in a row; as many show that the server ignores the offset


class _UnprovableError(Exception):
    """Overlapping pages cannot prove that this list is complete."""


class OverlapReader:
    """Reads overlapping pages from the first one to the end of the list.

    The pages up to `last` are joined: no session is missing between them. After `pages` has ended, `is_proven` says
    whether they are the whole list. If not, `reason` says why. `is_unordered` is then true if the list is not sorted by
    plug-in time, and `is_inconsistent` if a `total` contradicts its page.
    `was_repaired` is true if parts of the list were read again, and `is_aligned` if all pages overlap exactly as their
    offsets say.

    Args:
        fetch: Fetches the page at an offset.
        first: The page at offset 0. It is not the whole list.
        ahead: Maximum number of pages that are requested, or kept, before the caller asks for them.
        overlap_rows: Number of rows by which a page starts before the previous page ended.
        min_rows_to_show_order: Minimum number of sorted rows that show that a list is sorted.
    """

    def __init__(
        self,
        fetch: Callable[[int], Coroutine[Any, Any, Page]],
        first: Page,
        *,
        ahead: int,
        overlap_rows: int = _OVERLAP_ROWS,
        min_rows_to_show_order: int = _MIN_ROWS_TO_SHOW_ORDER,
    ) -> None:
        self._fetch = fetch
        self._ahead = ahead
        self._min_rows_to_show_order = min_rows_to_show_order
        self._order = order_of(first)
        self._page_size = first.count  # a server may return fewer rows than requested
        self._overlap = min(overlap_rows, first.count - 1)
        self._step = max(0, first.count - self._overlap)
        total = 0 if first.is_inconsistent else first.total
        self._planned = range(self._step, total - self._overlap, self._step) if self._step else range(0)
        # A list that keeps changing costs at most about three requests per page, the planned ones included.
        self._rereads_left = 8 + len(self._planned) // 2
        self._requests_left = 16 + 2 * len(self._planned)
        self._first = first
        self._first_page_repeats = 0
        self._pages_without_progress = 0
        self._joined_rows = 0
        self.last = first
        self.is_proven = False
        self.is_inconsistent = False
        self.is_unordered = False
        self.was_repaired = False
        self.is_aligned = True
        self.reason = ""

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield pages in the order of the list, each once it is joined, until the list is proven or cannot be."""
        yield self._first
        try:
            order = self._usable_order()
            async with aclosing(map_in_order(self._fetch, self._planned, ahead=self._ahead)) as planned:
                async for page in planned:
                    before = self.last
                    for joined in await self._join(page, order):
                        yield joined
                    if self.is_proven:
                        return
                    self._check_progress(before)
            while not self.is_proven:
                for joined in await self._read_on(order):
                    yield joined
        except _UnprovableError as error:
            self.reason = str(error)
        except (ApiError, RequestTimeoutError) as error:
            self.reason = f"the server does not list a later page: {refusal_of(error, is_later_page=True)}"

    @property
    def newest_offset(self) -> int:
        """Offset of the page at the newest end of the list. New sessions show there, and those that moved to the front."""
        return self.last.offset if self._order is Order.OLDEST_FIRST else 0

    def _usable_order(self) -> Order:
        self._check_total(self._first)
        if self._order is None:
            self._fail_unordered()
        if self._overlap < _MIN_OVERLAP_ROWS:
            raise _UnprovableError("the server's pages are too short to overlap")
        return self._order

    async def _join(self, page: Page, order: Order) -> list[Page]:
        """Return the pages that join `page` to the last one: re-read pages that close a gap, then `page` itself.

        There are three cases:

        1. `page` overlaps the last page. It is accepted.
        2. `page` ends before the last page does, since sessions were added before it. It has nothing new.
        3. There is a gap, since sessions were removed. The list is read again around the end of the last page, until
           one of the other cases holds.
        """
        joined: list[Page] = []
        self._check(page, order)
        self.is_aligned &= is_aligned(self.last, page)
        offset = self.last.end - self._page_size // 2
        rereads = 0
        while not overlaps(self.last, page, order):
            rereads += 1
            if rereads > _MAX_REREADS_PER_GAP:
                raise _UnprovableError(_GAPS_REMAIN)
            if page.count and not self._extends(page, order):
                return joined
            # The re-read page has the same three cases.
            reread = await self._reread(max(0, offset), order)
            if reread.count and not self._extends(reread, order):
                offset += self._step  # it ends before the last page does: read further on
            elif overlaps(self.last, reread, order):
                joined.append(reread)
                self._accept(reread, order)
                if self.is_proven:
                    return joined
                offset = reread.end - self._page_size // 2  # the gap is smaller now, or closed
            else:
                offset -= self._step  # it leaves a gap, too: read further back
        joined.append(page)
        self._accept(page, order)
        return joined

    async def _read_on(self, order: Order) -> list[Page]:
        """Read on after the planned pages. The list has grown, or its last page is full and its end is unconfirmed."""
        before = self.last
        joined = await self._join(await self._request(before.end - self._overlap), order)
        if self.last is before and not self.is_proven:
            self._check(await self._request(before.end), order)  # `total` may count sessions that no page shows
            raise _UnprovableError(_GAPS_REMAIN)
        return joined

    async def _reread(self, offset: int, order: Order) -> Page:
        self._rereads_left -= 1
        if self._rereads_left < 0:
            raise _UnprovableError(_GAPS_REMAIN)
        self.was_repaired = True
        page = await self._request(offset)
        self._check(page, order)
        return page

    async def _request(self, offset: int) -> Page:
        self._requests_left -= 1
        if self._requests_left < 0:
            raise _UnprovableError("the list grows faster than it can be read")
        return await self._fetch(offset)

    def _accept(self, page: Page, order: Order) -> None:
        self._joined_rows += page.count
        if page.end < page.total:
            self._page_size = min(self._page_size, page.count)
        elif page.count < self._page_size:
            # A page that is not full and ends at `total` shows the end twice. A full page shows it by `total` alone, so
            # `_read_on` reads once more from its end: a wrong total must not cut the list short.
            if max(self._first.count, self._joined_rows) < self._min_rows_to_show_order:
                raise _UnprovableError("the list has too few sessions to show its order")
            self.is_proven = True
        if self._extends(page, order):
            self.last = page

    def _extends(self, page: Page, order: Order) -> bool:
        """Return whether a page reaches further than the last one does. It must fit the order."""
        last_time, time = self.last.times[-1], page.times[-1]
        return last_time is not None and time is not None and order.precedes(last_time, time)

    def _check(self, page: Page, order: Order) -> None:
        self._check_total(page)
        if not fits(page, order):
            self._fail_unordered()
        self._check_offset_works(page)

    def _check_total(self, page: Page) -> None:
        if page.is_inconsistent:
            self.is_inconsistent = True
            found = f"{page.count} rows at offset {page.offset}"
            raise _UnprovableError(f"the server's total of {page.total} cannot be true with {found}")

    def _check_progress(self, before: Page) -> None:
        self._pages_without_progress = self._pages_without_progress + 1 if self.last is before else 0
        if self._pages_without_progress > _MAX_PAGES_WITHOUT_PROGRESS:
            raise _UnprovableError(f"{self._pages_without_progress} pages in a row have no new sessions")

    def _fail_unordered(self) -> NoReturn:
        self.is_unordered = True
        raise _UnprovableError("the list is not sorted by plug-in time")

    def _check_offset_works(self, page: Page) -> None:
        first = self._first
        has_rows_of_first = page.count > self._overlap and (page.ids, page.total) == (first.ids, first.total)
        if not has_rows_of_first or page.offset < first.end:  # a list of few rows may repeat them by chance
            self._first_page_repeats = 0
            return
        self._first_page_repeats += 1
        if self._first_page_repeats == _MAX_REPEATS_OF_FIRST_PAGE:
            raise _UnprovableError("every offset returns the first page")


def refusal_of(error: ApiError | RequestTimeoutError, *, is_later_page: bool) -> str:
    """Return why the server does not list a page, although it has listed others; raise an error that has other causes.

    A fault that is left after all attempts counts only on a later page, which may lie too deep for the server's database.
    In an outage, the first page of the next window meets it, too. The page of a gateway says nothing about the list.
    """
    if isinstance(error, RequestTimeoutError):
        if is_later_page:
            return error.reason
    elif (error.status in REFUSED_PAGE_STATUSES and not error.is_from_gateway) or (
        is_later_page and isinstance(error, ServerError) and error.status != _UNAVAILABLE
    ):
        return f"HTTP {error.status}: {error.detail}"
    raise error

"""Read a list by plain offset paging, as far as the server returns rows. That proves nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from collections.abc import Set as AbstractSet
from typing import Any

from podero_async._decode import RowId
from podero_async._paging.overlap import refusal_of
from podero_async._paging.page import Page
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import ApiError, CompletenessError, RequestTimeoutError

__all__ = ["read_plainly"]

_MAX_PAGES_WITHOUT_NEW_ROWS = 50  # in a row; more come from a server that repeats itself
_MAX_EMPTY_PAGES = 5  # in a row, before the end according to the total, which may be wrong
_MAX_REPEATS = 3  # of a page, in a row; as many show that a step by its rows leads no further


async def read_plainly(
    fetch: Callable[[int], Coroutine[Any, Any, Page]], first: Page, seen: AbstractSet[RowId], *, max_offset: int
) -> AsyncGenerator[Page, None]:
    """Yield pages from offset 0 on, until one is refused, or none lists a new row.

    The offset steps by the rows that a page lists, since a server may return fewer than requested. If that leads no
    further, it steps by the rows that were requested: a server may drop rows from a page after it was cut from the list.

    Args:
        fetch: Fetches the page at an offset.
        first: The first page of the list, or of a longer window.
        seen: Ids of all rows that were delivered.
        max_offset: The largest offset, in case the list is endless.

    Raises:
        CompletenessError: The server returns the first page for every offset.
    """
    known: set[RowId] = set()
    before: list[RowId] = []
    offset = idle_pages = empty_pages = 0
    while offset <= max_offset and idle_pages <= _MAX_PAGES_WITHOUT_NEW_ROWS and empty_pages <= _MAX_EMPTY_PAGES:
        try:
            page = await fetch(offset)
        except (ApiError, RequestTimeoutError) as error:
            refusal_of(error, is_later_page=offset > 0)
            return
        if page.count:
            yield page
        elif offset >= page.total:
            return
        empty_pages = 0 if page.count else empty_pages + 1
        idle_pages = idle_pages + 1 if known.issuperset(page.ids) else 0
        known.update(page.ids)
        is_stuck = idle_pages >= _MAX_REPEATS and page.ids == before
        if is_stuck and page.count and page.ids == first.ids and known == set(page.ids):
            if page.total <= page.count:  # the page claims to be the whole list
                return
            if idle_pages > _MAX_REPEATS:
                reason = "the list makes no progress: every offset returns its first page"
                raise CompletenessError(reason, len(seen), page.total)
        offset = offset + MAX_PAGE_SIZE if is_stuck or not page.count else page.end
        before = page.ids

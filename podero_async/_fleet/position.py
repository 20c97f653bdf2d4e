"""The position in a list of users, or of a user's vehicles, that may be paged, and the decision whether it has ended."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import attrs

from podero_async._failures import is_retryable
from podero_async._paging.overlap import REFUSED_PAGE_STATUSES
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import ApiError, CompletenessError, DecodeError, PoderoError

__all__ = ["Position"]

_OVERLAP = 5  # rows
_MAX_GAPS = 10  # more are a sign of an unordered list, which has a gap after almost every page
_MAX_PAGES_WITHOUT_NEW = 2  # in a row
_ROUND_SIZES = (10, 25, 32)  # a server's page size is a multiple of one of them
_MAX_PAGE_SIZES = (50, 64)  # the largest page that a server allows is a multiple of one of them
_MIN_PAGE = 10  # a shorter array is not a page
_MAX_ODD_PAGE = 1000  # a longer array is a page only if it has a round size

_logger = logging.getLogger("podero_async")


@attrs.define
class Position:
    """The position in a paged list, and the totals of its pages.

    Each page repeats the last rows of the one before it. If it does not, rows were removed, the others moved up, and the
    reader goes back by one page. The first page is requested without parameters. After that, the offset is a multiple of
    the limit, since a server may compute the number of the page from both. If a page lists nothing new, the next one is
    requested exactly where the last one ended, since a server may know only pages of its own size.
    """

    of: str = "users"
    expected: int | None = None
    """The number of rows that the list has according to another source. If it lists as many, it is whole."""
    begin: int = 0
    """The offset of the next page."""
    limit: int | None = None
    """The number of rows to request; None if the server chooses."""
    is_at_end: bool = False
    is_array: bool = False
    """Whether the last response was an array without a total."""
    seen: set[int] = attrs.field(factory=set)
    """The readable ids that were listed. A UUID takes twice the memory of its int."""
    _end: int = 0
    """The offset of the row after the last page that had new rows."""
    _end_id: int | None = None
    """The id of the row before that."""
    _last_begin: int = 0
    _page_size: int = 0
    _max_limit: int = MAX_PAGE_SIZE
    _takes_limit: bool = True
    _heeds_only_limit: bool = False
    """Whether a page showed that the server ignores the offset, but not the limit: it knows pages."""
    _first_count: int = 0
    _first_id: int | None = None
    _last_ids: Sequence[int] = ()
    """The ids of the last page."""
    _pages_with_new: int = 0
    _pages_without_new: int = 0
    _gaps: int = 0
    _was_empty: bool = False
    """Whether an array after the last page with new rows was empty, and so a reason to go back."""
    _is_back: bool = False
    """Whether the next page is read because of a gap; pages after it are known to exist."""
    _has_shown_end: bool = False
    """Whether an array has shown that no other follows."""
    _totals: list[int] = attrs.field(factory=list)

    def outlives(self, error: PoderoError) -> bool:
        """Return whether the read goes on, or has ended well, although a page was refused. There are two cases:

        1. The request had a limit. It is repeated without one, since the server may refuse only one of that size.
        2. All pages before list the same array. It was the whole list, since the server knows no pages. After two pages
           it does know them, and a next page exists, since it repeats the last rows of the one before.
        """
        if not isinstance(error, ApiError) or error.status not in REFUSED_PAGE_STATUSES or is_retryable(error):
            return False
        if self.begin and self.limit is not None:
            self._takes_limit = False
            self._plan(is_exact=self.begin == self._end)
            return True
        self.is_at_end = self._has_shown_end = self.is_array and self._pages_with_new == 1
        return self.is_at_end

    def goes_back(self, ids: Sequence[int], count: int, total: int | None) -> bool:
        """Return whether to read an earlier page, since rows may lie between the last page and this one.

        There are two cases: the page repeats no row of the page before, or it is empty because the list is shorter now,
        as its total says. An array without a total is requested again, and is a reason to go back if it stays empty.
        """
        is_empty_array = total is None and not count
        if is_empty_array:
            is_gap = self._is_back or (self._pages_without_new > 0 and not self._was_empty)
        else:
            is_gap = ids[0] not in self.seen if ids else not count and total is not None and total <= self._end
        if not is_gap or self.begin == self._end or self._gaps > _MAX_GAPS:
            return False
        self._gaps += 1
        if self._gaps > _MAX_GAPS:
            return False
        if is_empty_array:
            self._was_empty, self._pages_without_new = True, 0
        self._end = max(0, self.begin - min(self._page_size, MAX_PAGE_SIZE))
        self._is_back = True
        self._plan()
        return True

    def advance(self, ids: Sequence[int], count: int, total: int | None, *, has_new: bool) -> None:
        """Go on after a page, or after an array without a total, which may be a page, too.

        Args:
            ids: The readable ids of the page, which are in `seen`.
            count: Number of its rows.
            total: Its total, if it has one.
            has_new: Whether the page listed some of them first.
        """
        begin, is_back = self.begin, self._is_back
        self._is_back = False
        self.is_array = total is None
        self._heeds_only_limit |= self._shows_use_of_limit(ids, count)
        if self.is_array and not is_back:
            self._has_shown_end = self._shows_end(ids, count, has_new=has_new)
        if self.is_array and has_new and begin and not self._last_begin:
            self._page_size = 0  # pages at offset 0, which are requested without a limit, may be longer
        if count and (has_new or is_back or not self._totals):
            self._end, self._end_id = self._begin_of(ids) + count, ids[-1] if ids else None
        self._last_begin = begin
        total = begin + count if total is None else total
        if not self._totals:
            self._first_count, self._first_id = count, ids[0] if ids else None
        self._totals.append(total)
        if count:
            self._last_ids = ids
        is_full = count == self.limit or (self._is_full(count) and _is_round(count))
        self._page_size = max(self._page_size, count)
        if has_new:
            self._pages_with_new += 1
            self._pages_without_new, self._was_empty = 0, False
            if self.limit and count < self.limit:
                self._max_limit = min(MAX_PAGE_SIZE, max(self._page_size, self._first_count))
        elif not is_back:
            self._pages_without_new += 1
        # A full page is followed by another, even if the total is too small.
        is_last = self._has_shown_end if self.is_array else self._end >= total and not (has_new and is_full)
        self.is_at_end = is_last or self._pages_without_new == _MAX_PAGES_WITHOUT_NEW
        self._plan(is_exact=bool(count) and self._pages_without_new > 0)

    def _plan(self, *, is_exact: bool = False) -> None:
        """Choose the next page: with an overlap, or exactly where the last page ended."""
        overlap = max(0, min(_OVERLAP, max(self._page_size // 4, 1), self._page_size - 1))
        begin, limit = max(0, self._end - overlap), self._max_limit
        if is_exact:
            begin, limit = self._end, MAX_PAGE_SIZE
        elif begin and self._takes_limit:
            best = max(range(1, min(limit, begin) + 1), key=lambda size: size - begin % size)
            if (
                begin < limit or best - begin % best > limit // 2
            ):  # else a multiple of the limit brings too few new rows
                begin, limit = begin - begin % best, best
        self.begin = begin
        self.limit = limit if begin and self._takes_limit else None

    def _shows_use_of_limit(self, ids: Sequence[int], count: int) -> bool:
        """Return whether a later page is another cut of the first one."""
        if not self.begin or not ids or ids[0] != self._first_id:
            return False
        return count == self.limit != self._first_count or abs(count - self._first_count) >= _MIN_PAGE

    def _begin_of(self, ids: Sequence[int]) -> int:
        """Return the offset of a page according to the page before it: a server may begin it before the requested one."""
        if not ids or ids[0] not in self._last_ids:
            return self.begin
        return min(self.begin, self._last_begin + self._last_ids.index(ids[0]))

    def _is_full(self, count: int) -> bool:
        """Return whether a page has as many rows as were requested, or as other pages have, so that it may be cut off."""
        return count >= min(self._page_size, MAX_PAGE_SIZE, self.limit or MAX_PAGE_SIZE)

    def _shows_end(self, ids: Sequence[int], count: int, *, has_new: bool) -> bool:
        """Return whether an array shows that the list has no other rows. There are five cases:

        1. The list has as many rows as expected.
        2. It is the first array, and empty, or, if no number is expected, too short or too long for a page.
        3. It is empty, and was requested at the end of the last page.
        4. It is shorter than a page, has no new row, and was requested at the end of the last page, or has the last row of
           the page before and at most as many rows as the overlap.
        5. The page that was requested there has no new row, since it repeats the whole list, or the page before and with
           it the first row of the list: the server knows no pages.
        """
        if self.expected is not None and len(self.seen) >= self.expected:
            return True
        if not self._totals:
            is_too_short_or_long = count < _MIN_PAGE or (count > _MAX_ODD_PAGE and not _is_round(count))
            return not count or (self.expected is None and is_too_short_or_long)
        if has_new or (self._heeds_only_limit and count and any(count % size == 0 for size in _MAX_PAGE_SIZES)):
            return False
        is_exact = self.begin == self._end
        if not count:
            return is_exact
        is_short = count < max(self._first_count, self._page_size) if is_exact else not self._is_full(count)
        if is_short and (is_exact or (self._end_id in ids and count <= self._end - self.begin)):
            return True
        return is_exact and (len(set(ids)) == len(self.seen) or (ids == self._last_ids and self._first_id in ids))

    def balance(self, unreadable: DecodeError | None, path: str) -> None:
        """Compare the number of listed rows with the totals, which differ if the list changes while it is read."""
        total, listed = None if self.is_array else self._totals[-1], len(self.seen)
        if unreadable is not None:
            raise CompletenessError(f"a user cannot be read: {unreadable}", listed, total, path)
        list_of = f"the list of {self.of}"
        unsteady = f"{list_of} changes so often, or has so little order, that {self.of} may be missing"
        if total is None:
            if self._gaps > _MAX_GAPS:
                raise CompletenessError(unsteady, listed, None, path)
            if not self._has_shown_end:
                reason = f"its page at offset {self._last_begin} shows neither new {self.of} nor the end of the list"
                raise CompletenessError(f"{list_of} may go on: {reason}", listed, None, path)
            return
        least, most = min(self._totals), max(self._totals)
        if self._gaps > _MAX_GAPS and not least == listed == most:
            raise CompletenessError(unsteady, listed, total, path)
        if least <= listed <= most:
            return
        _logger.warning("%s has %d %s, but the server counts %d", list_of, listed, self.of, total)
        if listed < least:
            raise CompletenessError(f"{list_of} ends before its total", listed, total, path)


def _is_round(count: int) -> bool:
    """Return whether a list of this length may be a full page of a server."""
    return any(count % size == 0 for size in _ROUND_SIZES)

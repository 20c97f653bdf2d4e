"""The position in a list of users that may be paged, and the decision whether it has ended."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import attrs

from podero_async._failures import is_retryable
from podero_async._paging.overlap import REFUSED_PAGE_STATUSES
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.errors import ApiError, CompletenessError, DecodeError, PoderoError

__all__ = ["Position", "is_round"]

_OVERLAP = 5  # rows
_MAX_GAPS = 10  # more are a sign of an unordered list, which has a gap after almost every page
_MAX_PAGES_WITHOUT_NEW = 2  # in a row
_ROUND_SIZES = (10, 25, 32)  # a server's page size is a multiple of one of them
_MIN_PAGE = 10  # a shorter array is not a page
_MAX_ODD_PAGE = 1000  # a longer array is a page only if it has a round size

_logger = logging.getLogger("podero_async")


@attrs.define
class Position:
    """The position in a paged list of users, and the totals of its pages.

    Each page repeats the last rows of the one before it. If it does not, users were removed, the others moved up, and
    the reader goes back by one page.
    """

    is_at_end: bool = False
    is_array: bool = False
    """Whether the last response was an array without a total."""
    limit: int | None = MAX_PAGE_SIZE
    """The number of rows to request; None if the server refuses to be asked for as many."""
    _offset: int = 0
    _last_begin: int = 0
    _page_size: int = 0
    _first_count: int = 0
    _first_id: int | None = None
    _last_ids: Sequence[int] = ()
    """The ids of the last page."""
    _pages_without_new: int = 0
    _gaps: int = 0
    _was_empty: bool = False
    """Whether an array after the last page with new users was empty, and so a reason to go back."""
    _is_back: bool = False
    """Whether the next page is read because of a gap; pages after it are known to exist."""
    _has_shown_end: bool = False
    """Whether an array has shown that no other follows."""
    _totals: list[int] = attrs.field(factory=list)

    @property
    def begin(self) -> int:
        """The offset of the next page."""
        overlap = min(_OVERLAP, max(self._page_size // 4, 1), self._page_size - 1)
        return max(0, self._offset - max(0, overlap))

    def outlives(self, error: PoderoError) -> bool:
        """Return whether the read goes on, or has ended well, although a page was refused. There are two cases:

        1. The request had a limit. It is repeated without one, since the server may refuse only one of that size.
        2. Only one array came before. It was the whole list, since the server knows no pages. After two pages it does know
           them, and a next page exists, since it repeats the last rows of the one before.
        """
        if not isinstance(error, ApiError) or error.status not in REFUSED_PAGE_STATUSES or is_retryable(error):
            return False
        if self.begin and self.limit is not None:
            self.limit = None
            return True
        self.is_at_end = self._has_shown_end = self.is_array and len(self._totals) == 1
        return self.is_at_end

    def goes_back(self, ids: Sequence[int], count: int, total: int | None, seen: AbstractSet[int]) -> bool:
        """Return whether to read an earlier page, since users may lie between the last page and this one.

        There are two cases: the page repeats no user of the page before, or it is empty because the list is shorter now,
        as its total says. An array without a total is requested again, and is a reason to go back if it stays empty.
        """
        is_empty_array = total is None and not count
        if is_empty_array:
            is_gap = self._is_back or (self._pages_without_new > 0 and not self._was_empty)
        else:
            is_gap = ids[0] not in seen if ids else not count and total is not None and total <= self._offset
        if not is_gap or self.begin == self._offset or self._gaps > _MAX_GAPS:
            return False
        self._gaps += 1
        if self._gaps > _MAX_GAPS:
            return False
        if is_empty_array:
            self._was_empty, self._pages_without_new = True, 0
        self._offset = max(0, self.begin - min(self._page_size, MAX_PAGE_SIZE))
        self._is_back = True
        return True

    def advance(self, ids: Sequence[int], count: int, total: int | None, *, listed: int, has_new: bool) -> None:
        """Go on after a page, or after an array without a total, which may be a page, too.

        Args:
            ids: The readable ids of the page.
            count: Number of its rows.
            total: Its total, if it has one.
            listed: Number of different users that were listed so far.
            has_new: Whether the page listed some of them first.
        """
        begin, is_back = self.begin, self._is_back
        self._is_back = False
        self.is_array = total is None
        if self.is_array and not is_back:
            self._has_shown_end = self._shows_end(ids, count, listed, has_new=has_new)
        if self.is_array and has_new and begin and not self._last_begin:
            self._page_size = 0  # pages at offset 0, which are requested without a limit, may be longer
        self._last_begin = begin
        total = begin + count if total is None else total
        if not self._totals:
            self._first_count, self._first_id = count, ids[0] if ids else None
        self._totals.append(total)
        if count:
            self._offset = begin + count
            self._last_ids = ids
        self._page_size = max(self._page_size, count)
        if has_new:
            self._pages_without_new, self._was_empty = 0, False
        elif not is_back:
            self._pages_without_new += 1
        # A full page is followed by another, even if the total is too small.
        is_past_total = self._offset >= total and not (has_new and self._is_full(count) and is_round(count))
        is_last = self._has_shown_end if self.is_array else is_past_total
        self.is_at_end = is_last or self._pages_without_new == _MAX_PAGES_WITHOUT_NEW

    def _is_full(self, count: int) -> bool:
        return count >= min(self._page_size, MAX_PAGE_SIZE)

    def _shows_end(self, ids: Sequence[int], count: int, listed: int, *, has_new: bool) -> bool:
        """Return whether an array shows that the list has no other users. There are three cases:

        1. It is the first one, and too short or too long for a page.
        2. It is shorter than a page, has no new user, and has the last user of the page before, or none was to be repeated.
        3. It has no new user, since it repeats the whole list, or the page before and with it the first user of the list:
           the server knows no pages.

        A server that ignores the offset, but gives a page of another size if a limit is requested, does know pages.
        """
        if not self._totals:
            return count < _MIN_PAGE or (count > _MAX_ODD_PAGE and not is_round(count))
        has_other_size = abs(count - self._first_count) >= _MIN_PAGE and is_round(count)
        if has_new or (count and has_other_size):
            return False
        repeats_end = self._last_ids[-1] in ids if self._last_ids and self.begin < self._offset else not count
        if not self._is_full(count) and repeats_end:
            return True
        return len(set(ids)) == listed or (ids == self._last_ids and self._first_id in ids)

    def balance(self, listed: int, unreadable: DecodeError | None, path: str) -> None:
        """Compare the number of listed users with the totals, which differ if the list changes while it is read."""
        total = None if self.is_array else self._totals[-1]
        if unreadable is not None:
            raise CompletenessError(f"a user cannot be read: {unreadable}", listed, total, path)
        if total is None:
            if self._gaps > _MAX_GAPS:
                reason = "the list of users changes so often, or has so little order, that users may be missing"
                raise CompletenessError(reason, listed, None, path)
            if not self._has_shown_end:
                reason = f"its page at offset {self._last_begin} shows neither new users nor the end of the list"
                raise CompletenessError(f"the list of users may go on: {reason}", listed, None, path)
            return
        least, most = min(self._totals), max(self._totals)
        if self._gaps > _MAX_GAPS and not least == listed == most:
            reason = "the list of users changes so often, or has so little order, that users may be missing"
            raise CompletenessError(reason, listed, total, path)
        if least <= listed <= most:
            return
        _logger.warning("the list of users has %d users, but the server counts %d", listed, total)
        if listed < least:
            raise CompletenessError("the list of users ends before its total", listed, total, path)


def is_round(count: int) -> bool:
    """Return whether a list of this length may be a full page of a server."""
    return any(count % size == 0 for size in _ROUND_SIZES)

"""One page of a list, as one response showed it."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from math import ceil

import attrs

from podero_async._decode import Keep, PageRows, RowId, read_page, read_sessions
from podero_async._paging.window import Window
from podero_async._validation import MAX_PAGE_SIZE

__all__ = ["Page"]

_MAX_CREDIBLE_TOTAL = 1_000_000  # sessions of one vehicle: a plug-in every five minutes for nine years
_MAX_ROWS_OUTSIDE = 10  # outside the window; the server may select long sessions by the time of the unplug
_DAY = timedelta(days=1)


@attrs.frozen(eq=False)
class Page:
    """One page of a list."""

    offset: int
    rows: PageRows
    limit: int
    """Number of rows that were requested."""
    is_whole: bool = attrs.field(init=False)
    """True if the page is the whole list. One response shows one moment, so it needs no further proof."""

    @is_whole.default
    def _is_whole(self) -> bool:
        """Return whether the list has no other page; computed at once, since a large body is read in a thread.

        A page as long as requested may be cut off although its `total` says otherwise: the server may count its own
        page, or count after a session was removed. A page that lists rows twice may lack as many others.
        """
        count = len(self.rows)
        return self.offset == 0 and count == self.rows.total and count != self.limit and self.rows.are_distinct

    @classmethod
    def read(cls, offset: int, limit: int, body: bytes, *, keep: Keep = Keep.ROWS) -> Page:
        """Read the page at an offset, from the response to a request for `limit` rows.

        A first page, unless more than its rows is kept, is read as sessions at once, since most lists have no other page.
        """
        if offset or keep is not Keep.ROWS:
            return cls(offset, read_page(body, first_index=offset, keep=keep), limit)
        return cls(offset, read_sessions(body), limit)

    @property
    def total(self) -> int:
        """Number of rows of the whole list, as the server says."""
        return self.rows.total

    @property
    def count(self) -> int:
        """Number of rows on the page, including unreadable ones."""
        return len(self.rows)

    @property
    def ids(self) -> list[RowId]:
        """Ids of the rows."""
        return self.rows.ids

    @property
    def times(self) -> list[datetime | None]:
        """Plug-in times of the rows; None if a time is unreadable."""
        return self.rows.times

    @property
    def end(self) -> int:
        """Offset of the row after the last one on the page."""
        return self.offset + self.count

    @property
    def pages(self) -> int:
        """Number of pages of the largest size that the list fills, according to `total`; 1 if `total` cannot be true."""
        return 1 if self.is_inconsistent else ceil(self.total / MAX_PAGE_SIZE)

    @property
    def is_inconsistent(self) -> bool:
        """True if `total` contradicts the page, so that no change of the list can explain it."""
        if self.total > _MAX_CREDIBLE_TOTAL:
            return True
        if self.count:
            return self.total < self.end
        return self.total < 0 or self.offset < self.total

    def is_mostly_outside(self, window: Window) -> bool:
        """Return whether most sessions of the page were plugged in over a day outside the window that was requested."""
        # Durations, since the day before `date.min`, or a time of the year 1 in UTC, may not exist.
        start, end = datetime.combine(window.from_date, time.min, UTC), timedelta(days=window.days + 1)
        outside = sum(at is not None and not -_DAY <= at - start < end for at in self.times)
        return outside > max(_MAX_ROWS_OUTSIDE, self.count / 2)

    def new_rows(self, seen: set[RowId]) -> PageRows:
        """Return the rows whose ids are not in `seen`, and add these ids to it."""
        is_new = [row_id not in seen and not seen.add(row_id) for row_id in self.ids]  # type: ignore[func-returns-value]
        return self.rows.select(None if all(is_new) else is_new)

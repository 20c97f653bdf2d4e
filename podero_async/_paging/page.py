"""One page of a list, as one response showed it, and the rows on it that no earlier page had."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from functools import cached_property, partial
from itertools import compress
from math import ceil

import attrs

from podero_async._decode import PageOutline, decode_page, outline_page, stated_total
from podero_async._paging.window import Window
from podero_async._validation import MAX_PAGE_SIZE
from podero_async.models import ChargingSession, RejectedItem, SessionsPage

__all__ = ["NewRows", "Page"]

_MAX_CREDIBLE_TOTAL = 1_000_000  # sessions of one vehicle: a plug-in every five minutes for nine years
_MAX_ROWS_OUTSIDE = 10  # outside the window; the server may select long sessions by the time of the unplug
_DAY = timedelta(days=1)
_MAX_OUTLINED_BYTES = 256 << 10  # rows are decoded later on the event loop, which a larger body would block


@attrs.define(eq=False)
class Page:
    """One page of a list. Its rows stay bytes until they are needed, so that the garbage collector need not scan them."""

    offset: int
    total: int
    count: int
    """Number of rows on the page, including unreadable ones."""
    decode: Callable[[], SessionsPage] = attrs.field(repr=False)  # holds the body
    read_outline: Callable[[], PageOutline] = attrs.field(repr=False)  # holds the body
    limit: int | None = None
    """Number of rows that were requested, if the page may be the whole list."""
    is_known_distinct: bool = False
    """True if decoding has shown that the page lists no row twice; then its ids are not compared again."""

    @classmethod
    def outlined(cls, offset: int, body: bytes, *, limit: int | None = None) -> Page:
        """Read the ids and times of a page, and leave its rows undecoded unless the body is large."""
        outline = outline_page(body)
        page = decode_page(body, first_index=offset) if len(body) > _MAX_OUTLINED_BYTES else None
        decode = partial(decode_page, body, first_index=offset) if page is None else lambda: page
        return cls(offset, outline.total, len(outline.ids), decode, lambda: outline, limit)

    @classmethod
    def first(cls, limit: int, body: bytes) -> Page:
        """Read the first page of a list, from the response to a request for `limit` rows.

        The page is decoded at once if it may be the whole list, as most are.
        """
        may_wait = len(body) <= _MAX_OUTLINED_BYTES and stated_total(body) > limit
        return cls.outlined(0, body, limit=limit) if may_wait else cls.decoded(body, limit=limit)

    @classmethod
    def decoded(cls, body: bytes, *, limit: int | None = None) -> Page:
        """Decode a first page. A page that is the whole list needs no outline, so the outline is read on demand."""
        page = decode_page(body)
        count = len(page.items) + len(page.rejected)
        keys: set[int | str] = {row.id.int for row in page.items}
        keys.update(repr(item.raw) for item in page.rejected)
        is_known_distinct = len(keys) == count
        return cls(0, page.total, count, lambda: page, partial(outline_page, body), limit, is_known_distinct)

    @cached_property
    def _outline(self) -> PageOutline:
        return self.read_outline()

    @property
    def ids(self) -> list[str]:
        """Ids of the rows, as text, because text compares faster than `uuid.UUID`."""
        return self._outline.ids

    @property
    def times(self) -> list[datetime | None]:
        """Plug-in times of the rows; None if a time is unreadable."""
        return self._outline.times

    @property
    def end(self) -> int:
        """Offset of the row after the last one on the page."""
        return self.offset + self.count

    @property
    def has_distinct_rows(self) -> bool:
        """True if the page lists no row twice."""
        return self.is_known_distinct or len(set(self.ids)) == self.count

    @property
    def is_whole(self) -> bool:
        """True if the page is the whole list. One response shows one moment, so it needs no further proof.

        A page as long as requested may be cut off although its `total` says otherwise: the server may count its own
        page, or count after a session was removed. A page that lists rows twice may lack as many others.
        """
        is_all = self.offset == 0 and self.count == self.total and self.count != self.limit
        return is_all and self.has_distinct_rows

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


@attrs.frozen(eq=False)
class NewRows:
    """A page, and a mark on each row that no earlier page had."""

    page: Page
    is_new: list[bool] | None
    """One mark per row; None if all rows are new."""

    @classmethod
    def of(cls, page: Page, seen: set[str]) -> NewRows:
        """Mark the rows whose ids are not in `seen`, and add these ids to it."""
        is_new = [row_id not in seen and not seen.add(row_id) for row_id in page.ids]  # type: ignore[func-returns-value]
        return cls(page, None if all(is_new) else is_new)

    @property
    def is_empty(self) -> bool:
        """True if no row is new."""
        return self.page.count == 0 or (self.is_new is not None and not any(self.is_new))

    def decode(self) -> SessionsPage:
        """Decode the page, and drop the rows that are not new."""
        page = self.page.decode()
        if self.is_new is None:
            return page
        if not page.rejected:
            return SessionsPage(total=page.total, items=list(compress(page.items, self.is_new)))
        rejected, items = {item.index: item for item in page.rejected}, iter(page.items)
        rows = [rejected.get(index) or next(items) for index in range(self.page.offset, self.page.end)]
        new = list(compress(rows, self.is_new))
        return SessionsPage(
            total=page.total,
            items=[row for row in new if isinstance(row, ChargingSession)],
            rejected=[row for row in new if isinstance(row, RejectedItem)],
        )

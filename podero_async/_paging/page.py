"""Pages of a list that moves while it is read, and when they prove that nothing of it was missed.

Pure: no I/O here. The list is paged by offset, so a row inserted or removed between two requests shifts every later
row. A page, though, is a contiguous piece of the list as it stood at one moment. Where the list is sorted by plug-in
time, a page therefore holds *every* session that existed at that moment between its first time and its last. If the
spans of the pages overlap, from the start of the list to its end, then every session that existed throughout the read
is on one of them, whatever moved, and in whatever order the pages were read.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import cached_property, partial
from itertools import compress, pairwise, takewhile
from math import ceil

import attrs

from podero_async._decode import PageOutline, decode_page, outline_page, stated_total
from podero_async.models import SessionsPage

__all__ = ["Order", "Page", "Piece", "Window", "joins", "order_of", "runs"]


_MOST_SESSIONS = 1_000_000  # of one vehicle: a plug-in every five minutes for nine years
_MOST_OUTLINED = 256 << 10  # bytes: a page is decoded later only where that holds the event loop up for no long time
_MOST_SHIFT = 0.1  # of a page: how far a list may move between two reads and still be taken for one list


@attrs.frozen
class Window:
    """Which sessions of a vehicle are asked for: inclusive UTC days, and whether hidden ones count."""

    from_date: date
    to_date: date
    include_hidden: bool = False

    @property
    def days(self) -> int:
        """How many days it spans."""
        return (self.to_date - self.from_date).days + 1

    def split(self, parts: int) -> list[Window]:
        """Divide it into so many disjoint windows of about the same length, the newest first, as the list has them."""
        bounds = [self.days * part // parts for part in range(parts + 1)]
        windows = [
            attrs.evolve(
                self,
                from_date=self.from_date + timedelta(days=start),
                to_date=self.from_date + timedelta(days=end - 1),  # never the day after: the calendar may end here
            )
            for start, end in pairwise(bounds)
        ]
        return windows[::-1]


@attrs.define(eq=False)
class Page:
    """One answer. What is not needed yet stays bytes: decoded rows are what the garbage collector walks over again."""

    offset: int
    total: int
    count: int
    """Rows on it, the unreadable ones included."""
    decode: Callable[[], SessionsPage] = attrs.field(repr=False)  # they hold the body
    read_outline: Callable[[], PageOutline] = attrs.field(repr=False)
    has_distinct_rows: bool = False
    """Whether it is known that no row stands on it twice."""

    @classmethod
    def outlined(cls, offset: int, body: bytes) -> Page:
        """Read only the outline of a page."""
        outline = outline_page(body)
        decode = partial(decode_page, body, first_index=offset)
        return cls(offset, outline.total, len(outline.ids), decode, lambda: outline)

    @classmethod
    def first(cls, most: int, body: bytes) -> Page:
        """Read the first page of a list, of at most `most` rows: decode it where it may be the whole list, as it mostly is.

        And where its text may be broken: an outline does not show that, and nobody would ask for the page again.
        """
        is_outlined = len(body) <= _MOST_OUTLINED and stated_total(body) > most and body.isascii()
        return cls.outlined(0, body) if is_outlined else cls.decoded(body)

    @classmethod
    def decoded(cls, body: bytes) -> Page:
        """Decode a page that may be a whole list: then nobody asks for its outline."""
        page = decode_page(body)
        are_distinct = len({row.id.int for row in page.items}) == len(page.items)
        count = len(page.items) + len(page.rejected)
        return cls(0, page.total, count, lambda: page, partial(outline_page, body), are_distinct)

    @cached_property
    def _outline(self) -> PageOutline:
        return self.read_outline()

    @property
    def ids(self) -> list[str]:
        """The rows' ids, as text: comparing uuids costs Python code."""
        return self._outline.ids

    @property
    def times(self) -> list[datetime | None]:
        """When the rows were plugged in; None where that cannot be read."""
        return self._outline.times

    @property
    def end(self) -> int:
        """The offset behind its last row."""
        return self.offset + self.count

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole list: one atomic answer, which needs no other proof."""
        return self.offset == 0 and self.count == self.total

    @property
    def proves_itself(self) -> bool:
        """Whether nothing more needs to be known of it: it is the whole list, and no row stands on it twice."""
        return self.has_distinct_rows and self.is_whole

    @property
    def pages(self) -> int:
        """How many such pages the list has, by its own word; 1 where that cannot be true."""
        return 1 if self.contradicts_itself else ceil(self.total / max(1, self.count))

    @property
    def contradicts_itself(self) -> bool:
        """Whether its total cannot be true, however the list moved."""
        if self.total > _MOST_SESSIONS:
            return True
        return self.total < self.end if self.count else self.total < 0 or self.offset < self.total


@attrs.frozen(eq=False)
class Piece:
    """A page, and which of its rows were not on an earlier one."""

    page: Page
    is_fresh: list[bool] | None
    """None where all are."""

    @classmethod
    def of(cls, page: Page, seen: set[str]) -> Piece:
        """Mark the rows of a page whose ids are not among the `seen`, and add them there."""
        ids = page.ids
        if len(set(ids)) == len(ids):
            is_fresh = [row_id not in seen for row_id in ids]
            seen.update(ids)
        else:
            is_fresh = []
            for row_id in ids:
                is_fresh.append(row_id not in seen)
                seen.add(row_id)
        return cls(page, None if all(is_fresh) else is_fresh)

    @property
    def is_empty(self) -> bool:
        """Whether it brings nothing new."""
        return self.page.count == 0 or (self.is_fresh is not None and not any(self.is_fresh))

    def decode(self) -> SessionsPage:
        """Decode the page, and leave out what is not fresh."""
        page = self.page.decode()
        if self.is_fresh is None:
            return page
        if not page.rejected:
            return SessionsPage(total=page.total, items=list(compress(page.items, self.is_fresh)))
        rejected = {item.index: item for item in page.rejected}
        items = iter(page.items)
        kept = SessionsPage(total=page.total, items=[])
        for index, is_fresh in enumerate(self.is_fresh, self.page.offset):
            if index in rejected:
                kept.rejected.extend([rejected[index]] if is_fresh else [])
            else:
                row = next(items)
                kept.items.extend([row] if is_fresh else [])
        return kept


class Order(enum.Enum):
    """Which way a list runs by plug-in time."""

    OLDEST_FIRST = enum.auto()
    NEWEST_FIRST = enum.auto()

    def precedes(self, one: datetime, other: datetime) -> bool:
        """Say whether a session of the one time stands strictly before one of the other."""
        return one < other if self is Order.OLDEST_FIRST else one > other


def order_of(page: Page) -> Order | None:
    """Return the order of a page's rows; None where they have none, or too few different times to tell."""
    times = [time for time in page.times if time is not None]
    if len(times) < len(page.times) or not times or times[0] == times[-1]:
        return None
    ascending = times[0] < times[-1]
    is_sorted = times == sorted(times, reverse=not ascending)
    if not is_sorted:
        return None
    return Order.OLDEST_FIRST if ascending else Order.NEWEST_FIRST


def runs(page: Page, order: Order) -> bool:
    """Say whether a page fits the order: one of a single time fits any."""
    return order_of(page) is order or (None not in page.times and len(set(page.times)) <= 1)


def joins(before: Page, after: Page, order: Order) -> bool:
    """Say whether two pages leave no gap between them: the later one starts within the span of the earlier one.

    Both must fit the order. A page's first and last time themselves may be cut, where several sessions share them. So
    a page is only held to cover what is strictly between them, and spans that merely touch do not join.

    Two more signs tell pieces of one list from pages of a list that is cut in some other order and then sorted: where
    they overlap they list mostly the same rows, and they overlap about as far as their offsets say.
    """
    if not before.count or not after.count:
        return False
    start, end = after.times[0], before.times[-1]
    if start is None or end is None or not order.precedes(start, end):
        return False
    tail, head = _rows_from(start, before, order), _rows_up_to(end, after, order)
    shared = tail.keys() & head.keys()
    only_before = [row for row in tail.keys() - shared if tail[row] != start]
    only_after = [row for row in head.keys() - shared if head[row] != end]
    shift = abs(len(tail) - (before.end - after.offset))
    return len(shared) >= max(1, len(only_before) + len(only_after)) and shift <= max(1, before.count * _MOST_SHIFT)


def _rows_from(start: datetime, page: Page, order: Order) -> dict[str, datetime | None]:
    """Return the last rows of a page, from a time on; they are few."""
    rows = zip(reversed(page.ids), reversed(page.times), strict=True)
    return dict(takewhile(lambda row: row[1] is not None and not order.precedes(row[1], start), rows))


def _rows_up_to(end: datetime, page: Page, order: Order) -> dict[str, datetime | None]:
    """Return the first rows of a page, up to a time; they are few."""
    rows = zip(page.ids, page.times, strict=True)
    return dict(takewhile(lambda row: row[1] is not None and not order.precedes(end, row[1]), rows))

"""Pages of a list that moves while it is read, and when they prove that nothing of it was missed.

Pure: no I/O here. The list is paged by offset, so a row inserted or removed between two requests shifts every later
row. A page, though, is a contiguous piece of the list as it stood at one moment. Where the list is sorted by plug-in
time, a page therefore holds *every* session that existed at that moment between its first time and its last. If the
spans of the pages overlap, from the start of the list to its end, then every session that existed throughout the read
is on one of them, whatever moved, and in whatever order the pages were read.
"""

from __future__ import annotations

import enum
from datetime import datetime
from itertools import takewhile

from podero_async._paging.page import Page

__all__ = ["Order", "joins", "order_of", "runs"]

_MAX_SHIFT = 0.1  # of a page: how far a list may move between two reads and still be taken for one list


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
    return len(shared) >= max(1, len(only_before) + len(only_after)) and shift <= max(1, before.count * _MAX_SHIFT)


def _rows_from(start: datetime, page: Page, order: Order) -> dict[str, datetime | None]:
    """Return the last rows of a page, from a time on; they are few."""
    rows = zip(reversed(page.ids), reversed(page.times), strict=True)
    return dict(takewhile(lambda row: row[1] is not None and not order.precedes(row[1], start), rows))


def _rows_up_to(end: datetime, page: Page, order: Order) -> dict[str, datetime | None]:
    """Return the first rows of a page, up to a time; they are few."""
    rows = zip(page.ids, page.times, strict=True)
    return dict(takewhile(lambda row: row[1] is not None and not order.precedes(end, row[1]), rows))

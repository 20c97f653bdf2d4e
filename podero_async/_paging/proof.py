"""Decide from the rows of pages whether a session may be missing between them. Pure functions, no I/O.

# The theorem

A read that is VERIFIED or REPAIRED has every session that was in each state of the list from which the server took a
page of this read.

**Assumptions about the server.** Each page holds consecutive rows of the list at one moment, and `total` is the length
of the list about that moment. An id stands for the same session throughout. Different pages may come from different
moments, in any order, and also from replicas that lag behind.

**Sorted lists.** Suppose that the list is sorted by plug-in time, and that no session gets another one.

1. A page holds every session that existed at its moment and was plugged in between the page's first time and its last.
   At these two times themselves, other sessions of the same time may have been cut off.
2. So if a page starts strictly before the previous page ended, the two together hold every session between the start of
   the first and the end of the second.
3. The first page starts at offset 0 and the last page ends at `total`, so no session lies before or after the pages.
4. A session that was in the list at the moment of every page has a plug-in time that lies within at least one page. So
   it is on that page, however the list moved and in whichever order the pages were read.

**Lists that only look sorted.** The pages show that they are sorted (`order_of`, `fits`) and that neighbours agree about
their overlap (`overlaps`), but not why. A list sorted by the time of the last change looks the same until a session
moves. So the distinct rows are compared with the totals (`_paging.balance`). In a list of any order, no session is
missing if the rows are as many as the largest total, and if, during the read, no session was added or none was removed:
then all rows that were read belong to the largest list.

**Split windows.** A page that is shorter than requested and has as many distinct rows as its `total` is the whole
list at one moment. If `from` and `to` are inclusive and no session gets another plug-in time, the parts of a window
together hold all its sessions. The distinct rows of the parts are compared with the totals of the whole window before
and after, and with the rows that it still lists.

**Cannot be checked.** One read may contain an added session that it shows, a removed one, and a third one that moves
from the pages not yet read to those already read. Then the totals are right although the third one is missing. This
needs a list that is not sorted by an unchangeable plug-in time. Two such events are always noticed
(`tests/paging/test_model_check.py` enumerates them). If a list changes in both ways during two passes, a session is lost
only if it moves during both. Nothing shows a session that no response lists or counts: a replica that lags behind
throughout the read, or a server that always counts its own page, on a page shorter than requested. If only the last pass
meets such a replica, the session is taken for a removed one. As long as the last pass, or the last response after a split
by days, counts more sessions than were read, the list is read again, three times at most. From the third pass on, it is
enough that the rows are as many as each total before that pass: a list that grows all the time never has fewer sessions
than its last total. So a session that replicas hide throughout all passes before the last is taken for an added one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import takewhile

from podero_async._decode import RowId
from podero_async._paging.page import Page

__all__ = ["Order", "fits", "is_aligned", "order_of", "overlaps"]

# The fraction of a page by which a list may move between two requests and still be taken for the same list.
_MAX_SHIFT = 0.1


class Order(enum.Enum):
    """The direction in which a list is sorted by plug-in time."""

    OLDEST_FIRST = enum.auto()
    NEWEST_FIRST = enum.auto()

    def precedes(self, one: datetime, other: datetime) -> bool:
        """Return whether a session plugged in at `one` comes strictly before a session plugged in at `other`."""
        return one < other if self is Order.OLDEST_FIRST else one > other


def order_of(page: Page) -> Order | None:
    """Return the order of a page's rows; None if they are unsorted, have one time only, or have an unreadable time."""
    times = [time for time in page.times if time is not None]
    if not times or len(times) < len(page.times):
        return None
    if times[0] < times[-1] and times == sorted(times):
        return Order.OLDEST_FIRST
    if times[0] > times[-1] and times == sorted(times, reverse=True):
        return Order.NEWEST_FIRST
    return None


def fits(page: Page, order: Order) -> bool:
    """Return whether a page may come from a list of this order. Rows that all have one time fit every order."""
    return order_of(page) is order or (None not in page.times and len(set(page.times)) <= 1)


def overlaps(before: Page, after: Page, order: Order) -> bool:
    """Return whether two pages overlap, so that no session is missing between them. Both pages must fit the order.

    Three conditions have to hold:

    1. `after` starts strictly before `before` ends. If they only touch, another session of that time may be on neither.
    2. In the overlap, both pages list mostly the same rows.
    3. The overlap is about as long as the two offsets say.

    The second and third condition reject pages of an unsorted list that the server sorts one by one.
    """
    if not before.count or not after.count:
        return False
    start, end = after.times[0], before.times[-1]
    if start is None or end is None or not order.precedes(start, end):
        return False
    last_rows = zip(reversed(before.ids), reversed(before.times), strict=True)
    tail = _rows_while(lambda time: not order.precedes(time, start), last_rows)
    head = _rows_while(lambda time: not order.precedes(end, time), zip(after.ids, after.times, strict=True))
    shared = tail.keys() & head.keys()
    # Rows at the first or last time of the overlap may be missing on one page although the list did not change.
    removed = sum(tail[row] != start for row in tail.keys() - shared)
    added = sum(head[row] != end for row in head.keys() - shared)
    shift = abs(len(tail) - (before.end - after.offset))
    return len(shared) >= max(1, removed + added) and shift <= max(1, before.count * _MAX_SHIFT)


def is_aligned(before: Page, after: Page) -> bool:
    """Return whether two pages overlap exactly as their offsets say, as in a list that does not change."""
    rows = before.end - after.offset
    return rows > 0 and before.ids[-rows:] == after.ids[:rows]


def _rows_while(
    is_inside: Callable[[datetime], bool], rows: Iterable[tuple[RowId, datetime | None]]
) -> dict[RowId, datetime | None]:
    """Return the rows before the first one with a time outside. An overlap is short, so this looks at few rows."""
    return dict(takewhile(lambda row: row[1] is not None and is_inside(row[1]), rows))

"""The evidence that single pages give: their order, their overlaps, their totals, and the rows that are new on them."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import pytest

from podero_async._decode import RowId
from podero_async._paging.page import Page
from podero_async._paging.proof import Order, fits, order_of, overlaps
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window
from tests._support.clients import page_body, wire_row
from tests._support.drifting_list import START, page_of


def at(*minutes: int | None, offset: int = 0, total: int = 100, ids: str | None = None) -> Page:
    """Make a page of rows plugged in at these minutes; a row's id is its minute, or a letter of `ids`."""
    times = [None if minute is None else START + timedelta(minutes=minute) for minute in minutes]
    return page_of(offset, total, list(zip(times, ids or map(str, minutes), strict=True)))


@pytest.mark.parametrize(
    ("page", "order"),
    [
        (at(1, 2, 3), Order.OLDEST_FIRST),
        (at(1, 2), Order.OLDEST_FIRST),
        (at(2, 1), Order.NEWEST_FIRST),
        (at(3, 2, 1), Order.NEWEST_FIRST),
        (at(1, 1, 2), Order.OLDEST_FIRST),
        (at(1, 3, 2), None),
        (at(2, 1, 3), None),
        (at(1, 1, 1), None),
        (at(1), None),
        (at(), None),
        (at(1, None, 2), None),
    ],
)
def test_the_order_of_a_page_follows_from_its_times(page: Page, order: Order | None) -> None:
    """Unsorted rows, rows of a single time and unreadable times show no order."""
    assert order_of(page) is order


def test_a_page_of_one_time_fits_any_order() -> None:
    """Pages whose rows have one time fit either order; a page sorted the other way,
    or with an unreadable time, does not.
    """
    for order in Order:
        assert fits(at(1), order)
        assert fits(at(1, 1), order)
        assert fits(at(), order)
        assert not fits(at(None), order)
    assert not fits(at(1, 2), Order.NEWEST_FIRST)


EIGHT = at(1, 2, 3, 4, 5, 6, 7, 8)
SIX = at(10, 20, 30, 40, 50, 60)


def mirrored(page: Page) -> Page:
    """Turn a page that runs by minutes into one that runs the other way."""
    times = [time and START - (time - START) for time in page.times]
    return page_of(page.offset, page.total, list(zip(times, map(str, page.ids), strict=True)))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (EIGHT, at(7, 8, 9, 10, offset=6), True),
        (EIGHT, at(6, 8, 9, 10, offset=6), True),  # 7 was removed in between
        (EIGHT, at(8, 9, 10, offset=7), False),  # they only touch: another session of this time may be on neither
        (EIGHT, at(9, 10, offset=6), False),  # a gap
        (EIGHT, at(5, 9, 10, offset=6), False),  # 6, 7 and 8 are missing from the second page
        (EIGHT, at(2, 3, 4, 5, 6, 7, 8, 9, offset=6), False),  # the overlap is far longer than the offsets say
        (EIGHT, at(6, 7, 8, 9, offset=7), False),  # two rows longer than the offsets say
        (EIGHT, at(7, 9, 10, offset=6), True),  # 7 is shared, and 8 was removed
        (EIGHT, at(6, 9, 10, 11, offset=5), False),  # more rows were removed than are shared
        (SIX, at(50, 52, 54, 60, 70, offset=4), True),  # two rows were added, two are shared
        (SIX, at(50, 52, 54, 56, 60, 70, offset=4), False),  # more rows were added than are shared
        (SIX, at(40, 52, 54, 60, 70, offset=3), False),  # more rows were added and removed than are shared
        (at(1, 2, 3, 4, ids="abcd"), at(3, 4, 5, ids="xye", offset=2), False),  # other rows at the same times
        (EIGHT, at(offset=8), False),
        (at(), at(1, 2), False),
        (at(1, 2, 2, ids="axy"), at(2, 2, 3, ids="yzb", offset=1), False),  # rows of one time, cut off on both pages
        (at(1, 2, 2, ids="axy"), at(1, 2, 2, 2, 3, ids="axyzb"), True),  # all of them on the second page
    ],
)
def test_pages_overlap_only_if_no_session_fits_between(before: Page, after: Page, expected: bool) -> None:
    """Pages overlap if they share rows of more than one time and agree about the rest, in both directions."""
    assert overlaps(before, after, Order.OLDEST_FIRST) is expected
    assert overlaps(mirrored(before), mirrored(after), Order.NEWEST_FIRST) is expected


def test_pages_with_an_unreadable_time_at_the_edge_do_not_overlap() -> None:
    """If the time of a page's first or last row is unreadable, the page proves nothing about its neighbour."""
    assert not overlaps(at(1, 2, None), at(2, 3, 4, offset=1), Order.OLDEST_FIRST)
    assert not overlaps(at(1, 2, 3), at(None, 3, 4, offset=1), Order.OLDEST_FIRST)


@pytest.mark.parametrize(
    ("offset", "count", "total", "is_inconsistent", "is_whole"),
    [
        (0, 0, 0, False, True),
        (0, 3, 3, False, True),
        (0, 3, 5, False, False),
        (0, 3, 2, True, False),
        (5, 0, 5, False, False),
        (7, 0, 5, False, False),
        (4, 0, 5, True, False),
        (0, 0, -1, True, False),
        (5, 1, 6, False, False),
        (5, 2, 6, True, False),
        (0, 3, 1_000_000, False, False),
        (0, 3, 1_000_001, True, False),
    ],
)
def test_an_impossible_total_is_inconsistent(
    offset: int, count: int, total: int, is_inconsistent: bool, is_whole: bool
) -> None:
    """A total is inconsistent if it is less than the rows shown, more than an empty page allows, or over a million."""
    page = at(*range(count), offset=offset, total=total)
    assert (page.is_inconsistent, page.is_whole) == (is_inconsistent, is_whole)


@pytest.mark.parametrize(
    ("count", "total", "pages"),
    [(0, 0, 0), (1, 3, 1), (3, 200, 1), (3, 201, 2), (3, 400, 2), (3, 50_000, 250), (3, 2, 1), (3, 10**9, 1)],
)
def test_the_number_of_pages_follows_from_the_total(count: int, total: int, pages: int) -> None:
    """A list has as many pages of 200 rows as its total needs, however short the first one, and one if it is impossible."""
    assert at(*range(count), total=total).pages == pages


def test_an_unreadable_row_counts_as_delivered() -> None:
    """A list is whole even if one row of it is unreadable."""
    page = Page.read(0, 200, page_body(wire_row(1), wire_row(2, is_at_home=5)))
    assert (page.count, page.is_whole) == (2, True)


@pytest.mark.parametrize(("rows", "limit", "is_whole"), [(2, 3, True), (3, 3, False), (4, 3, True)])
def test_a_page_as_long_as_requested_may_be_cut_off(rows: int, limit: int, is_whole: bool) -> None:
    """A full page is not taken for the whole list, and a longer one shows that the server ignores the limit."""
    assert Page.read(0, limit, page_body(*map(wire_row, range(1, rows + 1)))).is_whole is is_whole


@pytest.mark.parametrize(
    ("time", "is_outside"),
    [
        ("2026-01-09T00:00:00Z", False),  # a day before the window, and so perhaps a local day within it
        ("2026-01-08T23:59:59Z", True),
        ("2026-01-13T00:59:59+01:00", False),
        ("2026-01-13T00:00:00Z", True),
        ("0001-01-01T00:00:00+01:00", True),  # years that UTC does not have
        ("9999-12-31T23:59:59-01:00", True),
    ],
)
def test_a_page_is_outside_its_window_if_most_of_its_rows_are(time: str, is_outside: bool) -> None:
    """A row counts as outside if it lies more than a day before or after the window, in any year and at any offset."""
    page = Page.read(0, 200, page_body(*(wire_row(number, plug_in_time=time) for number in range(1, 20))))
    assert page.is_mostly_outside(Window(date(2026, 1, 10), date(2026, 1, 11))) is is_outside
    assert not page.is_mostly_outside(Window(date.min, date.max))


def test_a_row_that_is_twice_on_a_page_is_delivered_once() -> None:
    """The first of equal rows is new, and the second is not."""
    page = Page.read(0, 200, page_body(wire_row(1), wire_row(2), wire_row(1)))
    assert (page.is_whole, page.rows.are_distinct) == (False, False)
    rows = page.new_rows(set())
    assert ([row.id.int for row in rows.sessions()], rows.total) == ([1, 2], 3)


def test_rows_of_earlier_pages_are_dropped() -> None:
    """A page delivers the sessions and the unreadable rows that no earlier page had, under their own indexes."""
    unreadable, without_id = wire_row(2, is_at_home=5), wire_row(4, id=None)
    body = page_body(wire_row(1), unreadable, wire_row(3), without_id, wire_row(5), total=90)
    seen: set[RowId] = set()
    first = Page.read(40, 200, body).new_rows(seen)
    assert ([row.id.int for row in first.sessions()], [item.index for item in first.rejected]) == ([1, 3, 5], [41, 43])
    assert first.total == 90
    again = Page.read(40, 200, body).new_rows(seen)
    assert (len(again), again.sessions(), again.rejected) == (0, [], [])
    body = page_body(wire_row(3), without_id, wire_row(6), wire_row(7, is_at_home=5), total=90)
    later = Page.read(40, 200, body).new_rows(seen)
    assert ([row.id.int for row in later.sessions()], later.total) == ([6], 90)
    assert [item.index for item in later.rejected] == [43]


def test_a_window_splits_into_disjoint_windows() -> None:
    """Each day of a window is in exactly one part, the newest first."""
    window = Window(date(2026, 1, 1), date(2026, 3, 1), include_hidden=True)
    for count in (1, 2, 7, window.days):
        parts = window.split(count)[::-1]
        assert len(parts) == count
        assert (parts[0].from_date, parts[-1].to_date) == (window.from_date, window.to_date)
        assert all(later.from_date - earlier.to_date == timedelta(days=1) for earlier, later in pairwise(parts))
        assert all(part.include_hidden and part.days >= 1 for part in parts)


async def test_a_session_listed_in_two_windows_is_delivered_once() -> None:
    """If a server lists one session under two days, it is delivered once."""
    days = [date(2026, 1, 1), date(2026, 1, 2)]
    bodies = {
        (days[0], days[1]): page_body(*map(wire_row, (1, 3, 2)), total=4),
        (days[1], days[1]): page_body(*map(wire_row, (4, 3, 2))),
        (days[0], days[0]): page_body(wire_row(2), wire_row(1)),
    }

    async def fetch(window: Window, offset: int) -> Page:
        body = bodies[window.from_date, window.to_date]
        return Page.read(offset, 200, body)

    window = Window(days[0], days[1])
    reader = SessionListReader(fetch, window, await fetch(window, 0), ahead=2)
    ids = [row.id.int async for rows in reader.new_rows() for row in rows.sessions()]
    assert sorted(ids) == [1, 2, 3, 4]

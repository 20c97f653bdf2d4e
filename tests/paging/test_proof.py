"""What pages prove: order, joints, and the words of a server that contradicts itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from podero_async import SessionsPage
from podero_async._decode import PageOutline
from podero_async._paging.page import NewRows, Page
from podero_async._paging.proof import Order, fits, order_of, overlaps
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window
from tests._support.clients import page_body, wire_row

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(*minutes: int | None, offset: int = 0, total: int = 100, ids: str | None = None) -> Page:
    """Make a page of rows plugged in at these minutes; a row's id is its minute, or a letter of `ids`."""
    names = list(ids) if ids else [str(minute) for minute in minutes]
    times = [None if minute is None else START + timedelta(minutes=minute) for minute in minutes]
    return page_with(offset, total, names, times)


def page_with(offset: int, total: int, ids: list[str], times: list[datetime | None]) -> Page:
    outline = PageOutline(total, ids, times)
    return Page(offset, total, len(ids), lambda: SessionsPage(total=total, items=[]), lambda: outline)


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
def test_an_order_is_seen_only_where_there_is_one(page: Page, order: Order | None) -> None:
    """A shuffled list would be taken for a sorted one."""
    assert order_of(page) is order


def test_a_page_of_one_time_fits_any_order() -> None:
    """The last page of a list, with one row on it, would break the proof."""
    for order in Order:
        assert fits(at(1), order)
        assert fits(at(1, 1), order)
        assert fits(at(), order)
        assert not fits(at(None), order)
    assert not fits(at(1, 2), Order.NEWEST_FIRST)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("before", "after", "joined"),
    [
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(7, 8, 9, 10, offset=6), True),
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(6, 8, 9, 10, offset=6), True),  # 7 was removed in between
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(8, 9, 10, offset=7), False),  # they only touch: another 8 may be cut
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(9, 10, offset=6), False),  # a gap
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(5, 9, 10, offset=6), False),  # no row in common but the cut one: 6, 7, 8 gone?
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(2, 3, 4, 5, 6, 7, 8, 9, offset=6), False),  # far from where its offset says
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(6, 7, 8, 9, offset=7), False),  # two rows further than its offset says
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(7, 9, 10, offset=6), True),  # one row in common, and the cut one gone
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(6, 9, 10, 11, offset=5), False),  # more rows went than are in common
        (at(10, 20, 30, 40, 50, 60), at(50, 52, 54, 60, 70, offset=4), True),  # two came, two are in common
        (at(10, 20, 30, 40, 50, 60), at(50, 52, 54, 56, 60, 70, offset=4), False),  # more came than are in common
        (at(10, 20, 30, 40, 50, 60), at(40, 52, 54, 60, 70, offset=3), False),  # came and went, more than in common
        (at(1, 2, 3, 4, ids="abcd"), at(3, 4, 5, ids="xye", offset=2), False),  # other rows at the same times
        (at(1, 2, 3, 4, 5, 6, 7, 8), at(offset=8), False),
        (at(), at(1, 2), False),
        (at(1, 2, 2, ids="axy", offset=0), at(2, 2, 3, ids="yzb", offset=1), False),  # a tied group cut in both
        (at(1, 2, 2, ids="axy", offset=0), at(1, 2, 2, 2, 3, ids="axyzb", offset=0), True),  # whole in the second
    ],
)
def test_pages_join_only_where_nothing_fits_between(before: Page, after: Page, joined: bool, mirrored: bool) -> None:
    """A session between two pages would be lost, and the read be called complete."""
    order = Order.OLDEST_FIRST
    if mirrored:
        order = Order.NEWEST_FIRST
        before, after = (
            page_with(page.offset, page.total, page.ids, [START - (time - START) for time in page.times if time])
            for page in (before, after)
        )
    assert overlaps(before, after, order) is joined


def test_pages_with_a_time_that_cannot_be_read_do_not_join() -> None:
    """A row whose place nobody knows would be taken for proof."""
    assert not overlaps(at(1, 2, None), at(2, 3, 4, offset=1), Order.OLDEST_FIRST)
    assert not overlaps(at(1, 2, 3), at(None, 3, 4, offset=1), Order.OLDEST_FIRST)


@pytest.mark.parametrize(
    ("offset", "count", "total", "contradicts", "whole"),
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
def test_a_total_that_cannot_be_true_is_seen(
    offset: int, count: int, total: int, contradicts: bool, whole: bool
) -> None:
    """A server that miscounts would be believed."""
    page = at(*range(count), offset=offset, total=total)
    assert (page.is_inconsistent, page.is_whole) == (contradicts, whole)


@pytest.mark.parametrize(
    ("count", "total", "pages"), [(0, 0, 0), (1, 3, 3), (3, 5, 2), (3, 6, 2), (3, 7, 3), (3, 2, 1), (3, 10**9, 1)]
)
def test_a_list_says_how_many_pages_it_has(count: int, total: int, pages: int) -> None:
    """A long list would take the room of all others, or a server that lies as much as it likes."""
    assert at(*range(count), total=total).pages == pages


def test_a_bad_row_counts_as_delivered() -> None:
    """A list with one bad row would never be whole, and be read again and again."""
    page = Page.decoded(page_body(wire_row(1), wire_row(2, is_at_home=5)))
    assert (page.count, page.is_whole, page.is_whole_and_distinct) == (2, True, True)


def test_a_whole_list_of_distinct_rows_needs_no_outline() -> None:
    """Small vehicles would cost twice the decoding."""
    page = Page.decoded(page_body(wire_row(1), wire_row(2)))
    assert (page.is_whole, page.has_distinct_rows, page.count) == (True, True, 2)
    assert len(NewRows(page, None).decode().items) == 2
    assert NewRows.of(page, set()).is_new is None, "nothing is to be left out, so nothing is copied"
    assert not Page.outlined(0, page_body(wire_row(1), wire_row(2))).is_whole_and_distinct, "nobody looked for doubles"


def test_the_first_page_of_several_is_decoded_when_its_list_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pages of all lists under way would be kept decoded, and hold the loop up in each pass of the collector."""
    decoded: list[bytes] = []

    def decode(body: bytes, **_: object) -> SessionsPage:
        decoded.append(body)
        return SessionsPage(total=0, items=[])

    monkeypatch.setattr("podero_async._paging.page.decode_page", decode)
    rows = [wire_row(1), wire_row(2)]
    Page.first(2, page_body(*rows))
    Page.first(2, b'{"items": [], "of": 1, "total": 2}')
    assert len(decoded) == 2, "it may be the whole list"
    page = Page.first(2, page_body(*rows, total=3))
    assert (len(decoded), page.offset, page.count, page.total, page.is_whole) == (2, 0, 2, 3, False)
    page.decode()
    assert len(decoded) == 3
    Page.first(2, page_body(*rows, total=3) + b" " * (256 << 10))
    assert len(decoded) == 4, "off the event loop, as it was when it came"
    Page.first(2, page_body(*rows, total=3) + b"\xff")
    assert len(decoded) == 5, "it might be broken, and is asked for again only now"


def test_doubles_within_one_answer_are_dropped() -> None:
    """A session would be paid twice."""
    page = Page.decoded(page_body(wire_row(1), wire_row(2), wire_row(1)))
    assert (page.is_whole, page.has_distinct_rows) == (True, False)
    decoded = NewRows.of(page, set()).decode()
    assert ([row.id.int for row in decoded.items], decoded.total) == ([1, 2], 3)


def test_known_rows_are_left_out_good_and_bad_ones() -> None:
    """An overlap would show as doubled sessions, or a bad row be reported for its neighbour."""
    bad, worse = wire_row(2, is_at_home=5), wire_row(4, id=None)
    body = page_body(wire_row(1), bad, wire_row(3), worse, wire_row(5), total=90)
    seen: set[str] = set()
    first = NewRows.of(Page.outlined(40, body), seen).decode()
    assert ([row.id.int for row in first.items], [item.index for item in first.rejected]) == ([1, 3, 5], [41, 43])
    assert first.total == 90
    again = NewRows.of(Page.outlined(40, body), seen)
    assert again.is_empty
    assert (again.decode().items, again.decode().rejected) == ([], [])
    later = NewRows.of(
        Page.outlined(40, page_body(wire_row(3), worse, wire_row(6), wire_row(7, is_at_home=5), total=90)), seen
    )
    assert ([row.id.int for row in later.decode().items], later.decode().total) == ([6], 90)
    assert [item.index for item in later.decode().rejected] == [43]


def test_a_window_splits_into_disjoint_days() -> None:
    """A day would be asked for twice, or not at all."""
    window = Window(date(2026, 1, 1), date(2026, 3, 1), include_hidden=True)
    for parts in (1, 2, 7, window.days):
        pieces = window.split(parts)[::-1]
        assert len(pieces) == parts
        assert (pieces[0].from_date, pieces[-1].to_date) == (window.from_date, window.to_date)
        assert all(later.from_date - earlier.to_date == timedelta(days=1) for earlier, later in pairwise(pieces))
        assert all(piece.include_hidden and piece.days >= 1 for piece in pieces)


async def test_a_session_that_two_windows_of_days_list_comes_once() -> None:
    """A session whose day the server sees otherwise than its neighbour's would be counted twice."""
    days = [date(2026, 1, 1), date(2026, 1, 2)]
    disordered = [wire_row(number) for number in (1, 3, 2)]
    bodies = {
        (days[0], days[1]): page_body(*disordered, total=4),
        (days[1], days[1]): page_body(wire_row(3), wire_row(2)),
        (days[0], days[0]): page_body(wire_row(2), wire_row(1)),
    }

    async def fetch(window: Window, offset: int) -> Page:
        body = bodies[window.from_date, window.to_date]
        return Page.outlined(offset, body) if offset else Page.decoded(body)

    window = Window(days[0], days[1])
    reader = SessionListReader(fetch, window, await fetch(window, 0), ahead=2)
    ids = [row.id.int async for piece in reader.new_rows() for row in piece.decode().items]
    assert sorted(ids) == [1, 2, 3]

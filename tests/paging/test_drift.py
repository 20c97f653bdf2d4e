"""The promise: a list that is called complete has lost no session, however it changed during the read."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podero_async import Completeness, CompletenessError
from podero_async._paging.page import Page
from podero_async._paging.window import Window
from tests._support.drifting_list import (
    FIRST_DAY,
    MISCOUNTS,
    START,
    MovingList,
    Ordering,
    Result,
    newest_first,
    oldest_first,
    page_of,
    read,
    shuffled,
    ties_shuffled,
)

VERIFIED, REPAIRED, UNPROVEN = Completeness.VERIFIED, Completeness.REPAIRED, Completeness.UNPROVEN
ONE_DAY = Window(FIRST_DAY, FIRST_DAY)


def check_promise(result: Result) -> None:
    assert len(result.ids) == len(set(result.ids)), "a session was delivered twice"
    assert result.completeness is UNPROVEN or not result.lost, f"{result.completeness} lost {len(result.lost)}"


def busy_day(order: Ordering) -> MovingList:
    moving = MovingList(random.Random(1), order=order)
    moving.rows = [(START + timedelta(minutes=minute), str(minute)) for minute in range(500)]
    return moving


# --- still lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [oldest_first, newest_first])
@pytest.mark.parametrize(
    ("rows", "requests"),
    [(0, 1), (1, 1), (199, 1), (200, 2), (201, 2), (395, 3), (396, 3), (1000, 6), (5000, 26)],
)
async def test_a_list_that_does_not_change_costs_few_extra_requests(rows: int, requests: int, order: Ordering) -> None:
    """A list of one page costs 1 request, and a list of 5,000 rows costs 26."""
    result = await read(MovingList(random.Random(rows), order=order).fill(rows))
    check_promise(result)
    assert (result.completeness, len(result.ids), result.requests, result.total) == (VERIFIED, rows, requests, rows)


@pytest.mark.parametrize("page_size", [4, 7, 50])
async def test_pages_smaller_than_the_limit_are_read_in_smaller_steps(page_size: int) -> None:
    """If a server returns fewer rows than requested, its list is read completely, in steps of its own page size."""
    result = await read(MovingList(random.Random(1), page_size=page_size).fill(300))
    check_promise(result)
    assert (result.completeness, len(result.ids)) == (VERIFIED, 300)
    assert result.requests <= 2 + ceil(300 / max(1, page_size - min(5, page_size - 1)))


# --- moving lists -----------------------------------------------------------------------------------------------------


@pytest.mark.soak
async def test_a_thousand_reads_of_moving_lists_lose_nothing(record_property: Callable[[str, object], None]) -> None:
    """A list that changes anywhere at most requests is proven complete, for less than 3 times the requests of plain paging.

    Plain offset paging loses sessions in 40 of 100 such reads.
    """
    verdicts: Counter[Completeness] = Counter()
    requests = plain_requests = 0
    for seed in range(1000):
        rng = random.Random(seed)
        rows = rng.randint(0, 2000)
        moving = MovingList(
            rng,
            insert_rate=rng.choice([0.1, 0.5]),
            remove_rate=rng.choice([0.05, 0.5]),
            burst=rng.choice([1, 1, 5, 30]),
            order=rng.choice([oldest_first, newest_first]),
        ).fill(rows)
        result = await read(moving, ahead=rng.choice([1, 4, 16]))
        check_promise(result)
        verdicts[result.completeness] += 1
        requests += result.requests
        plain_requests += max(1, ceil(rows / 200))
    assert verdicts[UNPROVEN] == 0
    assert verdicts[VERIFIED] > 300
    assert verdicts[REPAIRED] > 300
    assert requests < 3 * plain_requests
    record_property("figure", f"{requests / plain_requests:.2f} times the requests of plain paging; {dict(verdicts)}")


async def test_a_fleet_that_grows_during_the_read_costs_few_extra_requests() -> None:
    """If sessions are added at the newest end and rarely removed, proof costs less than 1.2 times plain paging."""
    requests = plain_requests = 0
    for seed in range(50):
        rng = random.Random(seed)
        rows = rng.randint(1, 2000)
        order = rng.choice([oldest_first, newest_first])
        moving = MovingList(rng, insert_rate=0.1, remove_rate=0.01, order=order, adds_newest=True).fill(rows)
        result = await read(moving)
        check_promise(result)
        assert result.completeness is not UNPROVEN
        requests += result.requests
        plain_requests += ceil(rows / 200)
    assert requests < 1.2 * plain_requests


async def test_a_list_without_order_is_proven_by_days() -> None:
    """If a list comes in another order at each request, it is REPAIRED, and complete."""
    for seed in range(30):
        rng = random.Random(seed)
        moving = MovingList(rng, insert_rate=0.1, remove_rate=0.1, order=shuffled).fill(rng.randint(201, 1500))
        result = await read(moving)
        check_promise(result)
        assert result.completeness is REPAIRED


async def test_a_day_of_several_pages_without_order_stays_unproven() -> None:
    """If one day has several pages and no order, nothing proves it complete, and `reason` says why."""
    result = await read(busy_day(shuffled), window=ONE_DAY)
    check_promise(result)
    assert (result.completeness, result.reason) == (UNPROVEN, "the list is not sorted by plug-in time")
    assert len(result.ids) > 300


async def test_a_day_of_several_pages_with_an_order_is_proven() -> None:
    """If one day has several pages and an order, overlapping pages prove it complete."""
    result = await read(busy_day(newest_first), window=ONE_DAY)
    assert (result.completeness, len(result.ids)) == (VERIFIED, 500)


async def test_pages_sorted_one_by_one_are_not_taken_for_a_sorted_list() -> None:
    """If a server sorts each page of an unsorted list, no verdict is false."""
    for seed in range(50):
        rng = random.Random(seed)
        moving = MovingList(rng, insert_rate=0.2, remove_rate=0.2, order=shuffled, sorts_pages=True)
        check_promise(await read(moving.fill(rng.randint(150, 600)), ahead=rng.choice([1, 16])))


@pytest.mark.parametrize("resolution_s", [600, 86400 // 4])
async def test_a_page_that_ends_among_rows_of_one_time_loses_none(resolution_s: int) -> None:
    """If sessions have the same plug-in time, they may be in any order on the pages."""
    for seed in range(30):
        rng = random.Random(seed)
        moving = MovingList(
            rng, insert_rate=0.2, remove_rate=0.2, order=ties_shuffled, resolution_s=resolution_s, page_size=20
        )
        check_promise(await read(moving.fill(rng.randint(0, 200))))


@pytest.mark.parametrize("page_size", [1, 2])
async def test_pages_too_short_to_overlap_are_not_verified(page_size: int) -> None:
    """If pages have one or two rows, the list is proven by days, or not at all."""
    moving = MovingList(random.Random(3), insert_rate=0.3, remove_rate=0.3, page_size=page_size).fill(40)
    result = await read(moving)
    check_promise(result)
    assert result.completeness is not VERIFIED


# --- servers that miscount --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("miscount", MISCOUNTS.values(), ids=MISCOUNTS)
async def test_a_wrong_total_never_shortens_a_list_unnoticed(miscount: Callable[[int, random.Random], int]) -> None:
    """All rows of a still list are delivered despite a wrong total, and a read that lost rows is UNPROVEN."""
    for seed in range(40):
        rng = random.Random(seed)
        moving = MovingList(rng, miscount=miscount, page_size=50, insert_rate=rng.choice([0, 0.3]))
        result = await read(moving.fill(rng.randint(51, 400)))
        assert result.completeness is UNPROVEN or not result.lost
        assert result.requests < 200
        assert moving.insert_rate or not result.lost


@pytest.mark.parametrize("total", [395, 400, 1000])
async def test_a_server_that_ignores_the_offset_is_an_error(total: int) -> None:
    """If every offset returns the first page, the read ends with `CompletenessError` after a few requests."""

    class Stuck(MovingList):
        async def fetch(self, window: Window, offset: int) -> Page:
            self.requests += 1
            return page_of(offset, total, [(START - timedelta(minutes=row), str(row)) for row in range(200)])

    moving = Stuck(random.Random(1))
    with pytest.raises(CompletenessError, match="no progress"):
        await read(moving)
    assert moving.requests <= 20


async def test_a_read_of_an_endless_list_ends() -> None:
    """If every page says that more rows follow, the read ends as UNPROVEN within 100 requests."""

    class Endless(MovingList):
        async def fetch(self, window: Window, offset: int) -> Page:
            self.requests += 1
            rows = range(offset, offset + 100)
            return page_of(offset, offset + 200, [(START - timedelta(minutes=row), str(row)) for row in rows])

    result = await read(Endless(random.Random(1)), window=ONE_DAY)
    assert result.completeness is UNPROVEN
    assert result.requests < 100


# --- anything at all --------------------------------------------------------------------------------------------------


def lists(*, sound: bool) -> st.SearchStrategy[MovingList]:
    """Make lists that change; a sound list has one order and right totals."""
    miscounts = [MISCOUNTS["negative"], MISCOUNTS["too large"], MISCOUNTS["far too large"]]
    return st.builds(
        MovingList,
        rng=st.integers(0, 2**32).map(random.Random),
        insert_rate=st.sampled_from([0, 0.1, 0.5, 1]),
        remove_rate=st.sampled_from([0, 0.1, 0.5, 1]),
        burst=st.sampled_from([1, 3, 30]),
        max_inserted=st.just(600),  # a list that grows without end is never proven
        page_size=st.sampled_from([1, 2, 3, 8, 20, 50]),
        order=st.sampled_from([oldest_first if sound else shuffled, newest_first, ties_shuffled]),
        sorts_pages=st.just(value=False) if sound else st.booleans(),
        resolution_s=st.sampled_from([1, 60, 3600, 86400]),
        miscount=st.none() if sound else st.none() | st.sampled_from(miscounts),
    )


@pytest.mark.slow
@pytest.mark.parametrize("reads", [50, pytest.param(2500, marks=pytest.mark.soak)])
@pytest.mark.parametrize("sound", [True, False])
def test_no_read_has_a_false_verdict(
    sound: bool, reads: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """No mixture of changes, page sizes, ties, disorder and wrong totals leads to a false verdict."""
    reads = max(1, round(reads * soak_scale))

    @settings(max_examples=reads, deadline=None)
    @given(moving=lists(sound=sound), rows=st.integers(0, 300), ahead=st.sampled_from([1, 5, 16]))
    def read_any_list(moving: MovingList, rows: int, ahead: int) -> None:
        result = asyncio.run(read(moving.fill(rows), ahead=ahead))
        check_promise(result)
        assert result.requests <= 4000

    read_any_list()
    record_property("figure", f"{reads:,} reads, 0 false verdicts")

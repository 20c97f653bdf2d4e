"""The promise: whatever moves while a list is read, what is called complete has lost nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from math import ceil

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podero_async import Completeness, CompletenessError
from podero_async._paging.window import Window
from tests._support.drifting_list import (
    FIRST_DAY,
    START,
    MovingList,
    Result,
    Row,
    map_in_order,
    newest_first,
    page_of,
    read,
    shuffled,
    ties_shuffled,
)

VERIFIED, REPAIRED, UNPROVEN = Completeness.VERIFIED, Completeness.REPAIRED, Completeness.UNPROVEN


def hold(result: Result) -> None:
    """Check the promise itself."""
    assert len(result.names) == len(set(result.names)), "a session was delivered twice"
    assert result.completeness is UNPROVEN or not result.lost, f"{result.completeness} lost {len(result.lost)}"


# --- still lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [map_in_order, newest_first])
@pytest.mark.parametrize(
    ("rows", "requests"),
    [(0, 1), (1, 1), (199, 1), (200, 1), (201, 2), (395, 3), (396, 3), (1000, 6), (5000, 26)],
)
async def test_a_still_list_costs_little_more_than_its_pages(
    rows: int, requests: int, order: Callable[[list[Row], random.Random], list[Row]]
) -> None:
    """Every fleet would pay for a proof that few lists need."""
    result = await read(MovingList(random.Random(rows), order=order).fill(rows))
    hold(result)
    assert (result.completeness, len(result.names), result.requests) == (VERIFIED, rows, requests)
    assert result.total == rows


@pytest.mark.parametrize("most_rows", [4, 7, 50])
async def test_a_clamped_limit_is_stepped_by_what_it_gives(most_rows: int) -> None:
    """A server that gives fewer rows than asked for would cost the rest of the list."""
    result = await read(MovingList(random.Random(1), most_rows=most_rows).fill(300))
    hold(result)
    assert (result.completeness, len(result.names)) == (VERIFIED, 300)
    assert result.requests <= 2 + ceil(300 / max(1, most_rows - min(5, most_rows - 1)))


# --- moving lists -----------------------------------------------------------------------------------------------------


async def test_a_thousand_reads_of_moving_lists_lose_nothing() -> None:
    """Plain offset paging loses sessions in 40 of 100 such reads, without a word."""
    verdicts: Counter[Completeness] = Counter()
    requests = least = 0
    for seed in range(1000):
        rng = random.Random(seed)
        rows = rng.randint(0, 2000)
        moving = MovingList(
            rng,
            insert_rate=rng.choice([0.1, 0.5]),
            remove_rate=rng.choice([0.05, 0.5]),
            burst=rng.choice([1, 1, 5, 30]),
            order=rng.choice([map_in_order, newest_first]),
        ).fill(rows)
        result = await read(moving, ahead=rng.choice([1, 4, 16]))
        hold(result)
        verdicts[result.completeness] += 1
        requests += result.requests
        least += max(1, ceil(rows / 200))
    assert verdicts[UNPROVEN] == 0
    assert verdicts[VERIFIED] > 600
    assert verdicts[REPAIRED] > 20
    assert requests < 1.5 * least


async def test_a_changing_order_is_proven_by_days() -> None:
    """A list without an order would be torn, or never be proven."""
    for seed in range(30):
        rng = random.Random(seed)
        moving = MovingList(rng, insert_rate=0.1, remove_rate=0.1, order=shuffled).fill(rng.randint(201, 1500))
        result = await read(moving)
        hold(result)
        assert result.completeness is REPAIRED


async def test_one_day_over_a_page_without_an_order_stays_unproven() -> None:
    """A guess would be sold as a proof."""
    window = Window(FIRST_DAY, FIRST_DAY)
    moving = MovingList(random.Random(1), order=shuffled)
    moving.rows = [(START + timedelta(minutes=minute), str(minute)) for minute in range(500)]
    result = await read(moving, window=window)
    hold(result)
    assert (result.completeness, result.doubt) == (UNPROVEN, "the list is not sorted by plug-in time")
    assert len(result.names) > 300


async def test_one_day_over_a_page_with_an_order_is_proven() -> None:
    """A busy day would be called doubtful for no reason."""
    moving = MovingList(random.Random(1))
    moving.rows = [(START + timedelta(minutes=minute), str(minute)) for minute in range(500)]
    result = await read(moving, window=Window(FIRST_DAY, FIRST_DAY))
    assert (result.completeness, len(result.names)) == (VERIFIED, 500)


async def test_pages_that_are_sorted_after_they_were_cut_are_not_believed() -> None:
    """A server that sorts each page of an unsorted list would pass for one that sorts the list."""
    for seed in range(150):
        rng = random.Random(seed)
        moving = MovingList(rng, insert_rate=0.2, remove_rate=0.2, order=shuffled, sorts_pages=True)
        hold(await read(moving.fill(rng.randint(150, 600)), ahead=rng.choice([1, 16])))


@pytest.mark.parametrize("resolution_s", [600, 86400 // 4])
async def test_ties_in_any_order_are_no_gap(resolution_s: int) -> None:
    """Sessions of the same time would be lost where a page ends among them."""
    for seed in range(60):
        rng = random.Random(seed)
        moving = MovingList(
            rng, insert_rate=0.2, remove_rate=0.2, order=ties_shuffled, resolution_s=resolution_s, most_rows=20
        )
        hold(await read(moving.fill(rng.randint(0, 200))))


async def test_pages_of_one_row_are_proven_by_days_or_not_at_all() -> None:
    """A server that clamps to one row would be believed without any overlap."""
    for most_rows in (1, 2):
        moving = MovingList(random.Random(3), insert_rate=0.3, remove_rate=0.3, most_rows=most_rows).fill(40)
        result = await read(moving)
        hold(result)
        assert result.completeness is not VERIFIED


# --- servers that miscount --------------------------------------------------------------------------------------------

LIES: dict[str, Callable[[int, random.Random], int]] = {
    "negative": lambda _, __: -1,
    "too small": lambda total, _: max(0, total - 7),
    "too large": lambda total, _: total + 7,
    "far too large": lambda total, _: total * 3 + 1000,
    "changing": lambda total, rng: total + rng.randint(-20, 20),
    "zero": lambda _, __: 0,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_total_that_lies_never_shortens_a_list_unnoticed(lie: Callable[[int, random.Random], int]) -> None:
    """A server that miscounts would cost sessions, and the read be called complete."""
    for seed in range(40):
        rng = random.Random(seed)
        moving = MovingList(rng, lie=lie, most_rows=50, insert_rate=rng.choice([0, 0.3])).fill(rng.randint(51, 400))
        result = await read(moving)
        if result.lost:
            assert result.completeness is UNPROVEN
        assert result.requests < 200
        if moving.insert_rate == 0:
            assert not result.lost, "what the server shows is delivered, proven or not"


async def test_a_list_that_ignores_the_offset_is_an_error() -> None:
    """The client would ask for ever, or call the first page the whole list."""
    rows = [(START - timedelta(minutes=minute), str(minute)) for minute in range(200)]
    for total in (395, 400, 1000):

        @attrs.define
        class Stuck(MovingList):
            async def fetch(self, window: Window, offset: int) -> object:  # type: ignore[override]
                self.requests += 1
                return page_of(offset, self.lie(0, self.rng), rows)  # type: ignore[misc]

        moving = Stuck(random.Random(1), lie=lambda _, __, total=total: total)  # type: ignore[misc]
        with pytest.raises(CompletenessError, match="no progress"):
            await read(moving)
        assert moving.requests < 12


async def test_an_endless_list_ends() -> None:
    """A broken server would keep the client busy for ever."""

    @attrs.define
    class Endless(MovingList):
        async def fetch(self, window: Window, offset: int) -> object:  # type: ignore[override]
            self.requests += 1
            rows = [(START - timedelta(minutes=offset + row), f"{offset + row}") for row in range(100)]
            return page_of(offset, offset + 200, rows)

    moving = Endless(random.Random(1))
    result = await read(moving, window=Window(FIRST_DAY, FIRST_DAY))
    assert result.completeness is UNPROVEN
    assert moving.requests < 100


# --- anything at all --------------------------------------------------------------------------------------------------


def lists(*, honest: bool) -> st.SearchStrategy[MovingList]:
    return st.builds(
        MovingList,
        rng=st.integers(0, 2**32).map(random.Random),
        insert_rate=st.sampled_from([0, 0.1, 0.5, 1]),
        remove_rate=st.sampled_from([0, 0.1, 0.5, 1]),
        burst=st.sampled_from([1, 3, 30]),
        most_inserted=st.just(600),  # a list that outgrows its reader proves nothing
        most_rows=st.sampled_from([1, 2, 3, 8, 20, 50]),
        order=st.sampled_from(
            [map_in_order, newest_first, ties_shuffled] if honest else [newest_first, shuffled, ties_shuffled]
        ),
        sorts_pages=st.just(value=False) if honest else st.booleans(),
        resolution_s=st.sampled_from([1, 60, 3600, 86400]),
        lie=st.none()
        if honest
        else st.none() | st.sampled_from([LIES["negative"], LIES["too large"], LIES["far too large"]]),
    )


async def _any_list(moving: MovingList, rows: int, ahead: int) -> None:
    result = await read(moving.fill(rows), ahead=ahead)
    hold(result)
    assert result.requests <= 4000


@settings(max_examples=150, deadline=None)
@given(moving=lists(honest=True), rows=st.integers(0, 300), ahead=st.sampled_from([1, 5, 16]))
async def test_no_stable_list_loses_anything(moving: MovingList, rows: int, ahead: int) -> None:
    """Some mixture of changes, clamps and ties would cost a session."""
    await _any_list(moving, rows, ahead)


@settings(max_examples=150, deadline=None)
@given(moving=lists(honest=False), rows=st.integers(0, 300), ahead=st.sampled_from([1, 5, 16]))
async def test_no_list_at_all_is_called_complete_when_it_lost_something(
    moving: MovingList, rows: int, ahead: int
) -> None:
    """Some mixture of disorder and wrong totals would be sold as a proof."""
    await _any_list(moving, rows, ahead)


@pytest.mark.soak
def test_no_list_at_all_in_the_long_run(soak_scale: float, record_property: Callable[[str, object], None]) -> None:
    """The rarer the mixture, the longer nobody would notice."""
    reads = max(1, round(5_000 * soak_scale))

    @settings(max_examples=reads, deadline=None)
    @given(moving=lists(honest=True) | lists(honest=False), rows=st.integers(0, 300), ahead=st.sampled_from([1, 5, 16]))
    def any_list(moving: MovingList, rows: int, ahead: int) -> None:
        asyncio.run(_any_list(moving, rows, ahead))

    any_list()
    record_property("figure", f"{reads:,} reads, 0 false verdicts")

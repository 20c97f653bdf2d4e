"""The values of a run: the days that it reads, and the digests that the store keeps."""

from __future__ import annotations

from datetime import date, timedelta
from hashlib import sha256
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podero_async.backfill._values import days_needed, digest_of, merged, scope_of_list

JAN = date(2026, 1, 1)


def day(number: int) -> date:
    """Return a day of January by its number; 32 is the 1st of February."""
    return JAN + timedelta(days=number - 1)


def spans_of(*pairs: tuple[int, int]) -> list[tuple[date, date]]:
    return [(day(first), day(last)) for first, last in pairs]


@pytest.mark.parametrize(
    ("window", "stored", "refresh_days", "needed"),
    [
        ((1, 31), [], 7, [(1, 31)]),
        ((1, 31), [(1, 31)], 0, []),
        ((1, 31), [(1, 31)], 7, [(25, 31)]),
        ((1, 40), [(1, 31)], 7, [(25, 40)]),
        ((1, 40), [(1, 31)], 0, [(32, 40)]),
        ((1, 40), [(1, 31)], 100, [(1, 40)]),
        ((1, 40), [(1, 31)], 1_000_000, [(1, 40)]),
        ((1, 40), [(10, 40)], 3, [(1, 9), (38, 40)]),
        ((1, 60), [(10, 20), (30, 40)], 2, [(1, 9), (21, 29), (39, 60)]),
        ((10, 12), [(1, 31)], 2, [(11, 12)]),
        ((50, 60), [(1, 31)], 7, [(50, 60)]),
    ],
)
def test_a_run_needs_the_missing_days_and_the_newest_stored_ones(
    window: tuple[int, int], stored: list[tuple[int, int]], refresh_days: int, needed: list[tuple[int, int]]
) -> None:
    """The needed days are those that are missing in the window, and the last `refresh_days` that are stored."""
    (asked,) = spans_of(window)
    assert days_needed(asked, spans_of(*stored), refresh_days) == spans_of(*needed)


SPAN = st.tuples(st.integers(1, 60), st.integers(0, 20)).map(lambda pair: (day(pair[0]), day(sum(pair))))


def days_of(spans: list[tuple[date, date]]) -> set[date]:
    return {first + timedelta(days=number) for first, last in spans for number in range((last - first).days + 1)}


@given(SPAN, st.lists(SPAN), st.integers(0, 10))
def test_needed_days_are_a_set_of_days(
    window: tuple[date, date], stored: list[tuple[date, date]], refresh_days: int
) -> None:
    """For any stored spans, the result covers exactly the needed days, in as few spans as possible."""
    asked, known = days_of([window]), days_of(stored)
    inside = asked & known
    again = {max(inside) - timedelta(days=back) for back in range(refresh_days)} & asked if inside else set()
    needed = days_needed(window, stored, refresh_days)
    assert days_of(needed) == (asked - known) | again
    assert needed == merged(needed)


PAIRS = [f"{UUID(int=number // 2)}/{UUID(int=number)}" for number in range(5)]


@pytest.mark.parametrize("slices", [[PAIRS], [PAIRS[:2], PAIRS[2:]], [[pair] for pair in PAIRS]])
def test_the_scope_of_a_list_is_independent_of_slices(slices: list[list[str]]) -> None:
    """The scope is the number of vehicles and the first 16 digits of the SHA-256 of their sorted pairs of ids."""
    assert scope_of_list(slices) == f"5 vehicles, {sha256(''.join(PAIRS).encode()).hexdigest()[:16]}"


def test_the_digest_of_ids_is_independent_of_their_order() -> None:
    """The digest is the first half of the SHA-256 of the distinct ids, sorted as text."""
    ids = [UUID(int=number) for number in (2, 1, 10, 2)]
    assert digest_of(ids) == sha256("".join(sorted({str(each) for each in ids})).encode()).hexdigest()[:32]
    assert digest_of([]) == sha256().hexdigest()[:32]

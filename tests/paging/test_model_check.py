"""The theorem of `_paging.proof`, checked in a small world: every order of few events between the responses of a read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

import attrs
import pytest

from podero_async import Completeness
from podero_async._paging.overlap import OverlapReader
from podero_async._paging.page import Page
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window
from tests._support.drifting_list import FIRST_DAY, START, ids_of, page_of

PAGE_SIZE = 4
SMALL_OVERLAP_READER = partial(OverlapReader, overlap_rows=2, min_rows_to_show_order=3)  # a page brings two new rows
ROWS = 6
WINDOW = Window(FIRST_DAY, FIRST_DAY + timedelta(days=ROWS - 1))
DAY = timedelta(days=1)


class Paths:
    """All sequences of choices, one after the other. A choice has as many options as the world then offers."""

    def __init__(self) -> None:
        self._choices: list[tuple[int, int]] = []
        self._depth = 0
        self.states = 1
        """Number of states that were visited: the beginning, and one per choice that was made for the first time."""

    def __iter__(self) -> Iterator[None]:
        while True:
            self._depth = 0
            yield
            while self._choices and self._choices[-1][0] + 1 == self._choices[-1][1]:
                self._choices.pop()
            if not self._choices:
                return
            choice, options = self._choices.pop()
            self._choices.append((choice + 1, options))
            self.states += 1

    def choose(self, options: int) -> int:
        """Choose one of the options; another one on the next path."""
        if self._depth == len(self._choices):
            self._choices.append((0, options))
            self.states += 1
        choice, _ = self._choices[self._depth]
        self._depth += 1
        return choice


@attrs.frozen
class Row:
    row_id: str
    time: datetime
    rank: float
    """The place in the list. It follows from the time, unless the server sorts by something else."""


@attrs.frozen
class Kind:
    """A server, and the events that happen to it."""

    order: str
    events: str
    """Names of the kinds of events. A session is added, removed, corrected (it gets another plug-in time) or touched (it
    moves to the newest end and keeps its time); one response has a wrong total, or lags behind by the last event."""
    limit: int = 2
    """Maximum number of events in one read."""
    rows: int = ROWS
    places: tuple[int, ...] = (1, ROWS, 2 * ROWS - 1)
    """Where sessions are added and moved, in half days: among the oldest, in the middle, among the newest."""
    is_reversed: bool = False
    """Whether concurrent pages are cut in the reverse order, from the end of the list."""


class SmallWorld:
    """Serves pages of a list. Between any two responses it chooses up to `limit` events."""

    def __init__(self, kind: Kind, choose: Callable[[int], int]) -> None:
        self.kind = kind
        self.choose = choose
        self.rows = [self.row(str(number), 2 * number) for number in range(kind.rows)]
        self.before = self.rows[:-1]  # the newest row was added just before the read
        self.throughout = {row.row_id for row in self.rows}
        self.events: Counter[str] = Counter()
        self.responses = 0

    def row(self, row_id: str, half_days: int) -> Row:
        """Make a row with a plug-in time `half_days` half days after the start."""
        rank = hash_of(row_id) if self.kind.order == "by id" else half_days
        return Row(row_id, START + half_days * DAY / 2 + timedelta(minutes=len(row_id)), rank)

    async def fetch(self, window: Window, offset: int) -> Page:
        if self.kind.is_reversed:
            for _ in range(3 * (self.kind.rows - offset)):
                await asyncio.sleep(0)
        total_error, rows = self.happen()
        self.responses += 1
        listed = [row for row in rows if window.from_date <= row.time.date() <= window.to_date]
        listed.sort(key=lambda row: row.rank, reverse=self.kind.order != "oldest first")
        page = [(row.time, row.row_id) for row in listed[offset : offset + PAGE_SIZE]]
        return page_of(offset, len(listed) + total_error, page, limit=PAGE_SIZE)

    def happen(self) -> tuple[int, list[Row]]:
        """Let events happen. Return the error of the next total, and the rows that the next response shows."""
        while self.events.total() < self.kind.limit:
            options = [("nothing", 0, 0), *self.options()]
            name, which, place = options[self.choose(len(options))]
            if name == "nothing":
                break
            self.events[name] += 1
            if name == "wrong total":
                return which, self.rows
            if name == "lagging":
                return 0, self.before
            self.before = self.rows
            if name == "insert":
                self.rows = sorted_by_time([*self.rows, self.row(f"new {self.events.total()}", place)])
                continue
            row = self.rows[which]
            others = self.rows[:which] + self.rows[which + 1 :]
            if name == "remove":
                self.throughout.discard(row.row_id)
                self.rows = others
            elif name == "correct":
                self.rows = sorted_by_time([*others, self.row(row.row_id, place)])
            else:  # the row moves to the newest end, and keeps its time
                self.rows = [*others, attrs.evolve(row, rank=99 + self.events.total())]
        return 0, self.rows

    def options(self) -> Iterator[tuple[str, int, int]]:
        """Yield the events that may happen now: a name, the row or the error, and a place in half days."""
        count = len(self.rows)
        for name in self.kind.events.split(", "):
            if name == "insert":
                yield from ((name, 0, place) for place in self.kind.places)
            elif name == "correct":
                yield from ((name, which, place) for which in range(count) for place in self.kind.places)
            elif name in ("remove", "touch"):
                yield from ((name, which, 0) for which in range(count))
            elif name == "wrong total":
                yield from ((name, error, 0) for error in (-1, 1))
            else:
                yield name, 0, 0


def sorted_by_time(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.time)


def hash_of(row_id: str) -> float:
    return sum(map(ord, row_id)) * 7 % 11


@attrs.define
class Outcomes:
    """The outcomes of all reads of a kind of server."""

    paths: int = 0
    states: int = 0
    verdicts: Counter[str] = attrs.field(factory=Counter)
    false: Counter[str] = attrs.field(factory=Counter)
    """False verdicts by the events that led to them."""
    requests: int = 0


async def check(kind: Kind) -> Outcomes:
    """Read a list once on every path."""
    outcomes, paths = Outcomes(), Paths()
    for _ in paths:
        world = SmallWorld(kind, paths.choose)
        first, ahead = await world.fetch(WINDOW, 0), 8 if kind.is_reversed else 1
        reader = SessionListReader(world.fetch, WINDOW, first, ahead=ahead, overlap_reader=SMALL_OVERLAP_READER)
        ids = await ids_of(reader)
        assert len(ids) == len(set(ids)), "a session was delivered twice"
        outcomes.paths += 1
        outcomes.requests = max(outcomes.requests, world.responses)
        outcomes.verdicts[reader.completeness.name] += 1
        if reader.completeness is not Completeness.UNPROVEN and world.throughout.difference(ids):
            outcomes.false[" + ".join(sorted(world.events.elements()))] += 1
    outcomes.states = paths.states
    return outcomes


CHANGES = "insert, remove, correct, touch"
ALL_EVENTS = f"{CHANGES}, wrong total, lagging"
ORDERS = ["newest first", "oldest first", "by id"]
NEWEST = (2 * ROWS - 1,)

HIDDEN_BY_LAG = {"lagging + lagging", "lagging + remove", "lagging + wrong total"}
"""The events that hide the newest session: no response lists it, and no total counts it."""


def report(outcomes: Outcomes, record_property: Callable[[str, object], None]) -> None:
    verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(outcomes.verdicts.items()))
    false = f"{outcomes.false.total():,} false verdicts {sorted(outcomes.false)}"
    record_property("figure", f"{outcomes.states:,} states, {outcomes.paths:,} reads: {verdicts}; {false}")


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("order", ORDERS)
async def test_no_single_event_leads_to_a_false_verdict(order: str, is_reversed: bool) -> None:
    """One change, wrong total or lagging response costs a few requests, and every read is proven."""
    outcomes = await check(Kind(order, ALL_EVENTS, limit=1, is_reversed=is_reversed))
    assert outcomes.paths > 100
    assert (dict(outcomes.false), outcomes.verdicts["UNPROVEN"]) == ({}, 0)
    assert outcomes.requests < 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "order", ["newest first", *(pytest.param(order, marks=pytest.mark.slow) for order in ORDERS[1:])]
)
async def test_two_changes_of_a_shorter_list_lead_to_no_false_verdict(order: str) -> None:
    """No two changes between any responses to the read of two pages lead to a false verdict."""
    outcomes = await check(Kind(order, CHANGES, rows=5, places=NEWEST))
    assert outcomes.paths > 1000
    assert not outcomes.false


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(Kind("newest first", ALL_EVENTS), marks=pytest.mark.slow),
        pytest.param(Kind("oldest first", ALL_EVENTS, rows=5, places=NEWEST), marks=pytest.mark.slow),
        pytest.param(Kind("oldest first", ALL_EVENTS), marks=pytest.mark.soak),
        pytest.param(Kind("by id", ALL_EVENTS), marks=pytest.mark.soak),
        pytest.param(Kind("newest first", CHANGES, is_reversed=True, places=NEWEST), marks=pytest.mark.slow),
        *(pytest.param(Kind(order, ALL_EVENTS, is_reversed=True), marks=pytest.mark.soak) for order in ORDERS),
    ],
)
async def test_no_two_events_lead_to_a_false_verdict(
    kind: Kind, record_property: Callable[[str, object], None]
) -> None:
    """Two events lead to a false verdict only if they hide the newest session: no response lists it or counts it."""
    outcomes = await check(kind)
    report(outcomes, record_property)
    assert outcomes.false.keys() <= HIDDEN_BY_LAG
    assert outcomes.verdicts["UNPROVEN"] < outcomes.paths / 200
    assert outcomes.requests <= 28


OLDEST, ANYWHERE = (1,), (1, ROWS, 2 * ROWS - 1)


@pytest.mark.parametrize(
    ("order", "move", "places", "false"),
    [
        pytest.param("newest first", "touch", OLDEST, {"insert + remove + touch"}, marks=pytest.mark.soak),
        pytest.param("oldest first", "touch", NEWEST, set(), marks=pytest.mark.soak),
        pytest.param("newest first", "touch", ANYWHERE, {"insert + remove + touch"}, marks=pytest.mark.soak),
        pytest.param("newest first", "correct", ANYWHERE, {"correct + insert + remove"}, marks=pytest.mark.soak),
        pytest.param("oldest first", "correct", NEWEST, set(), marks=pytest.mark.soak),
        pytest.param("by id", "correct", NEWEST, set(), marks=pytest.mark.soak),
    ],
)
async def test_three_changes_lead_to_a_false_verdict_only_if_they_are_of_three_kinds(
    order: str, move: str, places: tuple[int, ...], false: set[str], record_property: Callable[[str, object], None]
) -> None:
    """A moved session can be lost only if another one is added and a third one removed in the same read."""
    outcomes = await check(Kind(order, f"insert, remove, {move}", limit=3, rows=5, places=places))
    report(outcomes, record_property)
    assert outcomes.false.keys() == false

"""The promise as a state machine: the list changes between any two responses, and no verdict is false."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from podero_async import Completeness, CompletenessError
from podero_async._paging.page import Page
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window
from tests._support.drifting_list import FIRST_DAY, MISCOUNTS, START, Row, ids_of, page_of
from tests._support.fake_clock import LoopMachine, run_machine

MAX_ROWS = 600  # of a run, since a list that grows without end is never proven
MAX_REQUESTS = 3000  # of a read

ORDERS = ["shuffled", "sorted pages", "oldest first", "newest first"]
TOTALS = ["right", "shown so far", *MISCOUNTS]

WHICH = st.integers(0, 63)
COUNTS = st.sampled_from([1, 1, 1, 3, 10, 30])
PAGE_SIZES = st.sampled_from([20, 50, 20, 50, 20, 50, 8, 8, 3, 2, 1])


@attrs.define(eq=False)
class Request:
    """A request under way."""

    window: Window
    offset: int
    response: asyncio.Future[Page]
    page: Page | None = None
    """The page, if it was already taken from the list."""


class PagesMachine(LoopMachine):
    """Changes a list, takes its pages and sends them, in any order. After a read has ended, another read may begin."""

    verdicts: ClassVar[Counter[Completeness]] = Counter()

    @initialize(seed=st.integers(0, 2**32))
    def make(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)  # draws common cases more often than Hypothesis would
        days = rng.choice([1, 3, 12, 12, 30])
        self.window = Window(FIRST_DAY, FIRST_DAY + timedelta(days=days - 1))
        self.resolution_s = rng.choice([1, 1, 60, 3600, 43200])
        self.slots = days * 86400 // self.resolution_s
        self.page_size = rng.choice([50, 50, 20, 20, 8, 3, 2, 1])
        self.ahead = rng.choice([1, 4, 16])
        self.drift = rng.choice([0, 1, 3, 30])
        self.may_miscount, self.may_reorder = rng.choice([(False, False), (False, False), (True, False), (False, True)])
        self.is_sound = not (self.may_miscount or self.may_reorder)
        self.order = rng.choice(ORDERS) if self.may_reorder else "newest first"
        self.total = rng.choice(TOTALS) if self.may_miscount else "right"
        self.has_loose_ties = rng.choice([False, True])
        self.tie_seed = 0
        self.rows: list[Row] = []
        self.removed: list[Row] = []
        self.inserted = 0
        self.task: asyncio.Task[None] | None = None
        self.throughout: set[str] = set()
        self.insert(0, rng.randrange(rng.choice([60, 300])), "anywhere")
        self.begin()

    # --- the reader ---

    @precondition(lambda self: self.task.done())
    @rule()
    def begin(self) -> None:
        self.throughout = {row_id for _, row_id in self.rows}
        self.fits_days = True
        self.has_returned = False
        self.fullest = 0
        self.requests = 0
        self.pending: list[Request] = []
        self.task = self.spawn(self._read())
        self.step()

    async def _read(self) -> None:
        reader = SessionListReader(self._fetch, self.window, await self._fetch(self.window, 0), ahead=self.ahead)
        try:
            ids = await ids_of(reader)
        except CompletenessError:
            assert not self.is_sound, "gave up on a sound list"
        else:
            self._check(reader, ids)

    async def _fetch(self, window: Window, offset: int) -> Page:
        self.requests += 1
        assert self.requests <= MAX_REQUESTS, "the read does not end"
        request = Request(window, offset, asyncio.get_running_loop().create_future())
        self.pending.append(request)
        return await request.response

    def _check(self, reader: SessionListReader, ids: list[str]) -> None:
        self.verdicts[reader.completeness] += 1
        lost = self.throughout.difference(ids)
        assert len(ids) == len(set(ids)), "a session was delivered twice"
        if reader.completeness is not Completeness.UNPROVEN:
            assert not lost, f"{reader.completeness} lost {len(lost)}"
        elif self.is_sound:
            # A row that returns between all passes looks like one that its day does not list.
            assert not self.fits_days or self.has_returned, f"a sound list was not proven: {reader.reason}"

    # --- the server ---

    @precondition(lambda self: self._waiting())
    @rule(which=WHICH, count=st.sampled_from([1, 1, 2, 16]))
    def respond(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self._waiting()))):
            request = self._waiting()[which % len(self._waiting())]
            request.response.set_result(request.page or self._cut(request))
        self.step()

    @precondition(lambda self: self._waiting())
    @rule(which=WHICH)
    def respond_once(self, which: int) -> None:
        self.respond(which, 1)

    @precondition(lambda self: self._waiting())
    @rule(which=WHICH)
    def cut(self, which: int) -> None:
        """Take a page from the list now; it arrives later."""
        request = self._waiting()[which % len(self._waiting())]
        request.page = request.page or self._cut(request)

    def _waiting(self) -> list[Request]:
        self.pending = [request for request in self.pending if not request.response.done()]
        return self.pending

    def _cut(self, request: Request) -> Page:
        first, last = request.window.from_date, request.window.to_date
        if self.has_loose_ties:
            self.tie_seed = self.rng.randrange(1, 1009)
        rows = sorted(
            (row for row in self.rows if first <= row[0].date() <= last),
            key=lambda row: (row[0], int(row[1]) * self.tie_seed % 1009),
            reverse=self.order != "oldest first",
        )
        if self.order in ("shuffled", "sorted pages"):
            self.rng.shuffle(rows)
        self.fits_days &= self._fullest_day() <= self.page_size
        page = rows[request.offset : request.offset + self.page_size]
        if self.order == "sorted pages":
            page.sort(reverse=True)
        end = request.offset + len(page)
        total = len(rows)
        if self.total == "shown so far":
            total = min(total, end)
        elif self.total != "right":
            total = MISCOUNTS[self.total](total, self.rng)
        if total == end < len(rows) and (not request.offset or len(page) < self.fullest):
            total += 1  # no reader can see through a wrong total that looks like the end of the list
        self.fullest = max(self.fullest, len(page))
        return page_of(request.offset, total, page)

    def _fullest_day(self) -> int:
        return max(Counter(time.date() for time, _ in self.rows).values(), default=0)

    # --- the list ---

    @rule(place=st.integers(0, 1000), count=COUNTS, spread=st.sampled_from(["anywhere", "in a row", "at one time"]))
    def insert(self, place: int, count: int, spread: str) -> None:
        for number in range(min(count, MAX_ROWS - self.inserted)):
            self.inserted += 1
            slot = place * (self.slots - 1) // 1000 + (number if spread == "in a row" else 0)
            slot = self.rng.randrange(self.slots) if spread == "anywhere" else slot % self.slots
            self.rows.append((START + timedelta(seconds=slot * self.resolution_s), str(self.inserted)))

    @precondition(lambda self: self.rows)
    @rule(place=st.integers(0, 1000), count=COUNTS, spreads=st.booleans())
    def remove(self, place: int, count: int, spreads: bool) -> None:
        self.rows.sort()
        start = place * len(self.rows) // 1001
        removed = (
            self.rng.sample(self.rows, min(count, len(self.rows))) if spreads else self.rows[start : start + count]
        )
        self.rows = [row for row in self.rows if row not in removed]
        self.throughout.difference_update(row_id for _, row_id in removed)
        self.removed += removed

    @precondition(lambda self: self.removed)
    @rule(which=WHICH)
    def bring_back(self, which: int) -> None:
        """List a removed session again."""
        self.has_returned = True
        self.rows.append(self.removed.pop(which % len(self.removed)))

    @rule(page_size=PAGE_SIZES, tie_seed=st.integers(0, 1008), is_size=st.booleans())
    def change_pages(self, page_size: int, tie_seed: int, is_size: bool) -> None:
        """Change the size of pages, or the order of rows of the same time."""
        if is_size:
            self.page_size = page_size
        else:
            self.tie_seed = tie_seed

    @precondition(lambda self: self.may_miscount)
    @rule(total=st.sampled_from(TOTALS))
    def change_totals(self, total: str) -> None:
        self.total = total

    @precondition(lambda self: self.may_reorder)
    @rule(order=st.sampled_from(ORDERS))
    def reorder(self, order: str) -> None:
        self.order = order

    # --- the end ---

    def finish(self) -> None:
        """Let the read end, while the list goes on changing."""
        assert self.task is not None
        while not self.task.done():
            self.insert(0, self.rng.randint(0, self.drift), "anywhere")
            self.remove(0, self.rng.randint(0, self.drift), spreads=True)
            self.respond(self.rng.randrange(64), 1)


@pytest.mark.parametrize(
    "runs", [pytest.param(100, marks=pytest.mark.slow), pytest.param(5_000, marks=pytest.mark.soak)]
)
def test_no_order_of_events_leads_to_a_false_verdict(
    runs: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """Every read ends and delivers each session once, and a read that loses one is UNPROVEN."""
    PagesMachine.verdicts.clear()
    figure = run_machine(PagesMachine, runs * soak_scale)
    verdicts = ", ".join(f"{count:,} {verdict.name}" for verdict, count in sorted(PagesMachine.verdicts.items()))
    record_property("figure", f"{figure}; {PagesMachine.verdicts.total():,} reads: {verdicts}")

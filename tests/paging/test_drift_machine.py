"""A reader of a list that is paged by offset, whatever the list does between any two answers: what is proven is whole."""

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
from tests._support.drifting_list import FIRST_DAY, START, Row, page_of
from tests._support.fake_clock import LoopMachine, run_machine
from tests.paging.test_drift import LIES

_MAX_ROWS = 600  # in a run: a list that outgrows its reader proves nothing
_MAX_REQUESTS = 3000  # of a read

_ORDERS = ["shuffled", "sorted pages", "oldest first", "newest first"]
_LIES = [None, "so far", *LIES]

_WHICH = st.integers(0, 63)
_COUNT = st.sampled_from([1, 1, 1, 3, 10, 30])
_CLAMPS = st.sampled_from([20, 50, 20, 50, 20, 50, 8, 8, 3, 2, 1])


@attrs.define(eq=False)
class Asked:
    """A request under way."""

    window: Window
    offset: int
    answer: asyncio.Future[Page]
    page: Page | None = None
    """Its page, where that is cut already."""


class PagesMachine(LoopMachine):
    """Moves a list, cuts its pages and answers, in any order; reads it again where a read has ended."""

    verdicts: ClassVar[Counter[Completeness]] = Counter()

    @initialize(seed=st.integers(0, 2**32))
    def make(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)  # draws what is common as often as it should be, which Hypothesis does not
        days = rng.choice([1, 3, 12, 12, 30])
        self.window = Window(FIRST_DAY, FIRST_DAY + timedelta(days=days - 1))
        self.resolution_s = rng.choice([1, 1, 60, 3600, 43200])
        self.slots = days * 86400 // self.resolution_s
        self.clamp = rng.choice([50, 50, 20, 20, 8, 3, 2, 1])
        self.ahead = rng.choice([1, 4, 16])
        self.drift = rng.choice([0, 1, 3, 30])
        self.may_lie, self.may_reorder = rng.choice([(False, False), (False, False), (True, False), (False, True)])
        self.is_sound = not (self.may_lie or self.may_reorder)  # then there is one order, and totals are right
        self.order = rng.choice(_ORDERS) if self.may_reorder else "newest first"
        self.lie: str | None = rng.choice(_LIES) if self.may_lie else None
        self.has_loose_ties = rng.choice([False, True])
        self.tie_seed = 0
        self.rows: list[Row] = []
        self.gone: list[Row] = []
        self.named = 0
        self.task: asyncio.Task[None] | None = None
        self.throughout: set[str] = set()
        self.insert(0, rng.randrange(rng.choice([60, 300])), "anywhere")
        self.begin()

    # --- the reader ---

    @precondition(lambda self: self.task.done())
    @rule()
    def begin(self) -> None:
        self.throughout = {name for _, name in self.rows}
        self.fits_days = True
        self.fullest = 0
        self.requests = 0
        self.asked: list[Asked] = []
        self.task = self.spawn(self._read())
        self.step()

    async def _read(self) -> None:
        reader = SessionListReader(self._fetch, self.window, await self._fetch(self.window, 0), ahead=self.ahead)
        names = []
        try:
            async for piece in reader.new_rows():
                fresh = piece.is_new or [True] * piece.page.count
                names += [name for name, is_fresh in zip(piece.page.ids, fresh, strict=True) if is_fresh]
        except CompletenessError:
            assert not self.is_sound, "given up for no reason"
            return
        self._check(reader, names)

    async def _fetch(self, window: Window, offset: int) -> Page:
        self.requests += 1
        assert self.requests <= _MAX_REQUESTS, "reads for ever"
        asked = Asked(window, offset, asyncio.get_running_loop().create_future())
        self.asked.append(asked)
        return await asked.answer

    def _check(self, reader: SessionListReader, names: list[str]) -> None:
        self.verdicts[reader.completeness] += 1
        lost = self.throughout.difference(names)
        assert len(names) == len(set(names)), "delivered twice"
        if reader.completeness is not Completeness.UNPROVEN:
            assert not lost, f"{reader.completeness} lost {len(lost)}"
        elif self.is_sound:
            assert not self.fits_days, f"not proven for no reason: {reader.reason}"

    # --- the server ---

    @precondition(lambda self: self._waiting())
    @rule(which=_WHICH, count=st.sampled_from([1, 1, 2, 16]))
    def answer(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self._waiting()))):
            asked = self._waiting()[which % len(self._waiting())]
            asked.answer.set_result(asked.page or self._cut(asked))
        self.step()

    @precondition(lambda self: self._waiting())
    @rule(which=_WHICH)
    def answer_one(self, which: int) -> None:
        self.answer(which, 1)

    @precondition(lambda self: self._waiting())
    @rule(which=_WHICH)
    def cut(self, which: int) -> None:
        """Cut a page that arrives later."""
        asked = self._waiting()[which % len(self._waiting())]
        asked.page = asked.page or self._cut(asked)

    def _waiting(self) -> list[Asked]:
        self.asked = [asked for asked in self.asked if not asked.answer.done()]
        return self.asked

    def _cut(self, asked: Asked) -> Page:
        first, last = asked.window.from_date, asked.window.to_date
        if self.has_loose_ties:
            self.tie_seed = self.rng.randrange(1, 1009)
        rows = sorted(
            (row for row in self.rows if first <= row[0].date() <= last),
            key=lambda row: (row[0], int(row[1]) * self.tie_seed % 1009),
            reverse=self.order != "oldest first",
        )
        if self.order in ("shuffled", "sorted pages"):
            self.rng.shuffle(rows)
        self.fits_days &= self._fullest_day() <= self.clamp
        cut = rows[asked.offset : asked.offset + self.clamp]
        if self.order == "sorted pages":
            cut.sort(reverse=True)
        end = asked.offset + len(cut)
        total = len(rows)
        if self.lie:
            total = min(total, end) if self.lie == "so far" else LIES[self.lie](total, self.rng)
        if total == end < len(rows) and (not asked.offset or len(cut) < self.fullest):
            total += 1  # the one lie that nobody can see through: rows that are all there is, it says, and looks so
        self.fullest = max(self.fullest, len(cut))
        return page_of(asked.offset, total, cut)

    def _fullest_day(self) -> int:
        return max(Counter(time.date() for time, _ in self.rows).values(), default=0)

    # --- the list ---

    @rule(place=st.integers(0, 1000), count=_COUNT, where=st.sampled_from(["anywhere", "in a row", "at once"]))
    def insert(self, place: int, count: int, where: str) -> None:
        for number in range(min(count, _MAX_ROWS - self.named)):
            self.named += 1
            slot = place * (self.slots - 1) // 1000 + (number if where == "in a row" else 0)
            slot = self.rng.randrange(self.slots) if where == "anywhere" else slot % self.slots
            self.rows.append((START + timedelta(seconds=slot * self.resolution_s), str(self.named)))

    @precondition(lambda self: self.rows)
    @rule(place=st.integers(0, 1000), count=_COUNT, spreads=st.booleans())
    def remove(self, place: int, count: int, spreads: bool) -> None:
        self.rows.sort()
        start = place * len(self.rows) // 1001
        gone = self.rng.sample(self.rows, min(count, len(self.rows))) if spreads else self.rows[start : start + count]
        self.rows = [row for row in self.rows if row not in gone]
        self.throughout.difference_update(name for _, name in gone)
        self.gone += gone

    @precondition(lambda self: self.gone)
    @rule(which=_WHICH)
    def bring_back(self, which: int) -> None:
        """Show a session again that was hidden."""
        self.rows.append(self.gone.pop(which % len(self.gone)))

    @rule(clamp=_CLAMPS, tie_seed=st.integers(0, 1008), which=st.booleans())
    def change_pages(self, clamp: int, tie_seed: int, which: bool) -> None:
        """Give more rows or fewer from now on, or those of the same time in another order."""
        if which:
            self.clamp = clamp
        else:
            self.tie_seed = tie_seed

    @precondition(lambda self: self.may_lie)
    @rule(lie=st.sampled_from(_LIES))
    def begin_to_lie(self, lie: str | None) -> None:
        self.lie = lie

    @precondition(lambda self: self.may_reorder)
    @rule(order=st.sampled_from(_ORDERS))
    def reorder(self, order: str) -> None:
        self.order = order

    # --- the end ---

    def finish(self) -> None:
        """Let the read come to its end, over a list that goes on moving for as long as it can, or stands still."""
        assert self.task is not None
        while not self.task.done():
            self.insert(0, self.rng.randint(0, self.drift), "anywhere")
            self.remove(0, self.rng.randint(0, self.drift), spreads=True)
            self.answer(self.rng.randrange(64), 1)


def _run(runs: float) -> str:
    PagesMachine.verdicts.clear()
    told = run_machine(PagesMachine, runs)
    verdicts = ", ".join(f"{count:,} {verdict.name}" for verdict, count in sorted(PagesMachine.verdicts.items()))
    return f"{told}; {PagesMachine.verdicts.total():,} reads: {verdicts}"


def test_no_order_of_events_costs_a_session() -> None:
    """A session would be missing in a list that is called complete, or be there twice, or the read never end."""
    _run(100)


@pytest.mark.soak
def test_no_order_of_events_costs_a_session_in_the_long_run(
    soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The rarer the order, the longer nobody would notice."""
    record_property("figure", _run(5_000 * soak_scale))

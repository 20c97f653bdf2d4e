"""A list that moves while it is read, and a reader's result held against what existed throughout."""

from __future__ import annotations

import asyncio
import bisect
import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

import attrs

from podero_async import Completeness, SessionsPage
from podero_async._decode import PageOutline
from podero_async._paging.page import Page
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window

FIRST_DAY = date(2026, 1, 1)
DAYS = 90
WINDOW = Window(FIRST_DAY, FIRST_DAY + timedelta(days=DAYS - 1))
START = datetime(2026, 1, 1, tzinfo=UTC)

Row = tuple[datetime, str]


def map_in_order(rows: list[Row], rng: random.Random) -> list[Row]:
    return rows


def newest_first(rows: list[Row], rng: random.Random) -> list[Row]:
    return rows[::-1]


def shuffled(rows: list[Row], rng: random.Random) -> list[Row]:
    return rng.sample(rows, len(rows))


def ties_shuffled(rows: list[Row], rng: random.Random) -> list[Row]:
    """Sorted by time, but rows of the same time stand anyhow."""
    return sorted(rows, key=lambda row: (row[0], rng.random()), reverse=True)


@attrs.define
class MovingList:
    """Serves pages of a list in which rows come and go before each answer."""

    rng: random.Random
    insert_rate: float = 0.0
    remove_rate: float = 0.0
    burst: int = 1
    most_rows: int = 200
    order: Callable[[list[Row], random.Random], list[Row]] = newest_first
    sorts_pages: bool = False
    """Whether a page is sorted after it was cut, which makes any list look sorted."""
    resolution_s: int = 1
    """Times are multiples of it: a coarse one makes ties."""
    lie: Callable[[int, random.Random], int] | None = None
    rows: list[Row] = attrs.field(factory=list)
    throughout: set[str] = attrs.field(factory=set)
    most_inserted: int = 10**9
    requests: int = 0
    _named: int = 0

    def fill(self, count: int) -> MovingList:
        for _ in range(count):
            self.insert()
        self.throughout = {name for _, name in self.rows}
        return self

    def insert(self) -> None:
        if self._named >= self.most_inserted:
            return
        self._named += 1
        second = self.rng.randrange(DAYS * 86400 // self.resolution_s) * self.resolution_s
        bisect.insort(self.rows, (START + timedelta(seconds=second), str(self._named)))

    def remove(self) -> None:
        if self.rows:
            _, name = self.rows.pop(self.rng.randrange(len(self.rows)))
            self.throughout.discard(name)

    async def fetch(self, window: Window, offset: int) -> Page:
        self.requests += 1
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)  # so that pages asked for at once are cut in any order
        if self.rng.random() < self.insert_rate:
            for _ in range(self.rng.randint(1, self.burst)):
                self.insert()
        if self.rng.random() < self.remove_rate:
            for _ in range(self.rng.randint(1, self.burst)):
                self.remove()
        rows = self.order([row for row in self.rows if window.from_date <= row[0].date() <= window.to_date], self.rng)
        cut = rows[offset : offset + self.most_rows]
        if self.sorts_pages:
            cut.sort()
        total = self.lie(len(rows), self.rng) if self.lie else len(rows)
        return page_of(offset, total, cut)


def page_of(offset: int, total: int, rows: Sequence[Row]) -> Page:
    names, times = [name for _, name in rows], [time for time, _ in rows]
    outline = PageOutline(total, names, list(times))
    return Page(offset, total, len(rows), lambda: SessionsPage(total=total, items=[]), lambda: outline)


@attrs.frozen
class Result:
    completeness: Completeness
    names: list[str]
    lost: set[str]
    requests: int
    doubt: str
    total: int


async def read(moving: MovingList, *, ahead: int = 16, window: Window = WINDOW) -> Result:
    """Read a list whole, and say what was lost of what existed throughout."""
    reader = SessionListReader(moving.fetch, window, await moving.fetch(window, 0), ahead=ahead)
    names = []
    async for piece in reader.new_rows():
        fresh = piece.is_new or [True] * piece.page.count
        names += [name for name, is_fresh in zip(piece.page.ids, fresh, strict=True) if is_fresh]
    lost = moving.throughout - set(names)
    return Result(reader.completeness, names, lost, moving.requests, reader.reason, reader.total)

"""A list that changes while it is read, and the outcome of a read compared with the sessions that existed throughout."""

from __future__ import annotations

import asyncio
import bisect
import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import compress

import attrs

from podero_async import Completeness
from podero_async._paging.page import Page
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window
from podero_async._validation import MAX_PAGE_SIZE

FIRST_DAY = date(2026, 1, 1)
DAYS = 90
WINDOW = Window(FIRST_DAY, FIRST_DAY + timedelta(days=DAYS - 1))
START = datetime(2026, 1, 1, tzinfo=UTC)

Row = tuple[datetime, str]
"""A session's plug-in time and id."""

Ordering = Callable[[list[Row], random.Random], list[Row]]
"""Puts rows, which are sorted by time, into the order of the served list."""


def oldest_first(rows: list[Row], rng: random.Random) -> list[Row]:
    return rows


def newest_first(rows: list[Row], rng: random.Random) -> list[Row]:
    return rows[::-1]


def shuffled(rows: list[Row], rng: random.Random) -> list[Row]:
    return rng.sample(rows, len(rows))


def ties_shuffled(rows: list[Row], rng: random.Random) -> list[Row]:
    """Sort by time, with rows of the same time in random order."""
    return sorted(rows, key=lambda row: (row[0], rng.random()), reverse=True)


MISCOUNTS: dict[str, Callable[[int, random.Random], int]] = {
    "negative": lambda _, __: -1,
    "too small": lambda total, _: max(0, total - 7),
    "too large": lambda total, _: total + 7,
    "far too large": lambda total, _: total * 3 + 1000,
    "changing": lambda total, rng: total + rng.randint(-20, 20),
    "zero": lambda _, __: 0,
}
"""Functions that make wrong totals from right ones, by name."""


@attrs.define
class MovingList:
    """Serves pages of a list. Rows are added and removed before each page."""

    rng: random.Random
    insert_rate: float = 0.0
    remove_rate: float = 0.0
    burst: int = 1
    page_size: int = 200
    order: Ordering = newest_first
    sorts_pages: bool = False
    """Whether each page is sorted on its own, so that any list looks sorted."""
    resolution_s: int = 1
    """Plug-in times are multiples of it, so that a large value makes equal times."""
    miscount: Callable[[int, random.Random], int] | None = None
    adds_newest: bool = False
    """Whether a session that is added during the read is the newest, as in a fleet. Else its time is random."""
    rows: list[Row] = attrs.field(factory=list)
    throughout: set[str] = attrs.field(factory=set)
    max_inserted: int = 10**9
    requests: int = 0
    _inserted: int = 0

    def fill(self, count: int) -> MovingList:
        for _ in range(count):
            self.insert()
        self.throughout = {row_id for _, row_id in self.rows}
        return self

    def insert(self) -> None:
        if self._inserted >= self.max_inserted:
            return
        self._inserted += 1
        time = START + timedelta(seconds=self.rng.randrange(DAYS * 86400 // self.resolution_s) * self.resolution_s)
        if self.adds_newest and self.requests and self.rows:
            time = self.rows[-1][0] + timedelta(seconds=1)
        bisect.insort(self.rows, (time, str(self._inserted)))

    def remove(self) -> None:
        if self.rows:
            _, row_id = self.rows.pop(self.rng.randrange(len(self.rows)))
            self.throughout.discard(row_id)

    async def fetch(self, window: Window, offset: int) -> Page:
        self.requests += 1
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)  # so that concurrent pages are cut in any order
        for change, rate in ((self.insert, self.insert_rate), (self.remove, self.remove_rate)):
            if self.rng.random() < rate:
                for _ in range(self.rng.randint(1, self.burst)):
                    change()
        rows = self.order([row for row in self.rows if window.from_date <= row[0].date() <= window.to_date], self.rng)
        page = rows[offset : offset + self.page_size]
        if self.sorts_pages:
            page.sort()
        return page_of(offset, self.miscount(len(rows), self.rng) if self.miscount else len(rows), page)


@attrs.frozen
class BareRows:
    """The ids and times of a page's rows, in place of `PageRows`."""

    total: int
    ids: list[str]
    times: list[datetime | None]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def are_distinct(self) -> bool:
        return len(set(self.ids)) == len(self.ids)

    def select(self, is_new: list[bool] | None) -> BareRows:
        ids = self.ids if is_new is None else list(compress(self.ids, is_new))
        return BareRows(self.total, ids, [])


def page_of(
    offset: int, total: int, rows: Sequence[tuple[datetime | None, str]], *, limit: int = MAX_PAGE_SIZE
) -> Page:
    """Make a page of rows that have only ids and times, the response to a request for `limit` rows."""
    times, ids = [time for time, _ in rows], [row_id for _, row_id in rows]
    return Page(offset, BareRows(total, ids, times), limit)  # type: ignore[arg-type]


async def ids_of(reader: SessionListReader) -> list[str]:
    """Read a list of such pages completely, and return the ids as they are delivered."""
    return [str(row_id) async for rows in reader.new_rows() for row_id in rows.ids]


@attrs.frozen
class Result:
    completeness: Completeness
    ids: list[str]
    lost: set[str]
    """Ids that existed throughout the read and were not delivered."""
    requests: int
    reason: str
    total: int


async def read(moving: MovingList, *, ahead: int = 16, window: Window = WINDOW) -> Result:
    """Read a list completely."""
    reader = SessionListReader(moving.fetch, window, await moving.fetch(window, 0), ahead=ahead)
    ids = await ids_of(reader)
    lost = moving.throughout.difference(ids)
    return Result(reader.completeness, ids, lost, moving.requests, reader.reason, reader.total)

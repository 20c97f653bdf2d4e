"""Inconsistent pages, totals, windows or offsets lead to no false verdict, and to no fewer rows than plain paging."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta

import attrs
import pytest

from podero_async import (
    ApiError,
    Completeness,
    InvalidRequestError,
    NotFoundError,
    PoderoError,
    RequestTimeoutError,
    ServerError,
)
from podero_async._paging.page import Page
from podero_async._paging.reader import SessionListReader
from podero_async._paging.window import Window
from tests._support.drifting_list import DAYS, START, WINDOW, Row, ids_of, page_of

LIMIT = 200
ONE_DAY = timedelta(days=1)

VERIFIED, REPAIRED, UNPROVEN = Completeness.VERIFIED, Completeness.REPAIRED, Completeness.UNPROVEN


def made(count: int, seed: int = 0) -> list[Row]:
    """Make rows at random times, the newest first."""
    seconds = random.Random(seed).sample(range(DAYS * 86400), count)
    return [(START + timedelta(seconds=second), str(second)) for second in sorted(seconds, reverse=True)]


def by_id(rows: list[Row]) -> list[Row]:
    return random.Random(5).sample(rows, len(rows))


def day(row: Row) -> date:
    return row[0].date()


@attrs.define
class Server:
    """An honest server. Subclasses override one of its parts."""

    rows: list[Row]
    requests: int = 0

    def includes(self, row: Row, window: Window) -> bool:
        return window.from_date <= day(row) <= window.to_date

    def total(self, listed: list[Row], offset: int) -> int:
        return len(listed)

    def cut(self, listed: list[Row], offset: int) -> list[Row]:
        return listed[offset : offset + LIMIT]

    def shows(self, row: Row) -> bool:
        return True

    def change(self) -> None:
        """Change the list before a response."""

    async def fetch(self, window: Window, offset: int) -> Page:
        self.requests += 1
        self.change()
        listed = [row for row in self.rows if self.includes(row, window)]
        page = self.cut(listed, offset)
        return page_of(offset, self.total(listed, offset), page, limit=LIMIT)


class ToIsExclusive(Server):
    def includes(self, row: Row, window: Window) -> bool:
        return window.from_date <= day(row) < window.to_date


class FromIsExclusive(Server):
    def includes(self, row: Row, window: Window) -> bool:
        return window.from_date < day(row) <= window.to_date


class ToIsIgnored(Server):
    def includes(self, row: Row, window: Window) -> bool:
        return window.from_date <= day(row)


class FromIsIgnored(Server):
    def includes(self, row: Row, window: Window) -> bool:
        return day(row) <= window.to_date


class DaysAreIgnored(Server):
    def includes(self, row: Row, window: Window) -> bool:
        return True


class DaysAreLocal(Server):
    def includes(self, row: Row, window: Window) -> bool:
        return window.from_date <= (row[0] + timedelta(hours=2)).date() <= window.to_date


class RefusesShortWindows(Server):
    async def fetch(self, window: Window, offset: int) -> Page:
        if window.days < DAYS:
            raise InvalidRequestError(422, "the window is too short", "GET", "/sessions")
        return await Server.fetch(self, window, offset)


class RefusesLargeOffsets(Server):
    error: PoderoError = InvalidRequestError(400, "the offset is too large", "GET", "/sessions")

    async def fetch(self, window: Window, offset: int) -> Page:
        if offset > 1000:
            self.requests += 1
            raise self.error
        return await Server.fetch(self, window, offset)


class FailsOnLargeOffsets(RefusesLargeOffsets):
    error = ServerError(500, "result window is too large", "GET", "/sessions")


class IsTooSlowForLargeOffsets(RefusesLargeOffsets):
    error = RequestTimeoutError("no response within 30 s (read timeout)", "GET", "/sessions")


class LargeOffsetsAreEmpty(Server):
    def cut(self, listed: list[Row], offset: int) -> list[Row]:
        return listed[offset : offset + LIMIT] if offset < 1000 else []


class TotalIsCapped(Server):
    def total(self, listed: list[Row], offset: int) -> int:
        return min(10_000, len(listed))


class ListIsCapped(TotalIsCapped):
    def cut(self, listed: list[Row], offset: int) -> list[Row]:
        return listed[:10_000][offset : offset + LIMIT]


class RowsAreDoubled(Server):
    """A join doubles the rows, and the total counts distinct ones."""

    def cut(self, listed: list[Row], offset: int) -> list[Row]:
        return [row for row in listed for _ in range(2)][offset : offset + LIMIT]


class RowsAreFilteredAfterTheLimit(Server):
    """Every seventh row is dropped from its page. The total counts the others."""

    def shows(self, row: Row) -> bool:
        return int(row[1]) % 7 != 0

    def total(self, listed: list[Row], offset: int) -> int:
        return sum(map(self.shows, listed))

    def cut(self, listed: list[Row], offset: int) -> list[Row]:
        return list(filter(self.shows, listed[offset : offset + LIMIT]))


class DroppedRowsAreCounted(RowsAreFilteredAfterTheLimit):
    def total(self, listed: list[Row], offset: int) -> int:
        return len(listed)


class WholePagesAreDropped(DroppedRowsAreCounted):
    """Of the newest 1,900 rows only the first two and the middle one are shown, and the total counts all."""

    def shows(self, row: Row) -> bool:
        return self.rows.index(row) in {0, 1, 950} or self.rows.index(row) >= 1900


class LimitIsIgnored(Server):
    def cut(self, listed: list[Row], offset: int) -> list[Row]:
        return listed[offset : offset + 50]


class LimitAndOffsetAreIgnored(Server):
    def cut(self, listed: list[Row], offset: int) -> list[Row]:
        return listed


class OffsetIsIgnored(Server):
    def cut(self, listed: list[Row], offset: int) -> list[Row]:
        return listed[:LIMIT]


class TotalCountsThePage(Server):
    def total(self, listed: list[Row], offset: int) -> int:
        return offset + len(self.cut(listed, offset))


class TotalLooksAhead(Server):
    def total(self, listed: list[Row], offset: int) -> int:
        return offset + len(listed[offset : offset + LIMIT + 1])


class TotalIsTooSmall(Server):
    def total(self, listed: list[Row], offset: int) -> int:
        return len(listed) - 1


class TotalIsTooLarge(Server):
    def total(self, listed: list[Row], offset: int) -> int:
        return len(listed) + 1


class TotalCountsEverything(Server):
    def total(self, listed: list[Row], offset: int) -> int:
        return len(self.rows) + 300


class FirstTotalIsTooSmall(Server):
    def total(self, listed: list[Row], offset: int) -> int:
        return len(listed) - (self.requests == 1)


class FirstTotalIsTooLarge(Server):
    def total(self, listed: list[Row], offset: int) -> int:
        return len(listed) + (self.requests == 1)


class FirstResponseLags(Server):
    """The first response comes from a replica that lacks the newest sessions."""

    def includes(self, row: Row, window: Window) -> bool:
        return Server.includes(self, row, window) and (self.requests > 1 or row not in self.rows[:3])


class FirstPageIsCached(Server):
    """The first page of the whole window is an old one."""

    async def fetch(self, window: Window, offset: int) -> Page:
        if window != WINDOW or offset:
            return await Server.fetch(self, window, offset)
        self.requests += 1
        return page_of(0, len(self.rows) - 3, self.rows[3 : 3 + LIMIT], limit=LIMIT)


class ARowMovesToTheFront(Server):
    """The server sorts by the time of the last change, which follows the plug-in times until an old session changes."""

    def change(self) -> None:
        if self.requests == 3:
            self.rows.insert(0, self.rows.pop(-7))


class APlugInTimeIsCorrected(Server):
    """An old session, which no page has shown yet, moves to the middle of the list or to another day."""

    def change(self) -> None:
        if self.requests == 3:
            _, row_id = self.rows.pop(-7)
            middle = self.rows[20][0] + timedelta(seconds=1)
            self.rows.insert(20, (middle, row_id))


class ACorrectionAndARemoval(APlugInTimeIsCorrected):
    """A removed session makes up for the lost one in all later totals."""

    def change(self) -> None:
        APlugInTimeIsCorrected.change(self)
        if self.requests == 3:
            del self.rows[30]


class ARowIsSkipped(Server):
    """One response leaves out a row of the middle of its page."""

    def cut(self, listed: list[Row], offset: int) -> list[Row]:
        page = listed[offset : offset + LIMIT]
        return page[:20] + page[21:] if self.requests == 2 else page


CASES = {
    "honest": (Server, made(2000), VERIFIED, 11),
    "honest, oldest first": (Server, made(2000)[::-1], VERIFIED, 11),
    "honest, a full page": (Server, made(200), VERIFIED, 2),
    "honest, less than a page": (Server, made(199), VERIFIED, 1),
    "honest, by id": (Server, by_id(made(2000)), REPAIRED, 18),
    "`to` is exclusive": (ToIsExclusive, by_id(made(2000)), UNPROVEN, 60),
    "`from` is exclusive": (FromIsExclusive, by_id(made(2000)), UNPROVEN, 60),
    "`to` is ignored": (ToIsIgnored, by_id(made(2000)), UNPROVEN, 30),
    "`to` is ignored, few rows": (ToIsIgnored, by_id(made(900)), UNPROVEN, 20),
    "`from` is ignored": (FromIsIgnored, by_id(made(2000)), UNPROVEN, 30),
    "days are ignored": (DaysAreIgnored, by_id(made(2000)), UNPROVEN, 30),
    "days are local": (DaysAreLocal, by_id(made(2000)), REPAIRED, 18),
    "short windows are refused": (RefusesShortWindows, by_id(made(2000)), UNPROVEN, 15),
    "large offsets are refused": (RefusesLargeOffsets, made(2000), REPAIRED, 40),
    "large offsets fail": (FailsOnLargeOffsets, made(2000), REPAIRED, 40),
    "large offsets take too long": (IsTooSlowForLargeOffsets, made(2000), REPAIRED, 40),
    "large offsets are empty": (LargeOffsetsAreEmpty, made(2000), REPAIRED, 40),
    "the total is capped": (TotalIsCapped, made(12_000), REPAIRED, 130),
    "the list is capped": (ListIsCapped, made(12_000), REPAIRED, 130),
    "rows are doubled, 30": (RowsAreDoubled, made(30), UNPROVEN, 30),
    "rows are doubled, 200": (RowsAreDoubled, made(200), UNPROVEN, 30),
    "rows are doubled, 400": (RowsAreDoubled, made(400), UNPROVEN, 30),
    "rows are filtered after the limit": (RowsAreFilteredAfterTheLimit, made(2000), REPAIRED, 60),
    "rows are filtered after the limit, by id": (RowsAreFilteredAfterTheLimit, by_id(made(2000)), REPAIRED, 60),
    "rows are filtered after the limit, 230": (RowsAreFilteredAfterTheLimit, made(230), REPAIRED, 30),
    "dropped rows are counted": (DroppedRowsAreCounted, made(2000), UNPROVEN, 120),
    "whole pages are dropped": (WholePagesAreDropped, made(2200), UNPROVEN, 120),
    "whole pages are dropped, by id": (WholePagesAreDropped, by_id(made(2200)), UNPROVEN, 120),
    "dropped rows are counted, 30": (DroppedRowsAreCounted, made(30), UNPROVEN, 30),
    "the limit is ignored": (LimitIsIgnored, made(2000), VERIFIED, 45),
    "limit and offset are ignored": (LimitAndOffsetAreIgnored, made(2000), VERIFIED, 1),
    "the offset is ignored": (OffsetIsIgnored, made(2000), REPAIRED, 40),
    "the offset is ignored, a full page": (OffsetIsIgnored, made(200), REPAIRED, 30),
    "the offset is ignored, by id": (OffsetIsIgnored, by_id(made(2000)), REPAIRED, 18),
    "the total counts the page": (TotalCountsThePage, made(2000), VERIFIED, 12),
    "the total counts the page, many": (TotalCountsThePage, made(5000), REPAIRED, 120),
    "the total looks ahead": (TotalLooksAhead, made(5000), REPAIRED, 120),
    "the total is too small": (TotalIsTooSmall, made(300), UNPROVEN, 25),
    "the total is too small, 40": (TotalIsTooSmall, made(40), UNPROVEN, 25),
    "the total is too small, 201": (TotalIsTooSmall, made(201), UNPROVEN, 25),
    "the total is too large": (TotalIsTooLarge, made(300), UNPROVEN, 30),
    "the total is too large, 40": (TotalIsTooLarge, made(40), UNPROVEN, 30),
    "the total counts everything": (TotalCountsEverything, by_id(made(900)), UNPROVEN, 75),
    "the first total is too small": (FirstTotalIsTooSmall, made(300), VERIFIED, 2),
    "the first total is too small, 40": (FirstTotalIsTooSmall, made(40), REPAIRED, 2),
    "the first total is too large, 40": (FirstTotalIsTooLarge, made(40), REPAIRED, 8),
    "the first response lags": (FirstResponseLags, made(2000), REPAIRED, 13),
    "the first page is cached": (FirstPageIsCached, made(2000), REPAIRED, 60),
    "a row moves to the front": (ARowMovesToTheFront, made(2000), REPAIRED, 30),
    "a row moves to the front, by id": (ARowMovesToTheFront, by_id(made(2000)), REPAIRED, 18),
    "a plug-in time is corrected": (APlugInTimeIsCorrected, made(2000), REPAIRED, 24),
    "a plug-in time is corrected, by id": (APlugInTimeIsCorrected, by_id(made(2000)), REPAIRED, 36),
    "a correction and a removal": (ACorrectionAndARemoval, made(2000), REPAIRED, 24),
    "a correction and a removal, by id": (ACorrectionAndARemoval, by_id(made(2000)), REPAIRED, 36),
    "a row is skipped": (ARowIsSkipped, made(2000), REPAIRED, 24),
}


async def read_plainly(server: Server) -> set[str]:
    """Read a list by plain offset paging."""
    ids: set[str] = set()
    offset = 0
    for _ in range(100):
        try:
            page = await server.fetch(WINDOW, offset)
        except (ApiError, RequestTimeoutError):
            break
        ids.update(map(str, page.ids))
        offset = page.end
        if not page.count or offset >= page.total:
            break
    return ids


@pytest.mark.slow
@pytest.mark.parametrize(("server", "rows", "verdict", "max_requests"), CASES.values(), ids=CASES)
async def test_no_inconsistency_leads_to_a_false_verdict_or_to_lost_rows(
    server: type[Server], rows: list[Row], verdict: Completeness, max_requests: int
) -> None:
    """A read has the expected verdict, all rows that plain paging returns, a reason if it is UNPROVEN, and bounded cost."""
    tried = server(list(rows))
    existing = {row[1] for row in rows if tried.includes(row, WINDOW) and tried.shows(row)}
    reader = SessionListReader(tried.fetch, WINDOW, await tried.fetch(WINDOW, 0), ahead=1)
    ids = await ids_of(reader)
    existing &= {row_id for _, row_id in tried.rows}
    assert len(ids) == len(set(ids))
    assert not existing.difference(ids), f"{len(existing.difference(ids))} of {len(existing)} sessions are missing"
    assert not (await read_plainly(server(list(rows)))).difference(ids)
    assert (reader.completeness, bool(reader.reason)) == (verdict, verdict is UNPROVEN)
    assert tried.requests <= max_requests


class OneReplicaLags(Server):
    """Each response comes from one of two replicas of a still list, and one of them lacks a few sessions."""

    rng = random.Random(0)
    lacking: frozenset[Row] = frozenset()
    last_total = 0

    def includes(self, row: Row, window: Window) -> bool:
        return Server.includes(self, row, window) and row not in self.lacking

    def change(self) -> None:
        self.lacking = self.late if self.rng.random() < 0.5 else frozenset()

    @property
    def late(self) -> frozenset[Row]:
        return frozenset(self.rows[7 :: len(self.rows) // 2])

    async def fetch(self, window: Window, offset: int) -> Page:
        page = await Server.fetch(self, window, offset)
        if window == WINDOW:
            self.last_total = page.total
        return page


@pytest.mark.parametrize("seeds", [range(58, 71, 12), pytest.param(range(80), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("arrange", [list, by_id], ids=["newest first", "by id"])
async def test_a_read_is_proven_only_if_it_has_as_many_rows_as_the_last_response_counts(
    arrange: Callable[[list[Row]], list[Row]], seeds: range
) -> None:
    """If requests go to two replicas, of which one lags, a proven read has all sessions that the last response counts."""
    verdicts: Counter[str] = Counter()
    for seed in seeds:
        server = OneReplicaLags(arrange(made(600, seed)))
        server.rng.seed(seed)
        reader = SessionListReader(server.fetch, WINDOW, await server.fetch(WINDOW, 0), ahead=1)
        ids = await ids_of(reader)
        verdicts[reader.completeness.name] += 1
        if reader.completeness is not UNPROVEN:
            assert len(ids) >= server.last_total
    assert (
        verdicts["UNPROVEN"] <= 1 + len(seeds) / 8
    )  # four passes over two sessions, of which half the responses lack each


@pytest.mark.parametrize("server", [RefusesLargeOffsets, FailsOnLargeOffsets, IsTooSlowForLargeOffsets])
async def test_a_day_with_pages_that_are_not_listed_is_unproven(server: type[Server]) -> None:
    """If the list of one day has pages that the server does not list,
    a read returns what plain paging does, and says why.
    """
    rows = [(START + timedelta(seconds=40 * number), str(number)) for number in range(2000)]
    tried, window = server(rows), Window(START.date(), START.date())
    reader = SessionListReader(tried.fetch, window, await tried.fetch(window, 0), ahead=4)
    assert set(await ids_of(reader)) >= await read_plainly(server(rows))
    assert reader.completeness is UNPROVEN
    assert "does not list a later page" in reader.reason


async def test_the_reason_names_rows_that_a_server_leaves_out() -> None:
    """If a list never changes, and its pages lack rows, the reason does not say that only a change can explain it."""
    tried = DroppedRowsAreCounted(made(400))
    reader = SessionListReader(tried.fetch, WINDOW, await tried.fetch(WINDOW, 0), ahead=1)
    await ids_of(reader)
    assert reader.completeness is UNPROVEN
    assert "the server leaves rows out of its pages" in reader.reason


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_an_outage_during_a_read_is_an_error(status: int) -> None:
    """If the server fails on every page from the fourth on, or a gateway responds in its place, the read raises the error."""

    class GoesDown(Server):
        async def fetch(self, window: Window, offset: int) -> Page:
            if self.requests > 3:
                error = (NotFoundError if status == 404 else ServerError)(status, "down", "GET", "/sessions")
                error.is_from_gateway = status == 404
                raise error
            return await Server.fetch(self, window, offset)

    tried = GoesDown(made(2000))
    reader = SessionListReader(tried.fetch, WINDOW, await tried.fetch(WINDOW, 0), ahead=4)
    with pytest.raises(ApiError, match="down"):
        await ids_of(reader)


# --- transient signs --------------------------------------------------------------------------------------------------


class RemovesBeforeCounting(Server):
    """Two queries make a response: the slice, then the count. Sometimes a session is removed in between."""

    rng = random.Random(0)

    def total(self, listed: list[Row], offset: int) -> int:
        if listed and self.rng.random() < 0.2:
            self.rows.remove(self.rng.choice(listed))
            return len(listed) - 1
        return len(listed)


@pytest.mark.parametrize("reads", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rows", [30, 1000])
async def test_a_removal_between_slice_and_count_costs_a_few_requests(
    rows: int, reads: int, record_property: Callable[[str, object], None]
) -> None:
    """If every fifth response counts one session fewer than it sliced, every read is proven, and loses nothing."""
    verdicts: Counter[str] = Counter()
    requests = 0
    for seed in range(reads):
        server = RemovesBeforeCounting(made(rows, seed))
        server.rng.seed(seed)
        reader = SessionListReader(server.fetch, WINDOW, await server.fetch(WINDOW, 0), ahead=16)
        ids = await ids_of(reader)
        assert not {row_id for _, row_id in server.rows}.difference(ids)
        verdicts[reader.completeness.name] += 1
        requests += server.requests
    record_property(
        "figure", f"{reads:,} reads of {rows:,} rows: {dict(verdicts)}, {requests / reads:.2f} requests each"
    )
    assert verdicts["UNPROVEN"] == 0

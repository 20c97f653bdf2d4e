"""A store in memory that tests write to a batch at a time."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import Any

import attrs
import duckdb

from podero_async import Completeness, ServerError, VehicleRef
from podero_async._paging.window import Window
from podero_async.backfill._report import Written
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb import absence
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.schema import add_unknown_fields
from podero_async.backfill.store.duckdb.upsert import write_batch
from tests._support.fetched import add

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 31)
START = datetime(2026, 2, 2, tzinfo=UTC)
ONE_DAY = timedelta(days=1)
KNOWN = "(user_id, vehicle_id, first_seen_at, last_seen_at, gone_since)"
"""The columns of `vehicles` that are never NULL, and `gone_since`."""


@attrs.frozen
class Read:
    """The outcome of one vehicle."""

    vehicle: int
    rows: list[dict[str, Any]]
    user: int = 1
    days: tuple[date, date] = (FIRST, LAST)
    include_hidden: bool = False
    completeness: Completeness = Completeness.VERIFIED

    @property
    def ref(self) -> VehicleRef:
        return VehicleRef(user_id=uuid.UUID(int=self.user), vehicle_id=uuid.UUID(int=self.vehicle))

    @property
    def window(self) -> Window:
        return Window(*self.days, self.include_hidden)

    def add_to(self, batch: Batch, number: int, at: datetime) -> None:
        """Add the outcome to a batch, under the number of its work item."""
        reason = "the pages share no row" if self.completeness is Completeness.UNPROVEN else ""
        item = WorkItem(number, self.ref, self.window)
        add(batch, item, self.rows, at, completeness=self.completeness, reason=reason)


class WrittenStore:
    """A store that gets a batch a day."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con
        self.at = START - ONE_DAY
        absence.start(con)

    def write(
        self,
        *reads: Read,
        failed: tuple[Read, ...] = (),
        now: datetime | None = None,
        keep_unknown: bool = False,
    ) -> Written:
        self.at = now or self.at + ONE_DAY
        batch = Batch(1, keep_unknown=keep_unknown)
        if keep_unknown:
            add_unknown_fields(self.con)
        for number, read in enumerate(reads):
            read.add_to(batch, number, self.at)
        for read in failed:
            error = ServerError(500, f"down on {self.at:%d}", "GET", "/x")
            batch.add_failure(WorkItem(99, read.ref, read.window), error, self.at)
        return write_batch(self.con, batch, self.at)

    def roster(self, *pairs: tuple[int, int]) -> None:
        """Set the roster to pairs of user and vehicle."""
        self.con.execute("CREATE OR REPLACE TEMP TABLE roster (user_id UUID, vehicle_id UUID)")
        for user, vehicle in pairs:
            self.con.execute("INSERT INTO roster VALUES (?, ?)", [uuid.UUID(int=user), uuid.UUID(int=vehicle)])

    def confirming(self, *, include_hidden: bool = False) -> list[WorkItem]:
        return absence.confirming_items(self.con, include_hidden, 1_000)

    def conclude(self, done: Collection[int]) -> int:
        self.at += ONE_DAY
        return absence.conclude(self.con, 1, done, self.at)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.con.execute(sql).fetchall()

    def numbers(self, where: str) -> list[int]:
        """Return the numbers of the sessions that fulfil a condition."""
        return sorted(id_.int for (id_,) in self.query(f"SELECT id FROM sessions WHERE {where}"))

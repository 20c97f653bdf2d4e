"""What one transaction leaves in the store: rows, receipts, rejected rows and failures, each by its own rule."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import duckdb
import pytest

from podero_async import Completeness, ServerError, VehicleRef, VehicleSessions
from podero_async._decode import decode_page
from podero_async._paging.window import Window
from podero_async.backfill._report import Written
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.connection import close_store, open_store
from podero_async.backfill.store.duckdb.upsert import finish_run, write_batch
from tests._support.clients import page_body, wire_row

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 31)
START = datetime(2026, 2, 2, tzinfo=UTC)
ONE_DAY = timedelta(days=1)


@attrs.frozen
class Read:
    """What one vehicle answered."""

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

    def result(self) -> VehicleSessions:
        page = decode_page(page_body(*self.rows))
        return VehicleSessions(
            vehicle=self.ref,
            from_date=self.days[0],
            to_date=self.days[1],
            sessions=page.items,
            completeness=self.completeness,
            total=page.total,
            rejected=page.rejected,
        )


class Store:
    """A store in memory, written batch by batch, a day apart."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con
        self.batches = count()
        self.at = START

    def write(self, *reads: Read, failed: tuple[Read, ...] = ()) -> Written:
        self.at = START + next(self.batches) * ONE_DAY
        batch = Batch(1, LAST)
        for number, read in enumerate(reads):
            result = read.result()
            batch.add(WorkItem(number, read.ref, read.window), result, [], result.sessions, self.at)
        for read in failed:
            error = ServerError(500, f"down on {self.at:%d}", "GET", "/x")
            batch.add_failure(WorkItem(99, read.ref, read.window), error, self.at)
        batch.seal()
        return write_batch(self.con, batch)

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        return self.con.execute(question).fetchall()


@pytest.fixture
def store() -> Iterator[Store]:
    """Open an empty store."""
    con = open_store(":memory:", read_only=False, memory_limit_mb=256)
    yield Store(con)
    close_store(con, Path(":memory:"))


def test_a_row_that_went_and_came_back_changed_is_there_again(store: Store) -> None:
    """An analyst's view without withdrawn rows would lack it for ever."""
    store.write(Read(1, [wire_row(1), wire_row(2)]))
    assert store.write(Read(1, [wire_row(2)])).withdrawn == 1
    assert store.write(Read(1, [wire_row(1, energy_charged_kwh=99.0), wire_row(2)])) == Written(changed=1, unchanged=1)
    assert store.ask("SELECT withdrawn_at, first_seen_at, changed_at FROM sessions WHERE energy_charged_kwh = 99") == [
        (None, START, store.at)
    ]


def test_an_unreadable_row_keeps_only_its_own_vehicles_rows(store: Store) -> None:
    """One bad row somewhere in a fleet would keep every removed session alive."""
    store.write(Read(1, [wire_row(1)]), Read(2, [wire_row(2)]))
    written = store.write(Read(1, [wire_row(3, id=None)]), Read(2, []))
    assert written == Written(withdrawn=1, rejected=1)
    assert store.ask("SELECT vehicle_id FROM sessions WHERE withdrawn_at IS NOT NULL") == [(uuid.UUID(int=2),)]


def test_a_vehicle_without_sessions_has_its_receipt(store: Store) -> None:
    """It would be read again in every run, and be missing from the proof that all was read."""
    store.write(Read(1, []), Read(2, [wire_row(2)]))
    assert store.ask('SELECT vehicle_id, "count", run_id, length(digest) FROM receipts ORDER BY vehicle_id') == [
        (uuid.UUID(int=1), 0, 1, 32),
        (uuid.UUID(int=2), 1, 1, 32),
    ]


LATER, EARLIER = (FIRST + ONE_DAY, LAST), (FIRST, LAST - ONE_DAY)
WIDER = (FIRST - ONE_DAY, LAST + ONE_DAY)


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        ({}, {}, False),
        ({}, {"days": WIDER}, False),
        ({}, {"include_hidden": True}, False),
        ({"include_hidden": True}, {"include_hidden": True}, False),
        ({"include_hidden": True}, {}, True),
        ({}, {"days": LATER}, True),
        ({}, {"days": EARLIER}, True),
        ({}, {"days": LATER, "rows": [wire_row(5)]}, False),
        ({}, {"days": EARLIER, "rows": [wire_row(5)]}, False),
        ({}, {"days": LATER, "rows": [wire_row(6)]}, True),
        ({}, {"vehicle": 2}, True),
        ({}, {"user": 2}, True),
        ({}, {"vehicle": 2, "user": 2}, True),
        ({}, {"completeness": Completeness.UNPROVEN}, True),
    ],
)
def test_a_rejected_row_stays_until_a_read_shows_that_it_is_gone_or_well(
    store: Store, first: dict[str, Any], second: dict[str, Any], stays: bool
) -> None:
    """A row that nobody could read would be forgotten, or be reported for ever."""
    store.write(Read(**{"vehicle": 1, "rows": [wire_row(5, is_at_home=5)], **first}))
    store.write(Read(**{"vehicle": 1, "rows": [], **second}))
    assert store.ask("SELECT session_id FROM rejected_items") == [(uuid.UUID(int=5),)] * stays


@pytest.mark.parametrize(
    ("second", "stays"),
    [
        ({}, False),
        ({"days": WIDER}, False),
        ({"days": LATER}, True),
        ({"days": EARLIER}, True),
        ({"include_hidden": True}, True),
        ({"vehicle": 2}, True),
        ({"user": 2}, True),
        ({"vehicle": 2, "user": 2}, True),
    ],
)
def test_a_failure_stays_until_all_of_its_window_was_tried_again(
    store: Store, second: dict[str, Any], stays: bool
) -> None:
    """A report would call a fleet complete that lacks a vehicle, or one incomplete that has them all."""
    store.write(failed=(Read(1, []),))
    store.write(failed=(Read(1, []),))
    assert store.ask("SELECT run_id, message FROM failures") == [(1, "HTTP 500: down on 03 (GET /x)")]
    store.write(Read(**{"vehicle": 1, "rows": [], **second}))
    assert len(store.ask("FROM failures")) == stays


def test_a_session_that_moved_to_another_vehicle_is_kept_once(store: Store) -> None:
    """Its energy would be counted twice, or its neighbours be deleted with it."""
    store.write(Read(1, [wire_row(1), wire_row(2)]), Read(3, [wire_row(3)]))
    store.con.execute("INSERT INTO runs SELECT 1, $at, $at, false, 0, '', 2, $at, NULL", {"at": START + ONE_DAY})
    store.con.execute("INSERT INTO tasks SELECT 1, 1, uuid(), uuid(), $at, $at", {"at": START})
    store.write(Read(2, [wire_row(2)]))
    finish_run(store.con, 1, store.at)
    rows = store.ask("SELECT id, vehicle_id, first_seen_at, changed_at FROM sessions ORDER BY id")
    assert rows == [
        (uuid.UUID(int=1), uuid.UUID(int=1), START, None),
        (uuid.UUID(int=2), uuid.UUID(int=2), START, store.at),
        (uuid.UUID(int=3), uuid.UUID(int=3), START, None),
    ]
    assert store.ask("SELECT finished_at FROM runs") == [(store.at,)]
    assert store.ask("FROM tasks") == []

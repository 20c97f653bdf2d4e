"""The upsert of a batch: the rules for sessions, receipts, rejected rows and failures."""

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
from podero_async.backfill._values import WorkItem, digest_of
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.connection import close_store, open_store
from podero_async.backfill.store.duckdb.upsert import write_batch
from tests._support.clients import page_body, wire_row

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 31)
START = datetime(2026, 2, 2, tzinfo=UTC)
ONE_DAY = timedelta(days=1)


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

    def outcome(self) -> VehicleSessions:
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
    """A store in memory that gets a batch a day."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con
        self.batches = count()
        self.at = START

    def write(self, *reads: Read, failed: tuple[Read, ...] = ()) -> Written:
        self.at = START + next(self.batches) * ONE_DAY
        batch = Batch(1)
        for number, read in enumerate(reads):
            batch.add(WorkItem(number, read.ref, read.window), read.outcome(), LAST, self.at)
        for read in failed:
            error = ServerError(500, f"down on {self.at:%d}", "GET", "/x")
            batch.add_failure(WorkItem(99, read.ref, read.window), error, self.at)
        batch.convert_pending()
        return write_batch(self.con, batch)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.con.execute(sql).fetchall()


@pytest.fixture
def store() -> Iterator[Store]:
    """Open an empty store."""
    con = open_store(":memory:", read_only=False, memory_limit_mb=256)
    yield Store(con)
    close_store(con, Path(":memory:"))


def test_a_withdrawn_row_that_returns_changed_is_restored(store: Store) -> None:
    """A row that a read lacked is withdrawn; if a later read has it again, it is updated and no longer withdrawn."""
    store.write(Read(1, [wire_row(1), wire_row(2)]))
    assert store.write(Read(1, [wire_row(2)])).withdrawn == 1
    assert store.write(Read(1, [wire_row(1, energy_charged_kwh=99.0), wire_row(2)])) == Written(changed=1, unchanged=1)
    assert store.query(
        "SELECT withdrawn_at, first_seen_at, changed_at FROM sessions WHERE energy_charged_kwh = 99"
    ) == [(None, START, store.at)]


def test_an_unreadable_row_prevents_withdrawals_of_its_own_vehicle_only(store: Store) -> None:
    """If a row has no readable id, no row of its vehicle is withdrawn, but rows of other vehicles are."""
    store.write(Read(1, [wire_row(1)]), Read(2, [wire_row(2)]))
    written = store.write(Read(1, [wire_row(3, id=None)]), Read(2, []))
    assert written == Written(withdrawn=1, rejected=1)
    assert store.query("SELECT vehicle_id FROM sessions WHERE withdrawn_at IS NOT NULL") == [(uuid.UUID(int=2),)]


def test_a_vehicle_without_sessions_has_a_receipt(store: Store) -> None:
    """A read without rows writes a receipt with the digest of no ids."""
    store.write(Read(1, []), Read(2, [wire_row(2)]))
    assert store.query('SELECT vehicle_id, "count", run_id FROM receipts ORDER BY vehicle_id') == [
        (uuid.UUID(int=1), 0, 1),
        (uuid.UUID(int=2), 1, 1),
    ]


def test_the_digest_in_sql_equals_the_digest_in_python(store: Store) -> None:
    """A receipt's digest, which SQL computes, equals `digest_of` over the ids of its rows."""
    reads = [Read(1, []), Read(2, [wire_row(2)]), Read(3, [wire_row(number) for number in (12, 3, 254, 30)])]
    store.write(*reads)
    expected = [(digest_of(row.id for row in read.outcome().sessions),) for read in reads]
    assert store.query("SELECT digest FROM receipts ORDER BY vehicle_id") == expected


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
def test_a_rejected_row_stays_until_a_proven_read_replaces_it(
    store: Store, first: dict[str, Any], second: dict[str, Any], stays: bool
) -> None:
    """A rejected row is deleted if a proven read covers its window, or returns its session in readable form."""
    store.write(Read(**{"vehicle": 1, "rows": [wire_row(5, is_at_home=5)], **first}))
    store.write(Read(**{"vehicle": 1, "rows": [], **second}))
    assert store.query("SELECT session_id FROM rejected_items") == [(uuid.UUID(int=5),)] * stays


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
def test_a_failure_stays_until_its_whole_window_is_tried_again(
    store: Store, second: dict[str, Any], stays: bool
) -> None:
    """A failure is replaced by an attempt at a window that covers its own, with the same vehicle and settings."""
    store.write(failed=(Read(1, []),))
    store.write(failed=(Read(1, []),))
    assert store.query("SELECT run_id, message FROM failures") == [(1, "HTTP 500: down on 03 (GET /x)")]
    store.write(Read(**{"vehicle": 1, "rows": [], **second}))
    assert len(store.query("FROM failures")) == stays

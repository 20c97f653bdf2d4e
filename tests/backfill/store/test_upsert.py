"""The upsert of a batch: the rules for sessions, receipts, rejected rows, failures and counts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from podero_async import Completeness, RejectedItem
from podero_async.backfill._report import Written
from podero_async.backfill._values import Limits, StoreOwner, WorkItem
from podero_async.backfill.store.duckdb.batch_builder import ArrowBatchBuilder
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.connection import close_store, open_store
from podero_async.backfill.store.duckdb.digest import digests_of
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS, owner_of
from podero_async.backfill.store.duckdb.upsert import write_batch
from tests._support.clients import page_body, wire_row
from tests._support.fetched import fetched, rows_of
from tests._support.written_store import FIRST, KNOWN, LAST, ONE_DAY, START, Read, WrittenStore

_TICK = timedelta(microseconds=1)


def _uuid(number: int) -> UUID:
    return UUID(int=number)


# --- vehicles and users ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_one_batch", [False, True])
def test_a_session_that_moves_to_another_vehicle_moves_its_row(store: WrittenStore, is_one_batch: bool) -> None:
    """A session that is returned for another vehicle is stored once, under that vehicle, with a new `changed_at`."""
    store.write(Read(1, [wire_row(1)]), Read(2, []))
    reads = [Read(1, []), Read(2, [wire_row(1)])]
    for part in [reads] if is_one_batch else [[read] for read in reads]:
        written = store.write(*part)
    assert written == Written(changed=1)
    assert store.query("SELECT vehicle_id, first_seen_at, changed_at, absent_at FROM sessions") == [
        (_uuid(2), START, store.at, None)
    ]


def test_two_reads_of_a_batch_that_return_a_session_store_it_once(store: WrittenStore) -> None:
    """If two vehicles return a session in one batch, it is stored once, as the later read returned it."""
    assert store.write(Read(1, [wire_row(1)]), Read(2, [wire_row(1)])) == Written(new=1)
    assert store.query("SELECT vehicle_id FROM sessions") == [(_uuid(2),)]


def test_a_vehicle_that_two_users_list_keeps_the_user_of_its_rows(store: WrittenStore) -> None:
    """While a row's user lists the vehicle and the session, a read as another user of the vehicle changes nothing."""
    store.roster((1, 1), (2, 1))
    store.write(Read(1, [wire_row(1)], user=1))
    for _ in range(2):
        for reads in [[Read(1, [wire_row(1)], user=2)], [Read(1, [wire_row(1)], user=user) for user in (1, 2)]]:
            assert store.write(*reads) == Written(unchanged=1)
    changed = store.write(Read(1, [wire_row(1, energy_charged_kwh=99.0)], user=2))
    assert changed == Written(changed=1)
    assert store.query("SELECT user_id, energy_charged_kwh FROM sessions") == [(_uuid(1), 99.0)]


def test_a_session_that_only_another_user_lists_changes_its_user(store: WrittenStore) -> None:
    """If a read of its user no longer returns a row, the row gets the vehicle's other user, and is not withdrawn."""
    store.roster((1, 1), (2, 1))
    store.write(Read(1, [wire_row(1), wire_row(2)], user=1))
    store.write(Read(1, [wire_row(2)], user=1))
    assert store.write(Read(1, [wire_row(1), wire_row(2)], user=2)) == Written(changed=1, unchanged=1)
    assert store.query("SELECT user_id, changed_at, absent_at FROM sessions ORDER BY id") == [
        (_uuid(2), store.at, None),
        (_uuid(1), START, None),
    ]


def test_a_vehicle_that_moves_to_another_user_takes_its_rows_along(store: WrittenStore) -> None:
    """If the row's user no longer lists the vehicle, the read of another user changes the user of the row."""
    store.roster((1, 1))
    store.write(Read(1, [wire_row(1)], user=1))
    store.roster((2, 1))
    assert store.write(Read(1, [wire_row(1)], user=2)) == Written(changed=1)
    assert store.query("SELECT user_id, changed_at FROM sessions") == [(_uuid(2), store.at)]


@pytest.mark.parametrize("has_gone", [False, True])
def test_a_run_over_some_vehicles_keeps_the_users_of_others(store: WrittenStore, has_gone: bool) -> None:
    """If a run does not read the row's user, but the last discovery has listed this user's vehicle,
    the row keeps the user.
    """
    store.roster((2, 1))
    gone_since = START if has_gone else None
    store.con.execute(f"INSERT INTO vehicles {KNOWN} VALUES (?, ?, now(), now(), ?)", [_uuid(1), _uuid(1), gone_since])
    store.write(Read(1, [wire_row(1), wire_row(2)], user=1))
    assert store.write(Read(1, [wire_row(1)], user=2)) == (Written(changed=1) if has_gone else Written(unchanged=1))
    assert store.numbers("absent_at IS NOT NULL") == []


# --- the time of a change ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_changes_are_ordered_even_if_the_clock_is_set_back(tmp_path: Path) -> None:
    """Each commit's `changed_at` is later than all earlier ones, also if the clock was set back and the store reopened."""
    path = str(tmp_path / "fleet.duckdb")
    changes = []
    for number, now in enumerate([START, START - 9 * ONE_DAY, START, START + ONE_DAY]):
        con = open_store(path, read_only=False, memory_limit_mb=256)
        store = WrittenStore(con)
        for energy_kwh in (number, number + 0.5):
            store.write(Read(1, [wire_row(1, energy_charged_kwh=energy_kwh)]), now=now)
            changes += store.query("SELECT changed_at FROM sessions")
        close_store(con, tmp_path / "fleet.duckdb")
    expected = [START + number * _TICK for number in range(6)] + [START + ONE_DAY, START + ONE_DAY + _TICK]
    assert changes == [(at,) for at in expected]


def test_a_read_without_news_changes_nothing_visible(store: WrittenStore) -> None:
    """If a session is returned as it is stored, only `fetched_at` moves."""
    store.write(Read(1, [wire_row(1)]))
    assert store.write(Read(1, [wire_row(1)])) == Written(unchanged=1)
    assert store.query("SELECT fetched_at, first_seen_at, changed_at FROM sessions") == [(store.at, START, START)]


# --- receipts ----------------------------------------------------------------------------------------------------------


def test_a_vehicle_without_sessions_has_a_receipt(store: WrittenStore) -> None:
    """A read without rows writes a receipt."""
    store.write(Read(1, []), Read(2, [wire_row(2)]))
    assert store.query('SELECT vehicle_id, "count", run_id FROM receipts ORDER BY vehicle_id') == [
        (_uuid(1), 0, 1),
        (_uuid(2), 1, 1),
    ]


@pytest.mark.slow
async def test_a_digest_covers_the_ids_and_all_fields(store: WrittenStore) -> None:
    """A receipt's digest changes with the id or any field of a session; on other pages, the sessions have the same digest."""
    row, other = wire_row(1), wire_row(2)
    digests = [await _digest(store, row, other)]
    assert await _digest(store, row, other) == digests[0]
    assert await _digest(store, row, other, page_rows=1) == digests[0]
    for name, kind in SESSION_COLUMNS.items():
        value: Any = not row.get(name) if kind == "BOOLEAN" else _OTHER_VALUES[kind]
        digests.append(await _digest(store, row | {name: value}, other))
    digests.append(await _digest(store))
    assert len(set(digests)) == len(SESSION_COLUMNS) + 2
    assert {len(digest) for digest in digests} == {32}


def test_a_digest_tells_null_from_zero_and_from_an_empty_text() -> None:
    """Null, zero and an empty text differ, and so do texts that are divided otherwise; -0.0 and 0.0 are one value."""
    numbers = [None, 0.0, -0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    texts = ["", "", "", None, "ab", "c", "a", "bc"]
    columns = [pa.array([1, 2, 3, 4, 5, 5, 6, 6], pa.int32()), pa.array(numbers, pa.float64()), pa.array(texts)]
    batch = pa.RecordBatch.from_arrays(columns, ["work_item", "number", "text"])
    null, zero, negative, *others = digests_of(range(1, 7), [batch])
    assert zero == negative
    assert len({null, zero, *others}) == 5


_OTHER_VALUES = {
    "UUID": str(_uuid(9)),
    "TIMESTAMPTZ": START.isoformat(),
    "DOUBLE": 7.5,
    "VARCHAR": "in_progress",
    "INTEGER": 7,
}


async def _digest(store: WrittenStore, *rows: dict[str, Any], page_rows: int = 200) -> str:
    async def write(batch: Batch, at: datetime) -> Written:
        return write_batch(store.con, batch, at)

    read = Read(1, [])
    item = WorkItem(1, read.ref, read.window)
    builder = ArrowBatchBuilder(Batch(1), Limits(), write)
    pages = [page_body(*rows[begin : begin + page_rows]) for begin in range(0, len(rows), page_rows)]
    builder.add(item, fetched(item, *pages), store.at, None)
    await builder.seal()(store.at)
    ((digest,),) = store.query("SELECT digest FROM receipts LIMIT 1 OFFSET (SELECT count(*) - 1 FROM receipts)")
    return str(digest)


# --- days that a read does not settle ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "days"),
    [
        ({}, []),
        ({"unplug_time": None, "inferred_session_end": "2026-01-02T00:00:00Z"}, []),
        ({"unplug_time": None}, [date(2026, 1, 1)]),
        ({"session_outcome": "in_progress"}, [date(2026, 1, 1)]),
        ({"unplug_time": None, "plug_in_time": "2026-01-05T23:30:00-02:00"}, [date(2026, 1, 6)]),
        ({"is_at_home": "perhaps"}, [date(2026, 1, 1)]),
        ({"is_at_home": "perhaps", "plug_in_time": "2026-01-05T23:30:00-02:00"}, [date(2026, 1, 6)]),
        ({"is_at_home": "perhaps", "plug_in_time": "2026-01-05T23:30:00"}, [date(2026, 1, 5)]),
        ({"is_at_home": "perhaps", "plug_in_time": "2026-02-05T23:30:00Z"}, [None]),
        ({"plug_in_time": "yesterday"}, [None]),
        ({"plug_in_time": None}, [None]),
        ({"plug_in_time": "0001-01-01T00:00:00+01:00"}, [None]),
    ],
)
def test_a_session_that_is_going_on_or_was_rejected_leaves_its_day_unsettled(
    fields: dict[str, Any], days: list[date | None]
) -> None:
    """A day is unsettled if one of its sessions shows no end or was rejected; all days, if the session's day is unknown."""
    batch, read = Batch(1), Read(1, [wire_row(1, **fields)])
    read.add_to(batch, 7, START)
    assert batch.tables()["arrow_unsettled"].to_pylist() == [{"work_item": 7, "day": day} for day in days]


def test_a_rejected_row_that_is_no_object_leaves_all_days_unsettled() -> None:
    """If a rejected row has no fields, every day of its read is unsettled."""
    batch, read = Batch(1), Read(1, [])
    for raw in ("text", [1], None, 5):
        item = WorkItem(7, read.ref, read.window)
        page = rows_of([RejectedItem(index=0, path="$", reason="-", raw=raw)])
        batch.add(item, fetched(item, page), datetime(2026, 2, 2, tzinfo=UTC), None)
    assert batch.tables()["arrow_unsettled"].to_pylist() == 4 * [{"work_item": 7, "day": None}]


# --- rejected rows and failures ----------------------------------------------------------------------------------------

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
        ({}, {"days": EARLIER}, False),
        ({}, {"days": LATER, "rows": [wire_row(5)]}, False),
        ({}, {"days": (FIRST, FIRST)}, False),
        ({}, {"days": LATER, "rows": [wire_row(6)]}, True),
        ({}, {"vehicle": 2}, True),
        ({}, {"user": 2}, True),
        ({}, {"vehicle": 2, "user": 2}, True),
        ({}, {"completeness": Completeness.UNPROVEN}, True),
    ],
)
def test_a_rejected_row_stays_until_a_proven_read_replaces_it(
    store: WrittenStore, first: dict[str, Any], second: dict[str, Any], stays: bool
) -> None:
    """A rejected row is deleted if a proven read covers its day, or returns its session in readable form."""
    store.write(Read(**{"vehicle": 1, "rows": [wire_row(5, is_at_home=5)], **first}))
    store.write(Read(**{"vehicle": 1, "rows": [], **second}))
    assert store.query("SELECT session_id FROM rejected_items") == [(_uuid(5),)] * stays


def test_a_rejected_row_knows_since_when_it_is_unreadable(store: WrittenStore) -> None:
    """A row that is rejected again, in another read, keeps the time of its first rejection; without an id, the raw row
    is compared; a row that was readable in between starts anew.
    """
    rows = [wire_row(5, is_at_home=5), wire_row(6, id=None)]
    times = []
    for shown in (rows, rows, [wire_row(5, is_at_home=5), wire_row(7, id=None)], [wire_row(5)], rows):
        store.write(Read(1, shown))
        times.append(store.query("SELECT first_rejected_at FROM rejected_items ORDER BY session_id NULLS LAST"))
    first, again, other, none, anew = times
    assert first == again
    assert (other[0], other[1] > first[1], none, anew[0] > first[0]) == (first[0], True, [], True)


def test_a_rejected_row_without_a_day_stays_until_all_days_are_read(store: WrittenStore) -> None:
    """A rejected row whose plug-in time cannot be read is deleted by a proven read of the whole window."""
    store.write(Read(1, [wire_row(5, plug_in_time="soon")]))
    for days, stays in ((LATER, True), (EARLIER, True), (WIDER, False)):
        store.write(Read(1, [], days=days))
        assert store.query("SELECT from_date, to_date FROM rejected_items") == [(FIRST, LAST)] * stays


@pytest.mark.parametrize(
    ("second", "stays"),
    [
        ({}, False),
        ({"days": WIDER}, False),
        ({"days": LATER}, True),
        ({"days": EARLIER}, True),
        ({"include_hidden": True}, False),
        ({"completeness": Completeness.UNPROVEN}, True),
        ({"vehicle": 2}, True),
        ({"user": 2}, True),
        ({"vehicle": 2, "user": 2}, True),
    ],
)
def test_a_failure_stays_until_its_whole_window_is_read(
    store: WrittenStore, second: dict[str, Any], stays: bool
) -> None:
    """A failure is deleted by a proven read that covers its window, with the same user and vehicle."""
    store.write(failed=(Read(1, []),))
    store.write(Read(**{"vehicle": 1, "rows": [], **second}))
    assert len(store.query("FROM failures")) == stays


@pytest.mark.parametrize(
    ("days", "rows", "is_known"),
    [
        ((FIRST, LAST), 1, True),
        (LATER, 1, True),
        ((FIRST, FIRST), 1, True),
        ((LAST + ONE_DAY, LAST + ONE_DAY), 2, True),
        ((LAST + 2 * ONE_DAY, LAST + 3 * ONE_DAY), 2, False),
    ],
)
def test_a_repeated_failure_keeps_the_time_of_the_first_one(
    store: WrittenStore, days: tuple[date, date], rows: int, is_known: bool
) -> None:
    """A failure replaces earlier ones of the same days, and keeps the first time of those and of adjoining ones."""
    store.write(failed=(Read(1, []), Read(2, [])))
    first = store.at
    store.write(failed=(Read(1, [], days=days),))
    found = store.query(f"SELECT first_failed_at, failed_at, message FROM failures WHERE vehicle_id = '{_uuid(1)}'")
    assert len(found) == rows
    assert (first if is_known else store.at, store.at, "HTTP 500: down on 03 (GET /x)") in found


def test_a_failure_that_replaces_another_has_its_days_too(store: WrittenStore) -> None:
    """If a read of a few of its days fails again, no day of a failure is forgotten."""
    store.write(failed=(Read(1, []),))
    for days in ((FIRST, FIRST), (LAST, LAST + ONE_DAY)):
        store.write(failed=(Read(1, [], days=days),))
    assert store.query("SELECT from_date, to_date FROM failures") == [(FIRST, LAST + ONE_DAY)]


def test_a_failure_replaces_only_those_that_share_its_own_days(store: WrittenStore) -> None:
    """A failure that takes over the days of another keeps a third one, which shares days with that other alone."""
    third = (FIRST + 2 * ONE_DAY, LAST)
    for days, include_hidden in (((FIRST, third[0]), True), (third, False), ((FIRST - ONE_DAY, FIRST), True)):
        store.write(failed=(Read(1, [], days=days, include_hidden=include_hidden),))
    found = store.query("SELECT from_date, to_date, include_hidden FROM failures ORDER BY from_date")
    assert found == [(FIRST - ONE_DAY, third[0], True), (*third, False)]


def test_an_unproven_read_is_a_failure(store: WrittenStore) -> None:
    """A read that is not proven complete is stored with its sessions, and with a failure that tells the reason."""
    assert store.write(Read(1, [wire_row(1)], completeness=Completeness.UNPROVEN)).new == 1
    assert store.query("SELECT kind, message FROM failures") == [
        ("CompletenessError", "the list could not be proven complete: the pages share no row")
    ]


def test_a_batch_counts_into_its_run(store: WrittenStore) -> None:
    """The row of a run has the counts of all batches that were committed."""
    store.con.execute(
        "INSERT INTO runs (run_id, from_date, to_date, include_hidden, scope, vehicles, started_at)"
        " VALUES (1, '2026-01-01', '2026-01-31', false, '', 3, now())"
    )
    store.write(Read(1, [wire_row(1), wire_row(2)]), Read(2, [wire_row(3, id=None)]))
    store.write(Read(1, [wire_row(1), wire_row(2, energy_charged_kwh=1.0)], completeness=Completeness.UNPROVEN))
    store.write(failed=(Read(3, []),))
    assert store.query(
        "SELECT done, failed, unproven, requests, sessions_new, sessions_changed, sessions_unchanged, rejected FROM runs"
    ) == [(3, 1, 1, 3, 2, 1, 1, 1)]


def test_a_store_is_claimed_with_its_first_read(store: WrittenStore) -> None:
    """A batch of failures alone leaves a store without an owner; the first read gives it one, which stays."""
    one, other = StoreOwner("one", "https://x"), StoreOwner("other", "https://x")
    for owner, reads, expected in [(other, [], None), (one, [Read(1, [])], one), (other, [Read(1, [])], one)]:
        batch = Batch(1, owner)
        for number, read in enumerate(reads):
            read.add_to(batch, number, START)
        write_batch(store.con, batch, START)
        assert owner_of(store.con) == expected

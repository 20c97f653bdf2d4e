"""Days that `forget_before` has erased leave no byte in the file of a store, and are not read again."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest

from podero_async import PoderoClient
from podero_async.backfill import DayCounts, SessionStore, backfill, plan_backfill, verify
from podero_async.backfill._comparison import Compared
from podero_async.backfill.store.duckdb import DuckDBBackend, comparison
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.connection import close_store, open_store
from podero_async.testing import PoderoSimulator
from tests._support.clients import wire_row
from tests._support.expected_rows import FIRST, LAST, Rows, held_by, truth_of
from tests._support.store_bytes import count_found
from tests._support.written_store import Read, WrittenStore
from tests.backfill.conftest import AGAIN, Clock

DAY = date(2026, 6, 15)
ONE_DAY = timedelta(days=1)


def _ids_of(rows: Rows) -> set[UUID]:
    return {UUID(session_id) for _, session_id in rows}


def _rows_on(day: int, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
    """Return sessions that were plugged in on a day of January 2026."""
    return [wire_row((day - 1) * 1440 + number, **fields) for number in range(1, count + 1)]


@pytest.mark.slow
async def test_no_byte_of_an_older_session_remains(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock
) -> None:
    """After `forget_before`, no file has an id of an older session, withdrawn ones included; all later rows stay."""
    old, kept = truth_of(sim, FIRST, DAY - ONE_DAY), truth_of(sim, DAY, LAST)
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        sim.remove(sim.vehicles[0], sim.truth(sim.vehicles[0], FIRST, DAY - ONE_DAY)[0]["id"])
        assert (await backfill(client, store, FIRST, LAST, fresh_for=AGAIN, now=clock)).withdrawn == 1
    assert count_found(path, _ids_of(old)) == len(old)
    async with SessionStore(path) as store:
        assert await store.forget_before(DAY) == len(old)
        assert await held_by(store) == kept
        assert count_found(path, _ids_of(old)) == 0
    assert count_found(path, _ids_of(old)) == 0
    assert count_found(path, _ids_of(kept)) == len(kept)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_records_of_older_days_go_with_them(path: Path) -> None:
    """Records that end before the day are erased; coverage, failures and unreadable rows that cross it are cut there.

    A receipt that crosses it stays whole, as do failures without days.
    """
    first, last, before, day = (date(2026, 1, number) for number in (1, 31, 14, 15))
    con = open_store(str(path), read_only=False, memory_limit_mb=256)
    written = WrittenStore(con)
    unreadable = _rows_on(2, energy_charged_kwh="secret of the 2nd")
    undated = _rows_on(3, plug_in_time="once")
    written.write(Read(1, _rows_on(1), days=(first, before)), Read(2, [*_rows_on(16, 2), *unreadable, *undated]))
    written.write(failed=(Read(3, [], days=(first, before)), Read(4, [], days=(first, last))))
    con.execute("INSERT INTO failures SELECT * REPLACE (NULL AS from_date, NULL AS to_date) FROM failures LIMIT 1")
    close_store(con, path.resolve())
    assert b"secret of the 2nd" in path.read_bytes()
    async with SessionStore(path) as store:
        assert await store.forget_before(day) == 1
        windows = {
            table: [
                (UUID(row["vehicle_id"]).int, row["from_date"], row["to_date"])
                for row in await store.query(
                    f"SELECT DISTINCT vehicle_id, from_date, to_date FROM {table} ORDER BY ALL"
                )
            ]
            for table in ("coverage", "receipts", "failures", "rejected_items")
        }
    assert windows == {
        "coverage": [(2, day, last)],
        "receipts": [(2, first, last)],
        "failures": [(3, None, None), (4, day, last)],
        "rejected_items": [(2, day, last)],
    }
    assert b"secret of the 2nd" not in path.read_bytes()


@pytest.mark.slow
async def test_an_erased_day_is_not_read_again(
    sim: PoderoSimulator, client: PoderoClient, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Later runs request no day before the first kept one, neither for their window nor for sessions that are absent."""
    removed = sim.truth(sim.vehicles[0], DAY, DAY)[0]["id"]
    async with SessionStore(path) as store:
        await backfill(client, store, FIRST, LAST, now=clock)
        await store.forget_before(DAY)
        assert await store.forget_before(FIRST) == 0
        assert (await store.status(clock)).kept_from == DAY
        sim.remove(sim.vehicles[0], removed)
        assert isinstance(store.backend, DuckDBBackend)
        absent = "UPDATE sessions SET absent_at = now() WHERE plug_in_time::DATE = ? AND vehicle_id <> ?"
        values = [DAY, sim.vehicles[0].vehicle_id]
        await store.backend.call(duckdb.DuckDBPyConnection.execute, absent, values)
        asked = len(sim.requests)
        plan = await plan_backfill(client, store, FIRST, LAST, now=clock)
        assert plan.windows
        assert min(first for first, _, _ in plan.windows) == DAY
        clock.forward(days=1)
        with caplog.at_level(logging.INFO, "podero_async"):
            report = await backfill(client, store, FIRST, LAST, now=clock)
            assert (report.from_date, report.to_date) == (DAY, LAST), "the report counts the days that are kept"
        assert f"days before {DAY} were erased, so they are not read again" in caplog.messages
        assert (report.is_clean, report.missing, report.withdrawn) == (True, 0, 1)
        assert (await verify(client, store, include_provisional=True)).is_clean
        windows = [request.query["from"] for request in sim.requests[asked:] if request.endpoint == "sessions"]
        assert min(windows) == str(DAY)
        assert await held_by(store) == truth_of(sim, DAY, LAST)
        days = ((LAST - DAY).days + 1) * len(sim.vehicles)
        assert await store.days(FIRST, LAST, now=clock) == DayCounts(provisional=days)
        with pytest.raises(ValueError, match=f"to_date is 2026-06-14, and the store keeps no day before {DAY}"):
            await backfill(client, store, FIRST, DAY - ONE_DAY, now=clock)


def test_a_session_of_an_older_day_does_not_enter_the_table(store: WrittenStore) -> None:
    """Sessions that the API lists on a later day than that of their plug-in are left out, also those that are unreadable.

    A comparison with the API does not miss them.
    """
    store.query("INSERT INTO meta VALUES ('kept_from', '2026-01-15')")
    old = _rows_on(14, 2)
    unreadable = _rows_on(13, energy_charged_kwh="much")
    read = Read(1, [*_rows_on(16), *old, *unreadable, *_rows_on(15)], days=(date(2026, 1, 15), date(2026, 1, 31)))
    written = store.write(read)
    assert (written.new, written.rejected) == (2, 0)
    assert store.query("SELECT min(plug_in_time) FROM sessions") == [(datetime(2026, 1, 15, 0, 1, tzinfo=UTC),)]
    assert store.query('SELECT "count" FROM receipts') == [(2,)]
    assert store.query("FROM rejected_items") == []
    comparison.draw(store.con, None, include_provisional=True)
    batch = Batch(0)
    read.add_to(batch, 1, store.at)
    assert comparison.compare(store.con, batch) == Compared(2, 0, 0, 0, [])


async def test_a_day_that_has_not_come_is_refused(path: Path) -> None:
    """A day after today, or a time, is an error, and nothing is erased."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    async with SessionStore(path) as store:
        with pytest.raises(ValueError, match="after today"):
            await store.forget_before(tomorrow.date())
        with pytest.raises(ValueError, match=r"day must be a datetime\.date"):
            await store.forget_before(tomorrow - timedelta(days=2))
        assert (await store.status()).kept_from is None

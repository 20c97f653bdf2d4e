"""The spans of coverage in a database, against a model that keeps one state for each day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import attrs
import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podero_async.backfill.store.duckdb import coverage
from podero_async.backfill.store.duckdb.schema import create_tables

FIRST = date(2026, 1, 1)
DAYS = 12
USER = UUID(int=1)
_READS = """
CREATE OR REPLACE TEMP TABLE arrow_reads (
    work_item INTEGER, user_id UUID, vehicle_id UUID, from_date DATE, to_date DATE, include_hidden BOOLEAN,
    completeness VARCHAR, settle_to DATE, fetched_at TIMESTAMPTZ, "count" BIGINT
);
CREATE OR REPLACE TEMP TABLE arrow_unsettled (work_item INTEGER, day DATE);
CREATE OR REPLACE TEMP TABLE absent (work_item INTEGER, day DATE);
"""


@attrs.frozen
class Read:
    """A read of a vehicle, with days as numbers from 0."""

    vehicle: int
    window: tuple[int, int]
    include_hidden: bool
    is_proven: bool
    settle_to: int | None
    unsettled: list[int | None]
    absent: list[int]
    is_empty: bool = False


@st.composite
def reads(draw: st.DrawFn) -> Read:
    """Draw a read, and days of its window that it leaves unsettled."""
    first, last = sorted((draw(st.integers(0, DAYS - 1)), draw(st.integers(0, DAYS - 1))))
    inside = st.integers(first, last)
    return Read(
        vehicle=draw(st.integers(1, 2)),
        window=(first, last),
        include_hidden=draw(st.booleans()),
        is_proven=draw(st.integers(0, 4)) > 0,
        settle_to=draw(st.none() | st.integers(-2, DAYS + 1)),
        unsettled=draw(st.lists(st.none() | inside, max_size=1) | st.lists(inside, max_size=3)),
        absent=draw(st.lists(inside, max_size=2)),
        is_empty=draw(st.booleans()),
    )


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as opened:
        create_tables(opened)
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


def write(con: duckdb.DuckDBPyConnection, batch: list[Read], at: datetime) -> None:
    """Record a batch of reads, all of which were made at one time."""
    con.execute(_READS)
    for work_item, read in enumerate(batch):
        con.execute(
            "INSERT INTO arrow_reads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                work_item,
                USER,
                UUID(int=read.vehicle),
                day(read.window[0]),
                day(read.window[1]),
                read.include_hidden,
                "verified" if read.is_proven else "unproven",
                None if read.settle_to is None else day(read.settle_to),
                at,
                0 if read.is_empty else 3,
            ],
        )
        for number in read.unsettled:
            con.execute(
                "INSERT INTO arrow_unsettled VALUES (?, ?)", [work_item, None if number is None else day(number)]
            )
        for number in read.absent:
            con.execute("INSERT INTO absent VALUES (?, ?)", [work_item, day(number)])
    coverage.record(con)


@attrs.define
class Model:
    """The state of each day: whether it is settled, and the time of its last read."""

    days: dict[tuple[int, bool, int], tuple[bool, datetime]] = attrs.field(factory=dict)

    def write(self, read: Read, at: datetime) -> None:
        if not read.is_proven:
            return
        window = range(read.window[0], read.window[1] + 1)
        for number in window:
            key = (read.vehicle, read.include_hidden, number)
            was_settled, read_at = self.days.get(key, (False, at))
            settles = read.settle_to is not None and number <= read.settle_to
            if settles and read.is_empty and read.settle_to is not None:
                # An empty read settles a day only if an earlier read was late enough to settle it, too.
                age = at.date() - day(read.settle_to)
                settles = read_at.date() < at.date() and day(number) <= read_at.date() - age
            self.days[key] = (was_settled or settles, at)
        unsettled = {*read.absent, *(window if None in read.unsettled else read.unsettled)}
        for (vehicle, is_hidden, number), (_, read_at) in self.days.items():
            if vehicle == read.vehicle and number in unsettled:
                self.days[vehicle, is_hidden, number] = (False, read_at)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.lists(reads(), max_size=7))
def test_spans_say_what_a_model_of_days_says(con: duckdb.DuckDBPyConnection, history: list[Read]) -> None:
    """After any reads, the spans give each day the state of the model, do not overlap, and are folded if they can be."""
    con.execute("DELETE FROM coverage")
    model, at = Model(), datetime(2026, 3, 1, tzinfo=UTC)
    for read in history:
        at += timedelta(hours=10)
        write(con, [read], at)
        model.write(read, at)
    found: dict[tuple[int, bool, int], tuple[bool, datetime]] = {}
    rows = con.execute(
        "SELECT vehicle_id, include_hidden, from_date, to_date, is_settled, read_at FROM coverage ORDER BY ALL"
    ).fetchall()
    for vehicle, is_hidden, first, last, is_settled, read_at in rows:
        for number in range((first - FIRST).days, (last - FIRST).days + 1):
            key = (vehicle.int, is_hidden, number)
            assert key not in found
            found[key] = (is_settled, read_at)
    assert {key: is_settled for key, (is_settled, _) in found.items()} == {
        key: is_settled for key, (is_settled, _) in model.days.items()
    }
    for key, (is_settled, read_at) in found.items():
        at_model = model.days[key][1]
        assert read_at <= at_model if is_settled else read_at == at_model
    for one, other in pairwise(rows):
        adjoins = one[:2] == other[:2] and one[3] + timedelta(days=1) == other[2] and one[4] == other[4]
        assert not (adjoins and (one[4] or one[5] == other[5]))


def test_reads_of_one_batch_are_recorded_together(con: duckdb.DuckDBPyConnection) -> None:
    """A batch with several vehicles, and several windows of one vehicle, records each of them."""
    con.execute("DELETE FROM coverage")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    plain = Read(1, (0, 3), include_hidden=False, is_proven=True, settle_to=1, unsettled=[], absent=[])
    batch = [plain, attrs.evolve(plain, window=(6, 8), settle_to=8), attrs.evolve(plain, vehicle=2, settle_to=None)]
    write(con, batch, at)
    rows = con.execute("SELECT vehicle_id, from_date, to_date, is_settled FROM coverage ORDER BY ALL").fetchall()
    assert [
        (vehicle.int, (first - FIRST).days, (last - FIRST).days, state) for vehicle, first, last, state in rows
    ] == [
        (1, 0, 1, True),
        (1, 2, 3, False),
        (1, 6, 8, True),
        (2, 0, 3, False),
    ]


def test_days_after_the_read_are_not_covered(con: duckdb.DuckDBPyConnection) -> None:
    """A read covers no day that had not begun, even if its window has such days."""
    con.execute("DELETE FROM coverage")
    read = Read(1, (0, 5), include_hidden=False, is_proven=True, settle_to=None, unsettled=[], absent=[])
    write(con, [read], datetime(2026, 1, 3, 12, tzinfo=UTC))
    assert con.execute("SELECT from_date, to_date FROM coverage").fetchall() == [(day(0), day(2))]
    write(con, [attrs.evolve(read, window=(4, 5))], datetime(2026, 1, 4, 12, tzinfo=UTC))
    assert con.execute("SELECT from_date, to_date FROM coverage").fetchall() == [(day(0), day(2))]

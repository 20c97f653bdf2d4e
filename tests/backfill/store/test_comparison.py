"""The comparison of a batch of reads with the stored sessions: which rows count as different."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from podero_async import VehicleRef
from podero_async.backfill._comparison import Compared, Drawn
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb import comparison
from podero_async.backfill.store.duckdb.columns import Batch
from tests._support.clients import wire_row
from tests._support.written_store import FIRST, KNOWN, LAST, ONE_DAY, START, Read, WrittenStore

_Found = dict[str, list[int]]


def _row(number: int, day: int = 10, **fields: Any) -> dict[str, Any]:
    return wire_row(number, plug_in_time=f"2026-01-{day:02}T12:00:00Z", **fields)


def _draw(store: WrittenStore, sample: int | None = None, *, include_provisional: bool = True) -> list[WorkItem]:
    comparison.draw(store.con, sample, include_provisional=include_provisional)
    return comparison.next_compared(store.con, 0, 1_000)


def _compare(store: WrittenStore, *reads: Read) -> Compared:
    batch = Batch(0)
    for number, read in enumerate(reads):
        read.add_to(batch, number, START)
    return comparison.compare(store.con, batch)


def _found(store: WrittenStore, *reads: Read) -> _Found:
    """Draw all days, compare, and return the numbers of the sessions that differ."""
    _draw(store)
    found: _Found = {}
    for each in _compare(store, *reads).differences:
        for kind in ("missing", "surplus", "changed"):
            found.setdefault(kind, []).extend(UUID(id_).int for id_ in getattr(each, kind))
    return {kind: numbers for kind, numbers in found.items() if numbers}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ([_row(1), _row(2, 20)], {}),
        ([_row(2, 20), _row(1)], {}),
        ([_row(1)], {"surplus": [2]}),
        ([_row(1), _row(2, 20), _row(3)], {"missing": [3]}),
        ([_row(1), _row(2, 20, energy_charged_kwh=1.0)], {"changed": [2]}),
        ([_row(1), _row(2, 21)], {"changed": [2]}),
        ([], {"surplus": [1, 2]}),
        ([_row(1), _row(2, 20, is_at_home="perhaps")], {}),
        ([_row(1), _row(9, 20, id=None)], {}),
        ([_row(1), _row(9, 20, is_at_home="perhaps")], {"surplus": [2]}),
    ],
)
def test_ids_and_contents_are_compared(store: WrittenStore, shown: list[dict[str, Any]], expected: _Found) -> None:
    """A session differs if only one side has it, or a field differs;
    one that the API returns in unreadable form does not differ.
    """
    store.write(Read(1, [_row(1), _row(2, 20)]))
    assert _found(store, Read(1, shown)) == expected


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ([_row(1), _row(2, 20)], (0, 0)),
        ([_row(1), _row(2, 20, is_at_home="perhaps"), _row(3, is_at_home="perhaps")], (1, 2)),
        ([_row(1), _row(2, 20), _row(3, 25, is_at_home="perhaps")], (0, 0)),
        ([_row(1), _row(2, 20), wire_row(3, plug_in_time=None)], (1, 1)),
        ([_row(1, energy_charged_kwh=1.0), _row(2, 20), _row(3, is_at_home="perhaps")], (0, 1)),
    ],
)
def test_unreadable_rows_of_compared_days_are_counted(
    store: WrittenStore, shown: list[dict[str, Any]], expected: tuple[int, int]
) -> None:
    """A vehicle without a difference is unreadable if a row of a compared day, or of an unknown one, could not be read."""
    store.write(Read(1, [_row(1), _row(2, 20)], days=(FIRST, FIRST + 20 * ONE_DAY)))
    _draw(store)
    compared = _compare(store, Read(1, shown))
    assert (compared.unreadable, compared.rejected) == expected


def test_withdrawn_rows_are_not_stored_ones(store: WrittenStore) -> None:
    """A row that is marked as withdrawn is missing if the API shows the session, and equal if it does not."""
    store.write(Read(1, [_row(1), _row(2)]))
    store.con.execute("UPDATE sessions SET withdrawn_at = fetched_at WHERE id = ?", [UUID(int=2)])
    assert _found(store, Read(1, [_row(1)])) == {}
    assert _found(store, Read(1, [_row(1), _row(2)])) == {"missing": [2]}


def test_only_compared_days_count(store: WrittenStore) -> None:
    """Sessions of other days than the drawn ones do not differ, though the read returns them."""
    days = FIRST, FIRST + 9 * ONE_DAY
    ended = _row(1, unplug_time="2026-01-10T20:00:00Z")
    store.write(Read(1, [ended], days=days), Read(2, [_row(2)]), Read(3, [_row(4)]))
    store.con.execute("UPDATE coverage SET is_settled = true WHERE vehicle_id <> ?", [UUID(int=3)])
    items = _draw(store, include_provisional=False)
    assert [(item.vehicle.vehicle_id.int, item.window.from_date, item.window.to_date) for item in items] == [
        (1, *days),
        (2, FIRST, LAST),
    ]
    assert _compare(store, Read(1, [ended, _row(3, 15)])).differences == []
    (difference,) = _compare(store, Read(1, [ended, _row(3, 9)])).differences
    assert (difference.sessions, difference.missing) == (1, (str(UUID(int=3)),))


def test_hidden_sessions_count_on_days_that_were_read_with_them(store: WrittenStore) -> None:
    """A hidden session is compared on the days that were read with hidden sessions, and ignored on others."""
    with_hidden = Read(1, [_row(1, is_hidden=True)], include_hidden=True, days=(FIRST, FIRST + 14 * ONE_DAY))
    store.write(with_hidden, Read(1, [_row(2, 20)], days=(FIRST + 15 * ONE_DAY, LAST)))
    (item,) = _draw(store)
    assert item.window == Read(1, [], include_hidden=True).window
    shown = [_row(2, 20), _row(3, 21, is_hidden=True)]
    assert _found(store, Read(1, [_row(1, is_hidden=True), *shown], include_hidden=True)) == {}
    assert _found(store, Read(1, shown, include_hidden=True)) == {"surplus": [1]}


def test_a_session_of_another_vehicle_is_changed(store: WrittenStore) -> None:
    """A session that the API lists under another vehicle is changed there, and surplus under the stored vehicle."""
    store.write(Read(1, [_row(1)]), Read(2, []))
    assert _found(store, Read(1, []), Read(2, [_row(1)])) == {"changed": [1]}
    assert _found(store, Read(1, [])) == {"surplus": [1]}


def test_rows_of_a_vehicle_that_two_users_list_are_those_of_both(store: WrittenStore) -> None:
    """Each user's read returns the rows, which have one of the two users; if that user has gone, they differ."""
    store.roster((1, 1), (2, 1))
    reads = Read(1, [_row(1)], user=1), Read(1, [_row(1)], user=2)
    store.write(*reads)
    assert _found(store, *reads) == {}
    assert _found(store, Read(1, [], user=1)) == {}, "the row is the other user's"
    assert _found(store, Read(1, [], user=2)) == {"surplus": [1]}
    store.con.execute(f"INSERT INTO vehicles {KNOWN} VALUES (?, ?, now(), now(), now())", [UUID(int=2), UUID(int=1)])
    assert _found(store, Read(1, [_row(1)], user=1)) == {"changed": [1]}


def test_a_sample_draws_vehicles(store: WrittenStore) -> None:
    """A sample has all days of as many vehicles; the ones that have gone are counted, not drawn."""
    store.write(*[Read(number, [], days=days) for number in range(1, 6) for days in ((FIRST, FIRST), (LAST, LAST))])
    store.con.execute(f"INSERT INTO vehicles {KNOWN} VALUES (?, ?, now(), now(), now())", [UUID(int=1), UUID(int=5)])
    assert comparison.draw(store.con, None, include_provisional=True) == Drawn(vehicles=4, left=1)
    assert comparison.draw(store.con, 2, include_provisional=True) == Drawn(vehicles=2)
    assert [(item.window.from_date, item.window.to_date) for item in _draw(store, 2)] == [(FIRST, LAST)] * 2
    assert len(_draw(store, 9)) == 4


def test_items_are_returned_a_slice_at_a_time(store: WrittenStore) -> None:
    """The work items after a number come in order, as many as are asked for."""
    store.write(*[Read(number, []) for number in range(1, 6)])
    _draw(store)
    found = [comparison.next_compared(store.con, after, 2) for after in (0, 2, 4, 5)]
    assert [[item.number for item in items] for items in found] == [[1, 2], [3, 4], [5], []]


def test_at_most_100_ids_of_a_kind_are_listed(store: WrittenStore) -> None:
    """A difference counts all sessions, and lists a bounded number of ids."""
    store.write(Read(1, [_row(number) for number in range(1, 131)]))
    _draw(store)
    compared = _compare(store, Read(1, [_row(number) for number in range(131, 151)]))
    (difference,) = compared.differences
    assert (compared.stored, compared.surplus) == (130, 130)
    assert (difference.sessions, len(difference.surplus), len(difference.missing)) == (150, 100, 20)
    assert difference.vehicle == VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=1))


def test_the_days_of_vehicles_that_differ_become_due(store: WrittenStore) -> None:
    """The days of a vehicle that differs become provisional and due, under each of its users."""
    store.roster((1, 1), (2, 1), (1, 2))
    store.write(Read(1, [_row(1)]), Read(1, [_row(1)], user=2), Read(2, []), Read(3, [], include_hidden=True))
    store.con.execute("UPDATE coverage SET is_settled = true")
    _draw(store, include_provisional=False)
    _compare(store, Read(1, [], user=2), Read(1, [], user=1), Read(2, []), Read(3, [_row(3)], include_hidden=True))
    assert comparison.unsettle(store.con) == [(True, LAST), (False, LAST)]
    assert store.query("SELECT user_id, vehicle_id FROM coverage WHERE is_settled ORDER BY ALL") == [
        (UUID(int=1), UUID(int=1)),
        (UUID(int=1), UUID(int=2)),
    ]
    assert store.query("SELECT DISTINCT epoch(read_at) FROM coverage WHERE NOT is_settled") == [(0,)]
    vehicles = {hidden: comparison.next_differing(store.con, hidden, 0, 10) for hidden in (True, False)}
    assert vehicles == {True: [Read(3, []).ref], False: [Read(1, []).ref, Read(1, [], user=2).ref]}
    assert comparison.next_differing(store.con, include_hidden=False, after=1, limit=10) == [Read(1, [], user=2).ref]
    comparison.draw_differing(store.con)
    assert [item.vehicle for item in comparison.next_compared(store.con, 0, 10)] == [
        Read(1, [], user=2).ref,
        Read(3, []).ref,
    ]


@pytest.mark.parametrize("shown", [{"plug_in_time": "2026-01-20T12:00:00Z"}, {"is_hidden": True}])
def test_a_stored_row_is_compared_where_the_store_has_it(store: WrittenStore, shown: dict[str, Any]) -> None:
    """A session that the API shows on a day that is not compared, or as hidden,
    has changed if the store has it on a compared day.
    """
    store.write(Read(1, [_row(1, 5)], days=(FIRST, FIRST + 9 * ONE_DAY)))
    store.write(Read(1, [], days=(LAST, LAST), include_hidden=True))
    assert _found(store, Read(1, [_row(1, 5) | shown], include_hidden=True)) == {"changed": [1]}
    assert _found(store, Read(1, [_row(1, 5)], include_hidden=True)) == {}


def test_a_read_has_the_whole_of_the_sessions(store: WrittenStore) -> None:
    """The API may list a session by its end, or on all its days: the window of a read includes the ends of the sessions of
    the compared days, unless an end lies after the newest read; only then the session is not looked for.
    """
    ends = {1: "2026-01-11T02:00:00Z", 2: "2026-01-25T02:00:00Z", 3: "9999-12-31T02:00:00Z"}
    rows = [_row(1, unplug_time=ends[1]), _row(2, 20, unplug_time=ends[2])]
    last = FIRST + 19 * ONE_DAY
    store.write(Read(1, rows, days=(FIRST, last)), Read(2, [_row(3, unplug_time=ends[3])], days=(FIRST, last)))
    one, other = _draw(store)
    assert (one.window.to_date.day, other.window.to_date) == (25, last)
    assert _found(store, Read(1, [], days=(FIRST, one.window.to_date))) == {"surplus": [1, 2]}
    assert _found(store, Read(2, [], days=(FIRST, last))) == {}


def test_a_session_that_lasts_into_covered_days_is_not_uncovered(store: WrittenStore) -> None:
    """A proven read of a day may return a session that was plugged in before it; one that ended before is uncovered."""
    days = FIRST + 10 * ONE_DAY, LAST
    rows = [_row(1, unplug_time="2026-01-11T02:00:00Z"), _row(2, unplug_time="2026-01-10T20:00:00Z"), _row(3, 11)]
    store.write(Read(1, rows, days=days))
    assert comparison.draw(store.con, None, include_provisional=True) == Drawn(vehicles=1, uncovered=1)

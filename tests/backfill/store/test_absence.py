"""Absence: a stored session is withdrawn only after a second, wider read
has confirmed that the server no longer lists it.
"""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import pytest

from podero_async import Completeness
from podero_async.backfill._report import Written
from podero_async.backfill.store.duckdb import absence
from tests._support.clients import wire_row
from tests._support.follower import Follower
from tests._support.written_store import FIRST, LAST, ONE_DAY, START, Read, WrittenStore

ABSENT, WITHDRAWN = "absent_at IS NOT NULL", "withdrawn_at IS NOT NULL"
TENTH = date(2026, 1, 10)


def _row(number: int, day: int = 10, **fields: Any) -> dict[str, Any]:
    return wire_row(number, plug_in_time=f"2026-01-{day:02}T12:00:00Z", **fields)


def test_a_read_without_a_row_marks_it_absent_but_not_withdrawn(store: WrittenStore) -> None:
    """The first read without a stored row sets `absent_at` to the time of its commit; later ones do not move it."""
    store.write(Read(1, [_row(1), _row(2)]))
    assert store.write(Read(1, [_row(2)])) == Written(unchanged=1)
    first = store.at
    store.write(Read(1, [_row(2)]))
    assert store.query("SELECT absent_at, withdrawn_at, changed_at FROM sessions WHERE absent_at IS NOT NULL") == [
        (first, None, START)
    ]


def test_a_row_that_returns_is_no_longer_absent(store: WrittenStore) -> None:
    """Any read that returns an absent row clears `absent_at`, and leaves `changed_at`."""
    store.write(Read(1, [_row(1), _row(2)]))
    store.write(Read(1, []))
    assert store.numbers(ABSENT) == [1, 2]
    written = store.write(Read(1, [_row(1), _row(2, energy_charged_kwh=1.0)], completeness=Completeness.UNPROVEN))
    assert written == Written(changed=1, unchanged=1)
    assert store.numbers(ABSENT) == []


@pytest.mark.parametrize(
    ("read", "stored", "is_absent"),
    [
        ({}, {}, True),
        ({"days": (TENTH, TENTH)}, {}, True),
        ({"days": (FIRST, TENTH - ONE_DAY)}, {}, False),
        ({"days": (TENTH + ONE_DAY, LAST)}, {}, False),
        ({}, {"is_hidden": True}, False),
        ({"include_hidden": True}, {"is_hidden": True}, True),
        ({"completeness": Completeness.UNPROVEN}, {}, False),
        ({"completeness": Completeness.REPAIRED}, {}, True),
        ({"vehicle": 2}, {}, False),
        ({"user": 2}, {}, False),
        ({"user": 3}, {}, False),
        ({"rows": [_row(2, id=None)]}, {}, False),
        ({"rows": [_row(1, is_at_home="perhaps")]}, {}, False),
        ({"rows": [_row(2, is_at_home="perhaps")]}, {}, True),
    ],
)
def test_only_a_read_that_had_to_return_a_row_marks_it(
    store: WrittenStore, read: dict[str, Any], stored: dict[str, Any], is_absent: bool
) -> None:
    """A row is absent if a proven read of its vehicle, user, day and visibility lacks it,
    and rejected no row that may be it.
    """
    store.roster((1, 1), (1, 2), (2, 1))
    store.write(Read(1, [_row(1, **stored)], include_hidden=True))
    store.write(Read(**{"vehicle": 1, "rows": [], **read}))
    assert store.numbers(ABSENT) == [1] * is_absent


def test_the_row_of_a_user_who_left_is_not_absent_if_another_user_of_the_vehicle_lacks_it(store: WrittenStore) -> None:
    """If a vehicle moved to another user, the new user's reads say nothing of the old user's rows, unless they return them."""
    store.roster((1, 1))
    store.write(Read(1, [_row(1), _row(2)]))
    store.roster((2, 1))
    store.write(Read(1, [_row(2), _row(3)], user=2))
    assert store.numbers(ABSENT) == []
    assert store.query("SELECT user_id FROM sessions ORDER BY id") == [(UUID(int=user),) for user in (1, 2, 2)]


def test_a_rejected_row_is_not_absent(store: WrittenStore) -> None:
    """If an absent row returns in unreadable form, even under another vehicle, it is not absent any more."""
    for rejected in (_row(1, is_at_home="perhaps"), _row(9, id=None)):
        store.write(Read(1, [_row(1)]))
        store.write(Read(1, []))
        assert store.numbers(ABSENT) == [1]
        store.write(Read(1, [rejected]))
        assert store.numbers(ABSENT) == []
    store.write(Read(1, []))
    store.write(Read(2, [_row(1, is_at_home="perhaps")]))
    assert store.numbers(ABSENT) == []


# --- the guard -------------------------------------------------------------------------------------------------------


def test_the_share_of_absent_rows_is_that_of_the_days_that_were_read(store: WrittenStore) -> None:
    """The guard compares the absent rows with the live rows of the windows of the run's proven reads, each counted once."""
    store.roster((1, 1), (2, 1), (1, 2), (1, 3))
    rows = [_row(number, day=number) for number in range(1, 9)]
    store.write(Read(1, rows), Read(2, [_row(20), _row(21, is_hidden=True)], include_hidden=True), Read(3, [_row(30)]))
    store.con.execute("UPDATE receipts SET run_id = 0")
    store.write(
        Read(1, rows[1:5], days=(FIRST, date(2026, 1, 5))),
        Read(1, rows[3:5], days=(date(2026, 1, 4), date(2026, 1, 5)), user=2),
        Read(2, [_row(20)]),
        Read(3, [], completeness=Completeness.UNPROVEN),
    )
    assert absence.absent_share(store.con, 1) == (1, 6)


# --- confirmation and conclusion -------------------------------------------------------------------------------------


def test_a_confirming_read_covers_all_read_days_of_the_vehicle(store: WrittenStore) -> None:
    """An absent row is confirmed by a read of all covered days and the row's neighbors, as each user of the vehicle."""
    store.roster((1, 1), (2, 1), (1, 2), (1, 3))
    store.write(Read(1, [_row(1), _row(2, day=31)], days=(TENTH, LAST)), Read(2, [_row(3)]), Read(3, [_row(4)]))
    store.write(Read(1, [], days=(TENTH, LAST)), Read(2, [_row(3)]), Read(3, []))
    items = store.confirming()
    window = (TENTH - ONE_DAY, LAST + ONE_DAY, False)
    found = [
        (each.vehicle.user_id.int, each.vehicle.vehicle_id.int, (each.window.from_date, each.window.to_date, False))
        for each in items
    ]
    assert found == [(1, 1, window), (2, 1, window), (1, 3, (FIRST, LAST, False))]
    assert [each.number for each in items] == [1_000, 1_001, 1_002]
    assert all(each.is_confirming and not each.asks_current for each in items)


@pytest.mark.parametrize("roster", [[(1, 2)], [(2, 1), (1, 2)]])
def test_rows_whose_user_is_not_in_the_roster_are_not_confirmed(
    store: WrittenStore, roster: list[tuple[int, int]]
) -> None:
    """Absent rows stay as they are while their user is not in the roster with the vehicle, also if another user is."""
    store.roster((1, 1), (1, 2))
    store.write(Read(1, [_row(1)]), Read(2, []))
    store.write(Read(1, []))
    store.roster(*roster)
    assert store.confirming() == []
    assert store.conclude([]) == 0
    assert (store.numbers(ABSENT), store.numbers(WITHDRAWN)) == ([1], [])


def test_hidden_rows_are_confirmed_by_runs_that_list_them(store: WrittenStore) -> None:
    """A hidden row that is absent waits for a run that includes hidden sessions."""
    store.roster((1, 1))
    store.write(Read(1, [_row(1, is_hidden=True)], include_hidden=True))
    store.write(Read(1, [], include_hidden=True))
    assert store.confirming() == []
    (item,) = store.confirming(include_hidden=True)
    assert item.window.include_hidden
    assert store.conclude([item.number]) == 1


def test_rows_that_stay_absent_are_withdrawn(store: WrittenStore) -> None:
    """After all reads of a vehicle are done, its absent rows get `withdrawn_at` and `changed_at`;
    other vehicles' do not.
    """
    store.roster((1, 1), (2, 1), (1, 2))
    store.con.execute(
        "INSERT INTO runs (run_id, from_date, to_date, include_hidden, scope, vehicles, started_at)"
        " VALUES (1, '2026-01-01', '2026-01-31', false, '', 3, now())"
    )
    store.write(Read(1, [_row(1)]), Read(2, [_row(2)]))
    store.write(Read(1, []), Read(2, []))
    both, other, second = (item.number for item in store.confirming())
    assert store.conclude([both]) == 0
    assert store.conclude([both, second]) == 1
    assert store.query(
        "SELECT id, withdrawn_at, changed_at, absent_at FROM sessions WHERE withdrawn_at IS NOT NULL"
    ) == [(UUID(int=2), store.at, store.at, None)]
    assert store.conclude([both, other, second]) == 1
    assert store.numbers(WITHDRAWN) == [1, 2]
    assert store.query("SELECT sessions_withdrawn FROM runs") == [(2,)]


def test_a_withdrawn_row_is_not_absent_again(store: WrittenStore) -> None:
    """A read without a withdrawn row neither marks the row nor leaves its day unsettled."""
    store.roster((1, 1))
    store.write(Read(1, [_row(1)]))
    store.write(Read(1, []))
    assert store.query("SELECT work_item, day FROM absent") == [(0, TENTH)]
    assert store.conclude([item.number for item in store.confirming()]) == 1
    store.write(Read(1, []))
    assert (store.numbers(ABSENT), store.query("SELECT work_item, day FROM absent")) == ([], [])


def test_a_row_whose_day_was_corrected_is_found_and_not_withdrawn(store: WrittenStore) -> None:
    """A session that moved out of the window that was read is returned by the wider read, and only changed."""
    store.roster((1, 1))
    store.write(Read(1, [_row(1)]))
    store.write(Read(1, [], days=(TENTH, LAST)))
    (item,) = store.confirming()
    store.write(Read(1, [_row(1, day=9)], days=(item.window.from_date, item.window.to_date)))
    corrected = store.at
    assert store.conclude([item.number]) == 0
    assert store.query("SELECT absent_at, withdrawn_at, changed_at FROM sessions") == [(None, None, corrected)]


def test_rows_that_only_the_confirming_read_lacks_are_suspects_of_the_next_run(store: WrittenStore) -> None:
    """A row that a confirming read does not return is marked absent, and not withdrawn by the same run."""
    store.roster((1, 1))
    store.write(Read(1, [_row(1), _row(2, day=20)]))
    store.write(Read(1, [], days=(TENTH, TENTH)))
    (item,) = store.confirming()
    store.write(Read(1, []))
    assert store.conclude([item.number]) == 1
    assert (store.numbers(WITHDRAWN), store.numbers(ABSENT)) == ([1], [2])


def test_a_row_that_one_confirming_read_returns_is_not_withdrawn(store: WrittenStore) -> None:
    """If one user's confirming read returns the row and another user's does not, it stays, in either order."""
    for users in [(1, 2), (2, 1)]:
        store.roster((1, 1), (2, 1))
        store.write(Read(1, [_row(1)]))
        store.write(Read(1, []))
        items = store.confirming()
        for user in users:
            store.write(Read(1, [_row(1)] if user == 1 else [], user=user))
        assert store.conclude([item.number for item in items]) == 0
        assert store.numbers(WITHDRAWN) == []
        store.con.execute("DELETE FROM sessions")


def test_the_next_run_forgets_the_suspects_of_an_interrupted_one(store: WrittenStore) -> None:
    """Without confirming reads of its own, a run withdraws nothing."""
    store.roster((1, 1))
    store.write(Read(1, [_row(1)]))
    store.write(Read(1, []))
    (item,) = store.confirming()
    absence.start(store.con)
    assert store.conclude([item.number]) == 0
    assert store.numbers(ABSENT) == [1]


# --- consumers -------------------------------------------------------------------------------------------------------


def test_a_consumer_of_changed_at_sees_each_state(store: WrittenStore) -> None:
    """A consumer that follows `changed_at` alone has the table after a withdrawal, a return, and a move."""
    store.roster((1, 1), (2, 2))
    follower = Follower()
    states = []
    store.write(Read(1, [_row(1)]), Read(2, [], user=2))
    for _ in range(2):
        store.write(Read(1, []))
        states.append(store.conclude([item.number for item in store.confirming()]))
        follower.pull(store.con)
        assert follower.is_equal_to(store.con)
        states.append(store.write(Read(1, [_row(1)])).changed)
        follower.pull(store.con)
        assert follower.is_equal_to(store.con)
    states.append(store.write(Read(2, [_row(1)], user=2)).changed)
    follower.pull(store.con)
    assert follower.is_equal_to(store.con)
    assert states == [1, 1, 1, 1, 1]

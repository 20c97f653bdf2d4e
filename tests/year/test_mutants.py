"""The invariants detect stores that were altered by hand, and rules with one fault."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import attrs
import duckdb
import pytest

from podero_async.backfill import SessionStore, _client_access, _coverage
from tests.year.simulation import Habit, Shop, Year
from tests.year.world import DAY

WRONG = {
    "a row is lost": "DELETE FROM sessions WHERE id = (SELECT max(id) FROM sessions)",
    "a row is doubled": "INSERT INTO sessions SELECT * FROM sessions ORDER BY id LIMIT 1",
    "a row is invented": (
        "INSERT INTO sessions SELECT * REPLACE (uuid() AS id) FROM (FROM sessions ORDER BY changed_at DESC LIMIT 1)"
    ),
    "a row is withdrawn, though every read returned it": (
        "UPDATE sessions SET withdrawn_at = changed_at WHERE id = (SELECT max(id) FROM sessions WHERE withdrawn_at IS NULL)"
    ),
    "a row that two reads did not return is live": (
        "UPDATE sessions SET withdrawn_at = NULL WHERE withdrawn_at IS NOT NULL"
    ),
    "a row that a read did not return is not marked": "UPDATE sessions SET absent_at = NULL WHERE absent_at IS NOT NULL",
    "a row is marked absent, though every read returned it": (
        "UPDATE sessions SET absent_at = changed_at WHERE id = ("
        " SELECT max(id) FROM sessions WHERE withdrawn_at IS NULL AND absent_at IS NULL)"
    ),
    "a row is stale": ("UPDATE sessions SET energy_charged_kwh = 0.125 WHERE id = (SELECT max(id) FROM sessions)"),
    "a row has another vehicle": "UPDATE sessions SET vehicle_id = user_id WHERE id = (SELECT max(id) FROM sessions)",
    "a row has another user": "UPDATE sessions SET user_id = vehicle_id WHERE id = (SELECT max(id) FROM sessions)",
    "a change moves no changed_at": (
        "UPDATE sessions SET changed_at = changed_at - INTERVAL 1 SECOND WHERE id = (SELECT max(id) FROM sessions)"
    ),
    "all days are settled": "UPDATE coverage SET is_settled = true WHERE NOT is_settled",
    "a day that was never read has a state": "UPDATE coverage SET from_date = from_date - 1",
    "a day that was read is missing": "DELETE FROM coverage WHERE from_date = (SELECT max(from_date) FROM coverage)",
    "days have too late a read time": "UPDATE coverage SET read_at = read_at + INTERVAL 1 DAY",
    "spans overlap": "INSERT INTO coverage SELECT * FROM coverage LIMIT 1",
}


def year_of(seed: int, days: int, directory: Path) -> Year:
    """Return the year of a seed with the most usual habit."""
    year = Year(seed, days, directory)
    year.habit = Habit(
        schedule="fixed",
        every=DAY,
        first=date(2025, 11, 2),
        settle_days=30,
        shards=1,
        hidden="never",
        fresh_for=DAY / 2,
        lists_vehicles=False,
        zone="UTC",
        has_accidents=False,
        upgrades=False,
    )
    return year


class _Enough(Exception):  # noqa: N818 - it ends a year early
    pass


@pytest.mark.slow
def test_the_invariants_notice_wrong_stores(tmp_path: Path) -> None:
    """The invariants reject a store that any of these statements has altered."""
    left = dict(WRONG)

    async def spoil(year: Year, shop: Shop) -> None:
        for name, statement in list(left.items()):
            spoilt = shop.path.with_name("spoilt.duckdb")
            shutil.copyfile(shop.path, spoilt)
            with duckdb.connect(spoilt) as con:
                con.execute("SET TimeZone = 'UTC'")
                ((changed,),) = con.execute(statement).fetchall()
            if not changed:
                continue
            checker = copy.copy(shop.checker)
            checker.replica = copy.deepcopy(checker.replica)
            async with SessionStore(spoilt) as store:
                with pytest.raises(AssertionError):
                    await checker.check(store, set(year.world.listed_pairs))
            del left[name]
        if not left:
            raise _Enough

    year = year_of(1, 60, tmp_path)
    year.after_run = spoil
    with pytest.raises(_Enough):
        year.run()


def _settles_whatever_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client_access, "settle_to", lambda final, plugged_in_at: final)


def _settles_a_week_early(monkeypatch: pytest.MonkeyPatch) -> None:
    final_day = _coverage.final_day
    monkeypatch.setattr(_client_access, "final_day", lambda at, days: final_day(at, days - 7))


def _believes_the_local_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client_access, "server_time", lambda client: None)


def _asks_every_night(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_coverage, "asks_current", lambda *_: True)


MISTAKES = [
    _settles_whatever_goes_on,
    _settles_a_week_early,
    pytest.param(_believes_the_local_clock, marks=pytest.mark.soak),  # takes the most time to notice
    _asks_every_night,
]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_year_notices_wrong_rules(
    mistake: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A year fails if one rule is wrong: the days that settle, the time, the clock, or the number of requests."""
    mistake(monkeypatch)
    year = year_of(1, 120, tmp_path)
    year.habit = attrs.evolve(year.habit, has_accidents=True)
    with pytest.raises(AssertionError):
        year.run()

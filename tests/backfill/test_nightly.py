"""Ten nights of a fleet that grows, while the server inserts, changes, hides and removes rows between them."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from podero_async import VehicleRef
from podero_async.backfill import BackfillReport, SessionStore, backfill
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.expected_rows import FIELDS, held_by, truth_of, utc
from tests.backfill.conftest import Clock

FIRST = date(2026, 3, 1)
NIGHTS = 10
RECENT = 7


@attrs.define
class DailyChanges:
    """Changes a fleet from one night to the next, and records in which night a session was changed or withdrawn."""

    sim: PoderoSimulator
    rng: Random = attrs.field(factory=lambda: Random(7))
    changed_on: dict[str, int] = attrs.field(factory=dict)
    withdrawn_on: dict[str, int] = attrs.field(factory=dict)

    def pass_one(self, night: int, today: date) -> None:
        """Simulate a day: insert, change, hide and remove rows of the last days, and add a vehicle every third day."""
        for vehicle in self.sim.vehicles:
            self.sim.insert(vehicle, plug_in_time=utc(today.year, today.month, today.day, 7, self.rng.randrange(60)))
        for change in (self._insert_late, self._update, self._hide, self._remove):
            for vehicle in self.rng.sample(self.sim.vehicles, 3):
                change(vehicle, night, today)
        if night % 3 == 0:
            new = self.sim.add_vehicle(self.sim.vehicles[0].user_id, rows=[])
            for _ in range(40):
                back = timedelta(hours=self.rng.randrange(24 * 60))
                self.sim.insert(new, plug_in_time=utc(today.year, today.month, today.day) - back)

    def _recent(self, vehicle: VehicleRef, today: date) -> list[dict[str, Any]]:
        """Return the rows of the last days, which are stored."""
        return self.sim.truth(vehicle, today - timedelta(days=RECENT), today - timedelta(days=1))

    def _insert_late(self, vehicle: VehicleRef, _: int, today: date) -> None:
        back = timedelta(days=self.rng.randrange(1, RECENT), minutes=self.rng.randrange(600))
        self.sim.insert(vehicle, plug_in_time=utc(today.year, today.month, today.day, 12) - back)

    def _update(self, vehicle: VehicleRef, night: int, today: date) -> None:
        row = self.rng.choice(self._recent(vehicle, today))
        self.sim.update(vehicle, row["id"], actual_savings_eur=100.0 + night)
        self.changed_on[row["id"]] = night

    def _hide(self, vehicle: VehicleRef, night: int, today: date) -> None:
        row = self.rng.choice(self._recent(vehicle, today))
        self.sim.hide(vehicle, row["id"])
        self.withdrawn_on[row["id"]] = night

    def _remove(self, vehicle: VehicleRef, night: int, today: date) -> None:
        row = self.rng.choice(self._recent(vehicle, today))
        self.sim.remove(vehicle, row["id"])
        self.withdrawn_on[row["id"]] = night


@pytest.mark.slow
async def test_ten_nights_equal_the_server(path: Path) -> None:
    """After each of ten nights the store equals the server's lists,
    at few requests a vehicle, and has every change marked.
    """
    async with PoderoSimulator(users=5, vehicles=15, sessions_per_vehicle=90, seed=5) as sim, client_of(sim) as client:
        today, clock = date(2026, 7, 1), Clock(utc(2026, 7, 1, 23))
        days, moments = DailyChanges(sim), {0: clock.at}
        # Only changes of stored rows count: a row that is inserted and changed on one day is a new row.
        async with SessionStore(path) as store:
            await backfill(client, store, FIRST, today, now=clock)
            known = {row_id for _, row_id in await held_by(store)}
        for night in range(1, NIGHTS):
            today += timedelta(days=1)
            clock.forward(days=1)
            days.pass_one(night, today)
            moments[night] = clock.at
            pages, asked = _count_pages(sim), sim.counts.requests["current"]
            async with SessionStore(path) as store:
                report = await backfill(client, store, FIRST, today, now=clock)
                held = await held_by(store)
                assert held == truth_of(sim, FIRST, today), f"night {night}"
            _assert_cost(sim, report, pages, sim.counts.requests["current"] - asked)
            days.changed_on = {row: when for row, when in days.changed_on.items() if row in known or when < night}
            days.withdrawn_on = {row: when for row, when in days.withdrawn_on.items() if row in known or when < night}
            known |= {row_id for _, row_id in held}
        async with SessionStore(path) as store:
            rows = await store.query("SELECT * FROM sessions")
        assert max(Counter(row["id"] for row in rows).values()) == 1
        assert set(rows[0]) >= set(FIELDS)
        _assert_marks(rows, days, moments)


def _count_pages(sim: PoderoSimulator) -> Counter[VehicleRef]:
    pages: Counter[VehicleRef] = Counter()
    sim.before_page = lambda asked: pages.update([asked.vehicle])
    return pages


def _assert_cost(sim: PoderoSimulator, report: BackfillReport, pages: Counter[VehicleRef], asked: int) -> None:
    """Assert one request per vehicle, and those of the discovery; another one confirms that sessions are absent.

    A session that shows no end, and the question for the current session, cost a request a week each.
    """
    assert report.done >= len(sim.vehicles) == report.vehicles
    assert sum(pages.values()) <= 2.5 * len(sim.vehicles)
    users = 5
    assert report.requests == sum(pages.values()) + asked + 1 + users


def _assert_marks(rows: list[dict[str, Any]], days: DailyChanges, moments: dict[int, Any]) -> None:
    by_id = {row["id"]: row for row in rows}
    assert {row["id"] for row in rows if row["withdrawn_at"]} == set(days.withdrawn_on)
    for row_id, night in days.withdrawn_on.items():
        assert moments[night] < by_id[row_id]["withdrawn_at"] < moments[night] + timedelta(hours=1)
    is_new = timedelta(minutes=1)
    changed = {
        row["id"] for row in rows if row["changed_at"] > row["first_seen_at"] + is_new and not row["withdrawn_at"]
    }
    # The last change of a withdrawn row is its withdrawal.
    unread = set(days.withdrawn_on)
    assert changed - unread == set(days.changed_on) - unread
    for row_id in changed - unread:
        moment = moments[days.changed_on[row_id]]
        assert moment < by_id[row_id]["changed_at"] < moment + timedelta(hours=1)
    assert len(changed) > 10
    assert len(days.withdrawn_on) > 10

"""The demo's simulated fleet: its changes during the backfill, the stop half-way, and the check of the stored rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from random import Random
from typing import Any

import attrs

from podero_async.backfill import Progress, SessionStore
from podero_async.models import ChargingSession, VehicleRef
from podero_async.testing import Fault, PageRequest, PoderoSimulator

__all__ = ["ListChanges", "StopHalfway", "TruthCheck", "demo_simulator"]

_VEHICLES_PER_QUERY = 100
_TIMES = {field.name for field in attrs.fields(ChargingSession) if "datetime" in str(field.type)}
_FIELDS = [field.name for field in attrs.fields(ChargingSession)]
# The database formats times as the API sends them, much faster than Python.
_COLUMNS = [
    f"replace(strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ'), '.000000Z', 'Z') AS {name}" if name in _TIMES else name
    for name in _FIELDS
]
_STORED = f"""
SELECT vehicle_id, {", ".join(_COLUMNS)} FROM sessions WHERE withdrawn_at IS NULL AND vehicle_id BETWEEN ? AND ?
"""  # noqa: S608 - the names of fields


def demo_simulator(vehicles: int, seed: int, faults: Iterable[Fault]) -> PoderoSimulator:
    """Make a fleet of about 120 sessions per vehicle.

    A tenth of the vehicles have several pages, and a sixth of the users have no vehicle.
    """
    large = vehicles // 10
    small = vehicles - large
    simulator = PoderoSimulator(
        users=small + small // 5, vehicles=small, sessions_per_vehicle=(20, 145), seed=seed, faults=tuple(faults)
    )
    rng = Random(f"{seed}/large")
    for vehicle in rng.sample(simulator.vehicles, large):
        simulator.add_vehicle(vehicle.user_id, sessions=rng.randint(220, 700))
    return simulator


@attrs.define
class ListChanges:
    """A `before_page` hook that inserts or removes a session of the requested list, before some of the pages."""

    _simulator: PoderoSimulator
    _rng: Random
    _rate: float
    inserted: set[str] = attrs.field(factory=set, init=False)
    removed: int = attrs.field(default=0, init=False)

    def __call__(self, request: PageRequest) -> None:
        """Insert or remove a session at the given rate, or leave the list as it is."""
        if self._rng.random() >= self._rate:
            return
        vehicle, rows = request.vehicle, self._simulator.truth(request.vehicle, include_hidden=True)
        change = self._rng.choice(["ended", "late", "removed", "removed"])
        if change == "removed":
            self._simulator.remove(vehicle, self._rng.choice(rows)["id"])
            self.removed += 1
            return
        # A session that has just ended is at the head of the list; a late one is anywhere.
        row = rows[0] if change == "ended" else self._rng.choice(rows)
        moment = datetime.fromisoformat(row["plug_in_time"]) + timedelta(seconds=1)
        self.inserted.add(self._simulator.insert(vehicle, plug_in_time=moment)["id"])


@attrs.define
class StopHalfway:
    """A `before_page` hook that sets `stop` when about half of the vehicles are read and more are in flight."""

    _vehicles: int
    _progress: Progress
    _next_hook: Callable[[PageRequest], None]
    stop: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _requested: set[VehicleRef] = attrs.field(factory=set, init=False)

    def __call__(self, request: PageRequest) -> None:
        """Count the requested vehicles, set `stop` when they are enough, and call the next hook."""
        self._requested.add(request.vehicle)
        if len(self._requested) >= min(self._vehicles, self._vehicles // 2 + self._progress.limit):
            self.stop.set()
        self._next_hook(request)


@attrs.define
class TruthCheck:
    """Compares a store with the simulator's lists.

    A session that was in its list at the start, and still is at the end, existed throughout: it must be in the store.
    """

    _simulator: PoderoSimulator
    _changes: ListChanges
    _at_start: dict[VehicleRef, set[str]] = attrs.field(factory=dict, init=False)
    found: Counter[str] = attrs.field(factory=Counter, init=False)
    """Wrong sessions by kind: lost, doubled, altered, foreign."""

    async def remember(self) -> None:
        """Remember the ids of all sessions. The simulator generates its rows now, which takes seconds."""
        for vehicle in self._simulator.vehicles:
            self._at_start[vehicle] = set(self._truth(vehicle))
            await asyncio.sleep(0)  # the loop handles a signal here

    async def compare(self, store: SessionStore) -> None:
        """Count the wrong sessions of a store."""
        vehicles = sorted(self._at_start, key=lambda vehicle: vehicle.vehicle_id)
        for start in range(0, len(vehicles), _VEHICLES_PER_QUERY):
            some = vehicles[start : start + _VEHICLES_PER_QUERY]
            rows: dict[str, list[dict[str, Any]]] = {str(vehicle.vehicle_id): [] for vehicle in some}
            for row in await store.query(_STORED, [str(some[0].vehicle_id), str(some[-1].vehicle_id)]):
                rows.setdefault(row.pop("vehicle_id"), []).append(row)
            for vehicle in some:
                self._compare_vehicle(vehicle, rows.pop(str(vehicle.vehicle_id)))
            self.found["foreign"] += sum(map(len, rows.values()))  # rows of unknown vehicles

    def _compare_vehicle(self, vehicle: VehicleRef, stored: list[dict[str, Any]]) -> None:
        truth, at_start = self._truth(vehicle), self._at_start[vehicle]
        rows = {row["id"]: row for row in stored}
        self.found["doubled"] += len(stored) - len(rows)
        self.found["lost"] += len(at_start & truth.keys() - rows.keys())
        self.found["foreign"] += len(rows.keys() - at_start - self._changes.inserted)
        self.found["altered"] += sum(rows[row_id] != truth[row_id] for row_id in rows.keys() & truth.keys())

    def _truth(self, vehicle: VehicleRef) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self._simulator.truth(vehicle, include_hidden=True)}

"""The demo's other side: a simulated fleet that fails and changes while it is read, and the witness of its truth."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

import attrs

from podero_async.backfill import Progress, SessionStore
from podero_async.models import ChargingSession, VehicleRef
from podero_async.testing import Fault, PageRequest, PoderoSimulator

__all__ = ["Drift", "HalfWay", "Witness", "demo_simulator"]

_FAULTS = (
    # First what happens but twice: of several faults at one request, the first wins.
    Fault(kind="status", status=429, headers={"Retry-After": "1"}, endpoint="sessions", nth={15, 300}),
    Fault(kind="token_revoked", endpoint="sessions", nth={10, 400}),
    Fault(kind="status", status=503, rate=0.03),
    Fault(kind="reset", rate=0.02),
    Fault(kind="truncated", rate=0.02),
    Fault(kind="hang", seconds=0.4, rate=0.02),
)
_CHANGING = 0.1  # the share of the pages right before which a session comes or goes
_CHECKED_AT_ONCE = 100  # vehicles
_TIMES = {field.name for field in attrs.fields(ChargingSession) if "datetime" in str(field.type)}
_FIELDS = [field.name for field in attrs.fields(ChargingSession)]
# Times as the wire has them: the database writes the texts much faster than Python would.
_COLUMNS = [
    f"replace(strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ'), '.000000Z', 'Z') AS {name}" if name in _TIMES else name
    for name in _FIELDS
]
_STORED = f"""
SELECT vehicle_id, {", ".join(_COLUMNS)} FROM sessions WHERE withdrawn_at IS NULL AND vehicle_id BETWEEN ? AND ?
"""  # noqa: S608 - the names of fields


def demo_simulator(vehicles: int, seed: int) -> PoderoSimulator:
    """Make a fleet of about 120 sessions a vehicle: a tenth have several pages; a sixth of the users have no vehicle."""
    large = vehicles // 10
    small = vehicles - large
    simulator = PoderoSimulator(
        users=small + small // 5, vehicles=small, sessions_per_vehicle=(20, 145), seed=seed, faults=_FAULTS
    )
    rng = Random(f"{seed}/large")
    for vehicle in rng.sample(simulator.vehicles, large):
        simulator.add_vehicle(vehicle.user_id, sessions=rng.randint(220, 700))
    return simulator


@attrs.define
class Drift:
    """Now and then, insert or remove a session of the list that is about to be read: a `before_page` hook."""

    _simulator: PoderoSimulator
    _rng: Random
    inserted: set[str] = attrs.field(factory=set, init=False)
    removed: int = attrs.field(default=0, init=False)

    def __call__(self, request: PageRequest) -> None:
        """Change the list, or leave it."""
        if self._rng.random() >= _CHANGING:
            return
        vehicle, rows = request.vehicle, self._simulator.truth(request.vehicle, include_hidden=True)
        change = self._rng.choice(["ended", "late", "removed", "removed"])
        if change == "removed":
            self._simulator.remove(vehicle, self._rng.choice(rows)["id"])
            self.removed += 1
            return
        # One that has just ended stands at the list's head; one that was late to arrive, anywhere.
        row = rows[0] if change == "ended" else self._rng.choice(rows)
        moment = datetime.fromisoformat(row["plug_in_time"]) + timedelta(seconds=1)
        self.inserted.add(self._simulator.insert(vehicle, plug_in_time=moment)["id"])


@attrs.define
class HalfWay:
    """Sets `stop` when about half of the vehicles are through, and more are under way: a `before_page` hook."""

    _vehicles: int
    _progress: Progress
    _then: Callable[[PageRequest], None]
    stop: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _asked: set[VehicleRef] = attrs.field(factory=set, init=False)

    def __call__(self, request: PageRequest) -> None:
        """Count the vehicles, and let the other hook do its work."""
        self._asked.add(request.vehicle)
        if len(self._asked) >= min(self._vehicles, self._vehicles // 2 + self._progress.limit):
            self.stop.set()
        self._then(request)


@attrs.define
class Witness:
    """Hold what stands in the store against the truth.

    A list changes only while it is read. What stood in it at the start and still does existed throughout: it must be
    in the store.
    """

    _simulator: PoderoSimulator
    _drift: Drift
    _awaited: dict[VehicleRef, set[str]] = attrs.field(factory=dict, init=False)
    found: Counter[str] = attrs.field(factory=Counter, init=False)
    """Sessions that are not as they should be, by what is wrong with them."""

    async def look(self) -> None:
        """Remember what is there. The rows are generated at this first look, which takes some seconds."""
        for vehicle in self._simulator.vehicles:
            self._awaited[vehicle] = set(self._truth(vehicle))
            await asyncio.sleep(0)  # let a Ctrl-C through

    async def check(self, store: SessionStore) -> None:
        """Check all sessions of a store: lost, doubled, altered, or of another list."""
        vehicles = sorted(self._awaited, key=lambda vehicle: vehicle.vehicle_id)
        for start in range(0, len(vehicles), _CHECKED_AT_ONCE):
            part = vehicles[start : start + _CHECKED_AT_ONCE]
            stored = await store.query(_STORED, [str(part[0].vehicle_id), str(part[-1].vehicle_id)])
            rows: dict[str, list[dict[str, Any]]] = {str(vehicle.vehicle_id): [] for vehicle in part}
            for row in stored:
                rows.setdefault(row.pop("vehicle_id"), []).append(row)
            for vehicle in part:
                self._check_vehicle(vehicle, rows.pop(str(vehicle.vehicle_id)))
            self.found["foreign"] += sum(map(len, rows.values()))  # of vehicles that nobody has

    def _check_vehicle(self, vehicle: VehicleRef, stored: list[dict[str, Any]]) -> None:
        truth, at_start = self._truth(vehicle), self._awaited[vehicle]
        rows = {row["id"]: row for row in stored}
        self.found["doubled"] += len(stored) - len(rows)
        self.found["lost"] += len(at_start & truth.keys() - rows.keys())
        self.found["foreign"] += len(rows.keys() - at_start - self._drift.inserted)
        self.found["altered"] += sum(rows[row_id] != truth[row_id] for row_id in rows.keys() & truth.keys())

    def _truth(self, vehicle: VehicleRef) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self._simulator.truth(vehicle, include_hidden=True)}

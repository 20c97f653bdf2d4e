"""The demo's other side: a simulated fleet that fails and changes while it is read, and the witness of its truth."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from random import Random

import attrs

from podero_async.cli._rows import as_row
from podero_async.models import VehicleRef, VehicleSessions
from podero_async.testing import Fault, PageRequest, PoderoSimulator

__all__ = ["Drift", "Witness", "demo_simulator"]

_FAULTS = (
    # First what happens but twice: of several faults at one request, the first wins.
    Fault(kind="status", status=429, headers={"Retry-After": "1"}, endpoint="sessions", nth={15, 300}),
    Fault(kind="token_revoked", endpoint="sessions", nth={10, 250}),
    Fault(kind="status", status=503, rate=0.03),
    Fault(kind="reset", rate=0.02),
    Fault(kind="truncated", rate=0.02),
    Fault(kind="hang", seconds=0.4, rate=0.02),
)
_CHANGING = 0.1  # the share of the pages right before which a session comes or goes


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
    """Now and then, insert or remove a session of the list that is about to be read: a `before_answer` hook."""

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
class Witness:
    """Hold what was delivered against the truth, one vehicle at a time, at the moment when it is delivered.

    What stood in the list at the start and still does existed throughout: it must have been delivered.
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

    def check(self, outcome: VehicleSessions) -> None:
        """Check one vehicle's sessions: lost, doubled, altered, or of another list."""
        truth = self._truth(outcome.vehicle)
        at_start = self._awaited.pop(outcome.vehicle, None)
        if at_start is None:
            self.found["doubled"] += len(outcome.sessions)
            return
        rows = {row["id"]: row for row in map(as_row, outcome.sessions)}
        self.found["doubled"] += len(outcome.sessions) - len(rows)
        self.found["lost"] += len(at_start & truth.keys() - rows.keys())
        self.found["foreign"] += len(rows.keys() - at_start - self._drift.inserted)
        self.found["altered"] += sum(rows[row_id] != truth[row_id] for row_id in rows.keys() & truth.keys())

    def conclude(self) -> None:
        """Count the sessions of vehicles that were never delivered as lost."""
        for vehicle, at_start in self._awaited.items():
            self.found["lost"] += len(at_start & self._truth(vehicle).keys())
        self._awaited.clear()

    def _truth(self, vehicle: VehicleRef) -> dict[str, dict[str, object]]:
        return {row["id"]: row for row in self._simulator.truth(vehicle, include_hidden=True)}

"""Chaos: one request in eleven fails and tokens expire within seconds, and each fetch of a fleet is complete."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

from podero_async import Completeness, PoderoClient, RetryPolicy, Timeouts, VehicleSessions
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of

MAX_REQUESTS = 1.15  # times the fewest possible: each failed request is sent once more, and few others

Record = Callable[[str, object], None]

FAULTS = [
    *(Fault(kind="status", status=status, rate=0.0125) for status in (500, 502, 503, 504)),
    Fault(kind="reset", rate=0.01),
    Fault(kind="reset", after_bytes=20, rate=0.01),
    Fault(kind="hang", rate=0.01),
    Fault(kind="truncated", rate=0.01),
]


def faulty_simulator(seed: int, vehicles: int, token_s: float) -> PoderoSimulator:
    """Return a simulator with ten vehicles a user; one in a hundred has a list of several pages."""
    simulator = PoderoSimulator(
        users=vehicles // 10,
        vehicles=vehicles,
        sessions_per_vehicle=(0, 40),
        seed=seed,
        faults=FAULTS,
        token_lifetime_s=token_s,
    )
    for _ in range(vehicles // 100):
        simulator.add_vehicle(simulator.vehicles[0].user_id, sessions=900)
    return simulator


def fewest_requests(simulator: PoderoSimulator) -> int:
    """Return the number of requests of one fetch without faults, apart from token requests."""
    rows = [len(simulator.truth(vehicle)) for vehicle in simulator.vehicles]
    pages = sum(1 + math.ceil(max(0, count - 200) / 195) for count in rows)  # pages overlap by five rows
    return 1 + len({vehicle.user_id for vehicle in simulator.vehicles}) + pages


async def fetch_all(client: PoderoClient, simulator: PoderoSimulator) -> None:
    """Fetch the fleet, and check that each vehicle has exactly its sessions, with the verdict VERIFIED."""
    seen = set()
    async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
        async for outcome in fleet:
            assert isinstance(outcome, VehicleSessions), outcome
            assert outcome.vehicle not in seen
            seen.add(outcome.vehicle)
            truth = [row["id"] for row in simulator.truth(outcome.vehicle)]
            assert [str(session.id) for session in outcome.sessions] == truth
            assert outcome.completeness is Completeness.VERIFIED
    assert seen == set(simulator.vehicles)


@pytest.mark.slow
@pytest.mark.leaping
async def test_a_fleet_is_complete_despite_chaos(record_property: Record) -> None:
    """A fetch of 300 vehicles with tokens of two seconds loses nothing and needs at most 15 % more requests."""
    record_property("figure", await fetch_through_chaos(1, vehicles=300, token_s=2.0, lasts_s=0))


@pytest.mark.soak
async def test_a_large_fleet_is_complete_despite_chaos(soak_scale: float, record_property: Record) -> None:
    """The same holds for 10,000 vehicles with tokens of 5 s, in real time, for five minutes."""
    figure = await fetch_through_chaos(2, vehicles=10_000, token_s=5.0, lasts_s=300 * soak_scale)
    record_property("figure", figure)


async def fetch_through_chaos(seed: int, *, vehicles: int, token_s: float, lasts_s: float) -> str:
    """Fetch the fleet with one client until the time is over, and at least once; return a figure for the summary."""
    clock = asyncio.get_running_loop().time
    began, rounds = clock(), 0
    async with faulty_simulator(seed, vehicles, token_s) as simulator:
        async with client_of(simulator, retry=RetryPolicy(), timeouts=Timeouts(read=2.0)) as client:
            while not rounds or clock() < began + lasts_s:
                await fetch_all(client, simulator)
                rounds += 1
        took_s = clock() - began
        fewest = rounds * fewest_requests(simulator) + 1 + took_s / token_s
        requests, failed = simulator.counts.total_requests, simulator.counts.faults.total()
    assert failed > 0.07 * requests
    assert requests <= MAX_REQUESTS * fewest
    sessions = sum(len(simulator.truth(vehicle)) for vehicle in simulator.vehicles)
    return (
        f"seed {seed}: {rounds} rounds of {sessions} sessions in {took_s:.0f} s, 0 lost, 0 doubled, "
        f"{simulator.counts.tokens_issued} tokens, {requests / fewest:.3f} of the fewest possible requests"
    )

"""Chaos: one request in eleven is spoilt, tokens live for seconds, and a fleet is read whole even so, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

import pytest

from podero_async import Completeness, PoderoClient, RetryPolicy, Timeouts, VehicleSessions
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of

MOST = 1.15  # times the least possible: every spoilt request is made once more, and little else is

FAULTS = [
    *(Fault(kind="status", status=status, rate=0.0125) for status in (500, 502, 503, 504)),
    Fault(kind="reset", rate=0.01),
    Fault(kind="reset", after_bytes=20, rate=0.01),
    Fault(kind="hang", rate=0.01),
    Fault(kind="truncated", rate=0.01),
]


def served(seed: int, vehicles: int, token_s: float) -> PoderoSimulator:
    """Serve a fleet, ten vehicles a user; one in a hundred has a list of several pages."""
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


def least_requests(simulator: PoderoSimulator) -> int:
    """Count the requests of one round without a fault, but for tokens."""
    rows = [len(simulator.truth(vehicle)) for vehicle in simulator.vehicles]
    pages = sum(1 + math.ceil(max(0, count - 200) / 195) for count in rows)  # each shares five rows with the next
    return 1 + len({vehicle.user_id for vehicle in simulator.vehicles}) + pages


async def read_once(client: PoderoClient, simulator: PoderoSimulator) -> None:
    """Read the fleet; fail where a session is missing, or there twice, or a list is not proven."""
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


async def live_through(seed: int, *, vehicles: int, token_s: float, stall_s: float, lasts_s: float) -> str:
    """Read the fleet round after round with one client, until the time is over; return a figure to quote."""
    began, rounds = monotonic(), 0
    async with served(seed, vehicles, token_s) as simulator:
        timeouts = Timeouts(read=stall_s)
        async with client_of(simulator, retry=RetryPolicy(), timeouts=timeouts) as client:
            while not rounds or monotonic() < began + lasts_s:
                await read_once(client, simulator)
                rounds += 1
        took_s = monotonic() - began
        least = rounds * least_requests(simulator) + 1 + took_s / token_s
        asked, spoilt = simulator.counts.total_requests, simulator.counts.faults.total()
    assert spoilt > 0.07 * asked
    assert asked <= MOST * least
    sessions = sum(len(simulator.truth(vehicle)) for vehicle in simulator.vehicles)
    return (
        f"seed {seed}: {rounds} rounds of {sessions} sessions in {took_s:.0f} s, 0 lost, 0 doubled, "
        f"{simulator.counts.tokens_issued} tokens, {asked / least:.3f} of the least possible requests"
    )


@pytest.mark.leaping
async def test_a_fleet_is_read_whole_through_chaos(record_property: Callable[[str, object], None]) -> None:
    """A bad day of a server or a network would cost sessions, or many times the requests."""
    record_property("figure", await live_through(1, vehicles=300, token_s=0.5, stall_s=2.0, lasts_s=0))


@pytest.mark.soak
async def test_a_large_fleet_is_read_whole_through_chaos(
    soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The same with 10,000 vehicles and tokens of 5 s, in real time, for five minutes."""
    figure = await live_through(2, vehicles=10_000, token_s=5.0, stall_s=2.0, lasts_s=300 * soak_scale)
    record_property("figure", figure)

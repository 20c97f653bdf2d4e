"""The benchmarks: their server conforms to the contract, their peers fetch the same, and their report is complete."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles
from benchmarks.measuring import Figure, LoopProbe
from benchmarks.peers import bare_loop, handwritten, ours
from benchmarks.report import render
from benchmarks.scale import RATE, measured
from benchmarks.server import Plan, serving
from benchmarks.throughput import pages
from podero_async import Completeness, FleetSummary, PoderoClient, StaticToken, VehicleSessions

COUNTS = [0, 1, 199, 200, 201, 433]


@pytest.mark.slow
@pytest.mark.parametrize("plan", [Plan(), Plan(gzip=True, max_rows=90)])
def test_every_peer_fetches_the_same_fleet(plan: Plan) -> None:
    """All clients that are compared fetch all sessions, page by page."""
    with serving(plan) as server:
        for fetch in (ours, bare_loop, handwritten):
            assert asyncio.run(fetch(server.origin, list(vehicles(COUNTS)), 4)) == sum(COUNTS)
        requests, _ = server.counts()
        assert requests > 3 * len(COUNTS)


@pytest.mark.slow
def test_another_client_is_compared() -> None:
    """With a given client, each kind of fetch has one figure, which has no aim."""
    figures = list(pages(None, 1, 30, handwritten))
    assert len({figure.name for figure in figures}) == 5
    assert all("over those of the given client" in figure.name and figure.reached is None for figure in figures)


@pytest.mark.slow
def test_the_server_lists_users_with_a_vehicle_each() -> None:
    """A fleet that is discovered from the server is complete."""

    async def summary(origin: str) -> FleetSummary:
        async with PoderoClient(ORG, StaticToken("benchmark"), base_url=origin) as client:
            async with client.fetch_fleet(FIRST_DAY, LAST_DAY) as fleet:
                assert all([isinstance(outcome, VehicleSessions) async for outcome in fleet])
            return fleet.summary

    with serving(Plan(users=31, sessions_of_user=3)) as server:
        found = asyncio.run(summary(server.origin))
    requests = 1 + 2 + 2 * 31  # for the users, for the end of their list, and for each of them
    assert (found.vehicles, found.sessions, found.requests) == (31, 93, requests)


@pytest.mark.slow
def test_the_lists_of_the_server_are_verified() -> None:
    """The server's lists are proven complete, so the client never splits them by days."""

    async def verdicts(origin: str) -> set[Completeness]:
        async with (
            PoderoClient(ORG, StaticToken("benchmark"), base_url=origin) as client,
            client.fetch_fleet(FIRST_DAY, LAST_DAY, vehicles(COUNTS)) as fleet,
        ):
            return {outcome.completeness async for outcome in fleet}  # type: ignore[union-attr]

    with serving() as server:
        assert asyncio.run(verdicts(server.origin)) == {Completeness.VERIFIED}


@pytest.mark.slow
def test_a_hidden_limit_throttles() -> None:
    """A server with a hidden limit never serves more requests at once, and throttles the others with 429."""
    with serving(Plan(latency_s=0.005, limit=2)) as server:
        asyncio.run(ours(server.origin, list(vehicles([1] * 60)), 32))
        _, responses = server.counts()
    statuses = [status for _, status, _ in responses]
    assert statuses.count(200) == 60
    assert 429 in statuses
    assert max(in_service for _, _, in_service in responses) <= 2


@pytest.mark.slow
def test_the_rate_is_used_and_kept_on_virtual_time() -> None:
    """Ten clients with a tenth of the rate each use over 98 % of it, and the server throttles none of them."""
    options = {"count": 3000, "clients": 10, "latency_s": 0.1, "concurrency": 20, "is_discovered": False}
    seconds, _, _, requests, throttled, _ = measured(options)
    assert (requests, throttled) == (3000, 0)
    assert RATE * 0.98 < requests / seconds < RATE * 1.02


def test_the_report_names_missed_aims_and_their_limits() -> None:
    """The report marks each missed aim, and explains the limit behind it."""
    figures = [
        Figure(name="longest block of the event loop", value="31 ms", aim="under 20 ms", reached=False),
        Figure(name="requests", value="1.00", aim="at most 1.00", reached=True),
    ]
    report = render(figures)
    assert "| longest block of the event loop | 31 ms | under 20 ms | **missed** |" in report
    assert "a full collection scans all objects" in report


def test_the_cpu_time_of_a_callback_is_its_own() -> None:
    """A collection that another thread runs during a callback lowers the callback's wall-clock time, not its CPU time."""
    probe = LoopProbe()

    def collect_beside() -> None:
        began = time.thread_time()
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()
        while time.thread_time() - began < 0.001:
            pass

    async def main() -> None:
        asyncio.get_running_loop().call_soon(collect_beside)
        await asyncio.sleep(0)

    with probe.watched():
        asyncio.run(main())
    assert probe.own_cpu_s >= 0.001
    assert probe.own_s < probe.longest_s

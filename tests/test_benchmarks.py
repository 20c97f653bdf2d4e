"""The benchmarks measure what they say: their server keeps to the contract, and their report tells what was missed."""

from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles
from benchmarks.measuring import Figure
from benchmarks.paper import table
from benchmarks.peers import floor, handwritten, ours
from benchmarks.profiling import Profile, compared
from benchmarks.report import line, render
from benchmarks.server import Plan, serving
from podero_async import Completeness, PoderoClient, StaticToken
from podero_async._decode import outline_page
from tests._support.clients import page_body, wire_row

COUNTS = [0, 1, 199, 200, 201, 433]


@pytest.mark.parametrize("plan", [Plan(), Plan(gzip=True, most_rows=90)])
def test_every_peer_fetches_the_same_fleet(plan: Plan) -> None:
    """A ratio between clients that fetch different things says nothing."""
    with serving(plan) as server:
        for fetch in (ours, floor, handwritten):
            assert asyncio.run(fetch(server.origin, list(vehicles(COUNTS)), 4)) == sum(COUNTS)
        requests, _ = server.counts()
        assert requests > 3 * len(COUNTS)


def test_the_server_is_one_that_can_be_proven() -> None:
    """A server without an order would make the client read by days, and be measured for that."""

    async def verdicts(origin: str) -> set[Completeness]:
        async with (
            PoderoClient(ORG, StaticToken("benchmark"), base_url=origin) as client,
            client.fetch_fleet(FIRST_DAY, LAST_DAY, vehicles(COUNTS)) as fleet,
        ):
            return {outcome.completeness async for outcome in fleet}  # type: ignore[union-attr]

    with serving() as server:
        assert asyncio.run(verdicts(server.origin)) == {Completeness.VERIFIED}


def test_a_hidden_limit_refuses_what_is_too_much() -> None:
    """A limit that never refuses would be no test of the client's."""
    with serving(Plan(latency_s=0.005, limit=2)) as server:
        asyncio.run(ours(server.origin, list(vehicles([1] * 60)), 32))
        _, answered = server.counts()
    statuses = [status for _, status, _ in answered]
    assert statuses.count(200) == 60
    assert 429 in statuses
    assert max(serving for _, _, serving in answered) <= 2


def test_a_profile_says_where_the_time_went() -> None:
    """A bound that is shown by no profile would be a guess."""
    body = page_body(*map(wire_row, range(1, 201)))
    profile, until = Profile(), time.process_time() + 0.15
    with profile.running():
        while time.process_time() < until:  # some kernels take a sample in 4 ms of it, and a few samples say nothing
            outline_page(body)
    rooms = profile.us_by_room(200)
    assert rooms["decoding"] > sum(rooms.values()) / 2
    figure = Figure(name="small pages: ours", value="0.5", profile=tuple(compared(rooms, {"aiohttp": 1.0})))
    assert "small pages:\n\n| microseconds of CPU a request | ours | the floor |\n" in render([figure], [])


def test_the_report_tells_what_was_missed_and_why() -> None:
    """A missed aim without a word would read as a reached one."""
    figures = [
        Figure(name="event loop held up, longest", value="31 ms", aim="under 20 ms", reached=False),
        Figure(name="requests", value="1.00", aim="at most 1.00", reached=True),
    ]
    report = render(figures, table(0.001))
    assert "| event loop held up, longest | 31 ms | under 20 ms | **missed** |" in report
    assert "a full pass over everything" in report
    assert "1,000 requests a second" in report
    assert line(figures[0]).endswith("[under 20 ms: MISSED]")

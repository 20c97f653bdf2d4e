"""Throughput: sessions per second of one core, compared with the peers, from a server that is faster than any client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import attrs

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles
from benchmarks.measuring import Figure, Sample, median, quartiles, sample
from benchmarks.peers import PEERS, Fetch, bare_page, bare_session, has_generator, ours
from benchmarks.server import Plan, serving
from podero_async import PoderoClient, StaticToken

__all__ = ["list_sessions", "pages"]

_CONCURRENCY = 32
_TITLES = {"a": "(a) generated", "b": "(b) hand-written", "c": "(c) bare loop"}


@attrs.frozen(kw_only=True)
class _Case:
    name: str
    rows: int
    vehicles: int
    aims: dict[str, float]
    gzip: bool = False


_CASES = (
    _Case(name="full pages, vehicles of 199", rows=199, vehicles=300, aims={"c": 0.85, "b": 3.5, "a": 8}),
    _Case(name="full pages, vehicles of 1,900", rows=1900, vehicles=32, aims={"c": 0.85}),
    _Case(name="small pages, vehicles of 10", rows=10, vehicles=1500, aims={"c": 0.70, "a": 12}),
    _Case(name="full pages, gzip", rows=199, vehicles=300, aims={"c": 0.85}, gzip=True),
    _Case(name="small pages, gzip", rows=10, vehicles=1500, aims={"c": 0.70}, gzip=True),
)


def pages(core: int | None, rounds: int, scale: int = 1) -> Iterator[Figure]:
    """Compare the sessions per second; `scale` divides the sizes of the fleets.

    The bare loop comes first, since the garbage collector would also scan the modules that the other peers import.
    """
    for peer in "cba" if has_generator() else "cb":
        for case in _CASES:
            if peer in case.aims:
                with serving(Plan(gzip=case.gzip), core=core) as server:
                    # Fewer rounds suffice for the other peers, whose ratios are large.
                    pairs = asyncio.run(
                        _in_turn(case, peer, server.origin, rounds if peer == "c" else 1 + rounds // 4, scale)
                    )
                yield _figure(case, peer, *pairs)


async def _in_turn(case: _Case, peer: str, origin: str, rounds: int, scale: int) -> tuple[list[Sample], list[Sample]]:
    fleet = list(vehicles([case.rows] * (case.vehicles // scale)))

    async def measure(fetch: Fetch) -> Sample:
        return await sample(lambda: fetch(origin, fleet, _CONCURRENCY))

    own, theirs = [], []
    for number in range(-1, rounds):  # the first round warms up
        pair = await measure(ours), await measure(PEERS[peer])
        if number >= 0:
            own.append(pair[0])
            theirs.append(pair[1])
    return own, theirs


def _figure(case: _Case, peer: str, own: list[Sample], theirs: list[Sample]) -> Figure:
    aim = case.aims[peer]
    ratios = [one.per_second / other.per_second for one, other in zip(own, theirs, strict=True)]
    by_cpu = [one.per_cpu_second / other.per_cpu_second for one, other in zip(own, theirs, strict=True)]
    rates = [median([each.per_second for each in samples]) for samples in (own, theirs)]
    return Figure(
        name=f"{case.name}: ours / {_TITLES[peer]}",
        value=f"{median(ratios):.2f} ({quartiles(ratios)}; by CPU {median(by_cpu):.2f}):"
        f" {rates[0]:,.0f} / {rates[1]:,.0f} sessions/s",
        aim=f"at least {aim}",
        reached=median(ratios) >= aim,
    )


def list_sessions(core: int | None, rounds: int) -> Iterator[Figure]:
    """Compare single calls, one after the other, on a warm client."""
    with serving(core=core) as server:
        own, bare = asyncio.run(_single_calls(server.origin, 20 * rounds))
    more_us = (median(own) - median(bare)) * 1e6
    yield Figure(
        name="one awaited list_sessions of 50 rows, compared with the bare loop",
        value=f"+{more_us:.0f} us ({median(own) * 1e6:.0f} against {median(bare) * 1e6:.0f})",
        aim="at most +60 us",
        reached=more_us <= 60,
    )


async def _single_calls(origin: str, rounds: int) -> tuple[list[float], list[float]]:
    vehicle = next(vehicles([50]))
    own, bare = [], []
    path = f"/api/partners/v2.0/org/{ORG}/users/{vehicle.user_id}/electric-vehicles/{vehicle.vehicle_id}/sessions"
    url = f"{origin}{path}?from={FIRST_DAY}&to={LAST_DAY}&limit=50&offset=0"
    async with bare_session() as http, PoderoClient(ORG, StaticToken("benchmark"), base_url=origin) as client:
        for number in range(rounds + 20):
            began = time.perf_counter()
            await client.list_sessions(vehicle.user_id, vehicle.vehicle_id, FIRST_DAY, LAST_DAY)
            between = time.perf_counter()
            await bare_page(http, url)
            if number >= 20:
                own.append(between - began)
                bare.append(time.perf_counter() - between)
    return own, bare

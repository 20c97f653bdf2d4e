"""Throughput: the CPU time of a fetch, compared with the peers, from a server that is faster than any client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import attrs

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles
from benchmarks.measuring import Figure, Sample, median, quartiles, sample
from benchmarks.peers import PEERS, Fetch, bare_loop, bare_page, bare_session, has_generator, ours
from benchmarks.server import Plan, serving
from podero_async import PoderoClient, StaticToken, ThrottlePolicy

__all__ = ["list_sessions", "loop_share", "pages"]

_CONCURRENCY = 32
_RATE = 1000
_TITLES = {"a": "(a) generated", "b": "(b) hand-written", "c": "(c) bare loop"}


@attrs.frozen(kw_only=True)
class _Case:
    name: str
    rows: int
    vehicles: int
    cpu_aim: float
    """The highest CPU time, as a multiple of the bare loop's."""
    other_aims: dict[str, float] = attrs.field(factory=dict)
    """The lowest rates, as multiples of other peers'."""
    gzip: bool = False


_CASES = (
    _Case(name="full pages, vehicles of 199", rows=199, vehicles=300, cpu_aim=1.08, other_aims={"b": 3.5, "a": 8}),
    _Case(name="full pages, vehicles of 1,900", rows=1900, vehicles=32, cpu_aim=1.05),
    _Case(name="small pages, vehicles of 10", rows=10, vehicles=1500, cpu_aim=1.10, other_aims={"a": 12}),
    _Case(name="full pages, gzip", rows=199, vehicles=300, cpu_aim=1.08, gzip=True),
    _Case(name="small pages, gzip", rows=10, vehicles=1500, cpu_aim=1.10, gzip=True),
)


def pages(core: int | None, rounds: int, scale: int = 1, client: Fetch | None = None) -> Iterator[Figure]:
    """Compare the cost of a fetch; `scale` divides the sizes of the fleets.

    The bare loop comes first, since the garbage collector would also scan the modules that the other peers import.

    Args:
        core: The server's core.
        rounds: How many pairs of fetches are measured.
        scale: Divides the sizes of the fleets.
        client: If given, the only peer.
    """
    if client is not None:
        for case in _CASES:
            yield _figure(case, "the given client", None, *_pairs(case, client, core, rounds, scale))
        return
    for case in _CASES:
        yield _bare_figure(case, *_pairs(case, bare_loop, core, rounds, scale))
    for peer in "ba" if has_generator() else "b":
        for case in _CASES:
            if aim := case.other_aims.get(peer):
                # Fewer rounds suffice for these peers, whose ratios are large.
                yield _figure(case, _TITLES[peer], aim, *_pairs(case, PEERS[peer], core, 1 + rounds // 4, scale))


def _pairs(case: _Case, peer: Fetch, core: int | None, rounds: int, scale: int) -> tuple[list[Sample], list[Sample]]:
    with serving(Plan(gzip=case.gzip), core=core) as server:
        return asyncio.run(_in_turn(case, peer, server.origin, rounds, scale))


async def _in_turn(case: _Case, peer: Fetch, origin: str, rounds: int, scale: int) -> tuple[list[Sample], list[Sample]]:
    fleet = list(vehicles([case.rows] * (case.vehicles // scale)))

    async def measure(fetch: Fetch) -> Sample:
        return await sample(lambda: fetch(origin, fleet, _CONCURRENCY))

    own, theirs = [], []
    for number in range(-1, rounds):  # the first round warms up
        pair = await measure(ours), await measure(peer)
        if number >= 0:
            own.append(pair[0])
            theirs.append(pair[1])
    return own, theirs


def _bare_figure(case: _Case, own: list[Sample], theirs: list[Sample]) -> Figure:
    more = [other.per_cpu_second / one.per_cpu_second for one, other in zip(own, theirs, strict=True)]
    costs = [median([1e6 / each.per_cpu_second for each in samples]) for samples in (own, theirs)]
    return Figure(
        name=f"{case.name}: CPU time over that of {_TITLES['c']}",
        value=f"{median(more):.2f} ({quartiles(more)}): {costs[0]:.2f} / {costs[1]:.2f} us a session",
        aim=f"at most {case.cpu_aim:.2f}",
        reached=median(more) <= case.cpu_aim,
    )


def _figure(case: _Case, title: str, aim: float | None, own: list[Sample], theirs: list[Sample]) -> Figure:
    ratios = [one.per_second / other.per_second for one, other in zip(own, theirs, strict=True)]
    rates = [median([each.per_second for each in samples]) for samples in (own, theirs)]
    return Figure(
        name=f"{case.name}: sessions/s over those of {title}",
        value=f"{median(ratios):.2f} ({quartiles(ratios)}): {rates[0]:,.0f} / {rates[1]:,.0f} sessions/s",
        aim="" if aim is None else f"at least {aim}",
        reached=None if aim is None else median(ratios) >= aim,
    )


def loop_share(core: int | None, seconds: float) -> Iterator[Figure]:
    """Measure the share of a core that the client's process uses at a fixed rate of requests."""
    with serving(core=core) as server:
        share = asyncio.run(_share_at(server.origin, _RATE, seconds))
    yield Figure(
        name=f"{_RATE:,} requests a second, vehicles of 10: the share of a core",
        value=f"{share:.0%}",
        aim="at most 50 %",
        reached=share <= 0.5,
    )


async def _share_at(origin: str, rate: int, seconds: float) -> float:
    throttle = ThrottlePolicy(max_concurrency=_CONCURRENCY, requests_per_second=rate)
    fleet = vehicles([10] * round(rate * seconds))
    async with (
        PoderoClient(ORG, StaticToken("benchmark"), base_url=origin, throttle=throttle) as client,
        client.fetch_fleet(FIRST_DAY, LAST_DAY, fleet) as stream,
    ):
        cpu, wall = time.process_time(), time.perf_counter()
        async for _ in stream:
            pass
        return (time.process_time() - cpu) / (time.perf_counter() - wall)


def list_sessions(core: int | None, rounds: int) -> Iterator[Figure]:
    """Compare single calls, one after the other, on a warm client."""
    with serving(core=core) as server:
        own, bare = asyncio.run(_single_calls(server.origin, 20 * rounds))
    more_us = (median(own) - median(bare)) * 1e6
    yield Figure(
        name="one awaited list_sessions of 50 rows, compared with the bare loop",
        value=f"{more_us:+.0f} us ({median(own) * 1e6:.0f} against {median(bare) * 1e6:.0f})",
        aim="at most +40 us",
        reached=more_us <= 40,
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

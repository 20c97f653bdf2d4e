"""Where the server is quick, the client's CPU is the limit: sessions a second on one core, against the peers."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Mapping

import attrs

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles
from benchmarks.measuring import Figure, Sample, median, quartiles, sample
from benchmarks.peers import PEERS, Fetch, bare_page, bare_session, has_generator, ours
from benchmarks.profiling import Profile, compared
from benchmarks.server import Plan, serving
from podero_async import PoderoClient, StaticToken

__all__ = ["list_sessions", "pages"]

_AT_ONCE = 32
_PAGE = 200
_PROFILED_ROUNDS = 5
_TITLES = {"a": "(a) generated", "b": "(b) hand-written", "c": "(c) the floor"}


@attrs.frozen(kw_only=True)
class _Case:
    name: str
    rows: int
    vehicles: int
    aims: dict[str, float]
    gzip: bool = False


_CASES = (
    _Case(name="full pages, vehicles of 200", rows=200, vehicles=300, aims={"c": 0.85, "b": 3.5, "a": 8}),
    _Case(name="full pages, vehicles of 1,900", rows=1900, vehicles=32, aims={"c": 0.85}),
    _Case(name="small pages, vehicles of 10", rows=10, vehicles=1500, aims={"c": 0.70, "a": 12}),
    _Case(name="full pages, gzip", rows=200, vehicles=300, aims={"c": 0.85}, gzip=True),
    _Case(name="small pages, gzip", rows=10, vehicles=1500, aims={"c": 0.70}, gzip=True),
)


def pages(core: int | None, rounds: int, scale: int = 1) -> Iterator[Figure]:
    """Compare sessions a second; `scale` divides the fleets.

    The floor comes first: what the other peers import is walked over by every later pass of the garbage collector.
    """
    for peer in "cba" if has_generator() else "cb":
        for case in _CASES:
            if peer in case.aims:
                with serving(Plan(gzip=case.gzip), core=core) as server:
                    # The slower ones lie far enough behind for fewer rounds.
                    pairs = asyncio.run(
                        _in_turn(case, peer, server.origin, rounds if peer == "c" else 1 + rounds // 4, scale)
                    )
                    is_profiled = peer == "c" and scale == 1
                    profile = tuple(asyncio.run(_profiled(case, server.origin))) if is_profiled else ()
                yield _figure(case, peer, *pairs, profile=profile)


async def _in_turn(case: _Case, peer: str, origin: str, rounds: int, scale: int) -> tuple[list[Sample], list[Sample]]:
    fleet = list(vehicles([case.rows] * (case.vehicles // scale)))

    async def measure(fetch: Fetch) -> Sample:
        return await sample(lambda: fetch(origin, fleet, _AT_ONCE))

    own, theirs = [], []
    for number in range(-1, rounds):  # the first round warms up
        pair = await measure(ours), await measure(PEERS[peer])
        if number >= 0:
            own.append(pair[0])
            theirs.append(pair[1])
    return own, theirs


async def _profiled(case: _Case, origin: str) -> Iterator[str]:
    fleet = list(vehicles([case.rows] * case.vehicles))
    requests = sum(-(-case.rows // _PAGE) for _ in fleet) * _PROFILED_ROUNDS

    async def rooms_of(fetch: Fetch) -> Mapping[str, float]:
        profile = Profile()
        for _ in range(_PROFILED_ROUNDS):
            gc.collect()
            with profile.running():
                await fetch(origin, fleet, _AT_ONCE)
        return profile.us_by_room(requests)

    return compared(await rooms_of(ours), await rooms_of(PEERS["c"]))


def _figure(
    case: _Case, peer: str, own: list[Sample], theirs: list[Sample], *, profile: tuple[str, ...] = ()
) -> Figure:
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
        profile=profile,
    )


def list_sessions(core: int | None, rounds: int) -> Iterator[Figure]:
    """Compare single calls, one after the other, on a warm client."""
    with serving(core=core) as server:
        own, bare = asyncio.run(_single_calls(server.origin, 20 * rounds))
    more_us = (median(own) - median(bare)) * 1e6
    yield Figure(
        name="one awaited list_sessions of 50 rows, over the floor's",
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

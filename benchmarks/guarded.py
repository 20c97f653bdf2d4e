"""Where the server is far away, guarded or partly slow, scheduling is the limit: how much of what it bears is used."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

import attrs

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles
from benchmarks.measuring import Figure
from benchmarks.peers import floor, handwritten
from benchmarks.server import Answered, Plan, serving
from podero_async import ClientCredentials, PoderoClient, VehicleRef, VehicleSessions

__all__ = ["hidden_limit", "hidden_rate", "latency", "limit_run", "requests", "slow_vehicles"]

_AT_ONCE = 64  # the client's default ceiling
_SERVICE_S = 0.1
_WARM_S = 10.0


@attrs.frozen
class Fetched:
    """What a fetch with the defaults took."""

    seconds: float
    requests: int
    sessions: int


async def _fetch(origin: str, fleet: Iterable[VehicleRef], seconds: float = float("inf")) -> Fetched:
    began = time.perf_counter()
    async with (
        PoderoClient(ORG, ClientCredentials("id", "secret"), base_url=origin) as client,
        client.fetch_fleet(FIRST_DAY, LAST_DAY, fleet) as stream,
    ):
        async for outcome in stream:
            assert isinstance(outcome, VehicleSessions), outcome
            if time.perf_counter() - began > seconds:
                break
        summary = stream.summary
    return Fetched(time.perf_counter() - began, summary.requests, summary.sessions)


def latency(core: int | None, fleet_size: int) -> Iterator[Figure]:
    """Fetch a fleet of vehicles of one to ten pages from far away."""
    chance = random.Random(1)
    counts = [chance.randint(1, 10) * 50 for _ in range(fleet_size)]
    with serving(Plan(latency_s=_SERVICE_S, most_rows=50), core=core) as server:
        # The server makes a page when it is first asked for, which takes it longer than it is meant to.
        asyncio.run(_fetch(server.origin, vehicles(set(counts))))
        asyncio.run(handwritten(server.origin, list(vehicles(set(counts))), _AT_ONCE))
        own = asyncio.run(_fetch(server.origin, vehicles(counts)))
        theirs = _seconds(handwritten(server.origin, list(vehicles(counts)), _AT_ONCE))
        bare = _seconds(floor(server.origin, list(vehicles([50] * own.requests)), _AT_ONCE))
    ratio = own.seconds / (own.requests * _SERVICE_S / _AT_ONCE)
    least = sum(-(-count // 50) for count in counts)
    yield Figure(
        name=f"100 ms a request, {fleet_size:,} vehicles of 1 to 10 pages of 50: time over requests x 100 ms / 64",
        value=f"{ratio:.3f} ({own.seconds:.1f} s, {own.requests:,} requests)",
        aim="at most 1.05",
        reached=ratio <= 1.05,
        note=f"(b), sequential pages: {theirs / (least * _SERVICE_S / _AT_ONCE):.3f} ({theirs:.1f} s, {least:,} requests);"
        f" (c) with as many vehicles of one page, which never waits for a total:"
        f" {bare / (own.requests * _SERVICE_S / _AT_ONCE):.3f}",
    )


def _seconds(fetch: Coroutine[Any, Any, int]) -> float:
    began = time.perf_counter()
    asyncio.run(fetch)
    return time.perf_counter() - began


def limit_run(core: int | None, seconds: float, *, halved: bool) -> list[Answered]:
    """Run against a hidden limit of 40 in flight, which may halve half-way; return when what was answered."""
    plan = Plan(latency_s=_SERVICE_S, limit=40, halved_after_s=seconds / 2 if halved else None)
    with serving(plan, core=core) as server:
        asyncio.run(_fetch(server.origin, vehicles(itertools.repeat(10)), seconds))
        return server.counts()[1]


def _used(answered: list[Answered], since: float, until: float, possible: float) -> tuple[float, float]:
    """Return the share of what was possible that was served, and the share of answers that were 429."""
    statuses = [status for at, status, _ in answered if since <= at < until]
    good = statuses.count(200)
    return good / (until - since) / possible, 1 - good / max(1, len(statuses))


def _share_figure(name: str, answered: list[Answered], since: float, until: float, possible: float) -> Figure:
    used, refused = _used(answered, since, until, possible)
    return Figure(
        name=name,
        value=f"{used:.0%} used, {refused:.1%} answered 429",
        aim="at least 90 % used, under 2 % 429",
        reached=used >= 0.9 and refused < 0.02,
    )


def hidden_limit(answered: list[Answered], seconds: float) -> Iterator[Figure]:
    """Say how a run against a limit that halved went."""
    half = seconds / 2
    possible = 40 / _SERVICE_S
    warm = min(_WARM_S, half / 2)
    yield _share_figure(f"hidden limit of 40 in flight, after {warm:.0f} s", answered, warm, half, possible)
    yield _share_figure(f"the limit halves mid-run, {warm:.0f} s later", answered, half + warm, seconds, possible / 2)


def hidden_rate(core: int | None, seconds: float) -> Iterator[Figure]:
    """Run against a hidden rate of 200 requests a second."""
    for by_window in (False, True):
        plan = Plan(latency_s=_SERVICE_S, rate=200, rate_by_window=by_window)
        with serving(plan, core=core) as server:
            asyncio.run(_fetch(server.origin, vehicles(itertools.repeat(10)), seconds))
            answered = server.counts()[1]
        kind = "counted in fixed windows of a second" if by_window else "a bucket of 20"
        warm = min(_WARM_S, seconds / 3)
        yield _share_figure(
            f"hidden 200 requests a second, Retry-After: 1, {kind}, after {warm:.0f} s", answered, warm, seconds, 200
        )


def slow_vehicles(core: int | None, quick: int, slow: int) -> Iterator[Figure]:
    """Fetch a fleet of which some vehicles are answered slowly."""
    count = quick + slow
    marked = frozenset(random.Random(1).sample(range(count), slow))
    with serving(Plan(latency_s=0.02, slow_s=2.0), core=core) as server:
        own = asyncio.run(_fetch(server.origin, vehicles([10] * count, slow=marked)))
    ideal = _list_schedule([2.0 if number in marked else 0.02 for number in range(count)])
    ratio = own.seconds / ideal
    yield Figure(
        name=f"{slow} vehicles answered in 2 s among {quick:,} in 20 ms: time over the ideal schedule",
        value=f"{ratio:.3f} ({own.seconds:.2f} s against {ideal:.2f} s)",
        aim="at most 1.1",
        reached=ratio <= 1.1,
        note="ideal: in the order given, each as soon as one of 64 places is free, no time spent in between",
    )


def _list_schedule(durations: list[float]) -> float:
    places = [0.0] * _AT_ONCE
    for duration in durations:
        heapq.heapreplace(places, places[0] + duration)
    return max(places)


def requests(core: int | None, fleet_size: int) -> Iterator[Figure]:
    """Count the requests for a fleet that stands still."""
    chance = random.Random(2)
    for name, counts, aim in (
        ("vehicles of one page", [chance.randint(0, 200) for _ in range(fleet_size)], 1.0),
        ("vehicles of up to 2,000 sessions", [chance.randint(0, 2000) for _ in range(fleet_size)], 1.05),
    ):
        with serving(core=core) as server:
            own = asyncio.run(_fetch(server.origin, vehicles(counts)))
        ratio = own.requests / sum(max(1, -(-count // 200)) for count in counts)
        yield Figure(
            name=f"requests over the least possible, still fleet, {name}",
            value=f"{ratio:.3f}",
            aim=f"at most {aim:.2f}",
            reached=ratio <= aim,
        )

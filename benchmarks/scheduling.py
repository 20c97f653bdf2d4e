"""Scheduling: the share of a distant, rate-limited or partly slow server's capacity that the client uses."""

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
from benchmarks.peers import bare_loop, handwritten
from benchmarks.server import Plan, ResponseRecord, serving
from podero_async import ClientCredentials, PoderoClient, VehicleRef, VehicleSessions

__all__ = ["hidden_limit", "hidden_rate", "latency", "requests", "slow_vehicles"]

_CONCURRENCY = 64  # the client's default maximum
_SERVICE_S = 0.1
_WARM_S = 10.0


@attrs.frozen
class Fetched:
    """The cost of a fetch with the default options."""

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
    """Fetch vehicles of one to ten pages from a server with a latency of 100 ms."""
    rng = random.Random(1)
    counts = [rng.randint(1, 10) * 50 for _ in range(fleet_size)]
    with serving(Plan(latency_s=_SERVICE_S, max_rows=50), core=core) as server:
        # The first request of each page takes longer, since the server builds the page.
        asyncio.run(_fetch(server.origin, vehicles(set(counts))))
        asyncio.run(handwritten(server.origin, list(vehicles(set(counts))), _CONCURRENCY))
        own = asyncio.run(_fetch(server.origin, vehicles(counts)))
        theirs = _seconds(handwritten(server.origin, list(vehicles(counts)), _CONCURRENCY))
        bare = _seconds(bare_loop(server.origin, list(vehicles([50] * own.requests)), _CONCURRENCY))
    ratio = own.seconds / (own.requests * _SERVICE_S / _CONCURRENCY)
    least = sum(-(-count // 50) for count in counts)
    yield Figure(
        name=f"100 ms a request, {fleet_size:,} vehicles of 1 to 10 pages of 50: time over requests x 100 ms / 64",
        value=f"{ratio:.3f} ({own.seconds:.1f} s, {own.requests:,} requests)",
        aim="at most 1.05",
        reached=ratio <= 1.05,
        note=f"(b), sequential pages: {theirs / (least * _SERVICE_S / _CONCURRENCY):.3f} ({theirs:.1f} s, {least:,} requests);"
        f" (c) with the same number of vehicles of one page, which never waits for a total:"
        f" {bare / (own.requests * _SERVICE_S / _CONCURRENCY):.3f}",
    )


def _seconds(fetch: Coroutine[Any, Any, int]) -> float:
    began = time.perf_counter()
    asyncio.run(fetch)
    return time.perf_counter() - began


def _used(responses: list[ResponseRecord], since: float, until: float, capacity: float) -> tuple[float, float]:
    """Return the share of the capacity that was used, and the share of responses that were 429."""
    statuses = [status for at, status, _ in responses if since <= at < until]
    good = statuses.count(200)
    return good / (until - since) / capacity, 1 - good / max(1, len(statuses))


def _share_figure(name: str, responses: list[ResponseRecord], since: float, until: float, capacity: float) -> Figure:
    used, throttled = _used(responses, since, until, capacity)
    return Figure(
        name=name,
        value=f"{used:.0%} used, {throttled:.1%} throttled with 429",
        aim="at least 90 % used, under 2 % 429",
        reached=used >= 0.9 and throttled < 0.02,
    )


def hidden_limit(core: int | None, seconds: float) -> Iterator[Figure]:
    """Run against a hidden limit of 40 requests in flight, which halves mid-run."""
    half = seconds / 2
    plan = Plan(latency_s=_SERVICE_S, limit=40, halved_after_s=half)
    with serving(plan, core=core) as server:
        asyncio.run(_fetch(server.origin, vehicles(itertools.repeat(10)), seconds))
        _, responses = server.counts()
    capacity = 40 / _SERVICE_S
    warm = min(_WARM_S, half / 2)
    yield _share_figure(f"hidden limit of 40 in flight, after {warm:.0f} s", responses, warm, half, capacity)
    yield _share_figure(f"the limit halves mid-run, {warm:.0f} s later", responses, half + warm, seconds, capacity / 2)


def hidden_rate(core: int | None, seconds: float) -> Iterator[Figure]:
    """Run against a hidden rate of 200 requests a second."""
    for by_window in (False, True):
        plan = Plan(latency_s=_SERVICE_S, rate=200, rate_by_window=by_window)
        with serving(plan, core=core) as server:
            asyncio.run(_fetch(server.origin, vehicles(itertools.repeat(10)), seconds))
            _, responses = server.counts()
        kind = "counted in fixed windows of a second" if by_window else "a bucket of 20"
        warm = min(_WARM_S, seconds / 3)
        yield _share_figure(
            f"hidden 200 requests a second, Retry-After: 1, {kind}, after {warm:.0f} s", responses, warm, seconds, 200
        )


def slow_vehicles(core: int | None, quick: int, slow: int) -> Iterator[Figure]:
    """Fetch a fleet in which the server responds slowly for some vehicles."""
    count = quick + slow
    marked = frozenset(random.Random(1).sample(range(count), slow))
    with serving(Plan(latency_s=0.02, slow_s=2.0), core=core) as server:
        own = asyncio.run(_fetch(server.origin, vehicles([10] * count, slow=marked)))
    ideal = _list_schedule([2.0 if number in marked else 0.02 for number in range(count)])
    ratio = own.seconds / ideal
    yield Figure(
        name=f"{slow} vehicles with responses after 2 s among {quick:,} with 20 ms: time over the ideal schedule",
        value=f"{ratio:.3f} ({own.seconds:.2f} s against {ideal:.2f} s)",
        aim="at most 1.1",
        reached=ratio <= 1.1,
        note="the ideal schedule starts each vehicle in the given order as soon as one of 64 slots is free",
    )


def _list_schedule(durations: list[float]) -> float:
    slots = [0.0] * _CONCURRENCY
    for duration in durations:
        heapq.heapreplace(slots, slots[0] + duration)
    return max(slots)


def requests(core: int | None, fleet_size: int) -> Iterator[Figure]:
    """Count the requests for a fleet that does not change."""
    rng = random.Random(2)
    for name, counts, aim in (
        ("vehicles of one page", [rng.randint(0, 199) for _ in range(fleet_size)], 1.0),
        ("vehicles of up to 2,000 sessions", [rng.randint(0, 2000) for _ in range(fleet_size)], 1.05),
    ):
        with serving(core=core) as server:
            own = asyncio.run(_fetch(server.origin, vehicles(counts)))
        ratio = own.requests / sum(max(1, -(-count // 200)) for count in counts)
        yield Figure(
            name=f"requests over the minimum, unchanged fleet, {name}",
            value=f"{ratio:.3f}",
            aim=f"at most {aim:.2f}",
            reached=ratio <= aim,
        )

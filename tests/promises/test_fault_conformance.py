"""Every fault, wherever it strikes and however often: the data arrives whole, or the right error after all attempts."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from email.utils import formatdate
from functools import cache
from time import time
from typing import Any

import aiohttp
import attrs
import pytest
from yarl import URL

from podero_async import (
    DecodeError,
    PoderoClient,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    ThrottlePolicy,
    Timeouts,
    TransportError,
    VehicleFailure,
    VehicleSessions,
)
from podero_async._http.response import Response
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import around_sending, client_of
from tests._support.tls_proxy import Door, Keys, Manner

ATTEMPTS = 4
RETRY = RetryPolicy(max_attempts=ATTEMPTS)
TIMEOUTS = Timeouts(connect=5.0, read=5.0, total=5.0)
MAX_S = 10.0  # that a fault costs: five seconds of waiting for an answer, three that it names, and the jitter

made_keys = cache(Keys.made)


@attrs.frozen
class Case:
    """A fault, of the simulator or of the door before it, and the error that it ends in where it does not go away."""

    error: type[PoderoError]
    details: Callable[[], Mapping[str, Any]] | None = None
    manner: Manner | None = None
    is_final: bool = False
    """Whether another attempt would be of no use, so that there is none."""


def status(number: int, **headers: str) -> Callable[[], Mapping[str, Any]]:
    return lambda: {"kind": "status", "status": number, "headers": {k.replace("_", "-"): v for k, v in headers.items()}}


def half_a_gzip() -> Mapping[str, Any]:
    """Response with a stream that ends before its end, as long as it says."""
    body = gzip.compress(b'{"access_token": "t", "total": 0, "items": []}')
    return {"kind": "status", "status": 200, "headers": {"Content-Encoding": "gzip"}, "body": body[:-12]}


FAULTS = {
    "refused connection": Case(TransportError, manner="shut"),
    "reset before the body": Case(TransportError, lambda: {"kind": "reset"}),
    "reset inside the body": Case(TransportError, lambda: {"kind": "reset", "after_bytes": 20}),
    "gzip that ends early": Case(TransportError, half_a_gzip),
    "body shorter than its Content-Length": Case(TransportError, lambda: {"kind": "truncated", "after_bytes": 20}),
    "HTML with 502": Case(
        ServerError,
        lambda: {"kind": "status", "status": 502, "body": "<html>Bad Gateway</html>", "content_type": "text/html"},
    ),
    "200 without a body": Case(DecodeError, lambda: {"kind": "empty"}),
    "429 with seconds": Case(RateLimitError, status(429, Retry_After="2")),
    "429 with a date": Case(
        RateLimitError,
        lambda: {
            "kind": "status",
            "status": 429,
            "headers": {"Retry-After": formatdate(time() + 3, usegmt=True)},
        },
    ),
    "429 without a time": Case(RateLimitError, status(429)),
    "503": Case(ServerError, status(503)),
    "hang": Case(RequestTimeoutError, lambda: {"kind": "hang"}),
    "slow drip": Case(RequestTimeoutError, lambda: {"kind": "drip", "seconds": 2.0, "chunk_bytes": 10}),
    "JSON that ends early": Case(DecodeError, lambda: {"kind": "malformed_json"}),
    "TLS with a wrong certificate": Case(TransportError, manner="wrong certificate", is_final=True),
    "TLS that ends in an alert": Case(TransportError, manner="alert"),
    "TLS that is cut off": Case(TransportError, manner="cut off"),
}
PLACES: Mapping[str, Mapping[str, Any]] = {
    "token": {"endpoint": "token"},
    "users": {"endpoint": "users"},
    "vehicles": {"endpoint": "vehicles"},
    "first page": {"endpoint": "sessions", "page": "first"},
    "later page": {"endpoint": "sessions", "page": "later"},
}
SEQUENCES: Mapping[str, frozenset[int] | None] = {
    "once": frozenset({1}),
    "twice": frozenset({1, 2}),
    "alternating": frozenset(range(1, 100, 2)),
    "until given up": None,
}


@attrs.frozen
class Fleet:
    """What is fetched, and how many attempts of each place that takes at the least."""

    size: Mapping[str, Any]
    least: Mapping[str, int]
    revoked_at: frozenset[int] = frozenset()
    """Pages at which the token is revoked, which costs another one, and the request after that page its replay."""


ONE_OF_EACH = Fleet(
    {"users": 1, "vehicles": 1, "sessions_per_vehicle": 80},
    {"token": 1, "users": 1, "vehicles": 1, "first page": 1, "later page": 1},
)
SEVERAL = Fleet(
    {"users": 51, "users_as_pages": True, "vehicles": 2, "sessions_per_vehicle": 80},
    {"token": 1, "users": 2, "vehicles": 2, "first page": 2, "later page": 2},
)
SEVERAL_TOKENS = attrs.evolve(SEVERAL, least={**SEVERAL.least, "token": 3}, revoked_at=frozenset({1, 3}))


@attrs.define
class Attempts:
    """Counts attempts by their place, as they are sent; the door stands open except for those that are struck."""

    place: str
    nth: frozenset[int] | None
    door: Door | None
    manner: Manner
    counts: Counter[str] = attrs.field(factory=Counter)
    struck: int = 0

    async def send(self, method: str, url: URL, send: Callable[[], Awaitable[Response]]) -> Response:
        place = place_of(method, url)
        self.counts[place] += 1
        if self.door is not None:
            strikes = place == self.place and (self.nth is None or self.counts[place] in self.nth)
            self.struck += strikes
            await self.door.be(self.manner if strikes else "open")
        return await send()


def place_of(method: str, url: URL) -> str:
    if method == "POST":
        return "token"
    if url.path.endswith("/sessions"):
        return "first page" if url.query["offset"] == "0" else "later page"
    return "users" if url.path.endswith("/users") else "vehicles"


@asynccontextmanager
async def served(
    case: Case, place: str, sequence: str, fleet: Fleet
) -> AsyncIterator[tuple[PoderoSimulator, PoderoClient, Attempts]]:
    """Serve the fleet to a client that asks for one thing after the other, so that each strike is where it should be."""
    nth = SEQUENCES[sequence]
    faults = [Fault(kind="clamped_limit", limit=60)]  # so that few rows make two pages
    if case.details is not None:
        faults.append(Fault(**case.details(), **PLACES[place], nth=nth))
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(PoderoSimulator(**fleet.size, seed=5, faults=faults))
        simulator.before_page = lambda asked: simulator.revoke_tokens() if asked.number in fleet.revoked_at else None
        options: dict[str, Any] = {"base_url": simulator.base_url}
        door = None
        if case.manner is not None:
            keys = None if case.manner == "shut" else made_keys()
            door = await stack.enter_async_context(Door(simulator.base_url, keys))
            # A connection that is kept would lead past the door.
            connector = aiohttp.TCPConnector(force_close=True, limit=0, ssl=keys.trusting if keys else True)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            options = {"base_url": door.origin, "session": session}
        throttle = ThrottlePolicy(max_concurrency=1)
        client = client_of(simulator, retry=RETRY, timeouts=TIMEOUTS, throttle=throttle, **options)
        attempts = Attempts(place, nth, door, case.manner or "open")
        around_sending(client, attempts.send)
        yield simulator, await stack.enter_async_context(client), attempts


@pytest.mark.leaping
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_costs_attempts_or_ends_in_its_error(fault: str, place: str, sequence: str) -> None:
    """A fault that is not counted, not retried or retried too often would lose data, or storm a server that is down."""
    case, fleet = FAULTS[fault], ONE_OF_EACH
    if sequence == "alternating":
        fleet = SEVERAL_TOKENS if place == "token" else SEVERAL
    clock = asyncio.get_running_loop().time
    async with served(case, place, sequence, fleet) as (simulator, client, attempts):
        began = clock()
        outcomes = await fetched(client, simulator)
        played = simulator.counts.faults
        struck = attempts.struck or played.total() - played["clamped_limit"]
        assert clock() - began < MAX_S * struck
    errors = [outcome for outcome in outcomes if isinstance(outcome, PoderoError)]
    for whole in (outcome for outcome in outcomes if isinstance(outcome, VehicleSessions)):
        truth = simulator.truth(whole.vehicle)
        assert [str(session.id) for session in whole.sessions] == [row["id"] for row in truth]
    assert struck >= 1
    if case.details is not None:
        assert simulator.counts.total_requests == attempts.counts.total(), "nothing is sent that is not counted"
    if case.is_final or sequence == "until given up":
        most = 1 if case.is_final else ATTEMPTS
        assert {(type(error), getattr(error, "attempts", 0)) for error in errors} == {(case.error, most)}
        if sequence == "alternating":
            assert len(errors) == struck
        else:
            assert attempts.counts[place] == most
    else:
        assert errors == []
        assert len(outcomes) == fleet.size["vehicles"]
        assert struck >= (1 if sequence == "once" else 2)
        assert attempts.counts[place] == fleet.least[place] + struck, "each fault costs one attempt more"
        least = sum(fleet.least.values()) + len(fleet.revoked_at)
        assert attempts.counts.total() == least + struck, "and nothing else does"


async def fetched(client: PoderoClient, simulator: PoderoSimulator) -> list[VehicleSessions | PoderoError]:
    """Fetch the fleet; return its vehicles, and the errors, whether they were values or raised."""
    outcomes: list[VehicleSessions | PoderoError] = []
    try:
        async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
            async for outcome in fleet:
                outcomes.append(outcome.error if isinstance(outcome, VehicleFailure) else outcome)  # noqa: PERF401
    except PoderoError as error:
        outcomes.append(error)
    return outcomes

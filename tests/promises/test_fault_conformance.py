"""Each fault at each endpoint, once or repeatedly: all data arrives, or the right error after all attempts."""

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
from tests._support.tls_proxy import Certificates, ProxyMode, TlsProxy

ATTEMPTS = 4
RETRY = RetryPolicy(max_attempts=ATTEMPTS)
TIMEOUTS = Timeouts(connect=5.0, read=5.0, total=5.0)
MAX_FAULT_S = 10.0  # the timeout of 5 s, a Retry-After of 3 s, and the jitter

issued_certificates = cache(Certificates.issue)


@attrs.frozen
class Case:
    """A fault of the simulator or of a proxy before it, and the error of the call if the fault persists."""

    error: type[PoderoError]
    details: Callable[[], Mapping[str, Any]] | None = None
    mode: ProxyMode | None = None
    is_final: bool = False
    """Whether the error is raised after one attempt; a fault of TLS only if the origin has never responded."""
    is_of_page: bool = False
    """Whether the fault may be of a later page alone, so that the list is read by days instead."""


def status(number: int, **headers: str) -> Callable[[], Mapping[str, Any]]:
    return lambda: {"kind": "status", "status": number, "headers": {k.replace("_", "-"): v for k, v in headers.items()}}


def truncated_gzip() -> Mapping[str, Any]:
    """Return a fault with a truncated gzip body and a matching `Content-Length`."""
    body = gzip.compress(b'{"access_token": "t", "total": 0, "items": []}')
    # The last four bytes declare a small size: a larger body is decoded in a thread, for which a leaping loop does not wait.
    body = body[:-12] + (100).to_bytes(4, "little")
    return {"kind": "status", "status": 200, "headers": {"Content-Encoding": "gzip"}, "body": body}


FAULTS = {
    "refused connection": Case(TransportError, mode="shut"),
    "reset before the body": Case(TransportError, lambda: {"kind": "reset"}),
    "reset inside the body": Case(TransportError, lambda: {"kind": "reset", "after_bytes": 20}),
    "gzip that ends early": Case(TransportError, truncated_gzip),
    "body shorter than its Content-Length": Case(TransportError, lambda: {"kind": "truncated", "after_bytes": 20}),
    "HTML with 502": Case(
        ServerError,
        lambda: {"kind": "status", "status": 502, "body": "<html>Bad Gateway</html>", "content_type": "text/html"},
        is_of_page=True,
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
    "520": Case(ServerError, status(520), is_of_page=True),
    "hang": Case(RequestTimeoutError, lambda: {"kind": "hang"}, is_of_page=True),
    "slow drip": Case(
        RequestTimeoutError, lambda: {"kind": "drip", "seconds": 2.0, "chunk_bytes": 10}, is_of_page=True
    ),
    "JSON that ends early": Case(DecodeError, lambda: {"kind": "malformed_json"}),
    "TLS with a wrong certificate": Case(TransportError, mode="wrong certificate", is_final=True),
    "TLS that ends in an alert": Case(TransportError, mode="alert"),
    "TLS that is cut off": Case(TransportError, mode="cut off"),
}
ENDPOINTS: Mapping[str, Mapping[str, Any]] = {
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
    """The simulated fleet, and the fewest attempts that each endpoint needs."""

    size: Mapping[str, Any]
    least: Mapping[str, int]
    revoked_at: frozenset[int] = frozenset()
    """The pages, by number, that revoke the token. Each costs three requests: a refused one, a check, and a replay."""


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
    """Count attempts by endpoint, and set the proxy's mode for those that the fault strikes."""

    endpoint: str
    nth: frozenset[int] | None
    proxy: TlsProxy | None
    mode: ProxyMode
    counts: Counter[str] = attrs.field(factory=Counter)
    struck: int = 0

    async def send(self, method: str, url: URL, send: Callable[[], Awaitable[Response]]) -> Response:
        endpoint = endpoint_of(method, url)
        self.counts[endpoint] += 1
        if self.proxy is not None:
            is_struck = endpoint == self.endpoint and (self.nth is None or self.counts[endpoint] in self.nth)
            self.struck += is_struck
            await self.proxy.set_mode(self.mode if is_struck else "open")
        return await send()


def endpoint_of(method: str, url: URL) -> str:
    if method == "POST":
        return "token"
    if url.path.endswith("/sessions"):
        return "first page" if url.query["offset"] == "0" else "later page"
    return "users" if url.path.endswith("/users") else "vehicles"


@asynccontextmanager
async def served(
    case: Case, endpoint: str, sequence: str, fleet: Fleet
) -> AsyncIterator[tuple[PoderoSimulator, PoderoClient, Attempts]]:
    """Serve the fleet to a client that sends one request at a time, so that faults strike in a known order."""
    nth = SEQUENCES[sequence]
    faults = [Fault(kind="clamped_limit", limit=60)]  # few sessions then make two pages
    if case.details is not None:
        faults.append(Fault(**case.details(), **ENDPOINTS[endpoint], nth=nth))
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(PoderoSimulator(**fleet.size, seed=5, faults=faults))
        simulator.before_page = lambda asked: simulator.revoke_tokens() if asked.number in fleet.revoked_at else None
        options: dict[str, Any] = {"base_url": simulator.base_url}
        proxy = None
        if case.mode is not None:
            certificates = None if case.mode == "shut" else issued_certificates()
            proxy = await stack.enter_async_context(TlsProxy(simulator.base_url, certificates))
            # Each request needs a connection of its own to meet the proxy's mode.
            connector = aiohttp.TCPConnector(
                force_close=True, limit=0, ssl=certificates.trusting if certificates else True
            )
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            options = {"base_url": proxy.origin, "session": session}
        throttle = ThrottlePolicy(max_concurrency=1)
        client = client_of(simulator, retry=RETRY, timeouts=TIMEOUTS, throttle=throttle, **options)
        attempts = Attempts(endpoint, nth, proxy, case.mode or "open")
        around_sending(client, attempts.send)
        yield simulator, await stack.enter_async_context(client), attempts


@pytest.mark.leaping
@pytest.mark.parametrize(
    "sequence",
    [
        "once",
        "until given up",
        pytest.param("twice", marks=pytest.mark.soak),
        pytest.param("alternating", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_costs_attempts_or_ends_in_its_error(fault: str, endpoint: str, sequence: str) -> None:
    """Each fault costs one attempt. If it persists, the call ends in its error when all attempts are spent."""
    case, fleet = FAULTS[fault], ONE_OF_EACH
    if case.mode is not None and endpoint != "token":
        case = attrs.evolve(case, is_final=False)
    if sequence == "alternating":
        fleet = SEVERAL_TOKENS if endpoint == "token" else SEVERAL
    clock = asyncio.get_running_loop().time
    async with served(case, endpoint, sequence, fleet) as (simulator, client, attempts):
        began = clock()
        outcomes = await fetched(client, simulator)
        played = simulator.counts.faults
        struck = attempts.struck or played.total() - played["clamped_limit"]
        assert clock() - began < MAX_FAULT_S * struck
    errors = [outcome for outcome in outcomes if isinstance(outcome, PoderoError)]
    for whole in (outcome for outcome in outcomes if isinstance(outcome, VehicleSessions)):
        truth = simulator.truth(whole.vehicle)
        assert [str(session.id) for session in whole.sessions] == [row["id"] for row in truth]
    assert struck >= 1
    if case.details is not None:
        assert simulator.counts.total_requests == attempts.counts.total(), "every request is counted"
    if case.is_of_page and endpoint == "later page" and sequence == "until given up":
        assert errors == [], "a list is read by days if the server fails on a later page"
        assert len(outcomes) == fleet.size["vehicles"]
    elif case.is_final or sequence == "until given up":
        most = 1 if case.is_final else ATTEMPTS
        assert {(type(error), getattr(error, "attempts", 0)) for error in errors} == {(case.error, most)}
        if sequence == "alternating":
            assert len(errors) == struck
        else:
            assert attempts.counts[endpoint] == most
    else:
        assert errors == []
        assert len(outcomes) == fleet.size["vehicles"]
        assert struck >= (1 if sequence == "once" else 2)
        assert attempts.counts[endpoint] == fleet.least[endpoint] + struck, "each fault costs one attempt"
        least = sum(fleet.least.values()) + 3 * len(fleet.revoked_at)
        assert attempts.counts.total() == least + struck, "nothing else costs an attempt"


async def fetched(client: PoderoClient, simulator: PoderoSimulator) -> list[VehicleSessions | PoderoError]:
    """Fetch the fleet, and return its vehicles and all errors, both the yielded and the raised ones."""
    outcomes: list[VehicleSessions | PoderoError] = []
    try:
        async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
            async for outcome in fleet:
                outcomes.append(outcome.error if isinstance(outcome, VehicleFailure) else outcome)  # noqa: PERF401
    except PoderoError as error:
        outcomes.append(error)
    return outcomes

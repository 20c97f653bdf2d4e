"""Every fault, wherever it strikes and however often: the data arrives whole, or the right error after all attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from email.utils import formatdate
from time import time
from typing import Any

import attrs
import pytest

from podero_async import (
    DecodeError,
    PoderoClient,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Timeouts,
    TransportError,
    VehicleFailure,
    VehicleSessions,
)
from podero_async.testing import Fault, PoderoSimulator
from tests.support import client_of

ATTEMPTS = 4
RETRY = RetryPolicy(max_attempts=ATTEMPTS)
TIMEOUTS = Timeouts(connect=5.0, read=5.0, total=5.0)
LONGEST_S = 120.0  # on the leaping clock: four attempts of five seconds, and the waits between them


@attrs.frozen
class Case:
    """A fault, and the error that it ends in where it does not go away."""

    details: Callable[[], Mapping[str, Any]]
    error: type[PoderoError]


def status(number: int, **headers: str) -> Callable[[], Mapping[str, Any]]:
    return lambda: {"kind": "status", "status": number, "headers": {k.replace("_", "-"): v for k, v in headers.items()}}


FAULTS = {
    "reset before the body": Case(lambda: {"kind": "reset"}, TransportError),
    "reset inside the body": Case(lambda: {"kind": "reset", "after_bytes": 20}, TransportError),
    "body shorter than its Content-Length": Case(lambda: {"kind": "truncated", "after_bytes": 20}, TransportError),
    "HTML with 502": Case(
        lambda: {"kind": "status", "status": 502, "body": "<html>Bad Gateway</html>", "content_type": "text/html"},
        ServerError,
    ),
    "200 without a body": Case(lambda: {"kind": "empty"}, DecodeError),
    "429 with seconds": Case(status(429, Retry_After="2"), RateLimitError),
    "429 with a date": Case(
        lambda: {
            "kind": "status",
            "status": 429,
            "headers": {"Retry-After": formatdate(time() + 3, usegmt=True)},
        },
        RateLimitError,
    ),
    "429 without a time": Case(status(429), RateLimitError),
    "503": Case(status(503), ServerError),
    "hang": Case(lambda: {"kind": "hang"}, RequestTimeoutError),
    "slow drip": Case(lambda: {"kind": "drip", "seconds": 2.0, "chunk_bytes": 10}, RequestTimeoutError),
    "JSON that ends early": Case(lambda: {"kind": "malformed_json"}, DecodeError),
}
PLACES: Mapping[str, Mapping[str, Any]] = {
    "token": {"endpoint": "token"},
    "users": {"endpoint": "users"},
    "vehicles": {"endpoint": "vehicles"},
    "first page": {"endpoint": "sessions", "page": "first"},
    "later page": {"endpoint": "sessions", "page": "later"},
}
SEQUENCES: Mapping[str, Mapping[str, Any]] = {
    "once": {"nth": {1}},
    "twice": {"nth": {1, 2}},
    "alternating": {"nth": {1, 3, 5}},
    "until given up": {},
}
LEAST = {"token": 1, "users": 1, "vehicles": 1, "sessions": 2}  # one user, one vehicle, 300 sessions


@pytest.mark.leaping
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_costs_attempts_or_ends_in_its_error(fault: str, place: str, sequence: str) -> None:
    """A fault that is not counted, not retried or retried too often would lose data, or storm a server that is down."""
    case = FAULTS[fault]
    scripted = Fault(**case.details(), **PLACES[place], **SEQUENCES[sequence])
    loop = asyncio.get_running_loop()
    async with PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=300, seed=5, faults=[scripted]) as simulator:
        simulator.before_answer = None
        async with client_of(simulator, retry=RETRY, timeouts=TIMEOUTS) as client:
            began = loop.time()
            outcome = await fetched(client, simulator)
            assert loop.time() - began < LONGEST_S
        if sequence == "until given up":
            assert type(outcome) is case.error
            assert getattr(outcome, "attempts") == ATTEMPTS  # noqa: B009  # of every error that a request ends in
            assert simulator.counts.requests[endpoint_of(place)] <= ATTEMPTS * LEAST[endpoint_of(place)]
        else:
            assert isinstance(outcome, VehicleSessions), outcome
            truth = simulator.truth(outcome.vehicle)
            assert [str(session.id) for session in outcome.sessions] == [row["id"] for row in truth]
            played = simulator.counts.faults[str(scripted.kind)]
            assert played >= 1
            assert simulator.counts.requests == LEAST | {endpoint_of(place): LEAST[endpoint_of(place)] + played}, (
                "each fault costs one request more, and nothing else does"
            )


def endpoint_of(place: str) -> str:
    return str(PLACES[place]["endpoint"])


async def fetched(client: PoderoClient, simulator: PoderoSimulator) -> VehicleSessions | PoderoError:
    """Fetch the fleet; return its vehicle, or the error that it ended in, as a value or raised."""
    try:
        async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
            outcomes = [outcome async for outcome in fleet]
    except PoderoError as error:
        return error
    assert len(outcomes) == 1
    return outcomes[0].error if isinstance(outcomes[0], VehicleFailure) else outcomes[0]

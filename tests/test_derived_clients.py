"""Clients that `with_options` returns, and the statistics that they share with the first one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
from aiohttp import web

from podero_async import (
    ClientStatistics,
    ConfigurationError,
    PoderoClient,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    StaticToken,
    Timeouts,
)
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, USER, client_of, serving, static_client

ONCE = RetryPolicy(max_attempts=1)


def responding(*statuses: int, **headers: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that responds with these statuses first, and with an empty list from then on."""
    left = list(statuses)

    async def handler(_: web.Request) -> web.Response:
        if left:
            return web.Response(status=left.pop(0), headers={name.replace("_", "-"): v for name, v in headers.items()})
        return web.Response(body=b"[]")

    return handler


async def test_a_derived_client_shares_token_and_connections(simulator: PoderoSimulator) -> None:
    """Calls of two clients take one token and one connection."""
    async with client_of(simulator) as client:
        derived = client.with_options(retry=ONCE, timeouts=Timeouts(total=60))
        for each in (client, derived, client):
            await anext(each.users())
        assert client.statistics() == derived.statistics()
    assert simulator.counts.requests["token"] == 1


async def test_each_client_has_its_own_bounds() -> None:
    """A derived client has the given policy and timeouts, and those of the first client if they are not given."""
    async with serving(responding(500)) as origin, static_client(origin) as client:
        with pytest.raises(ServerError) as caught:
            await client.with_options(retry=ONCE).electric_vehicles(USER)
        assert caught.value.attempts == 1
    async with serving(responding(500)) as origin, static_client(origin) as client:
        assert await client.with_options(timeouts=Timeouts(total=60)).electric_vehicles(USER) == []

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.04)
        return web.Response(body=b"[]")

    async with serving(slow) as origin, static_client(origin, retry=ONCE) as client:
        with pytest.raises(RequestTimeoutError, match=r"no complete response within 0\.01 s \(total timeout\)"):
            await client.with_options(timeouts=Timeouts(total=0.01)).electric_vehicles(USER)
        assert await client.electric_vehicles(USER) == []


@pytest.mark.leaping
async def test_a_pause_holds_for_all_clients_and_fails_only_the_impatient() -> None:
    """If a derived client does not wait for a `Retry-After`, the first client still waits for it, and succeeds."""
    handler = responding(429, Retry_After="30")
    async with serving(handler) as origin, static_client(origin) as client:
        derived = client.with_options(retry=RetryPolicy(retry_after_max=1))
        began = asyncio.get_running_loop().time()
        with pytest.raises(RateLimitError):
            await derived.electric_vehicles(USER)
        assert client.statistics().paused_for_s == pytest.approx(30, abs=2)
        assert await client.electric_vehicles(USER) == []
        assert asyncio.get_running_loop().time() - began > 29


async def test_closing_a_derived_client_closes_nothing() -> None:
    """Closing a derived client leaves the others open; closing the first client closes all of them."""
    async with serving(responding()) as origin:
        async with static_client(origin) as client:
            other = client.with_options()
            async with client.with_options(retry=ONCE) as derived, derived.with_options() as twice_derived:
                assert await twice_derived.electric_vehicles(USER) == []
            assert await client.electric_vehicles(USER) == []
        with pytest.raises(ConfigurationError, match="closed"):
            await other.electric_vehicles(USER)


@pytest.mark.parametrize("options", [{"retry": 5}, {"timeouts": 3.0}])
def test_a_wrong_option_is_named(options: dict[str, Any]) -> None:
    """An option of the wrong class is a `ConfigurationError` that names the option."""
    client = PoderoClient(ORG, StaticToken("t"))
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        client.with_options(**options)


async def test_statistics_count_requests_and_retries() -> None:
    """Statistics show the request in flight while the server handles it, and all counts afterwards."""
    seen: list[ClientStatistics] = []
    respond = responding(500, 429)

    async def handler(request: web.Request) -> web.Response:
        seen.append(client.statistics())
        return await respond(request)

    async with serving(handler) as origin, static_client(origin) as client:
        await client.electric_vehicles(USER)
        now = client.statistics()
    assert [each.in_flight for each in seen] == [1, 1, 1]
    assert attrs.evolve(now, limit=0) == ClientStatistics(
        in_flight=0,
        queued=0,
        limit=0,
        paused_for_s=0.0,
        is_breaker_open=False,
        waiting_for_token=0,
        is_token_failing=False,
        requests=3,
        retries=2,
        pauses=0,
        unknown_fields=now.unknown_fields,
        token_requests=0,
    )
    assert now.limit >= 1


def test_statistics_need_no_event_loop() -> None:
    """A client that was never used has statistics, too."""
    assert PoderoClient(ORG, StaticToken("t")).statistics().requests == 0

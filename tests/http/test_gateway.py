"""Gateways that respond in place of the API, in pages or redirects: an outage, as a fault of the API itself is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import date
from uuid import UUID

import pytest
from aiohttp import web

from podero_async import (
    ApiError,
    ClientCredentials,
    NotFoundError,
    PoderoClient,
    PoderoError,
    RetryPolicy,
    StaticToken,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
    http_status_of,
)
from tests._support.clients import ORG, USER, VEHICLE, page_body, serving

pytestmark = pytest.mark.leaping

_DAY = date(2026, 1, 1)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _page(status: int) -> web.Response:
    headers = {"Location": "/maintenance"} if status == 302 else {}
    return web.Response(status=status, text="<html>back soon</html>", content_type="text/html", headers=headers)


def _down(since_s: float, until_s: float, response: Callable[[], web.Response], *, of: str = "GET") -> _Handler:
    """Serve empty lists and tokens of two seconds, and respond to one method otherwise for some time."""

    async def respond(request: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        if request.method == of and since_s <= asyncio.get_running_loop().time() - began < until_s:
            return response()
        if request.method == "POST":
            return web.json_response({"access_token": "t", "expires_in": 2})
        return web.Response(body=page_body())

    began = asyncio.get_running_loop().time()
    return respond


async def _outcomes(client: PoderoClient, count: int) -> Counter[type]:
    refs = [VehicleRef(user_id=USER, vehicle_id=UUID(int=number)) for number in range(1, count + 1)]
    async with client.fetch_fleet(_DAY, _DAY, refs) as fleet:
        return Counter([type(outcome) async for outcome in fleet])


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 408, 425])
async def test_an_outage_behind_a_gateway_loses_no_vehicle(status: int) -> None:
    """If a gateway sends its own pages for a minute, as a proxy without a backend does, all vehicles are read after it."""
    async with (
        serving(_down(0.5, 60.0, lambda: _page(status))) as origin,
        PoderoClient(ORG, StaticToken("t"), base_url=origin) as client,
    ):
        assert await _outcomes(client, 400) == {VehicleSessions: 400}


@pytest.mark.slow
@pytest.mark.parametrize("status", [302, 403, 404, 503])
async def test_an_outage_of_the_token_endpoint_loses_no_vehicle(status: int) -> None:
    """If the token expires while the token endpoint fails for a minute, all vehicles wait for the next token."""
    async with (
        serving(_down(0.5, 60.0, lambda: _page(status), of="POST")) as origin,
        PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin) as client,
    ):
        assert await _outcomes(client, 1500) == {VehicleSessions: 1500}


@pytest.mark.parametrize("status", [302, 401, 403, 404])
async def test_a_page_before_any_success_is_an_error_at_once(status: int) -> None:
    """The page of a wrong `base_url` is an error after one attempt, since nothing shows that the endpoint exists."""
    async with (
        serving(_down(0.0, 9e9, lambda: _page(status))) as origin,
        PoderoClient(ORG, StaticToken("t"), base_url=origin) as client,
    ):
        with pytest.raises(ApiError) as caught:
            await client.current_session(USER, VEHICLE)
    assert (caught.value.status, caught.value.attempts, caught.value.is_from_gateway) == (status, 1, False)


@pytest.mark.parametrize("worked", [True, False], ids=["after a success", "after a refusal in JSON"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_the_page_of_a_gateway_does_not_refuse_a_call(status: int, worked: bool) -> None:
    """If a gateway's page has the status of a refusal, the call fails as in any outage: no customer is unknown or denied."""
    usual = web.json_response({"session": None}) if worked else web.json_response({"detail": "unknown"}, status=404)
    responses = iter([usual])

    async def respond(_: web.Request) -> web.Response:
        return next(responses, None) or _page(status)

    retry = RetryPolicy(max_attempts=2, backoff_initial=0.01)
    async with serving(respond) as origin, PoderoClient(ORG, StaticToken("t"), base_url=origin, retry=retry) as client:
        with nullcontext() if worked else pytest.raises(NotFoundError):
            await client.current_session(USER, VEHICLE)
        with pytest.raises(ApiError) as caught:
            await client.current_session(USER, VEHICLE)
    assert type(caught.value) is ApiError
    assert (caught.value.status, caught.value.attempts, caught.value.is_from_gateway) == (status, 2, True)
    assert http_status_of(caught.value) == 502


async def test_an_error_of_the_api_is_never_a_gateway_s() -> None:
    """A 404 in JSON is an error after one attempt, also of an endpoint that has worked before."""
    async with (
        serving(_down(0.15, 9e9, lambda: web.json_response({"detail": "no such vehicle"}, status=404))) as origin,
        PoderoClient(ORG, StaticToken("t"), base_url=origin) as client,
    ):
        await client.vehicle_sessions(USER, VEHICLE, _DAY, _DAY)
        with pytest.raises(ApiError) as caught:
            await client.vehicle_sessions(USER, VEHICLE, _DAY, _DAY)
    assert (caught.value.attempts, caught.value.is_from_gateway) == (1, False)


async def test_a_gateway_that_refuses_one_vehicle_fails_only_that_one() -> None:
    """If a firewall blocks one path for ever, that vehicle fails with its own error, and the others are read."""

    async def respond(request: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        return _page(403) if str(UUID(int=300)) in request.path else web.Response(body=page_body())

    async with serving(respond) as origin, PoderoClient(ORG, StaticToken("t"), base_url=origin) as client:
        assert await _outcomes(client, 400) == {VehicleSessions: 399, VehicleFailure: 1}


async def test_a_short_bound_of_one_caller_opens_no_breaker() -> None:
    """If callers with a bound of 0.1 s give up waiting for the first token, other calls are sent as usual."""

    async def respond(request: web.Request) -> web.Response:
        if request.method == "POST":
            await asyncio.sleep(1.0)
            return web.json_response({"access_token": "t", "expires_in": 3600})
        return web.Response(body=page_body())

    async with (
        serving(respond) as origin,
        PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin) as client,
    ):
        bot = client.with_options(retry=RetryPolicy(max_elapsed=0.1))
        calls = [bot.list_sessions(USER, VEHICLE, _DAY, _DAY) for _ in range(40)]
        assert all(isinstance(each, PoderoError) for each in await asyncio.gather(*calls, return_exceptions=True))
        assert not client.statistics().is_breaker_open

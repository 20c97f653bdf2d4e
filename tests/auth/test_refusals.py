"""Refused tokens and refused credentials: each costs few requests, and only a refusal of all calls is fatal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from itertools import count
from typing import Any
from uuid import UUID

import attrs
import pytest
from aiohttp import web

from podero_async import (
    AuthenticationError,
    ClientCredentials,
    DecodeError,
    PoderoClient,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    StaticToken,
    ThrottlePolicy,
    Token,
    TransportError,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
    http_status_of,
)
from podero_async._auth.grants import TokenResponse
from podero_async._auth.refusals import Refusals
from podero_async._auth.renewal import TokenRequester
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, QUICK, USER, VEHICLE, client_of, page_body, serving
from tests._support.tokens import CLIENT, PASSWORD, MemoryStore, ScriptedEndpoint, cache_of, refuse

pytestmark = pytest.mark.leaping

DAY = date(2026, 1, 1)


@attrs.define
class Server:
    """A server that issues tokens, and refuses requests with a revoked or too new token, or those that `refuses` picks."""

    life_s: float = 3600.0
    lag_s: float = 0.0
    """Seconds until the server accepts a new token."""
    refuses: Callable[[web.Request], bool] = lambda _: False
    token_takes_s: float = 0.0
    refusal_takes_s: float = 0.0
    throttled_tokens: int = 0
    """Token requests that get a 429 with `Retry-After: 3`."""
    issued_at: dict[str, float] = attrs.field(factory=dict)
    revoked: set[str] = attrs.field(factory=set)
    requests: list[str] = attrs.field(factory=list)
    """The tokens of all requests but the token requests."""

    async def respond(self, request: web.Request) -> web.Response:
        now = asyncio.get_running_loop().time()
        if request.method == "POST":
            if self.throttled_tokens:
                self.throttled_tokens -= 1
                return web.json_response({"detail": "slow down"}, status=429, headers={"Retry-After": "3"})
            await asyncio.sleep(self.token_takes_s)
            token = f"t{len(self.issued_at) + 1}"
            self.issued_at[token] = asyncio.get_running_loop().time()
            return web.json_response({"access_token": token, "expires_in": self.life_s})
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.requests.append(token)
        is_known = token not in self.revoked and now >= self.issued_at.get(token, 0.0) + self.lag_s
        if not is_known or self.refuses(request):
            await asyncio.sleep(self.refusal_takes_s)
            return web.json_response({"detail": "Unauthorized"}, status=401)
        return web.Response(body=page_body() if request.path.endswith("/sessions") else b'{"session": null}')


@asynccontextmanager
async def calling(server: Server, **options: Any) -> AsyncIterator[PoderoClient]:
    """Open a client of the server, whose tokens live by the clock of the event loop."""
    async with serving(server.respond) as origin:
        options = {"credentials": ClientCredentials("a", "b"), "retry": QUICK, **options}
        async with PoderoClient(ORG, base_url=origin, **options) as client:
            yield client


async def call(client: PoderoClient, number: int = 3) -> str:
    """Call once; return "all" or "one", the calls that a refusal affects, or an empty string after a success."""
    try:
        await client.current_session(USER, UUID(int=number))
    except AuthenticationError as error:
        return "all" if error.affects_all_calls else "one"
    return ""


def vehicles(count: int) -> list[VehicleRef]:
    return [VehicleRef(user_id=USER, vehicle_id=UUID(int=number)) for number in range(1, count + 1)]


async def fleet_of(client: PoderoClient, count: int) -> dict[type, int]:
    """Fetch a fleet; count its outcomes by type."""
    counts = {VehicleSessions: 0, VehicleFailure: 0}
    async with client.fetch_fleet(DAY, DAY, vehicles(count)) as fleet:
        async for outcome in fleet:
            counts[type(outcome)] += 1
    return counts


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", [CLIENT, PASSWORD], ids=["client", "password"])
async def test_refused_credentials_are_sent_once_a_minute(credentials: Any) -> None:
    """Fifty calls with refused credentials make one token request, and the next one is made after a minute."""
    server = ScriptedEndpoint(accepts=lambda _: False, refusal=(401, {"error": "invalid_client"}), takes_s=0.0)
    cache = cache_of(server, credentials)
    errors = []
    for _ in range(50):
        with pytest.raises(AuthenticationError, match="invalid_client") as caught:
            await cache.get()
        errors.append(caught.value)
    assert len(server.requests) == 1
    assert len({id(error) for error in errors}) == 50
    assert [error.attempts for error in errors] == [1] + [0] * 49
    await asyncio.sleep(30)
    with pytest.raises(AuthenticationError):
        await cache.get()
    assert len(server.requests) == 1
    await asyncio.sleep(31)
    server.accepts = lambda _: True
    assert await cache.get() == "token-1"


@pytest.mark.parametrize(("status", "body"), [(401, b'{"error": "invalid_client"}'), (200, b"{}"), (200, b"[")])
async def test_an_error_of_the_token_endpoint_names_the_request(status: int, body: bytes) -> None:
    """A refusal, a response without a token and a damaged one carry the response's request id."""

    async def respond(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"X-Request-ID": "request-1"})

    async with serving(respond) as origin, PoderoClient(ORG, CLIENT, base_url=origin, retry=QUICK) as client:
        for attempts in (True, False):  # the second call sends nothing if the refusal is remembered
            with pytest.raises((AuthenticationError, DecodeError)) as caught:
                await client.current_session(USER, VEHICLE)
            assert caught.value.request_id == "request-1"
            assert caught.value.attempts or not attempts


async def test_a_response_without_a_token_is_remembered() -> None:
    """A token endpoint whose responses hold no token gets one request a minute."""
    requests = 0

    async def send(_: object) -> TokenResponse:
        nonlocal requests
        requests += 1
        return TokenResponse(200, b"{}")

    requester = TokenRequester(CLIENT, send, refusal_memory_s=5.0)
    for _ in range(20):
        with pytest.raises(DecodeError, match="expected a token"):
            await requester.request()
        await asyncio.sleep(1)
    assert requests == 4


async def test_a_page_in_place_of_a_refusal_is_not_remembered() -> None:
    """A client that starts behind a gateway's error page gets a token as soon as the token endpoint responds again."""
    responses = [TokenResponse(404, b"<!doctype html>no backend")] * 3 + [TokenResponse(200, b'{"access_token": "t"}')]

    async def send(_: object) -> TokenResponse:
        return responses.pop(0)

    requester = TokenRequester(CLIENT, send)
    with pytest.raises(AuthenticationError, match="HTML page"):
        await requester.request()
    assert (await requester.request()).value == "t"


async def test_only_the_request_that_was_sent_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A remembered refusal is not logged again."""
    cache = cache_of(ScriptedEndpoint(accepts=lambda _: False, refusal=(401, {}), takes_s=0.0))
    with caplog.at_level(logging.INFO, "podero_async"):
        for _ in range(5):
            with pytest.raises(AuthenticationError):
                await cache.get()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_the_token_of_another_process_ends_the_refusal() -> None:
    """If another process stores a token, it is used although the client's own credentials were refused a moment ago."""
    server, store = ScriptedEndpoint(accepts=lambda _: False, refusal=(401, {}), takes_s=0.0), MemoryStore()
    cache = cache_of(server, store=store)
    with pytest.raises(AuthenticationError):
        await cache.get()
    await cache_of(ScriptedEndpoint(), store=store).get()
    assert await cache.get() == "token-1"
    assert len(server.requests) == 1


@pytest.mark.parametrize(("life_s", "said"), [(3600.0, "valid for 3600 s"), (None, "valid until it is refused")])
async def test_a_new_token_is_one_log_line(life_s: float | None, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """A received token is logged in one line at INFO, with its endpoint and lifetime, without the token."""
    with caplog.at_level(logging.INFO, "podero_async"):
        token = await cache_of(ScriptedEndpoint(life_s=life_s)).get()
    assert caplog.messages == [f"token received from /api/partners/v2.0/auth/token (JSON), {said}"]
    assert token not in caplog.text


# --- one call's refusal -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("refused", [{150}, set(range(1, 101)), set(range(200, 301))], ids=["one", "first", "last"])
async def test_refusals_of_some_vehicles_are_their_own_failures(refused: set[int]) -> None:
    """If the server refuses some vehicles, each is one failure, all others are read, and one token is enough."""
    paths = {str(UUID(int=number)) for number in refused}
    server = Server(refuses=lambda request: request.path.split("/")[-2] in paths)
    async with calling(server) as client:
        await client.current_session(USER, UUID(int=1000))
        assert await fleet_of(client, 300) == {VehicleSessions: 300 - len(refused), VehicleFailure: len(refused)}
    assert len(server.issued_at) == 1


async def test_a_refused_vehicle_of_a_cold_fleet_is_its_own_failure() -> None:
    """A refusal among the first calls of a client waits until the token has served another call or has settled."""
    server = Server(refuses=lambda request: str(UUID(int=9)) in request.path)
    async with calling(server) as client:
        assert await fleet_of(client, 30) == {VehicleSessions: 29, VehicleFailure: 1}
    assert len(server.issued_at) == 1


async def test_a_static_token_serves_the_other_vehicles() -> None:
    """A refusal of one vehicle does not end a fleet with a static token, but an expired token does."""
    server = Server(refuses=lambda request: str(UUID(int=9)) in request.path)
    async with calling(server, credentials=StaticToken("mine")) as client:
        assert await fleet_of(client, 30) == {VehicleSessions: 29, VehicleFailure: 1}
        server.revoked.add("mine")
        with pytest.raises(AuthenticationError):
            await fleet_of(client, 30)


async def test_a_single_vehicle_that_is_refused_costs_one_token_a_minute() -> None:
    """If a client calls nothing but one refused path, a token is requested at most once a minute."""
    server = Server()
    async with calling(server) as client:
        assert await call(client) == ""
        server.refuses = lambda _: True
        started = asyncio.get_running_loop().time()
        results = []
        while asyncio.get_running_loop().time() < started + 200:
            results.append(await call(client))
            await asyncio.sleep(1)
    assert set(results) == {"one"}
    assert 2 <= len(server.issued_at) <= 5


async def test_a_refused_call_is_checked_by_a_call_of_another_endpoint_and_client() -> None:
    """The token is checked with any earlier success, also of the client that a client is derived from,
    so none is requested.
    """
    server = Server(refuses=lambda request: request.path.endswith("/current"))
    async with calling(server) as client:
        await client.vehicle_sessions(USER, VEHICLE, DAY, DAY)
        for caller in (client, client.with_options()):
            assert await call(caller) == "one"
        server.refuses = lambda _: False
        assert await call(client) == ""
        server.refuses = lambda request: request.path.endswith("/current")
        assert await call(client) == "one"
    assert len(server.issued_at) == 1


async def test_concurrent_refusals_share_one_check() -> None:
    """If a token is revoked under 50 concurrent calls, one check and one token request serve them all."""
    server = Server()
    async with calling(server) as client:
        assert await call(client) == ""
        server.revoked.add("t1")
        assert await asyncio.gather(*(call(client, number) for number in range(1, 51))) == [""] * 50
    assert server.requests.count("t1") == 1 + 50 + 1
    assert list(server.issued_at) == ["t1", "t2"]


async def test_concurrent_refusals_of_a_good_token_share_one_check() -> None:
    """If ten concurrent calls are refused with a token that the server accepts, it is checked once, and all ten fail."""
    cache, checks = cache_of(ScriptedEndpoint()), 0
    token = await cache.get()
    cache.served(token)
    await asyncio.sleep(10)

    async def is_accepted(_: str) -> bool:
        nonlocal checks
        checks += 1
        await asyncio.sleep(1)
        return True

    refused = [cache.refused(token, Refusals(), is_accepted) for _ in range(10)]
    assert await asyncio.gather(*refused) == [False] * 10
    assert checks == 1


@pytest.mark.parametrize("status", [500, 429])
async def test_a_check_that_fails_leads_to_a_new_token(status: int) -> None:
    """If the server cannot say whether it accepts a token, the token is replaced once, and the refusal is the call's."""
    other = str(UUID(int=4))
    server = Server(refuses=lambda request: other in request.path)

    async def respond(request: web.Request) -> web.Response:
        if request.method == "GET" and other not in request.path and server.requests:
            return web.Response(status=status)
        return await server.respond(request)

    async with serving(respond) as origin:
        async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin, retry=QUICK) as client:
            assert await call(client) == ""
            await asyncio.sleep(10)
            assert [await call(client, 4) for _ in range(5)] == ["one"] * 5
    assert len(server.issued_at) == 2


# --- every call is refused --------------------------------------------------------------------------------------------


async def test_a_gateway_that_refuses_everything_costs_one_new_token() -> None:
    """If no token ever serves, 50 calls make two token requests, each error is fatal,
    and one more follows a minute later.
    """
    server = Server(refuses=lambda _: True)
    async with calling(server) as client:
        assert [await call(client, number) for number in range(50)] == ["all"] * 50
        assert len(server.issued_at) == 2
        with pytest.raises(AuthenticationError):
            await fleet_of(client, 30)
        assert len(server.issued_at) == 2
        await asyncio.sleep(61)
        assert await call(client) == "all"
    assert len(server.issued_at) == 3


async def test_a_gateway_that_refuses_everything_later_ends_a_fleet() -> None:
    """If the server refuses a token that served, a new one, and a check of it, the error is fatal."""
    server = Server()
    async with calling(server) as client:
        assert await fleet_of(client, 30) == {VehicleSessions: 30, VehicleFailure: 0}
        await asyncio.sleep(10)
        server.refuses = lambda _: True
        assert [await call(client, number) for number in range(100, 150)] == ["all"] * 50
        with pytest.raises(AuthenticationError):
            await fleet_of(client, 30)
    assert len(server.issued_at) == 2


# --- new tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag_s", [0.3, 1.0, 3.0])
async def test_a_token_that_the_server_does_not_know_yet_fails_no_call(lag_s: float) -> None:
    """If the server accepts new tokens up to three seconds late, a cold client waits and then succeeds."""
    server = Server(lag_s=lag_s)
    async with calling(server) as client:
        started = asyncio.get_running_loop().time()
        assert await fleet_of(client, 100) == {VehicleSessions: 100, VehicleFailure: 0}
        assert lag_s <= asyncio.get_running_loop().time() - started <= lag_s + 1.2
    assert len(server.issued_at) == 1


async def test_replicas_that_learn_a_token_late_cost_two_tokens() -> None:
    """If half of the responses refuse a new token for two seconds, it is replaced once at most, and no vehicle fails."""
    server, turns = Server(), count()

    def lags(request: web.Request) -> bool:
        issued_at = server.issued_at[request.headers["Authorization"].removeprefix("Bearer ")]
        return asyncio.get_running_loop().time() < issued_at + 2.0 and next(turns) % 2 == 0

    async with calling(server) as client:
        assert await call(client) == ""
        await asyncio.sleep(5)
        server.revoked.add("t1")
        server.refuses = lags
        assert await fleet_of(client, 100) == {VehicleSessions: 100, VehicleFailure: 0}
    assert len(server.issued_at) <= 3


async def test_a_new_token_from_the_store_fails_no_call() -> None:
    """If two processes share a token store, and the server's replicas learn a new token late, no vehicle of either fails."""
    server, turns, store = Server(), count(), MemoryStore()

    def lags(request: web.Request) -> bool:
        issued_at = server.issued_at[request.headers["Authorization"].removeprefix("Bearer ")]
        return asyncio.get_running_loop().time() < issued_at + 2.0 and next(turns) % 2 == 0

    credentials = ClientCredentials("a", "b")
    async with (
        serving(server.respond) as origin,
        PoderoClient(ORG, credentials, base_url=origin, retry=QUICK, token_store=store) as one,
        PoderoClient(ORG, credentials, base_url=origin, retry=QUICK, token_store=store) as other,
    ):
        assert [await call(one), await call(other)] == ["", ""]
        await asyncio.sleep(5)
        server.revoked.add("t1")
        server.refuses = lags
        for fleet in await asyncio.gather(fleet_of(one, 100), fleet_of(other, 100)):
            assert fleet == {VehicleSessions: 100, VehicleFailure: 0}
    assert len(server.issued_at) <= 4


async def test_the_wait_for_a_new_token_is_bounded_by_the_call() -> None:
    """If `max_elapsed` ends before the server knows the token, the call fails, and the error is not fatal."""
    server = Server(lag_s=3.0)
    async with calling(server, retry=RetryPolicy(max_elapsed=1.0)) as client:
        started = asyncio.get_running_loop().time()
        assert await call(client) == "one"
        assert asyncio.get_running_loop().time() - started <= 1.01
        await asyncio.sleep(2.5)
        assert await call(client) == ""
    assert len(server.issued_at) == 1


async def test_the_old_token_serves_until_the_new_one_is_known() -> None:
    """After an early renewal the old token is used while the server refuses the new one, and no call waits or fails."""
    endpoint, clock = ScriptedEndpoint(life_s=1000.0, takes_s=0.0), asyncio.get_running_loop().time
    cache = cache_of(endpoint)
    cache.served(await cache.get())
    await asyncio.sleep(901)
    known_at, used = clock() + 30.0, []
    for _ in range(400):
        started = clock()
        token = await cache.get()
        if token == "token-2" and clock() < known_at:
            assert await refuse(cache, token)
            token = await cache.get()
        assert clock() - started < 0.05
        cache.served(token)
        used.append(token)
        await asyncio.sleep(0.1)
    assert used[:250] == ["token-1"] * 250
    assert used[-1] == "token-2"
    assert len(endpoint.requests) == 2


async def test_a_new_token_that_is_revoked_is_replaced_at_once() -> None:
    """If a token served and is revoked within its first seconds, the call does not wait."""
    server = Server()
    async with calling(server) as client:
        assert await call(client, 1) == ""
        server.revoked.add("t1")
        started = asyncio.get_running_loop().time()
        assert await call(client, 2) == ""
        assert asyncio.get_running_loop().time() - started < 0.1
    assert server.requests == ["t1", "t1", "t1", "t2"]


async def test_a_revoked_token_of_the_store_is_replaced_at_once() -> None:
    """If a stored token is refused, the call does not wait, and the next token is requested."""
    server, store = Server(revoked={"dead"}), MemoryStore()
    async with serving(server.respond) as origin:
        for _ in range(2):
            async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin, token_store=store) as client:
                started = asyncio.get_running_loop().time()
                assert await call(client) == ""
                assert asyncio.get_running_loop().time() - started < 0.1
            store.tokens = dict.fromkeys(store.tokens, Token(value="dead"))
    assert server.requests == ["t1", "dead", "t2"]


# --- the time of a call -----------------------------------------------------------------------------------------------


async def test_waiting_for_a_token_is_bounded_by_the_call() -> None:
    """If the token takes longer than `max_elapsed`, the error of the call says so,
    and the token request goes on for the next call.
    """
    server = Server(token_takes_s=3.0)
    async with calling(server, retry=RetryPolicy(max_elapsed=1.0)) as client:
        started = asyncio.get_running_loop().time()
        with pytest.raises(RequestTimeoutError, match="no access token in time"):
            await client.current_session(USER, VEHICLE)
        assert asyncio.get_running_loop().time() - started <= 1.01
        await asyncio.sleep(1.5)
        assert await call(client) == ""
    assert len(server.issued_at) == 1


@pytest.mark.parametrize("others", [0, 1], ids=["nothing to check", "a call to check"])
async def test_no_replay_begins_after_the_time_of_the_call(others: int) -> None:
    """If a vehicle's 401 arrives after `max_elapsed`, its call is not sent again, but the next one carries a new token."""
    server = Server(refusal_takes_s=2.0)
    async with calling(server, retry=RetryPolicy(max_elapsed=1.0)) as client:
        for number in range(1 + others):
            assert await call(client, number) == ""
        server.revoked.add("t1")
        assert await fleet_of(client, 1) == {VehicleSessions: 0, VehicleFailure: 1}
        assert server.requests == ["t1"] * (2 + others)
        assert await call(client, 0) == ""
    assert server.requests == [*["t1"] * (2 + others), "t2"]


async def test_calls_that_wait_for_a_token_take_no_slot() -> None:
    """If the token endpoint hangs under a fleet, the error of a quick call names the token, and not a lack of slots."""
    server = Server(token_takes_s=20.0)
    async with calling(server) as client:
        fleet = asyncio.create_task(fleet_of(client, 200))
        await asyncio.sleep(1)
        assert client.statistics().in_flight == 0
        quick = client.with_options(retry=RetryPolicy(max_elapsed=1.0))
        with pytest.raises(RequestTimeoutError, match="no access token in time"):
            await quick.current_session(USER, VEHICLE)
        assert await fleet == {VehicleSessions: 200, VehicleFailure: 0}
    assert len(server.issued_at) == 1


@pytest.mark.parametrize(
    ("fault", "error", "status", "retry_after"),
    [
        ("token/status:503", ServerError, 503, None),
        ("token/status:503:retry-after=7", ServerError, 503, 5.0),
        ("token/status:429:retry-after=7", RateLimitError, 503, 5.0),
        ("token/reset", TransportError, 502, None),
        ("token/malformed_json", DecodeError, 502, None),
        ("token/hang", RequestTimeoutError, 504, None),
    ],
)
async def test_a_call_without_a_token_in_time_names_the_last_failure_of_the_token_request(
    fault: str, error: type[PoderoError], status: int, retry_after: float | None
) -> None:
    """If the token request keeps failing, a call with short bounds raises its last failure, as the client itself would."""
    async with PoderoSimulator(users=1, vehicles=1, faults=[fault]) as simulator:
        async with client_of(simulator, retry=RetryPolicy()) as client:
            quick = client.with_options(retry=RetryPolicy(max_elapsed=2.0))
            with pytest.raises(PoderoError) as caught:
                await quick.electric_vehicles(USER)
    assert type(caught.value) is error
    assert "store" not in str(caught.value)
    assert http_status_of(caught.value) == status
    assert getattr(caught.value, "retry_after", None) == pytest.approx(retry_after, abs=0.1)


async def test_a_call_without_a_token_in_time_names_the_pause_of_the_token_endpoint() -> None:
    """While the client waits for the end of a pause of the token endpoint, a call with short bounds says for how long."""
    async with calling(Server(throttled_tokens=1), retry=RetryPolicy(max_attempts=1)) as client:
        quick = client.with_options(retry=RetryPolicy(max_elapsed=1.0))
        for retry_after in (3.0, 2.0, 1.0):
            with pytest.raises(RateLimitError) as caught:
                await quick.current_session(USER, VEHICLE)
            assert caught.value.retry_after == pytest.approx(retry_after, abs=0.1)
        assert await call(client) == ""


async def test_a_slow_token_store_is_named() -> None:
    """If the token store keeps a call waiting for longer than its bound, the error names the store."""

    class SlowStore(MemoryStore):
        async def load(self, key: str) -> Token | None:
            await asyncio.sleep(4)
            return None

    async with calling(Server(), token_store=SlowStore(), retry=RetryPolicy()) as client:
        quick = client.with_options(retry=RetryPolicy(max_elapsed=1.0))
        with pytest.raises(RequestTimeoutError, match="the token store took too long"):
            await quick.current_session(USER, VEHICLE)


async def test_statistics_show_that_calls_wait_for_a_token() -> None:
    """Statistics count the calls that wait for a token, and say whether the token request fails, until one succeeds."""
    async with PoderoSimulator(users=1, vehicles=1, faults=["token/status:503@#1,2,3,4"]) as simulator:
        async with client_of(simulator, retry=RetryPolicy(max_attempts=3)) as client:
            seen = []
            assert not client.statistics().is_token_failing
            calls = [asyncio.create_task(client.electric_vehicles(simulator.vehicles[0].user_id)) for _ in range(3)]
            while not all(task.done() for task in calls):
                now = client.statistics()
                seen.append((now.waiting_for_token, now.is_token_failing))
                await asyncio.sleep(0.01)
            assert (3, True) in seen
            assert (client.statistics().waiting_for_token, client.statistics().is_token_failing) == (0, True)
            await client.electric_vehicles(simulator.vehicles[0].user_id)
            assert (client.statistics().waiting_for_token, client.statistics().is_token_failing) == (0, False)
            assert all(isinstance(task.exception(), ServerError) for task in calls)


async def test_a_cold_client_uses_its_rate_from_the_start() -> None:
    """Waiting for the first token uses no request of a fixed rate."""
    server = Server(token_takes_s=1.0)
    async with calling(server, throttle=ThrottlePolicy(requests_per_second=10)) as client:
        started = asyncio.get_running_loop().time()
        await fleet_of(client, 50)
        assert asyncio.get_running_loop().time() - started < 1 + 50 / 10 + 0.1


async def test_a_throttled_token_endpoint_does_not_end_a_fleet() -> None:
    """If the token endpoint throttles each attempt of a token request, the next one waits, and the fleet goes on."""
    server = Server(throttled_tokens=5)
    async with calling(server, retry=RetryPolicy(max_attempts=2)) as client:
        started = asyncio.get_running_loop().time()
        outcomes = await fleet_of(client, 500)
        assert outcomes[VehicleSessions] > 300
        assert sum(outcomes.values()) == 500
        assert 15 < asyncio.get_running_loop().time() - started < 25


@pytest.mark.parametrize("refused", [4, 100, 200])
async def test_a_vehicle_that_is_refused_before_the_first_success_ends_no_fleet(refused: int) -> None:
    """If a static token serves all vehicles but one, only that one fails, even if its 401 is the first response."""

    class Slow(Server):
        async def respond(self, request: web.Request) -> web.Response:
            response = await super().respond(request)
            await asyncio.sleep(0.5 if response.status == 200 else 0.0)
            return response

    server = Slow(refuses=lambda request: str(UUID(int=refused)) in request.path)
    async with calling(server, credentials=StaticToken("a")) as client:
        assert await fleet_of(client, 200) == {VehicleSessions: 199, VehicleFailure: 1}

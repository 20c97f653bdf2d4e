"""One token for all: asked for once, renewed before it expires, and never lost to a late refusal."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import attrs
import pytest
from aiohttp import web

from podero_async import (
    AuthenticationError,
    ClientCredentials,
    ConfigurationError,
    DecodeError,
    PasswordCredentials,
    PoderoClient,
    StaticToken,
    Token,
    TokenEndpoint,
    TransportError,
)
from podero_async._auth.cache import TokenCache
from podero_async._auth.grants import TokenRequest
from podero_async.testing import PoderoSimulator
from tests._support.clients import USER, client_of, serving
from tests._support.fake_clock import run_by_clockwork

pytestmark = pytest.mark.leaping

CLIENT = ClientCredentials("client-1", "s3cret")
PASSWORD = PasswordCredentials("user-1@example.com", "passw0rd")
CONTRACT, GUIDE = "/api/partners/v2.0/auth/token", "/oauth2/token/"


@attrs.define
class Desk:
    """A token endpoint, scripted: what it was asked, and what it answers."""

    life_s: float | None = 100.0
    takes_s: float = 1.0
    speaks: Callable[[TokenRequest], bool] = lambda _: True
    refusal: tuple[int, Any] = (422, {"detail": "no"})
    failure: Exception | None = None
    refresh_tokens: bool = False
    refuses_refresh: bool = False
    requests: list[TokenRequest] = attrs.field(factory=list)
    issued: int = 0

    async def send(self, request: TokenRequest) -> tuple[int, bytes]:
        self.requests.append(request)
        await asyncio.sleep(self.takes_s)
        if self.failure:
            raise self.failure
        if not self.speaks(request):
            return self.refusal[0], json.dumps(self.refusal[1]).encode()
        if b"refresh_token" in request.body and self.refuses_refresh:
            return 400, b'{"error": "invalid_grant"}'
        self.issued += 1
        answer: dict[str, Any] = {"access_token": f"token-{self.issued}", "expires_in": self.life_s}
        if self.refresh_tokens:
            answer["refresh_token"] = f"refresh-{self.issued}"
        return 200, json.dumps(answer).encode()

    @property
    def asked(self) -> list[dict[str, str]]:
        """The parameters of all requests, however they were encoded."""
        return [
            dict(parse_qsl(request.body.decode()))
            if request.headers["Content-Type"].endswith("urlencoded")
            else json.loads(request.body)
            for request in self.requests
        ]


def cache_of(desk: Desk, credentials: Any = CLIENT, **options: Any) -> TokenCache:
    now = asyncio.get_running_loop().time
    return TokenCache(credentials, desk.send, **{"origin": "https://x", "now": now, **options})


@pytest.fixture(autouse=True)
def _no_callback_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What fails behind a task has no caller to tell: asyncio logs it."""
    yield
    assert not [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]


# --- single flight ----------------------------------------------------------------------------------------------------


async def test_ten_thousand_callers_of_a_cold_cache_make_one_request() -> None:
    """A backend that starts under load would flood the token endpoint."""
    desk = Desk()
    cache = cache_of(desk)
    tokens = await asyncio.gather(*(cache.get() for _ in range(10_000)))
    assert set(tokens) == {"token-1"}
    assert len(desk.requests) == 1


@attrs.define
class GuardedDesk(Desk):
    """A token endpoint that knows how long each of its tokens is good."""

    good_until: dict[str, float] = attrs.field(factory=dict)

    async def send(self, request: TokenRequest) -> tuple[int, bytes]:
        answer = await super().send(request)
        self.good_until[f"token-{self.issued}"] = asyncio.get_running_loop().time() + (self.life_s or 0.0)
        return answer

    def is_good(self, token: str) -> bool:
        return asyncio.get_running_loop().time() < self.good_until[token]


async def _crowd(cache: TokenCache, desk: GuardedDesk, *, every_s: float) -> int:
    """Have 10,000 callers call three times each, as a client does; say how often a token was refused."""
    refused = 0

    async def call_on(way_s: float) -> None:
        nonlocal refused
        for _ in range(3):
            token = await cache.get()
            await asyncio.sleep(way_s)
            if not desk.is_good(token):
                refused += 1
                assert cache.invalidate(token)
                assert desk.is_good(await cache.get()), "the call fails: it is replayed once"
            await asyncio.sleep(every_s - way_s)

    await asyncio.gather(*(call_on(2 + number % 3) for number in range(10_000)))
    return refused


@pytest.mark.parametrize("every_s", [93, 101], ids=["about to expire", "expired"])
def test_ten_thousand_callers_make_one_request_an_expiry(every_s: float) -> None:
    """Once an hour, a backend under load would flood the token endpoint, or fail its calls."""
    desk = GuardedDesk(life_s=100, takes_s=0.5)

    async def live() -> int:
        return await _crowd(cache_of(desk), desk, every_s=every_s)

    assert run_by_clockwork(live(), within_s=1000) == 0
    assert desk.issued == len(desk.requests) == 3


def test_ten_thousand_callers_of_revoked_tokens_make_one_request_a_revocation() -> None:
    """A revocation would have every call in flight ask for a token of its own, or fail."""
    desk = GuardedDesk(life_s=10_000, takes_s=1)

    async def live() -> int:
        crowd = asyncio.create_task(_crowd(cache_of(desk), desk, every_s=10))
        await asyncio.sleep(1.5)  # all calls are on their way, and refused before or after there is a new token
        for revocation in range(2):
            assert desk.issued == revocation + 1
            desk.good_until = dict.fromkeys(desk.good_until, 0.0)
            await asyncio.sleep(11)
        return await crowd

    assert run_by_clockwork(live(), within_s=1000) == 20_000
    assert desk.issued == len(desk.requests) == 3


async def test_calls_in_flight_while_tokens_are_revoked_cost_one_request_each(simulator: PoderoSimulator) -> None:
    """A revocation would have each call in flight ask for a token of its own, or fail."""
    user_id = simulator.vehicles[0].user_id
    answered = 0

    async def call(client: PoderoClient) -> None:
        nonlocal answered
        await client.electric_vehicles(user_id)
        answered += 1
        if answered in (100, 250):  # so far apart that no call is in flight at both
            simulator.revoke_tokens()

    async with client_of(simulator) as client:
        await asyncio.gather(*(call(client) for _ in range(500)))
    assert (simulator.counts.tokens_issued, simulator.counts.requests["token"]) == (3, 3)
    assert simulator.counts.responses[401] > 64, "nothing was in flight"


async def test_a_cancelled_caller_cancels_nobody_else() -> None:
    """One impatient request handler would fail all the others."""
    desk = Desk()
    cache = cache_of(desk)
    first = asyncio.create_task(cache.get())
    others = [asyncio.create_task(cache.get()) for _ in range(5)]
    await asyncio.sleep(0.5)
    first.cancel()
    assert set(await asyncio.gather(*others)) == {"token-1"}
    assert first.cancelled()
    assert len(desk.requests) == 1


async def test_a_failure_reaches_every_caller_as_its_own_error() -> None:
    """A shared exception would collect the tracebacks of all who raise it."""
    desk = Desk(failure=TransportError("lost", "POST", CONTRACT))
    cache = cache_of(desk)
    errors = await asyncio.gather(*(cache.get() for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [TransportError] * 3
    assert len({id(error) for error in errors}) == 3
    desk.failure = None
    assert await cache.get() == "token-1", "the next caller tries anew"


# --- renewal ----------------------------------------------------------------------------------------------------------


async def test_a_token_that_expires_under_load_is_renewed_without_a_wait() -> None:
    """Once an hour, every call would stall behind the token endpoint."""
    desk = Desk(life_s=100)
    cache = cache_of(desk)
    await cache.get()
    loop = asyncio.get_running_loop()
    for _ in range(1500):
        started = loop.time()
        token = await cache.get()
        assert loop.time() == pytest.approx(started, abs=0.05)
        assert int(token[6:]) >= desk.issued - 1
        await asyncio.sleep(0.2)
    assert 300 / 90 - 1 <= desk.issued <= 300 / 80 + 2


async def test_the_old_token_serves_on_while_its_renewal_fails() -> None:
    """A token endpoint that is down for a moment would fail calls whose token is still good."""
    desk = Desk(life_s=1000)
    cache = cache_of(desk)
    await cache.get()
    await asyncio.sleep(900)
    desk.failure = TransportError("lost", "POST", CONTRACT)
    for _ in range(40):
        assert await cache.get() == "token-1"
        await asyncio.sleep(0.1)
    desk.failure = None
    await asyncio.sleep(1.5)
    assert await cache.get() == "token-1"
    assert len(desk.requests) == 2, "it waits 5 s after a failed early renewal"
    await asyncio.sleep(1)
    assert await cache.get() == "token-1"
    await asyncio.sleep(1.5)
    assert cache.current() == "token-2"


async def test_a_failed_renewal_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody would know why calls fail half an hour later."""
    with caplog.at_level(logging.WARNING, "podero_async"), pytest.raises(TransportError):
        await cache_of(Desk(failure=TransportError("lost", "POST", CONTRACT))).get()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("podero_async", "WARNING")
    assert record.getMessage() == f"no new token: lost (POST {CONTRACT})"


async def test_a_token_is_used_until_20_s_before_its_end() -> None:
    """A clock that is a little late would send dead tokens, or good ones be thrown away early."""
    desk = Desk(life_s=1000, takes_s=0)
    cache = cache_of(desk)
    await cache.get()
    desk.failure = TransportError("lost", "POST", CONTRACT)
    await asyncio.sleep(979.5)
    assert await cache.get() == "token-1"
    await asyncio.sleep(1)
    with pytest.raises(TransportError):
        await cache.get()


async def test_a_short_lived_token_is_used_most_of_its_life() -> None:
    """With the full margin for disagreeing clocks, a token of 5 s would never be usable."""
    desk = Desk(life_s=5, takes_s=0.1)
    cache = cache_of(desk)
    for _ in range(100):
        await cache.get()
        await asyncio.sleep(0.1)
    assert desk.issued <= 4


async def test_an_expired_token_is_not_used() -> None:
    """Calls would be sent with a token that is known to be dead."""
    desk = Desk(life_s=100)
    cache = cache_of(desk)
    await cache.get()
    await asyncio.sleep(95)
    assert await cache.get() == "token-2"


@pytest.mark.parametrize("life", [None, "soon"])
async def test_a_token_without_a_life_serves_until_it_is_refused(life: Any) -> None:
    """RFC 6749 lets a server leave `expires_in` out."""
    desk = Desk(life_s=life)
    cache = cache_of(desk)
    await cache.get()
    await asyncio.sleep(10**6)
    assert await cache.get() == "token-1"


@pytest.mark.parametrize("life", [0, -60, "nan"])
async def test_a_token_that_is_dead_on_arrival_serves_one_call(life: Any) -> None:
    """A server with a wrong clock would be sent expired tokens, or be asked without end by one call."""
    cache = cache_of(Desk(life_s=life, takes_s=0))
    assert await cache.get() == "token-1"
    assert await cache.get() == "token-2"


# --- refused tokens ---------------------------------------------------------------------------------------------------


async def test_a_late_refusal_of_an_old_token_leaves_the_new_one() -> None:
    """Slow answers to old requests would wipe good tokens, again and again."""
    desk = Desk()
    cache = cache_of(desk)
    old = await cache.get()
    assert cache.invalidate(old)
    new = await cache.get()
    assert cache.invalidate(old)
    assert cache.current() == new
    assert desk.issued == 2


async def test_a_static_token_cannot_be_replaced() -> None:
    """A call would be replayed with the token that was just refused."""
    cache = cache_of(Desk(), StaticToken("mine"))
    assert await cache.get() == "mine"
    assert not cache.invalidate("mine")
    await cache.aclose()


async def test_closing_ends_a_renewal_and_says_so_to_its_waiters() -> None:
    """A waiter would see a cancellation that nobody meant for it, or a task would outlive the client."""
    cache = cache_of(Desk(takes_s=1000))
    waiter = asyncio.create_task(cache.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cache.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await waiter
    assert len(asyncio.all_tasks()) == 1


async def test_a_cancelled_waiter_is_cancelled_though_the_client_closes() -> None:
    """A timeout around a call would be taken for the end of the client."""
    cache = cache_of(Desk(takes_s=1000))
    waiter = asyncio.create_task(cache.get())
    await asyncio.sleep(0.1)
    assert cache._renewal is not None
    cache._renewal.add_done_callback(lambda _: waiter.cancel())
    await cache.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiter


# --- the ways to a token ----------------------------------------------------------------------------------------------


async def test_the_documented_ways_are_tried_in_order_and_the_one_that_worked_is_remembered() -> None:
    """Half of the servers out there would refuse the client, or be asked three times for every token."""
    desk = Desk(speaks=lambda request: request.headers["Content-Type"].endswith("urlencoded"), life_s=10)
    cache = cache_of(desk)
    await cache.get()
    assert [(request.path, request.headers["Content-Type"]) for request in desk.requests] == [
        (CONTRACT, "application/json"),
        (GUIDE, "application/json"),
        (CONTRACT, "application/x-www-form-urlencoded"),
    ]
    whole = {"grant_type": "client_credentials", "client_id": "client-1", "client_secret": "s3cret"}
    assert desk.asked == [whole, {"grant_type": "client_credentials"}, whole]
    assert desk.requests[1].headers["Authorization"] == "Basic Y2xpZW50LTE6czNjcmV0"
    await asyncio.sleep(20)
    await cache.get()
    assert len(desk.requests) == 4


@pytest.mark.parametrize("status", [400, 404, 405, 415, 422])
async def test_a_refused_way_leads_to_the_next(status: int) -> None:
    """A server that speaks only the partner guide's way could not be reached."""
    desk = Desk(speaks=lambda request: request.path == GUIDE, refusal=(status, {"error": "unsupported_grant_type"}))
    assert await cache_of(desk).get() == "token-1"
    assert len(desk.requests) == 2


@pytest.mark.parametrize("refusal", [(401, {"detail": "Unauthorized"}), (400, {"error": "invalid_client"}), (403, {})])
async def test_wrong_credentials_end_the_trying(refusal: tuple[int, Any]) -> None:
    """A wrong secret would be sent three times, and lock the account three times as fast."""
    desk = Desk(speaks=lambda _: False, refusal=refusal)
    with pytest.raises(AuthenticationError) as caught:
        await cache_of(desk).get()
    assert len(desk.requests) == 1
    assert caught.value.status == refusal[0]
    assert f"no token from {CONTRACT} (JSON): " in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_an_explicit_endpoint_skips_the_trying() -> None:
    """A gateway with its own path could not be used."""
    desk = Desk(speaks=lambda _: False)
    credentials = ClientCredentials("client-1", "s3cret", token_endpoint="/realms/x/token")
    with pytest.raises(AuthenticationError, match="/realms/x/token"):
        await cache_of(desk, credentials).get()
    assert [request.path for request in desk.requests] == ["/realms/x/token"]
    assert desk.requests[0].headers["Content-Type"] == "application/x-www-form-urlencoded"
    basic = ClientCredentials("a:b", "c d", token_endpoint=TokenEndpoint("/t", basic=True))
    desk = Desk()
    await cache_of(desk, basic).get()
    assert desk.requests[0].headers["Authorization"] == "Basic YSUzQWI6YyUyMGQ="
    assert desk.asked == [{"grant_type": "client_credentials"}]


async def test_every_refusal_is_named_where_no_way_works() -> None:
    """Nobody could tell what to ask the vendor for."""
    desk = Desk(speaks=lambda _: False, refusal=(422, {"detail": [{"loc": ["body"], "msg": "no", "input": "s3cret"}]}))
    with pytest.raises(AuthenticationError) as caught:
        await cache_of(desk).get()
    assert str(caught.value) == (
        f"HTTP 422: no token from {CONTRACT} (JSON): body: no; {GUIDE} (HTTP Basic, JSON): body: no; "
        f"{CONTRACT} (form): body: no (POST {CONTRACT})"
    )


async def test_the_refusal_that_counts_is_named_alone() -> None:
    """Who has a wrong secret would be told first that the server wants another way."""
    answers = [(404, b""), (401, b'{"error": "invalid_client"}')]

    async def send(_: TokenRequest) -> tuple[int, bytes]:
        return answers.pop(0)

    with pytest.raises(AuthenticationError) as caught:
        await TokenCache(CLIENT, send, origin="https://x").get()
    assert str(caught.value) == f"HTTP 401: no token from {GUIDE} (HTTP Basic, JSON): invalid_client (POST {GUIDE})"


@pytest.mark.parametrize(
    "answer", [b"[]", b"{}", b'{"access_token": 5}', b'{"access_token": "two\\nlines"}', b'{"access_token": ""}']
)
async def test_an_answer_without_a_token_is_an_error(answer: bytes) -> None:
    """A token with a line break in it could smuggle in a header."""

    async def send(_: TokenRequest) -> tuple[int, bytes]:
        return 200, answer

    with pytest.raises(DecodeError, match="a token") as caught:
        await TokenCache(CLIENT, send, origin="https://x").get()
    assert (caught.value.json_path, caught.value.method) == ("$.access_token", "POST")


# --- passwords and refresh tokens -------------------------------------------------------------------------------------


async def test_a_refresh_token_is_used_and_rotated() -> None:
    """The password would travel once an hour, or a rotated refresh token be lost."""
    desk = Desk(refresh_tokens=True, life_s=10)
    cache = cache_of(desk, PASSWORD)
    for _ in range(3):
        await cache.get()
        await asyncio.sleep(20)
    assert desk.asked == [
        {"grant_type": "password", "username": "user-1@example.com", "password": "passw0rd"},
        {"grant_type": "refresh_token", "refresh_token": "refresh-1"},
        {"grant_type": "refresh_token", "refresh_token": "refresh-2"},
    ]


async def test_a_client_asks_as_it_did_at_first() -> None:
    """RFC 6749 gives no refresh token to a client; one that comes all the same would be refused when it is used."""
    desk = Desk(refresh_tokens=True, life_s=10)
    cache = cache_of(desk)
    await cache.get()
    await asyncio.sleep(20)
    await cache.get()
    assert [asked["grant_type"] for asked in desk.asked] == ["client_credentials"] * 2


async def test_a_refresh_token_goes_where_it_came_from() -> None:
    """A gateway would see a password each time, or the refresh token a server that it is not for."""
    desk = Desk(refresh_tokens=True, life_s=10)
    cache = cache_of(desk, PasswordCredentials("user-1", "passw0rd", token_endpoint="/realms/x/token"))
    await cache.get()
    await asyncio.sleep(20)
    await cache.get()
    assert [(request.path, asked["grant_type"]) for request, asked in zip(desk.requests, desk.asked, strict=True)] == [
        ("/realms/x/token", "password"),
        ("/realms/x/token", "refresh_token"),
    ]


async def test_a_refused_refresh_token_gives_way_to_the_password() -> None:
    """A client that slept past the refresh token's life would never wake up."""
    desk = Desk(refresh_tokens=True, life_s=10)
    cache = cache_of(desk, PASSWORD)
    await cache.get()
    await asyncio.sleep(20)
    desk.refuses_refresh = True
    assert await cache.get() == "token-2"
    assert [asked["grant_type"] for asked in desk.asked] == ["password", "refresh_token", "password"]


async def test_a_wrong_password_ends_the_trying() -> None:
    """A wrong password would be sent again, another way."""
    desk = Desk(speaks=lambda _: False, refusal=(400, {"error": "invalid_grant", "error_description": "not passw0rd"}))
    with pytest.raises(AuthenticationError) as caught:
        await cache_of(desk, PASSWORD).get()
    assert len(desk.requests) == 1
    assert "passw0rd" not in str(caught.value)


# --- with a store -----------------------------------------------------------------------------------------------------


@attrs.define
class MemoryStore:
    """A store between caches of one process, with real locks."""

    tokens: dict[str, Token] = attrs.field(factory=dict)
    _locks: dict[str, asyncio.Lock] = attrs.field(factory=lambda: defaultdict(asyncio.Lock))

    def lock(self, key: str) -> asyncio.Lock:
        return self._locks[key]

    async def load(self, key: str) -> Token | None:
        assert self._locks[key].locked(), "another process may be renewing it"
        return self.tokens.get(key)

    async def save(self, key: str, token: Token) -> None:
        assert self._locks[key].locked(), "another process may be renewing it"
        self.tokens[key] = token


async def test_caches_that_share_a_store_make_one_request_an_expiry() -> None:
    """Eight workers of one backend would make eight requests, and rotate each other's refresh tokens away."""
    desk, store = Desk(life_s=100, refresh_tokens=True), MemoryStore()
    caches = [cache_of(desk, PASSWORD, store=store) for _ in range(8)]
    for _ in range(500):
        tokens = await asyncio.gather(*(cache.get() for cache in caches))
        assert all(int(token[6:]) >= desk.issued - 1 for token in tokens)
        await asyncio.sleep(1)
    assert desk.issued <= 500 / 80 + 1
    assert [asked["grant_type"] for asked in desk.asked[1:]] == ["refresh_token"] * (desk.issued - 1)


async def test_a_restart_takes_the_stored_token() -> None:
    """A bot that restarts often would ask for a token each time."""
    desk, store = Desk(), MemoryStore()
    await cache_of(desk, store=store).get()
    assert await cache_of(desk, store=store).get() == "token-1"
    assert desk.issued == 1
    assert await cache_of(desk, ClientCredentials("client-2", "x"), store=store).get() == "token-2"
    assert await cache_of(desk, store=store, origin="https://sandbox").get() == "token-3"


async def test_a_stored_token_is_renewed_early_too() -> None:
    """Every process that shares a store would stall behind the token endpoint when its token expires."""
    desk, store = Desk(life_s=100), MemoryStore()
    cache = cache_of(desk, store=store)
    await cache.get()
    await asyncio.sleep(91)
    assert await cache.get() == "token-1"
    await asyncio.sleep(2)
    assert cache.current() == "token-2"


async def test_a_dead_token_out_of_the_store_costs_no_call(simulator: PoderoSimulator) -> None:
    """After a revocation, whoever finds another process's dead token in the store would fail."""
    store = MemoryStore()
    async with client_of(simulator, token_store=store) as client:
        assert [user async for user in client.users()]
        simulator.revoke_tokens()
        store.tokens = dict.fromkeys(store.tokens, Token(value="dead"))
        assert [user async for user in client.users()]


@pytest.mark.parametrize(("store", "calls"), [(None, 2), (MemoryStore(), 3)])
async def test_a_server_that_refuses_every_token_is_not_asked_for_ever(store: MemoryStore | None, calls: int) -> None:
    """A call would never end, and the token endpoint be flooded."""
    refused = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal refused
        if request.method == "POST":
            return web.json_response({"access_token": f"token-{refused}"})
        refused += 1
        return web.Response(status=401)

    credentials = ClientCredentials("client-1", "s3cret")
    async with (
        serving(handler) as origin,
        PoderoClient(USER, credentials, base_url=origin, token_store=store) as client,
    ):
        with pytest.raises(AuthenticationError):
            await client.electric_vehicles(USER)
    assert refused == calls


async def test_a_refused_token_is_not_taken_from_the_store_again() -> None:
    """After a revocation the client would read the dead token back for ever."""
    desk, store = Desk(), MemoryStore()
    cache = cache_of(desk, store=store)
    cache.invalidate(await cache.get())
    assert await cache.get() == "token-2"


@pytest.mark.parametrize("life", [10, None])
async def test_a_stored_refresh_token_is_used_after_a_restart(life: float | None) -> None:
    """The password would travel though it need not."""
    desk, store = Desk(refresh_tokens=True, life_s=life), MemoryStore()
    await cache_of(desk, PASSWORD, store=store).get()
    await asyncio.sleep(20)
    store.tokens = {key: attrs.evolve(token, usable_until=0.0) for key, token in store.tokens.items()}
    assert await cache_of(desk, PASSWORD, store=store).get() == "token-2"
    assert desk.asked[-1] == {"grant_type": "refresh_token", "refresh_token": "refresh-1"}


async def test_a_refused_refresh_token_is_not_taken_from_the_store_again() -> None:
    """While the token endpoint struggles, each renewal would begin with a refresh token that is known to be dead."""
    desk, store = Desk(refresh_tokens=True, life_s=10), MemoryStore()
    cache = cache_of(desk, PASSWORD, store=store)
    await cache.get()
    await asyncio.sleep(20)
    desk.refuses_refresh, desk.speaks = True, lambda request: b"refresh_token" in request.body
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            await cache.get()
    desk.speaks = lambda _: True
    assert await cache.get() == "token-2"
    assert [asked["grant_type"] for asked in desk.asked].count("refresh_token") == 1


async def test_a_refresh_token_that_another_process_gave_up_is_not_used() -> None:
    """Every process would send the dead one once more, which a server may take for a stolen one."""
    desk, store = Desk(refresh_tokens=True, life_s=10), MemoryStore()
    caches = [cache_of(desk, PASSWORD, store=store) for _ in range(2)]
    for cache in caches:
        await cache.get()
    await asyncio.sleep(20)
    desk.refresh_tokens, desk.refuses_refresh = False, True
    for cache in caches:
        await cache.get()
        await asyncio.sleep(20)
    assert [asked["grant_type"] for asked in desk.asked] == ["password", "refresh_token", "password", "password"]


@pytest.mark.parametrize(
    "value", [CLIENT, PASSWORD, StaticToken("s3cret"), Token(value="s3cret", refresh_token="r3fresh")]
)
def test_secrets_do_not_show(value: object) -> None:
    """A logged credential is a leaked one."""
    for secret in ("s3cret", "passw0rd", "r3fresh", "example.com"):
        assert secret not in repr(value)

"""The token cache: one request for all callers, renewal before expiry, token endpoint styles, refresh tokens, stores.

`test_cache_machine.py` tests the order of events, `test_refusals.py` refused tokens and credentials.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import attrs
import pytest

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
from podero_async._auth.grants import TokenRequest, TokenResponse
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.fake_clock import run_by_clockwork
from tests._support.tokens import CLIENT, CONTRACT, GUIDE, PASSWORD, MemoryStore, ScriptedEndpoint, cache_of, refuse

pytestmark = pytest.mark.leaping


def on_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop whose time passes only while all tasks sleep, so it does not depend on the machine."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        run_by_clockwork(test(**arguments), within_s=10_000)

    return run


@pytest.fixture(autouse=True)
def _no_callback_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test if asyncio logs an error of a task or callback that has no caller."""
    yield
    assert not [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]


# --- one request for all callers --------------------------------------------------------------------------------------


async def test_ten_thousand_callers_of_a_cold_cache_make_one_request() -> None:
    """If no token is cached, 10,000 concurrent callers share one token request."""
    server = ScriptedEndpoint()
    cache = cache_of(server)
    tokens = await asyncio.gather(*(cache.get() for _ in range(10_000)))
    assert set(tokens) == {"token-1"}
    assert len(server.requests) == 1


@attrs.define
class ExpiringEndpoint(ScriptedEndpoint):
    """A token endpoint that knows when each of its tokens expires."""

    valid_until: dict[str, float] = attrs.field(factory=dict)

    async def send(self, request: TokenRequest) -> TokenResponse:
        response = await super().send(request)
        self.valid_until[f"token-{self.issued}"] = asyncio.get_running_loop().time() + (self.life_s or 0.0)
        return response

    def is_valid(self, token: str) -> bool:
        return asyncio.get_running_loop().time() < self.valid_until[token]


async def _call_repeatedly(cache: TokenCache, server: ExpiringEndpoint, *, every_s: float) -> int:
    """Have 10,000 callers call three times each, as a client does; return how often a token was refused."""
    refused = 0

    async def call_three_times(latency_s: float) -> None:
        nonlocal refused
        for _ in range(3):
            token = await cache.get()
            await asyncio.sleep(latency_s)
            if server.is_valid(token):
                cache.served(token)
            else:
                refused += 1
                assert await refuse(cache, token)
                replayed = await cache.get()
                assert server.is_valid(replayed), "the replayed call would fail"
                cache.served(replayed)
            await asyncio.sleep(every_s - latency_s)

    await asyncio.gather(*(call_three_times(2 + number % 3) for number in range(10_000)))
    return refused


@pytest.mark.slow
@pytest.mark.parametrize("every_s", [93, 101], ids=["about to expire", "expired"])
@on_virtual_time
async def test_ten_thousand_callers_make_one_request_per_expiry(every_s: float) -> None:
    """When a token is about to expire or has expired, 10,000 callers share one request, and no call is refused."""
    server = ExpiringEndpoint(life_s=100, takes_s=0.5)
    assert await _call_repeatedly(cache_of(server), server, every_s=every_s) == 0
    assert server.issued == len(server.requests) == 3


@pytest.mark.slow
@on_virtual_time
async def test_ten_thousand_callers_make_one_request_per_revocation() -> None:
    """When a token is revoked, 10,000 calls in flight share one token request, and each is replayed once."""
    server = ExpiringEndpoint(life_s=10_000, takes_s=1)
    cache = cache_of(server)
    cache.served(await cache.get())
    calls = asyncio.create_task(_call_repeatedly(cache, server, every_s=10))
    await asyncio.sleep(0.5)  # all calls are in flight; some are refused before the new token comes, and some after
    for revocation in range(2):
        assert server.issued == revocation + 1
        server.valid_until = dict.fromkeys(server.valid_until, 0.0)
        await asyncio.sleep(11)
    assert await calls == 20_000
    assert server.issued == len(server.requests) == 3


@pytest.mark.slow
async def test_a_client_makes_one_token_request_per_revocation(simulator: PoderoSimulator) -> None:
    """500 concurrent calls during two revocations make three token requests, and all calls succeed."""
    user_id = simulator.vehicles[0].user_id
    completed = 0

    async def call(client: PoderoClient) -> None:
        nonlocal completed
        await client.electric_vehicles(user_id)
        completed += 1
        if completed in (100, 250):  # so far apart that no call is in flight at both
            simulator.revoke_tokens()

    async with client_of(simulator) as client:
        await asyncio.gather(*(call(client) for _ in range(500)))
    assert (simulator.counts.tokens_issued, simulator.counts.requests["token"]) == (3, 3)
    assert simulator.counts.responses[401] > 64, "no call was in flight"


async def test_a_failure_reaches_every_caller_as_its_own_error() -> None:
    """If the token request fails, each caller gets its own copy of the error, and the next call tries again."""
    server = ScriptedEndpoint(failure=TransportError("lost", "POST", CONTRACT))
    cache = cache_of(server)
    errors = await asyncio.gather(*(cache.get() for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [TransportError] * 3
    assert len({id(error) for error in errors}) == 3
    server.failure = None
    assert await cache.get() == "token-1"


# --- renewal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stored", [False, True])
@on_virtual_time
async def test_a_token_is_renewed_without_a_wait(is_stored: bool) -> None:
    """While calls go on, each renewal takes place in the background, and no call waits for it."""
    server = ScriptedEndpoint(life_s=100)
    cache = cache_of(server, store=MemoryStore() if is_stored else None)
    await cache.get()
    loop = asyncio.get_running_loop()
    for _ in range(1500):
        started = loop.time()
        token = await cache.get()
        assert loop.time() == started
        assert int(token[6:]) >= server.issued - 1
        await asyncio.sleep(0.2)
    assert 300 / 90 - 1 <= server.issued <= 300 / 80 + 2


@on_virtual_time
async def test_the_old_token_is_used_while_its_renewal_fails() -> None:
    """If an early renewal fails, the token is used until it expires, and the renewal is retried after 5 s."""
    server = ScriptedEndpoint(life_s=1000)
    cache = cache_of(server)
    await cache.get()
    await asyncio.sleep(900)
    server.failure = TransportError("lost", "POST", CONTRACT)
    for _ in range(40):
        assert await cache.get() == "token-1"
        await asyncio.sleep(0.1)
    server.failure = None
    await asyncio.sleep(1.5)
    assert await cache.get() == "token-1"
    assert len(server.requests) == 2
    await asyncio.sleep(1)
    assert await cache.get() == "token-1"
    await asyncio.sleep(1.5)
    assert cache.current() == "token-2"


async def test_a_failed_renewal_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A failed token request is logged as one warning with its reason."""
    with caplog.at_level(logging.WARNING, "podero_async"), pytest.raises(TransportError):
        await cache_of(ScriptedEndpoint(failure=TransportError("lost", "POST", CONTRACT))).get()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("podero_async", "WARNING")
    assert record.getMessage() == f"token request failed: lost (POST {CONTRACT})"


@pytest.mark.parametrize(("life_s", "usable_s"), [(1000, 980), (5, 4.75)])
@on_virtual_time
async def test_a_token_is_used_until_shortly_before_its_end(life_s: float, usable_s: float) -> None:
    """A margin of 20 s, but at most 5 % of the token's life, allows for clocks that differ."""
    server = ScriptedEndpoint(life_s=life_s, takes_s=0)
    cache = cache_of(server)
    await cache.get()
    server.failure = TransportError("lost", "POST", CONTRACT)
    await asyncio.sleep(usable_s - 0.1)
    assert await cache.get() == "token-1"
    await asyncio.sleep(0.2)
    with pytest.raises(TransportError):
        await cache.get()


@pytest.mark.parametrize("expires_in", [None, "soon", 0, -60, "nan", "inf", [1]], ids=str)
async def test_a_token_without_a_lifetime_is_used_until_it_is_refused(expires_in: Any) -> None:
    """A token is requested once if its `expires_in` is not a positive number of seconds."""
    server = ScriptedEndpoint(life_s=expires_in, takes_s=0)
    cache = cache_of(server)
    await cache.get()
    await asyncio.sleep(10**6)
    assert await cache.get() == "token-1"


@on_virtual_time
async def test_the_repr_shows_the_state_and_no_secret() -> None:
    """The `repr` shows the seconds until renewal and expiry, a renewal under way and the endpoint, but no secret."""
    cache = cache_of(ScriptedEndpoint(life_s=1000, refresh_tokens=True), PASSWORD)
    assert repr(cache) == "TokenCache(has_token=False, is_renewing=False, endpoint=None)"
    call = asyncio.create_task(cache.get())
    await asyncio.sleep(0.5)
    assert repr(cache) == "TokenCache(has_token=False, is_renewing=True, endpoint=None)"
    await call
    state = r"has_token=True, renews_in_s=[89]\d\d, expires_in_s=980, is_renewing=False"
    assert re.fullmatch(rf"TokenCache\({state}, endpoint='{CONTRACT} \(JSON\)'\)", repr(cache))


# --- refused tokens ---------------------------------------------------------------------------------------------------


async def test_a_static_token_cannot_be_replaced() -> None:
    """A refused static token stays, and the call is not replayed."""
    cache = cache_of(ScriptedEndpoint(), StaticToken("mine"))
    assert await cache.get() == "mine"
    assert not await refuse(cache, "mine")
    assert await cache.get() == "mine"
    await cache.aclose()


async def test_closing_cancels_a_renewal_and_fails_its_waiters() -> None:
    """`aclose` leaves no task behind, and waiting callers get a `ConfigurationError` instead of a cancellation."""
    cache = cache_of(ScriptedEndpoint(takes_s=1000))
    waiter = asyncio.create_task(cache.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cache.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await waiter
    assert len(asyncio.all_tasks()) == 1


async def test_a_closed_cache_asks_neither_the_server_nor_the_store() -> None:
    """After `aclose`, a caller without a usable token gets its error at once, and no task is left."""
    endpoint, store = ScriptedEndpoint(), MemoryStore()
    cache = cache_of(endpoint, store=store)
    await cache.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await cache.get()
    assert not endpoint.requests
    assert len(asyncio.all_tasks()) == 1


async def test_a_waiter_that_is_cancelled_while_the_cache_closes_stays_cancelled() -> None:
    """If a waiting caller is cancelled while the cache closes, it gets its `CancelledError`."""
    cache = cache_of(ScriptedEndpoint(takes_s=1000))
    waiter = asyncio.create_task(cache.get())
    await asyncio.sleep(0.1)
    (renewal,) = [task for task in asyncio.all_tasks() if task.get_name() == "podero_async token renewal"]
    renewal.add_done_callback(lambda _: waiter.cancel())
    await cache.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiter


# --- token endpoint styles --------------------------------------------------------------------------------------------


async def test_the_documented_styles_are_tried_in_order_and_the_one_that_worked_is_kept() -> None:
    """The client tries the contract, the partner guide and RFC 6749, and starts with the successful style next time."""
    server = ScriptedEndpoint(accepts=lambda request: request.headers["Content-Type"].endswith("urlencoded"), life_s=10)
    cache = cache_of(server)
    await cache.get()
    assert [(request.path, request.headers["Content-Type"]) for request in server.requests] == [
        (CONTRACT, "application/json"),
        (GUIDE, "application/json"),
        (CONTRACT, "application/x-www-form-urlencoded"),
    ]
    whole = {"grant_type": "client_credentials", "client_id": "client-1", "client_secret": "s3cret"}
    assert server.parameters == [whole, {"grant_type": "client_credentials"}, whole]
    assert server.requests[1].headers["Authorization"] == "Basic Y2xpZW50LTE6czNjcmV0"
    await asyncio.sleep(20)
    await cache.get()
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [400, 404, 405, 415, 422])
async def test_an_unsupported_style_leads_to_the_next(status: int) -> None:
    """If a status says that a style is not supported, the next style is tried."""
    server = ScriptedEndpoint(
        accepts=lambda request: request.path == GUIDE, refusal=(status, {"error": "unsupported_grant_type"})
    )
    assert await cache_of(server).get() == "token-1"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("credentials", "refusal"),
    [
        (CLIENT, (401, {"detail": "not s3cret"})),
        (CLIENT, (400, {"error": "invalid_client", "error_description": "not s3cret"})),
        (CLIENT, (403, {})),
        (PASSWORD, (400, {"error": "invalid_grant", "error_description": "not passw0rd"})),
    ],
)
async def test_wrong_credentials_are_sent_once(credentials: Any, refusal: tuple[int, Any]) -> None:
    """If the server refuses the credentials themselves, no other style is tried, and the error repeats no secret."""
    server = ScriptedEndpoint(accepts=lambda _: False, refusal=refusal)
    with pytest.raises(AuthenticationError) as caught:
        await cache_of(server, credentials).get()
    assert len(server.requests) == 1
    assert str(caught.value) == (
        f"HTTP {refusal[0]}: no token from {CONTRACT} (JSON): {refusal[1].get('error', f'HTTP {refusal[0]}')} "
        f"(POST {CONTRACT})"
    )


async def test_an_explicit_endpoint_is_the_only_one_asked() -> None:
    """If the credentials name a token endpoint, only this one is asked, in its own style."""
    server = ScriptedEndpoint(accepts=lambda _: False)
    credentials = ClientCredentials("client-1", "s3cret", token_endpoint="/realms/x/token")
    with pytest.raises(AuthenticationError, match="/realms/x/token"):
        await cache_of(server, credentials).get()
    assert [request.path for request in server.requests] == ["/realms/x/token"]
    assert server.requests[0].headers["Content-Type"] == "application/x-www-form-urlencoded"
    basic = ClientCredentials("a:b", "c d", token_endpoint=TokenEndpoint("/t", basic=True))
    server = ScriptedEndpoint()
    await cache_of(server, basic).get()
    assert server.requests[0].headers["Authorization"] == "Basic YSUzQWI6YyUyMGQ="
    assert server.parameters == [{"grant_type": "client_credentials"}]


async def test_the_error_names_each_unsupported_style() -> None:
    """If no style is supported, the error lists each with its error code or status, and none of the server's text."""
    refusal = (422, {"detail": "not s3cret", "error_description": "not s3cret"})
    server = ScriptedEndpoint(accepts=lambda _: False, refusal=refusal)
    with pytest.raises(AuthenticationError) as caught:
        await cache_of(server).get()
    assert str(caught.value) == (
        f"HTTP 422: no token from {CONTRACT} (JSON): HTTP 422; {GUIDE} (HTTP Basic, JSON): HTTP 422; "
        f"{CONTRACT} (form): HTTP 422 (POST {CONTRACT})"
    )


async def test_the_error_names_only_the_refusal_of_the_credentials() -> None:
    """If one style is not supported and the next refuses the credentials, the error names only the second."""
    refusal = b'{"error": "invalid_client", "error_description": "not s3cret"}'
    responses = [TokenResponse(404, b""), TokenResponse(401, refusal, "request-2")]

    async def send(_: TokenRequest) -> TokenResponse:
        return responses.pop(0)

    with pytest.raises(AuthenticationError) as caught:
        await TokenCache(CLIENT, send, origin="https://x").get()
    assert (
        str(caught.value)
        == f"HTTP 401: no token from {GUIDE} (HTTP Basic, JSON): invalid_client (POST {GUIDE}) [request request-2]"
    )


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"access_token": 5}', b'{"access_token": "two\\nlines"}', b'{"access_token": ""}']
)
async def test_a_response_without_a_token_is_a_decode_error(body: bytes) -> None:
    """A response without a token, or with one that a header cannot hold, is a `DecodeError` that names the request."""

    async def send(_: TokenRequest) -> TokenResponse:
        return TokenResponse(200, body, "request-1")

    with pytest.raises(DecodeError, match="a token") as caught:
        await TokenCache(CLIENT, send, origin="https://x").get()
    error = caught.value
    assert (error.json_path, error.method, error.path) == ("$.access_token", "POST", CONTRACT)
    assert error.request_id == "request-1"


# --- passwords and refresh tokens -------------------------------------------------------------------------------------


async def test_a_refresh_token_is_used_and_rotated() -> None:
    """Each renewal sends the newest refresh token to the same endpoint, and the password is sent only once."""
    server = ScriptedEndpoint(refresh_tokens=True, life_s=10)
    cache = cache_of(server, PasswordCredentials("user-1", "passw0rd", token_endpoint="/realms/x/token"))
    for _ in range(3):
        await cache.get()
        await asyncio.sleep(20)
    assert server.parameters == [
        {"grant_type": "password", "username": "user-1", "password": "passw0rd"},
        {"grant_type": "refresh_token", "refresh_token": "refresh-1"},
        {"grant_type": "refresh_token", "refresh_token": "refresh-2"},
    ]
    assert {request.path for request in server.requests} == {"/realms/x/token"}


async def test_client_credentials_ignore_refresh_tokens() -> None:
    """A refresh token for client credentials, which RFC 6749 does not provide for, is not used."""
    server = ScriptedEndpoint(refresh_tokens=True, life_s=10)
    cache = cache_of(server)
    await cache.get()
    await asyncio.sleep(20)
    await cache.get()
    assert [sent["grant_type"] for sent in server.parameters] == ["client_credentials"] * 2


async def test_the_password_is_sent_if_the_refresh_token_is_refused() -> None:
    """If the refresh token has expired, the token is requested with the password again."""
    server = ScriptedEndpoint(refresh_tokens=True, life_s=10)
    cache = cache_of(server, PASSWORD)
    await cache.get()
    await asyncio.sleep(20)
    server.refuses_refresh = True
    assert await cache.get() == "token-2"
    assert [sent["grant_type"] for sent in server.parameters] == ["password", "refresh_token", "password"]


# --- with a store -----------------------------------------------------------------------------------------------------


async def test_caches_that_share_a_store_make_one_request_per_expiry() -> None:
    """Eight caches that share a store make one token request per expiry, and each uses the newest refresh token."""
    server, store = ScriptedEndpoint(life_s=100, refresh_tokens=True), MemoryStore()
    caches = [cache_of(server, PASSWORD, store=store) for _ in range(8)]
    for _ in range(500):
        tokens = await asyncio.gather(*(cache.get() for cache in caches))
        assert all(int(token[6:]) >= server.issued - 1 for token in tokens)
        await asyncio.sleep(1)
    assert server.issued <= 500 / 80 + 1
    assert [sent["grant_type"] for sent in server.parameters[1:]] == ["refresh_token"] * (server.issued - 1)


async def test_a_new_cache_uses_the_stored_token() -> None:
    """After a restart the stored token is used, but not for other credentials or another origin."""
    server, store = ScriptedEndpoint(), MemoryStore()
    await cache_of(server, store=store).get()
    assert await cache_of(server, store=store).get() == "token-1"
    assert server.issued == 1
    assert await cache_of(server, ClientCredentials("client-2", "x"), store=store).get() == "token-2"
    assert await cache_of(server, store=store, origin="https://sandbox").get() == "token-3"


async def test_a_revoked_token_in_the_store_fails_no_call(simulator: PoderoSimulator) -> None:
    """If the stored token is revoked, too, the call is sent a third time, with a token that is new."""
    store = MemoryStore()
    async with client_of(simulator, token_store=store) as client:
        assert [user async for user in client.users()]
        simulator.revoke_tokens()
        store.tokens = dict.fromkeys(store.tokens, Token(value="dead"))
        assert [user async for user in client.users()]


async def test_a_refused_token_is_not_loaded_from_the_store_again() -> None:
    """After a 401 the token is requested anew, although the store still holds the refused one."""
    server, store = ScriptedEndpoint(), MemoryStore()
    cache = cache_of(server, store=store)
    token = await cache.get()
    cache.served(token)
    assert await refuse(cache, token)
    assert await cache.get() == "token-2"


@pytest.mark.parametrize("life", [10, None])
async def test_a_stored_refresh_token_is_used_after_a_restart(life: float | None) -> None:
    """After a restart the stored refresh token is sent instead of the password."""
    server, store = ScriptedEndpoint(refresh_tokens=True, life_s=life), MemoryStore()
    await cache_of(server, PASSWORD, store=store).get()
    await asyncio.sleep(20)
    store.tokens = {key: attrs.evolve(token, usable_until=0.0) for key, token in store.tokens.items()}
    assert await cache_of(server, PASSWORD, store=store).get() == "token-2"
    assert server.parameters[-1] == {"grant_type": "refresh_token", "refresh_token": "refresh-1"}


async def test_a_refresh_token_that_another_process_gave_up_is_not_sent() -> None:
    """If another process stored a token without a refresh token, the old refresh token is not sent again."""
    server, store = ScriptedEndpoint(refresh_tokens=True, life_s=10), MemoryStore()
    caches = [cache_of(server, PASSWORD, store=store) for _ in range(2)]
    for cache in caches:
        await cache.get()
    await asyncio.sleep(20)
    server.refresh_tokens, server.refuses_refresh = False, True
    for cache in caches:
        await cache.get()
        await asyncio.sleep(20)
    assert [sent["grant_type"] for sent in server.parameters] == ["password", "refresh_token", "password", "password"]

"""One request over a real socket: what goes out, what comes back, and what each fault becomes."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import logging
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

import podero_async
from podero_async import (
    ApiError,
    AuthenticationError,
    ClientCredentials,
    ConfigurationError,
    DecodeError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    PoderoClient,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    ThrottlePolicy,
    Timeouts,
    TransportError,
)
from podero_async._flow.retry import RequestStats
from podero_async._http import response as _answer
from podero_async._http import transport as _transport
from podero_async._http.gzip import inflate
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import ORG, QUICK, USER, client_of, serving, static_client
from tests._support.tls_proxy import Door, Keys

ONCE = RetryPolicy(max_attempts=1)


async def vehicles(client: PoderoClient) -> int:
    return len(await client.electric_vehicles(USER))


@asynccontextmanager
async def raw_server(answer: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[tuple[str, list[int]]]:
    """Response each request with bytes of the test's own; yields the origin and a list that grows by each request."""
    requests: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            requests.append(1)
            result = answer(writer)
            if inspect.isawaitable(result):
                await result
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()
        await server.wait_closed()


# --- what goes out ----------------------------------------------------------------------------------------------------


async def test_a_request_says_who_asks_and_what_it_takes() -> None:
    """The server could neither authorize the client, nor compress, nor tell versions apart."""
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response([], headers={"Set-Cookie": "tracker=1"})

    async with serving(handler) as origin, static_client(origin) as client:
        await vehicles(client)
        await vehicles(client)
    request = seen[-1]
    assert request.path == f"/api/partners/v2.0/org/{ORG}/users/{USER}/electric-vehicles"
    assert request.headers["Authorization"] == "Bearer token-1"
    assert request.headers["Accept-Encoding"] == "gzip"
    assert request.headers["User-Agent"].startswith(f"podero_async/{podero_async.__version__} ")
    assert "Cookie" not in request.headers


async def test_gzip_comes_out_as_text() -> None:
    """Answers would travel at six times their size, or not be readable."""
    body = gzip.compress(b"[]")

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Encoding": "gzip"}, content_type="application/json")

    async with serving(handler) as origin, static_client(origin) as client:
        assert await vehicles(client) == 0


async def test_a_large_answer_is_inflated_and_decoded_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A users list of 40 MB would freeze everything else that the process does."""
    threads: list[int] = []

    def inflate_elsewhere(body: bytes, most: int) -> bytes:
        threads.append(threading.get_ident())
        return inflate(body, most)

    def decode_elsewhere(body: bytes) -> int:
        threads.append(threading.get_ident())
        return len(body)

    monkeypatch.setattr(_transport, "_DECODED_AT_ONCE", 10)
    monkeypatch.setattr(_transport, "_DECODED_ON_LOOP", 10)
    monkeypatch.setattr(_answer, "inflate", inflate_elsewhere)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b"x" * 11), headers={"Content-Encoding": "gzip"})

    async with serving(answer) as origin, static_client(origin) as client:
        assert await client._transport.get("/", decode_elsewhere, RequestStats()) == 11
    assert len(threads) == 2
    assert threading.get_ident() not in threads


# --- what each fault becomes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ApiError),
        (422, InvalidRequestError),
        (429, RateLimitError),
        (500, ServerError),
        (503, ServerError),
        (302, ApiError),
    ],
)
async def test_an_error_status_becomes_its_error(status: int, kind: type[ApiError]) -> None:
    """A caller could not tell a missing vehicle from a broken server."""

    async def handler(_: web.Request) -> web.Response:
        headers = {"X-Request-ID": "request-1", "Location": "https://elsewhere.example/"}
        return web.json_response({"detail": "words for user-1@example.com"}, status=status, headers=headers)

    async with serving(handler) as origin, static_client(origin, retry=ONCE) as client:
        with pytest.raises(ApiError) as caught:
            await vehicles(client)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.method, error.request_id, error.attempts) == (status, "GET", "request-1", 1)
    assert error.path.endswith("/electric-vehicles")
    assert error.detail == ("a redirect, which is never followed" if status == 302 else "words for ***")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("in a minute", 60.0),
        ("a minute ago", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("9" * 40, 999_999_999.0),
    ],
)
async def test_retry_after_is_read_in_both_forms(value: str, seconds: float | None) -> None:
    """A client told to wait until nine would come back at once."""

    dates = {"in a minute": time() + 60, "a minute ago": time() - 60}
    header = formatdate(dates[value], usegmt=True) if value in dates else value

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": header})

    async with serving(handler) as origin, static_client(origin, retry=ONCE) as client:
        with pytest.raises(RateLimitError) as caught:
            await vehicles(client)
    assert caught.value.retry_after == (seconds if seconds is None else pytest.approx(seconds, abs=2))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection was lost"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", "the body was cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[", "the body was cut short"),
        (b"nonsense\r\n\r\n", "the exchange failed (ClientResponseError)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n[]", "the body was cut short"),
    ],
    ids=["silence", "short", "short chunk", "nonsense", "no gzip"],
)
async def test_a_broken_exchange_is_tried_again_and_then_a_transport_error(answer: bytes, words: str) -> None:
    """Half an answer would be taken for a whole one, or a lost connection end a run."""
    async with raw_server(lambda writer: writer.write(answer)) as (origin, requests):
        async with static_client(origin, retry=RetryPolicy(max_attempts=3, backoff_initial=0.001)) as client:
            with pytest.raises(TransportError) as caught:
                await vehicles(client)
    assert (caught.value.reason, caught.value.attempts, len(requests)) == (words, 3, 3)


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b'[{"id": '])
async def test_a_body_that_is_no_json_is_tried_again_and_then_a_decode_error(body: bytes) -> None:
    """A proxy's error page with status 200 would end a run."""
    answers = [body, body, b"[]"]

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=answers.pop(0) if len(answers) > 1 else answers[0])

    async with serving(handler) as origin, static_client(origin) as client:
        assert await vehicles(client) == 0
        answers[:] = [body]
        with pytest.raises(DecodeError) as caught:
            await vehicles(client)
    assert caught.value.attempts == QUICK.max_attempts
    assert caught.value.path.endswith("/electric-vehicles")


async def test_json_that_is_not_what_was_asked_for_is_an_error_at_once() -> None:
    """The same wrong answer would be asked for eight times."""
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request)
        return web.json_response({"items": 5})

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(DecodeError):
            await vehicles(client)
    assert len(requests) == 1


async def test_a_refused_connection_is_a_transport_error() -> None:
    """A server that is down would show as an aiohttp error that nobody catches."""
    async with raw_server(lambda _: None) as (origin, _):
        pass
    async with static_client(origin, retry=RetryPolicy(max_attempts=2, backoff_initial=0.001)) as client:
        with pytest.raises(TransportError, match="cannot be reached") as caught:
            await vehicles(client)
    assert caught.value.attempts == 2
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.leaping
@pytest.mark.parametrize("timeouts", [Timeouts(read=2), Timeouts(total=2)])
async def test_a_silent_server_is_a_timeout(timeouts: Timeouts) -> None:
    """A call would hang for as long as the server likes."""
    loop = asyncio.get_running_loop()
    async with PoderoSimulator(faults=[Fault(kind="hang", rate=1.0, endpoint="users")], clock=loop.time) as simulator:
        async with client_of(simulator, timeouts=timeouts, retry=RetryPolicy(max_attempts=2)) as client:
            started = loop.time()
            with pytest.raises(RequestTimeoutError) as caught:
                await anext(client.users())
    assert caught.value.attempts == 2
    assert 3.9 < loop.time() - started < 6


@pytest.mark.leaping
async def test_a_slow_drip_ends_at_the_total() -> None:
    """A server that sends a byte now and then would hold a call for ever."""
    loop = asyncio.get_running_loop()

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(1)

    async with (
        raw_server(drip) as (origin, _),
        static_client(origin, retry=ONCE, timeouts=Timeouts(total=20)) as client,
    ):
        started = loop.time()
        with pytest.raises(RequestTimeoutError):
            await vehicles(client)
        assert 19 < loop.time() - started < 23


@pytest.mark.leaping
@pytest.mark.parametrize(("pauses", "is_read"), [((1, 1, 1, 1), True), ((1, 1, 30), False)])
async def test_a_slow_answer_is_read_while_its_pieces_come(pauses: tuple[int, ...], is_read: bool) -> None:
    """A large answer would be given up on a slow line; or one that stopped half-way be waited for to the end."""
    loop = asyncio.get_running_loop()

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n[" % (2 + len(pauses)))
        for pause in pauses:
            await asyncio.sleep(pause)
            writer.write(b" ")
        writer.write(b"]")

    async with (
        raw_server(drip) as (origin, _),
        static_client(origin, retry=ONCE, timeouts=Timeouts(read=2)) as client,
    ):
        started = loop.time()
        if is_read:
            assert await vehicles(client) == 0
        else:
            with pytest.raises(RequestTimeoutError):
                await vehicles(client)
        assert 3.9 < loop.time() - started < 5


@pytest.mark.leaping
async def test_waiting_for_a_place_is_not_part_of_the_timeout() -> None:
    """The busier the client, the more calls would fail that the server never saw."""
    loop = asyncio.get_running_loop()
    async with PoderoSimulator(latency_s=3, clock=loop.time) as simulator:
        options = {"throttle": ThrottlePolicy(max_concurrency=1), "timeouts": Timeouts(total=5), "retry": ONCE}
        async with client_of(simulator, **options) as client:
            pages = await asyncio.gather(*(client.electric_vehicles(simulator.vehicles[0].user_id) for _ in range(6)))
    assert len(pages) == 6


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_cap_is_an_error(monkeypatch: pytest.MonkeyPatch, announced: bool) -> None:
    """A broken server could fill the machine's memory."""
    monkeypatch.setattr(_answer, "_MAX_BYTES", 1000)

    async def handler(request: web.Request) -> web.StreamResponse:
        if announced:
            return web.Response(body=bytes(2000))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(bytes(2000))
        return response

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(TransportError, match="larger than the cap") as caught:
            await vehicles(client)
    assert caught.value.attempts == 1


async def test_an_encoding_that_was_not_asked_for_is_an_error() -> None:
    """A proxy with ideas of its own would be asked again and again, and called a bad connection."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"[]", headers={"Content-Encoding": "br"})

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(TransportError, match="not asked for") as caught:
            await vehicles(client)
    assert caught.value.attempts == 1


async def test_a_bomb_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small answer could inflate to any size."""
    monkeypatch.setattr(_answer, "_MAX_BYTES", 10_000)
    monkeypatch.setattr(_transport, "_DECODED_ON_LOOP", 5_000)
    body = gzip.compress(bytes(1 << 20))

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(TransportError, match="larger than the cap"):
            await vehicles(client)


async def test_a_body_that_says_it_is_small_is_taken_off_the_loop_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lies about a body's size could freeze everything else that the process does."""
    monkeypatch.setattr(_transport, "_DECODED_ON_LOOP", 1000)
    threads: list[int] = []

    def decode(body: bytes) -> int:
        threads.append(threading.get_ident())
        return len(body)

    async def answer(_: web.Request) -> web.Response:
        two = gzip.compress(b"x" * 5000) + gzip.compress(b"y")  # the last member is what tells the size
        return web.Response(body=two, headers={"Content-Encoding": "gzip"})

    async with serving(answer) as origin, static_client(origin) as client:
        assert await client._transport.get("/", decode, RequestStats()) == 5001
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_failed_attempt_gives_its_connection_back() -> None:
    """With one connection and a large error page, the second attempt would never leave."""
    answers = [web.Response(status=503, body=bytes(50_000)), web.json_response([])]

    async def handler(_: web.Request) -> web.Response:
        return answers.pop(0)

    async with serving(handler) as origin, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        async with asyncio.timeout(5), static_client(origin, session=session) as client:
            assert await vehicles(client) == 0


ERRORS = sorted(
    (
        kind
        for kind in vars(aiohttp.client_exceptions).values()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and kind.__module__ == "aiohttp.client_exceptions"
        and issubclass(kind, aiohttp.ClientError)
    ),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", [*ERRORS, OSError, ConnectionResetError, ssl.SSLError, TimeoutError])
async def test_every_error_of_aiohttp_becomes_one_of_ours(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """A caller's `except PoderoError` would miss a fault, or a message tell a URL with a secret in it."""
    error = kind.__new__(kind)  # whatever its arguments are
    error.args = ("https://app.podero.com/?secret=s3cret",)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "request", fail)
    async with static_client("http://127.0.0.1:1", retry=RetryPolicy(max_attempts=2, backoff_initial=0.001)) as client:
        with pytest.raises(TransportError) as caught:
            await vehicles(client)
    assert isinstance(caught.value, RequestTimeoutError) is issubclass(kind, TimeoutError)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.attempts == (2 if caught.value.retryable else 1)


def test_the_list_of_aiohttps_errors_is_not_empty() -> None:
    """The test above would test nothing."""
    assert len(ERRORS) > 20


# --- where requests go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base_url",
    [
        "http://app.podero.com",
        "http://192.168.0.1",
        "ftp://app.podero.com",
        "app.podero.com",
        "",
        "https://",
        "https://a/b",
        "https://a?b=c",
        "https://a#b",
        "https://user:pw@app.podero.com",
        "http://127.0.0.1.example.com",
        "https://a:x",
        None,
        5,
    ],
)
def test_an_origin_that_would_leak_or_is_none_is_refused(base_url: Any) -> None:
    """Credentials would cross the net in the clear, or reach another host."""
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        static_client(base_url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    ["https://app.podero.com", "https://a:8443/", "http://localhost:1", "http://127.8.0.1", "http://[::1]:80"],
)
def test_https_anywhere_and_http_to_loopback_are_taken(base_url: str) -> None:
    """A gateway or a simulator could not be used."""
    static_client(base_url)


async def test_redirects_are_not_followed() -> None:
    """A hijacked answer would send the token to another host."""
    reached = []

    async def elsewhere(request: web.Request) -> web.Response:
        reached.append(request)
        return web.json_response([])

    async with serving(elsewhere) as other:

        async def handler(_: web.Request) -> web.Response:
            raise web.HTTPFound(other)

        async with serving(handler) as origin, static_client(origin) as client:
            with pytest.raises(ApiError, match="never followed"):
                await vehicles(client)
    assert reached == []


async def test_a_proxy_from_the_environment_is_not_used(
    monkeypatch: pytest.MonkeyPatch, simulator: PoderoSimulator
) -> None:
    """A variable left in a shell would route tokens through somebody's proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with client_of(simulator) as client:
        assert len([user async for user in client.users()]) == 8


async def test_tls_is_verified(tmp_path: Path) -> None:
    """Anybody between the client and the server could read along."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    async with PoderoSimulator(users=3, vehicles=3, ssl_context=server_context) as simulator:
        assert simulator.base_url.startswith("https://")
        async with client_of(simulator) as client:
            with pytest.raises(TransportError, match="TLS failed") as caught:
                await anext(client.users())
        assert caught.value.attempts == 1, "the same certificate would fail again"
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            async with client_of(simulator, session=session) as client:
                assert len([user async for user in client.users()]) == 3


async def test_a_handshake_that_breaks_off_is_tried_again(simulator: PoderoSimulator) -> None:
    """A balancer that restarts would cost every vehicle that is asked for meanwhile."""
    keys = Keys.made()
    connector = aiohttp.TCPConnector(ssl=keys.trusting)
    async with Door(simulator.base_url, keys) as door, aiohttp.ClientSession(connector=connector) as session:
        await door.be("alert")
        retry = RetryPolicy(backoff_initial=0.001, max_attempts=2)
        async with client_of(simulator, base_url=door.origin, session=session, retry=retry) as client:
            with pytest.raises(TransportError, match="TLS failed") as caught:
                await anext(client.users())
            assert caught.value.attempts == 2
            await door.be("open")
            assert len([user async for user in client.users()]) == 8


# --- sessions that are lent -------------------------------------------------------------------------------------------


async def test_a_lent_session_is_never_closed_and_an_own_one_always(simulator: PoderoSimulator) -> None:
    """The lender's other requests would fail, or each client leak its connections."""
    async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=0.001)) as session:
        async with client_of(simulator, session=session) as client:
            assert len([user async for user in client.users()]) == 8
        assert not session.closed
    client = client_of(simulator)
    await anext(client.users())
    own = client._transport._exchange._session
    assert own is not None
    await client.aclose()
    await client.aclose()
    assert own.closed


async def test_a_closed_client_says_so(simulator: PoderoSimulator) -> None:
    """A call after the end would open a session that nobody closes."""
    client = client_of(simulator)
    await client.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await anext(client.users())


@pytest.mark.parametrize(("limit", "limit_per_host", "ceiling"), [(100, 0, 64), (10, 0, 10), (100, 5, 5), (0, 0, 64)])
async def test_no_more_is_asked_of_a_lent_pool_than_it_has(limit: int, limit_per_host: int, ceiling: int) -> None:
    """Requests would wait in the pool while their timeout runs."""
    connector = aiohttp.TCPConnector(limit=limit, limit_per_host=limit_per_host)
    async with aiohttp.ClientSession(connector=connector) as session:
        assert static_client("http://127.0.0.1:1", session=session)._transport.limiter.ceiling == ceiling


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_revoked_token_is_replaced_and_the_call_replayed_once(simulator: PoderoSimulator) -> None:
    """A revocation would fail every call until the token expires, or start a loop of refusals."""
    async with client_of(simulator) as client:
        user = simulator.vehicles[0].user_id
        await client.electric_vehicles(user)
        simulator.revoke_tokens()
        await asyncio.gather(*(client.electric_vehicles(user) for _ in range(50)))
    assert simulator.counts.tokens_issued == 2


async def test_a_server_that_refuses_every_token_is_asked_twice() -> None:
    """A call would renew its token for ever."""
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request.path)
        if request.method == "POST":
            return web.json_response({"access_token": f"t{len(requests)}", "expires_in": 3600})
        return web.json_response({"detail": "Unauthorized"}, status=401)

    async with serving(handler) as origin:
        async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin, retry=QUICK) as client:
            with pytest.raises(AuthenticationError) as caught:
                await vehicles(client)
    assert len(requests) == 4
    assert caught.value.attempts == 1


async def test_a_token_endpoint_that_fails_is_tried_again() -> None:
    """A hiccup of the token endpoint would fail every call that waits for it."""
    answers = [503, 429, 500, 200]

    async def handler(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response([])
        status = answers.pop(0)
        return web.json_response({"access_token": "t"} if status == 200 else {}, status=status)

    async with serving(handler) as origin:
        async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin, retry=QUICK) as client:
            assert await vehicles(client) == 0
            answers[:] = [503] * 99
            client._transport.tokens.invalidate("t")
            with pytest.raises(ServerError) as caught:
                await vehicles(client)
    assert caught.value.attempts == QUICK.max_attempts
    assert caught.value.method == "POST"


# --- pauses -----------------------------------------------------------------------------------------------------------


@pytest.mark.leaping
@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_after_pauses_every_request_of_the_client(status: int) -> None:
    """One call would wait, and all the others go on to be refused."""
    loop = asyncio.get_running_loop()
    arrivals: list[float] = []

    async def handler(_: web.Request) -> web.Response:
        arrivals.append(loop.time())
        if len(arrivals) == 1:
            return web.Response(status=status, headers={"Retry-After": "30"})
        return web.json_response([])

    async with serving(handler) as origin, static_client(origin) as client:
        first = asyncio.create_task(vehicles(client))
        while client._transport.limiter.pauses == 0:
            await asyncio.sleep(0.001)
        await asyncio.gather(first, *(vehicles(client) for _ in range(10)))
    assert len(arrivals) == 12
    assert min(arrivals[1:]) - arrivals[0] > 29.5


async def test_a_wait_past_the_cap_pauses_nobody() -> None:
    """One answer of "come back tomorrow" would freeze the client until then."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "86400"})

    async with serving(handler) as origin, static_client(origin) as client:
        for _ in range(2):
            with pytest.raises(RateLimitError) as caught:
                await vehicles(client)
            assert caught.value.retry_after == pytest.approx(86400, abs=1)
        assert client._transport.limiter.pauses == 0


@pytest.mark.parametrize("arguments", [{"connect": 0}, {"read": -1}, {"total": float("inf")}])
def test_a_wrong_timeout_is_refused_by_name(arguments: dict[str, float]) -> None:
    """A typo would show as a call that never ends, or never begins."""
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        Timeouts(**arguments)


async def test_logs_hold_no_secret(simulator: PoderoSimulator, caplog: pytest.LogCaptureFixture) -> None:
    """A log collector would become a store of credentials."""
    with caplog.at_level(logging.DEBUG):
        async with client_of(simulator, credentials=ClientCredentials(simulator.client_id, "wr0ng")) as client:
            with pytest.raises(PoderoError) as caught:
                await anext(client.users())
    assert "wr0ng" not in caplog.text + str(caught.value)


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_the_size_of_a_body_is_known_however_it_came_in_pieces(cut: int) -> None:
    """A large answer whose last bytes came late would be taken for a small one, and be decoded out of turn."""
    body = gzip.compress(b"x" * 5000)
    pieces = [body[:-cut], *(body[len(body) - cut + n : len(body) - cut + n + 1] for n in range(cut))]
    assert _answer.Response(200, {}, pieces, "gzip").expected_size == 5000

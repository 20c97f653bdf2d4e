"""One call over a real socket: the request that is sent, the response that comes back, and the error of each fault."""

from __future__ import annotations

import asyncio
import errno
import gzip
import inspect
import json
import pickle
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web
from yarl import URL

import podero_async
from podero_async import (
    ApiError,
    AuthenticationError,
    ClientCredentials,
    Completeness,
    ConfigurationError,
    DecodeError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    PoderoClient,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    ThrottlePolicy,
    Timeouts,
    TransportError,
)
from podero_async._flow.retry import RequestStats
from podero_async._http.faults import explain_connecting
from podero_async._http.response import BodyDecoder, LargeBodies, Response
from podero_async._http.session import HttpSession
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import (
    ORG,
    QUICK,
    USER,
    VEHICLE,
    client_of,
    page_body,
    serving,
    static_client,
    static_transport,
    wire_row,
)
from tests._support.tls_proxy import Certificates, TlsProxy

ONCE = RetryPolicy(max_attempts=1)


async def vehicles(client: PoderoClient) -> int:
    return len(await client.electric_vehicles(USER))


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]], scheme: str = "http"
) -> AsyncIterator[str]:
    """Handle each connection, until the client closes it; yield the origin."""

    async def handle_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle_and_close, "127.0.0.1", 0)
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def raw_server(respond: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[tuple[str, list[int]]]:
    """Respond to each request with the bytes of a test; yield the origin and a list that grows with each request."""
    requests: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        requests.append(1)
        result = respond(writer)
        if inspect.isawaitable(result):
            await result

    async with listening(handle) as origin:
        yield origin, requests


# --- the request and its body -----------------------------------------------------------------------------------------


async def test_a_request_carries_token_encoding_and_user_agent() -> None:
    """A request carries the token and the client's version, and no cookie. A body is inflated if it is gzip."""
    seen: list[web.Request] = []
    body = gzip.compress(b"[]")

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(body=body, headers={"Content-Encoding": "gzip", "Set-Cookie": "tracker=1"})

    async with serving(handler) as origin, static_client(origin) as client:
        assert (await vehicles(client), await vehicles(client)) == (0, 0)
    request = seen[-1]
    assert request.path == f"/api/partners/v2.0/org/{ORG}/users/{USER}/electric-vehicles"
    assert request.headers["Authorization"] == "Bearer token-1"
    assert request.headers["Accept-Encoding"] == "gzip"
    assert request.headers["User-Agent"].startswith(f"podero_async/{podero_async.__version__} ")
    assert "Cookie" not in request.headers


class RecordingResponse(Response):
    """Record the thread of each inflation."""

    threads: list[int] = []  # noqa: RUF012

    def body(self, max_bytes: int | None = None) -> bytes:
        body = super().body(max_bytes)
        self.threads.append(threading.get_ident())
        return body


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"x" * 11), gzip.compress(b"x" * 10) + gzip.compress(b"y")],
    ids=["as declared", "larger than declared"],
)
async def test_a_large_body_is_inflated_and_decoded_in_a_thread(body: bytes) -> None:
    """A body over the bound for the event loop is decoded in a thread, even if its gzip trailer declares a small size."""
    threads: list[int] = []

    def decode(body: bytes) -> int:
        threads.append(threading.get_ident())
        return len(body)

    RecordingResponse.threads = threads
    decoder = BodyDecoder(max_inline_bytes=5, max_loop_bytes=10)
    assert await decoder.decode(RecordingResponse(200, {}, [body], "gzip"), decode) == 11
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_bodies_are_decoded_one_at_a_time_and_let_other_tasks_run() -> None:
    """When pages of a usual size are decoded on the event loop, other tasks get a turn before each of them."""
    events: list[str] = []

    async def other_task() -> None:
        events.append("other task")

    decoder = BodyDecoder(max_inline_bytes=0)
    response = Response(200, {}, [b"[]"], "")
    await asyncio.gather(
        decoder.decode(response, lambda _: events.append("first")),
        decoder.decode(response, lambda _: events.append("second")),
        other_task(),
    )
    assert events == ["other task", "first", "second"]


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_the_declared_size_of_a_body_does_not_depend_on_its_chunks(cut: int) -> None:
    """The gzip trailer, which declares the size, is also read if it arrives in several chunks."""
    body = gzip.compress(b"x" * 5000)
    chunks = [body[:-cut], *(body[len(body) - cut + n : len(body) - cut + n + 1] for n in range(cut))]
    assert Response(200, {}, chunks, "gzip").declared_bytes == 5000


# --- the error of each fault ------------------------------------------------------------------------------------------


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
async def test_each_error_status_has_its_error(status: int, kind: type[ApiError]) -> None:
    """The error holds status, method, path, request id and the server's message, with addresses masked."""

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
    assert error.detail == ("unexpected redirect: redirects are never followed" if status == 302 else "words for ***")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"", "the connection was lost"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", "the response body was cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[", "the response body was cut short"),
        (b"nonsense\r\n\r\n", "the response is not valid HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n[]",
            "the response body was cut short",
        ),
    ],
    ids=["silence", "short", "short chunk", "nonsense", "no gzip"],
)
async def test_a_broken_response_is_retried_and_then_a_transport_error(response: bytes, reason: str) -> None:
    """If the connection is lost or the response is incomplete in each attempt, the call ends as a `TransportError`."""
    async with raw_server(lambda writer: writer.write(response)) as (origin, requests):
        async with static_client(origin, retry=RetryPolicy(max_attempts=3, backoff_initial=0.001)) as client:
            with pytest.raises(TransportError) as caught:
                await vehicles(client)
    assert (caught.value.reason, caught.value.attempts, len(requests)) == (reason, 3, 3)


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b'[{"id": '])
async def test_a_body_that_is_not_json_is_retried_and_then_a_decode_error(body: bytes) -> None:
    """If a proxy sends an error page with status 200, the request is repeated, and ends as a `DecodeError`."""
    bodies = [body, body, b"[]"]

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=bodies.pop(0) if len(bodies) > 1 else bodies[0])

    async with serving(handler) as origin, static_client(origin) as client:
        assert await vehicles(client) == 0
        bodies[:] = [body]
        with pytest.raises(DecodeError) as caught:
            await vehicles(client)
    assert caught.value.attempts == QUICK.max_attempts
    assert caught.value.path.endswith("/electric-vehicles")


@pytest.mark.parametrize("offset", [0, 195])
@pytest.mark.parametrize("damage", [b'"opt\xffimized"', b'"opt\\qimized"', b'"opt\x00imized"', b"optimized"])
async def test_bytes_that_are_spoilt_once_are_requested_again(offset: int, damage: bytes) -> None:
    """A page that is no longer JSON costs one retry, on whatever page of a list the damage is."""
    rows = [wire_row(number) for number in range(400, 0, -1)]
    spoilt: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        first = int(request.query["offset"])
        body = page_body(*rows[first : first + 200], total=len(rows))
        if first == offset and not spoilt:
            spoilt.append(first)
            body = body.replace(b'"optimized"', damage, 1)
        return web.Response(body=body)

    async with serving(handler) as origin, static_client(origin) as client:
        whole = await client.vehicle_sessions(USER, VEHICLE, date(2026, 1, 1), date(2026, 1, 31))
    assert (len(whole.sessions), whole.completeness, whole.retries) == (400, Completeness.VERIFIED, 1)
    assert spoilt == [offset]


async def test_unexpected_json_is_an_error_at_once() -> None:
    """Valid JSON that is not a list of vehicles is not requested again."""
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request)
        return web.json_response({"items": 5})

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(DecodeError):
            await vehicles(client)
    assert len(requests) == 1


async def test_a_refused_connection_is_a_transport_error() -> None:
    """If the server does not listen in any attempt, the call ends as a `TransportError` that does not name the host."""
    async with raw_server(lambda _: None) as (origin, _):
        pass
    async with static_client(origin, retry=RetryPolicy(max_attempts=2, backoff_initial=0.001)) as client:
        with pytest.raises(TransportError, match="cannot be reached: it refused the connection") as caught:
            await vehicles(client)
    assert caught.value.attempts == 2
    assert "127.0.0.1" not in str(caught.value)


async def test_plain_http_on_a_tls_port_is_named() -> None:
    """If a server answers a TLS handshake with plain text, the error says so, in OpenSSL's words."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(handle, "https") as origin, static_client(origin, retry=ONCE) as client:
        with pytest.raises(TransportError, match=r"may not speak TLS on this port \((wrong version|record layer)"):
            await vehicles(client)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "the server cannot be reached: it refused the connection"),
        (OSError(errno.EHOSTUNREACH, "x"), "the server cannot be reached: there is no route to it"),
        (OSError(errno.EMFILE, "x"), "the server cannot be reached (EMFILE)"),
        (OSError("several"), "the server cannot be reached"),
        (ConnectionResetError(), "the server closed the connection while it was being set up"),
    ],
    ids=repr,
)
def test_faults_of_connecting_are_told_apart(error: OSError, words: str) -> None:
    """An error names the reason why no connection was made."""
    assert explain_connecting(error) == words


@pytest.mark.parametrize("body", [b"[{", b"[1]"], ids=["not JSON", "not vehicles"])
async def test_a_decode_error_names_the_request_id(body: bytes) -> None:
    """A `DecodeError` holds the response's `X-Request-ID`, also after it was pickled."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={"X-Request-ID": "request-1"})

    async with serving(handler) as origin, static_client(origin, retry=ONCE) as client:
        with pytest.raises(DecodeError) as caught:
            await vehicles(client)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert error.request_id == "request-1"
        assert str(error).endswith("[request request-1]")


@pytest.mark.parametrize("request_id", ["request-1", "holds token-1", "token-1"])
async def test_a_transport_error_names_the_request_id(request_id: str) -> None:
    """If a body ends early, the error holds the response's `X-Request-ID`, unless this repeats the token."""
    response = f"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Request-ID: {request_id}\r\n\r\n[".encode()
    async with raw_server(lambda writer: writer.write(response)) as (origin, _):
        async with static_client(origin, retry=ONCE) as client:
            with pytest.raises(TransportError, match="cut short") as caught:
                await vehicles(client)
    assert caught.value.request_id == ("request-1" if request_id == "request-1" else None)


@pytest.mark.leaping
@pytest.mark.parametrize(
    ("timeouts", "reason"),
    [
        (Timeouts(read=2), "no response within 2 s (read timeout)"),
        (Timeouts(total=2), "no complete response within 2 s (total timeout)"),
    ],
)
async def test_a_silent_server_is_a_timeout(timeouts: Timeouts, reason: str) -> None:
    """Each attempt ends if no response arrives within `read` or `total` seconds, and the error says which."""
    loop = asyncio.get_running_loop()
    async with PoderoSimulator(faults=[Fault(kind="hang", rate=1.0, endpoint="users")], clock=loop.time) as simulator:
        async with client_of(simulator, timeouts=timeouts, retry=RetryPolicy(max_attempts=2)) as client:
            started = loop.time()
            with pytest.raises(RequestTimeoutError) as caught:
                await anext(client.users())
    assert (caught.value.reason, caught.value.attempts) == (reason, 2)
    assert 3.9 < loop.time() - started < 20


@pytest.mark.leaping
@pytest.mark.parametrize(
    ("timeouts", "pauses", "seconds", "is_read"),
    [
        (Timeouts(read=2), [1] * 4, 4, True),
        (Timeouts(read=2), [1, 1, 30], 4, False),
        (Timeouts(total=20), [1] * 99, 20, False),
    ],
    ids=["steady", "stalled", "endless"],
)
async def test_a_slow_response_is_read_while_chunks_arrive(
    timeouts: Timeouts, pauses: list[int], seconds: float, is_read: bool
) -> None:
    """`read` bounds the time between two chunks, and `total` the time of the whole response."""
    loop = asyncio.get_running_loop()

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n[" % (2 + len(pauses)))
        for pause in pauses:
            await asyncio.sleep(pause)
            writer.write(b" ")
        writer.write(b"]")

    async with raw_server(drip) as (origin, _), static_client(origin, retry=ONCE, timeouts=timeouts) as client:
        started = loop.time()
        if is_read:
            assert await vehicles(client) == 0
        else:
            with pytest.raises(RequestTimeoutError):
                await vehicles(client)
        assert seconds - 0.1 < loop.time() - started < seconds + 10


@pytest.mark.leaping
async def test_waiting_for_a_slot_is_not_part_of_the_timeout() -> None:
    """Six requests of three seconds, one at a time, succeed although `total` is five seconds."""
    loop = asyncio.get_running_loop()
    async with PoderoSimulator(latency_s=3, clock=loop.time) as simulator:
        options = {"throttle": ThrottlePolicy(max_concurrency=1), "timeouts": Timeouts(total=5), "retry": ONCE}
        async with client_of(simulator, **options) as client:
            pages = await asyncio.gather(*(client.electric_vehicles(simulator.vehicles[0].user_id) for _ in range(6)))
    assert len(pages) == 6


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_over_the_maximum_is_an_error(is_announced: bool) -> None:
    """A body that is too large is refused after one attempt, whether `Content-Length` announces it or not."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if is_announced:
            return web.Response(body=bytes(2000))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(bytes(2000))
        return response

    async with serving(handler) as origin:
        transport = static_transport(origin, max_body_bytes=1000)
        with pytest.raises(TransportError, match="the response body is larger than 1,000 bytes") as caught:
            await transport.get("/", len, RequestStats())
        await transport.aclose()
    assert caught.value.attempts == 1


async def test_large_bodies_are_held_one_after_another() -> None:
    """While one large body is held, others are read only in part, until it is decoded or its request has failed."""
    full: list[int] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "3000000"})
        await response.prepare(request)
        for _ in range(3):
            await response.write(bytes(1_000_000))
        full.append(1)
        return response

    large = LargeBodies(min_bytes=1000, at_once=1)
    async with serving(handler) as origin:
        session = HttpSession(None, Timeouts(read=5, total=5), large_bodies=large)
        release = await large.enter()
        cancelled, *reads = [asyncio.create_task(session.send("GET", URL(origin), "/", {})) for _ in range(3)]
        await asyncio.sleep(0.03)
        assert not any(task.done() for task in reads)
        cancelled.cancel()
        release()
        [first], _ = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.03)
        assert sum(task.done() for task in reads) == 1
        assert await BodyDecoder().decode(first.result(), len) == 3_000_000
        responses = await asyncio.gather(*reads)
        await session.aclose()
    assert [len(response.body()) for response in responses] == [3_000_000] * 2


@pytest.mark.leaping
async def test_a_wait_for_other_large_bodies_ends_with_the_total_timeout() -> None:
    """Only `Timeouts.total` bounds the wait for other large bodies, since the server is not the one that waits."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=bytes(3_000_000))

    large = LargeBodies(min_bytes=1000, at_once=1)
    async with serving(handler) as origin:
        session = HttpSession(None, Timeouts(read=5, total=20), large_bodies=large)
        release = await large.enter()
        with pytest.raises(RequestTimeoutError, match="within 20 s"):
            await session.send("GET", URL(origin), "/", {})
        release()
        assert (await session.send("GET", URL(origin), "/", {})).status == 200
        await session.aclose()


async def test_a_page_has_a_smaller_maximum_than_a_list_of_users() -> None:
    """A page of 9 MB is refused before it is read; a list of users of that size is read."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"[" + b" " * 9_000_000 + b"]")

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(TransportError, match="the response body is larger than 8,388,608 bytes"):
            await client.list_sessions(USER, VEHICLE, date(2026, 1, 1), date(2026, 1, 31))
        assert [user async for user in client.users()] == []


@pytest.mark.parametrize("is_lent", [False, True])
async def test_long_headers_are_read(is_lent: bool) -> None:
    """A header of 60,000 bytes is read, over a lent session, too. A longer one is an error after one attempt."""
    size = 60_000

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"[]", headers={"Content-Security-Policy": "a" * size})

    async with serving(handler) as origin, AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession()) if is_lent else None
        async with static_client(origin, session=session) as client:
            assert await vehicles(client) == 0
            size = 70_000
            with pytest.raises(TransportError, match="a header of the response is larger than 65,536 bytes") as caught:
                await vehicles(client)
    assert caught.value.attempts == 1


async def test_an_unexpected_content_encoding_is_an_error() -> None:
    """A body is refused after one attempt if its encoding is not gzip."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"[]", headers={"Content-Encoding": "br"})

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(TransportError, match="content encoding other than gzip") as caught:
            await vehicles(client)
    assert caught.value.attempts == 1


async def test_a_failed_attempt_releases_its_connection() -> None:
    """A second attempt follows a large error page even if the pool has one connection."""
    responses = [web.Response(status=503, body=bytes(50_000)), web.json_response([])]

    async def handler(_: web.Request) -> web.Response:
        return responses.pop(0)

    async with serving(handler) as origin, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        async with asyncio.timeout(30), static_client(origin, session=session) as client:
            assert await vehicles(client) == 0


AIOHTTP_ERRORS = sorted(
    (
        kind
        for kind in vars(aiohttp.client_exceptions).values()
        if isinstance(kind, type)
        and issubclass(kind, aiohttp.ClientError)
        and kind.__module__ == "aiohttp.client_exceptions"
    ),
    key=lambda kind: kind.__name__,
)
assert len(AIOHTTP_ERRORS) > 20


@pytest.mark.parametrize("kind", [*AIOHTTP_ERRORS, OSError, ConnectionResetError, ssl.SSLError, TimeoutError])
async def test_every_error_of_aiohttp_becomes_one_of_ours(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """Each error of aiohttp becomes a `TransportError` without the URL that aiohttp's message contains."""
    error = kind.__new__(kind)  # without arguments, which differ from class to class
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


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_tls_is_verified(tmp_path: Path) -> None:
    """A call ends after one attempt if the certificate is not trusted. A lent session may trust another authority."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    async with PoderoSimulator(users=3, vehicles=3, ssl_context=server_context) as simulator:
        assert simulator.base_url.startswith("https://")
        async with client_of(simulator) as client:
            with pytest.raises(TransportError, match=r"TLS failed: unable to get local issuer certificate") as caught:
                await anext(client.users())
        assert caught.value.attempts == 1, "another attempt would meet the same certificate"
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            async with client_of(simulator, session=session) as client:
                assert len([user async for user in client.users()]) == 3


async def test_a_broken_handshake_is_retried(simulator: PoderoSimulator) -> None:
    """When a handshake ends in an alert, as while a load balancer restarts, the request is repeated."""
    certificates = Certificates.issue()
    connector = aiohttp.TCPConnector(ssl=certificates.trusting)
    async with (
        TlsProxy(simulator.base_url, certificates) as proxy,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        await proxy.set_mode("alert")
        retry = RetryPolicy(backoff_initial=0.001, max_attempts=2)
        async with client_of(simulator, base_url=proxy.origin, session=session, retry=retry) as client:
            with pytest.raises(TransportError, match=r"TLS failed: .*internal error") as caught:
                await anext(client.users())
            assert caught.value.attempts == 2
            await proxy.set_mode("open")
            assert len([user async for user in client.users()]) == 8


# --- own and lent sessions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_lent", [False, True])
async def test_a_lost_request_is_repeated_and_counted_by_the_client_alone(is_lent: bool) -> None:
    """When a server closes kept connections, it sees as many requests as the client counts, over a lent session, too."""
    seen = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for response in (b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n" + page_body(), b""):
            await reader.readuntil(b"\r\n\r\n")
            seen.append(1)
            writer.write(response)

    async with listening(handle) as origin, AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession()) if is_lent else None
        client = await stack.enter_async_context(static_client(origin, session=session))
        days = date(2026, 1, 1), date(2026, 1, 31)
        reads = [await client.vehicle_sessions(USER, VEHICLE, *days) for _ in range(3)]
    assert (sum(read.requests for read in reads), sum(read.retries for read in reads)) == (len(seen), 2) == (5, 2)


async def test_the_middlewares_of_a_lent_session_are_used(simulator: PoderoSimulator) -> None:
    """A lent session keeps its own middlewares."""
    paths: list[str] = []

    async def note(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        paths.append(request.url.path)
        return await handler(request)

    async with aiohttp.ClientSession(middlewares=[note]) as session, client_of(simulator, session=session) as client:
        await anext(client.users())
    assert [path.rpartition("/")[2] for path in paths] == ["token", "users"]


async def test_bytes_that_arrive_on_an_idle_connection_are_not_a_response() -> None:
    """A second response that nobody asked for closes its connection, and the next call uses another one."""
    bodies = [b"[]", json.dumps([{"id": str(USER)}]).encode(), json.dumps([{"id": str(VEHICLE)}]).encode()]
    connections = []
    is_idle = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        for body in (bodies[0], bodies[1]) if len(connections) == 1 else (bodies[2],):
            if body != bodies[1]:
                await reader.readuntil(b"\r\n\r\n")
            else:
                await is_idle.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read()

    async with listening(handle) as origin, static_client(origin) as client:
        assert await vehicles(client) == 0
        is_idle.set()
        await asyncio.sleep(0.02)
        assert [vehicle.id for vehicle in await client.electric_vehicles(USER)] == [VEHICLE]
    assert len(connections) == 2


async def test_a_lent_session_stays_open(simulator: PoderoSimulator) -> None:
    """A client uses a lent session with timeouts and error handling of its own, and does not close it."""
    async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=0.001)) as session:
        async with client_of(simulator, session=session) as client:
            assert len([user async for user in client.users()]) == 8
        assert not session.closed


async def test_an_own_session_is_closed(simulator: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client closes the session that it made. Closing it twice is allowed, and later calls fail."""
    made: list[aiohttp.ClientSession] = []

    def make(**options: Any) -> aiohttp.ClientSession:
        made.append(session := plain(**options))
        return session

    plain = aiohttp.ClientSession
    monkeypatch.setattr(aiohttp, "ClientSession", make)
    client = client_of(simulator)
    await anext(client.users())
    await client.aclose()
    await client.aclose()
    assert [session.closed for session in made] == [True]
    with pytest.raises(ConfigurationError, match="client is closed"):
        await anext(client.users())
    assert len(made) == 1


@pytest.mark.parametrize(("limit", "limit_per_host", "ceiling"), [(100, 0, 64), (10, 0, 10), (100, 5, 5), (0, 0, 64)])
async def test_concurrency_does_not_exceed_the_pool_of_a_lent_session(
    limit: int, limit_per_host: int, ceiling: int
) -> None:
    """No request waits in the pool of a lent session while its timeout runs."""
    connector = aiohttp.TCPConnector(limit=limit, limit_per_host=limit_per_host)
    async with aiohttp.ClientSession(connector=connector) as session:
        assert static_transport("http://127.0.0.1:1", session=session).limiter.ceiling == ceiling


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_revoked_token_is_replaced_and_the_call_sent_again(simulator: PoderoSimulator) -> None:
    """When the token is revoked, fifty calls succeed after one token request."""
    async with client_of(simulator) as client:
        user = simulator.vehicles[0].user_id
        await client.electric_vehicles(user)
        simulator.revoke_tokens()
        await asyncio.gather(*(client.electric_vehicles(user) for _ in range(50)))
    assert simulator.counts.tokens_issued == 2


async def test_a_failing_token_endpoint_is_retried() -> None:
    """A token request is repeated if it fails, and when the attempts are spent, its last error ends the call."""
    statuses = [503, 429, 500, 200, *[503] * 99]

    async def handler(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response([])
        status = statuses.pop(0)
        return web.json_response({"access_token": "t", "expires_in": 0} if status == 200 else {}, status=status)

    async with serving(handler) as origin:
        async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin, retry=QUICK) as client:
            await vehicles(client)
            with pytest.raises(ServerError) as caught:
                await vehicles(client)
    assert len(statuses) == 99 - QUICK.max_attempts
    assert caught.value.attempts == QUICK.max_attempts
    assert caught.value.method == "POST"


# --- pauses -----------------------------------------------------------------------------------------------------------


@pytest.mark.leaping
@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_after_pauses_every_request_of_the_client(status: int) -> None:
    """After one response with `Retry-After: 30`, eleven requests are sent 30 seconds later."""
    loop = asyncio.get_running_loop()
    arrivals: list[float] = []

    async def handler(_: web.Request) -> web.Response:
        arrivals.append(loop.time())
        if len(arrivals) == 1:
            return web.Response(status=status, headers={"Retry-After": "30"})
        return web.Response(body=b"[]")

    async with serving(handler) as origin:
        transport = static_transport(origin)

        async def call() -> int:
            return await transport.get("/", len, RequestStats())

        first = asyncio.create_task(call())
        while transport.limiter.pauses == 0:
            await asyncio.sleep(0.001)
        await asyncio.gather(first, *(call() for _ in range(10)))
        await transport.aclose()
    assert len(arrivals) == 12
    assert min(arrivals[1:]) - arrivals[0] > 29.5


async def test_a_retry_after_over_the_maximum_is_an_error_and_not_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    """After a `Retry-After` of years each call fails at once with the seconds that are left, which are at most an hour."""
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request)
        return web.Response(status=429, headers={"Retry-After": "999999999999999"})

    async with serving(handler) as origin:
        transport = static_transport(origin)
        for attempts in (1, 0):
            with pytest.raises(RateLimitError) as caught:
                await transport.get("/", len, RequestStats())
            assert caught.value.retry_after == pytest.approx(3600, abs=60)
            assert caught.value.attempts == attempts
        assert transport.limiter.pauses == 0
        await transport.aclose()
    assert "the server asked for no requests until its Retry-After has passed" in str(caught.value)
    assert len(requests) == 1
    assert "HTTP 429: no GET request is sent for 3600 s, as the server asked" in caplog.messages


async def test_a_date_in_retry_after_is_read_by_the_clock_of_the_server() -> None:
    """If the server's clock is five minutes ahead, a `Retry-After` two seconds after its `Date` means two seconds."""
    ahead = time() + 300

    async def handler(_: web.Request) -> web.Response:
        dates = {"Date": formatdate(ahead, usegmt=True), "Retry-After": formatdate(ahead + 2, usegmt=True)}
        return web.Response(status=429, headers=dates)

    async with serving(handler) as origin, static_client(origin, retry=ONCE) as client:
        with pytest.raises(RateLimitError) as caught:
            await vehicles(client)
    assert caught.value.retry_after == 2

"""One call over a real socket: the request that is sent, the response that comes back, and the error of each fault."""

from __future__ import annotations

import asyncio
import gzip
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from aiohttp import web

import podero_async
from podero_async import (
    ApiError,
    AuthenticationError,
    ClientCredentials,
    Completeness,
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
from podero_async._http.body_decoder import BodyDecoder
from podero_async._http.response import Response
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
    vehicles,
    wire_row,
)
from tests._support.raw_server import raw_server

ONCE = RetryPolicy(max_attempts=1)


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


async def test_a_large_body_is_decoded_although_the_threads_of_the_event_loop_are_busy() -> None:
    """The client has its own thread, which decodes one body at a time, even after a cancellation."""
    loop, free, running, most = asyncio.get_running_loop(), threading.Event(), 0, 0
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, free.wait)

    def decode(body: bytes) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1
        return len(body)

    decoder = BodyDecoder(max_inline_bytes=5, max_loop_bytes=10)
    try:
        calls = [asyncio.create_task(decoder.decode(Response(200, {}, [bytes(11)], ""), decode)) for _ in range(3)]
        await asyncio.sleep(0.005)
        calls[0].cancel()
        assert await asyncio.gather(*calls[1:]) == [11, 11]
    finally:
        free.set()
        await busy
    assert most == 1


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


@pytest.mark.parametrize(
    ("size", "encoding", "is_alone", "at_once"),
    [
        (5, "", False, True),
        (6, "", False, False),
        (10, "", True, True),
        (11, "", True, False),
        (5, "gzip", True, False),
    ],
)
async def test_a_body_is_decoded_at_once_if_it_is_small_or_alone(
    size: int, encoding: str, is_alone: bool, at_once: bool
) -> None:
    """A small body, or one beside which no other request is under way, waits for no turn of the event loop."""
    decoder = BodyDecoder(max_inline_bytes=5, max_loop_bytes=10)
    assert decoder.decodes_at_once(Response(200, {}, [bytes(size)], encoding), is_alone=is_alone) is at_once


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


async def test_an_error_names_the_days_and_the_offset() -> None:
    """The path of an error has the query, so that the page which failed can be told."""

    async def handler(_: web.Request) -> web.Response:
        return web.json_response({}, status=403)

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(ApiError, match=r"/sessions\?from=2026-01-01&to=2026-01-31&limit=50&offset=400\)"):
            await client.list_sessions(USER, USER, date(2026, 1, 1), date(2026, 1, 31), offset=400)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"", "the connection was lost"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", "the response body was cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[", "the response body was cut short"),
        (b"nonsense\r\n\r\n", "the response is not valid HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n[]",
            "the response body was cut short, or is not gzip although its header says so",
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
    """A page with invalid JSON costs one retry, the first page as well as a later one."""
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


async def test_an_unexpected_content_encoding_is_an_error() -> None:
    """A body is refused after one attempt if its encoding is not gzip."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"[]", headers={"Content-Encoding": "br"})

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(TransportError, match="content encoding other than gzip") as caught:
            await vehicles(client)
    assert caught.value.attempts == 1


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_failing_token_endpoint_is_retried() -> None:
    """A token request is repeated if it fails, and when the attempts are spent, its last error ends the call."""
    statuses = [503, 429, 500, 200, *[503] * 99]

    async def handler(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response([])
        status = statuses.pop(0)
        return web.json_response({"access_token": "t", "expires_in": 1e-9} if status == 200 else {}, status=status)

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
async def test_a_retry_after_pauses_every_request_of_the_client() -> None:
    """After one response with status 429 and `Retry-After: 30`, eleven requests are sent 30 seconds later."""
    loop = asyncio.get_running_loop()
    arrivals: list[float] = []

    async def handler(_: web.Request) -> web.Response:
        arrivals.append(loop.time())
        if len(arrivals) == 1:
            return web.Response(status=429, headers={"Retry-After": "30"})
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

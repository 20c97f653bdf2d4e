"""The aiohttp session, own or lent: its connections, its headers, and the bodies that it holds."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import AsyncExitStack
from datetime import date
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from podero_async import (
    ClientCredentials,
    ConfigurationError,
    PoderoClient,
    RequestTimeoutError,
    RetryPolicy,
    StaticToken,
    ThrottlePolicy,
    Timeouts,
    TransportError,
    VehicleRef,
)
from podero_async._http.response import LargeBodies
from podero_async._http.session import HttpSession
from podero_async.testing import PoderoSimulator
from tests._support.clients import (
    ORG,
    USER,
    VEHICLE,
    client_of,
    page_body,
    serving,
    static_client,
    static_transport,
    vehicles,
)
from tests._support.raw_server import listening

ONCE = RetryPolicy(max_attempts=1)


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
        session = HttpSession(None, Timeouts(read=60, total=60), large_bodies=large)
        release = await large.enter()
        cancelled, *reads = [asyncio.create_task(session.send("GET", URL(origin), "/", {})) for _ in range(3)]
        await asyncio.sleep(0.03)
        assert not any(task.done() for task in reads)
        cancelled.cancel()
        release()
        [first], _ = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.03)
        assert sum(task.done() for task in reads) == 1
        first.result().release()
        responses = await asyncio.gather(*reads)
        await session.aclose()
    assert [len(response.body()) for response in responses] == [3_000_000] * 2


@pytest.mark.leaping
async def test_a_wait_for_other_large_bodies_ends_with_the_total_timeout() -> None:
    """Only `Timeouts.total` bounds the wait for other large bodies, because then the client is the one that waits."""

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


@pytest.mark.leaping
async def test_a_large_body_that_trickles_makes_room_for_others() -> None:
    """A large body of a byte in three seconds is given up if another one waits, and is read on if none waits."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "3000"})
        await response.prepare(request)
        if trickles := not requests:
            requests.append(request)
        for _ in range(9):
            await response.write(bytes(1 if trickles else 300))
            await asyncio.sleep(3 * trickles)
        await response.write(bytes(2991 if trickles else 300))
        return response

    clock = asyncio.get_running_loop().time
    async with serving(handler) as origin:
        for others in (1, 0):
            large, requests = LargeBodies(min_bytes=1, at_once=1), list[web.Request]()
            session = HttpSession(None, Timeouts(), large_bodies=large)
            trickling = asyncio.create_task(session.send("GET", URL(origin), "/", {}))
            await asyncio.sleep(1)
            began = clock()
            for _ in range(others):
                (await session.send("GET", URL(origin), "/", {})).release()
                assert clock() - began < 9
                with pytest.raises(RequestTimeoutError, match="came too slowly while others waited"):
                    await trickling
            if not others:
                assert len((await trickling).body()) == 3000
            await session.aclose()


@pytest.mark.slow
async def test_a_page_has_a_smaller_maximum_than_a_list_of_users() -> None:
    """A page of 9 MB is refused before it is read; a list of users of that size is read."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"[" + b" " * 9_000_000 + b"]")

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(TransportError, match="the response body is larger than 8,388,608 bytes"):
            await client.list_sessions(USER, VEHICLE, date(2026, 1, 1), date(2026, 1, 31))
        for _ in range(5):  # more than are held at once
            assert [user async for user in client.users()] == []


async def test_more_headers_than_the_limit_are_an_error_that_says_so() -> None:
    """A response of 400 headers is read. One of 600 is an error after one attempt, which names the limit."""
    count = 400

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"[]", headers={f"X-{number}": "1" for number in range(count)})

    async with serving(handler) as origin, static_client(origin) as client:
        assert await vehicles(client) == 0
        count = 600
        with pytest.raises(TransportError, match="the response has more than 512 headers") as caught:
            await vehicles(client)
    assert caught.value.attempts == 1


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


@pytest.mark.parametrize("is_lent", [False, True])
async def test_bytes_that_arrive_on_an_idle_connection_are_not_a_response(is_lent: bool) -> None:
    """An unrequested second response closes its connection, and the next call uses another one,
    over a lent session, too.
    """
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

    async with listening(handle) as origin, AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession()) if is_lent else None
        client = await stack.enter_async_context(static_client(origin, session=session))
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


async def hanging(request: web.Request, stage: str) -> web.StreamResponse:
    """Keep each call of a client at a stage: it waits for the response, the token, the body, or the next attempt."""
    if stage in {"retry", "pause"}:
        return web.Response(status=503, headers={"Retry-After": "60"} if stage == "pause" else {})
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    if stage == "body":
        await response.prepare(request)
        await response.write(b"{")
    await asyncio.Event().wait()
    return response


@pytest.mark.leaping
@pytest.mark.parametrize("stage", ["response", "token", "body", "retry", "pause"])
@pytest.mark.parametrize("is_lent", [False, True], ids=["own", "lent"])
async def test_closing_ends_all_calls_at_once(stage: str, is_lent: bool) -> None:
    """Calls that wait for anything, those of derived clients and of a fleet included,
    raise one error when the client closes.
    """
    days = date(2026, 1, 1), date(2026, 1, 2)

    async def handler(request: web.Request) -> web.StreamResponse:
        return await hanging(request, stage)

    async def fleet() -> None:
        async with client.fetch_fleet(*days, [VehicleRef(user_id=USER, vehicle_id=VEHICLE)]) as outcomes:
            await anext(outcomes)

    async with AsyncExitStack() as open_until_end:
        origin = await open_until_end.enter_async_context(serving(handler))
        session = await open_until_end.enter_async_context(aiohttp.ClientSession()) if is_lent else None
        credentials = ClientCredentials("a", "b") if stage == "token" else StaticToken("token-1")
        client = PoderoClient(
            ORG,
            credentials,
            base_url=origin,
            session=session,
            retry=RetryPolicy(backoff_initial=60, backoff_max=60),
            throttle=ThrottlePolicy(max_concurrency=2),
        )
        derived = client.with_options(timeouts=Timeouts(read=10))
        works = [client.vehicle_sessions(USER, VEHICLE, *days), derived.current_session(USER, VEHICLE), fleet()]
        calls = [asyncio.create_task(work) for work in works]
        await asyncio.sleep(0.5)
        began = asyncio.get_running_loop().time()
        await client.aclose()
        for call in calls:
            with pytest.raises(ConfigurationError, match="client is closed"):
                await call
        assert asyncio.get_running_loop().time() - began < 0.1


@pytest.mark.parametrize("is_cancelled_first", [True, False])
async def test_a_call_that_is_cancelled_when_the_client_closes_ends_cancelled(is_cancelled_first: bool) -> None:
    """If a call is cancelled and its client closed in the same turn of the event loop, the cancellation counts."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await hanging(request, "response")

    async with serving(handler) as origin, aiohttp.ClientSession() as session:
        client = static_client(origin, session=session)  # so that `aclose` takes no turn
        call = asyncio.create_task(vehicles(client))
        await asyncio.sleep(0.02)
        if is_cancelled_first:
            call.cancel()
        await client.aclose()
        if not is_cancelled_first:
            call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()


@pytest.mark.parametrize(("limit", "limit_per_host", "ceiling"), [(100, 0, 64), (10, 0, 10), (100, 5, 5), (0, 0, 64)])
async def test_concurrency_does_not_exceed_the_pool_of_a_lent_session(
    limit: int, limit_per_host: int, ceiling: int
) -> None:
    """No request waits in the pool of a lent session while its timeout runs."""
    connector = aiohttp.TCPConnector(limit=limit, limit_per_host=limit_per_host)
    async with aiohttp.ClientSession(connector=connector) as session:
        assert static_transport("http://127.0.0.1:1", session=session).limiter.ceiling == ceiling


async def test_a_failed_attempt_releases_its_connection() -> None:
    """A second attempt follows a large error page even if the pool has one connection."""
    responses = [web.Response(status=503, body=bytes(50_000)), web.json_response([])]

    async def handler(_: web.Request) -> web.Response:
        return responses.pop(0)

    async with serving(handler) as origin, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        async with asyncio.timeout(60), static_client(origin, session=session) as client:
            assert await vehicles(client) == 0


async def test_no_thread_outlives_a_client() -> None:
    """The thread that decodes large bodies ends when the client is closed, even while the client is kept."""
    before = set(threading.enumerate())

    async def handler(_: web.Request) -> web.Response:
        return web.json_response([{"id": str(USER), "first_name": "x" * 1_000} for _ in range(400)])

    async with serving(handler) as origin, static_client(origin) as client:
        assert len([user async for user in client.users()]) == 1
        started = {thread for thread in threading.enumerate() if "decoding" in thread.name} - before
    assert len(started) == 1
    for thread in started:
        await asyncio.to_thread(thread.join, 60)
    assert not any(thread.is_alive() for thread in started)
    assert client.statistics().in_flight == 0

"""Unusual behaviour of servers and callers that must not end a fleet fetch, leak data or cause a storm of requests."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from traceback import walk_tb
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from podero_async import (
    ClientCredentials,
    Completeness,
    ConfigurationError,
    DecodeError,
    FileTokenStore,
    NotFoundError,
    PoderoClient,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    ThrottlePolicy,
    Token,
    TransportError,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)
from podero_async._decode import decode_listed_vehicles, decode_page, decode_users
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, QUICK, USER, client_of, page_body, serving, static_client, wire_row

DAYS = (date(2026, 1, 1), date(2026, 1, 31))


def refs(count: int) -> list[VehicleRef]:
    return [VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=number + 1)) for number in range(count)]


def credentials_client(origin: str) -> PoderoClient:
    return PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin, retry=RetryPolicy(backoff_initial=0.001))


async def fleet_of(client: PoderoClient, vehicles: Any) -> list[Any]:
    async with client.fetch_fleet(*DAYS, vehicles=vehicles) as fleet:
        return [outcome async for outcome in fleet]


def always(**response: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that sends the same response to every request."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(**response)

    return handler


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [decode_page, decode_users, decode_listed_vehicles])
def test_invalid_utf8_is_a_retryable_decode_error_that_holds_no_text_of_the_body(decode: Any) -> None:
    """Invalid UTF-8 may be a fault of transmission, so its error is retryable; the error does not repeat the row."""
    body = page_body(wire_row(session_outcome="Ren-X", email="Ren-X")).replace(b"-X", b"\xe9")
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert caught.value.retryable
    assert caught.value.__suppress_context__
    assert "Ren" not in repr(vars(caught.value))


async def test_invalid_utf8_on_a_later_page_is_a_failure_of_its_vehicle() -> None:
    """A later page with invalid UTF-8 is requested again; then a fleet fetch goes on, and a stream raises the error."""
    rows = [wire_row(number * 60) for number in range(300, 0, -1)]
    rows[250] |= {"unplug_time": "2026-01-31T00:00:00", "driver": "Ren-X"}  # a naive time takes the slow path

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query["offset"])
        body = page_body(*rows[offset : offset + 200], total=len(rows))
        return web.Response(body=body.replace(b"-X", b"\xe9"))

    async with serving(handler) as origin, static_client(origin) as client:
        outcomes = await fleet_of(client, refs(3))
        assert [type(outcome.error) for outcome in outcomes] == [DecodeError] * 3
        assert all(outcome.error.attempts == QUICK.max_attempts for outcome in outcomes)
        with pytest.raises(DecodeError) as caught:
            await client.vehicle_sessions(USER, USER, *DAYS)
        assert "Ren" not in str([frame.f_locals for frame, _ in walk_tb(caught.value.__traceback__)][1:])
        stream = client.sessions(USER, USER, *DAYS)
        assert len([await anext(stream) for _ in range(200)]) == 200
        with pytest.raises(DecodeError):
            await anext(stream)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, bytes(70_000)),
        ({"Content-Encoding": "br"}, b"x"),
        ({"Content-Encoding": "gzip"}, b""),
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(1 << 20))),
    ],
)
async def test_the_status_of_an_error_counts_even_if_its_body_is_unusable(headers: dict[str, str], body: bytes) -> None:
    """A 404 is a `NotFoundError` after one attempt, even if its body is oversized, corrupt or in an unknown encoding."""
    async with serving(always(status=404, headers=headers, body=body)) as origin, static_client(origin) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.electric_vehicles(USER)
    assert caught.value.attempts == 1


async def test_the_content_encoding_identity_is_accepted() -> None:
    """The encoding `identity`, which changes nothing, is accepted in upper and lower case."""
    handler = always(headers={"Content-Encoding": "Identity"}, body=b"[]")
    async with serving(handler) as origin, static_client(origin) as client:
        assert await client.electric_vehicles(USER) == []


async def test_the_detail_of_an_error_masks_the_external_id_and_the_token() -> None:
    """The detail masks the external id and the token; a request id that contains an address is dropped."""
    text = '{"detail": "No user with external id Ada Example 7, token-1"}'
    handler = always(status=404, text=text, headers={"X-Request-ID": "user-1@example.com"})
    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.user_by_external_id("Ada Example 7")
    assert caught.value.detail == "No user with external id ***, ***"
    assert caught.value.request_id is None


# --- callers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stray", [None, "vehicle", (UUID(int=1), UUID(int=2))])
async def test_an_item_that_is_no_vehicle_ends_the_fetch(simulator: PoderoSimulator, stray: Any) -> None:
    """If an item is not a `VehicleRef`, the fetch raises an error that names this type, and does not end as if complete."""
    async with client_of(simulator) as client:
        with pytest.raises(ValueError, match="VehicleRef"):
            await fleet_of(client, [*simulator.vehicles, *[stray] * 100, *simulator.vehicles])


async def test_a_source_of_vehicles_that_is_cancelled_cancels_the_fetch(simulator: PoderoSimulator) -> None:
    """If the source of the vehicles is cancelled, the fetch is cancelled, and does not end as if it were complete."""

    async def source() -> AsyncIterator[VehicleRef]:
        yield simulator.vehicles[0]
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    async with client_of(simulator) as client:
        with pytest.raises(asyncio.CancelledError):
            await fleet_of(client, source())


@pytest.mark.parametrize("extreme", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", None])
async def test_a_list_without_order_is_read_whole_despite_extreme_times(extreme: str | None) -> None:
    """The window is the whole calendar, and one plug-in time may lie outside it in UTC."""
    rows = [wire_row(number * 7 % 500 * 60) for number in range(500)]
    if extreme:
        rows[250]["plug_in_time"] = extreme

    async def handler(request: web.Request) -> web.Response:
        first, last = request.query["from"], request.query["to"]
        listed = [row for row in rows if first <= row["plug_in_time"][:10] <= last]
        offset = int(request.query["offset"])
        return web.Response(body=page_body(*listed[offset : offset + 200], total=len(listed)))

    async with serving(handler) as origin, static_client(origin) as client:
        got = await client.vehicle_sessions(USER, USER, date.min, date.max)
    assert (got.completeness, len(got.sessions)) == (Completeness.REPAIRED, 500)


async def test_a_lent_session_must_be_open_and_have_no_auth() -> None:
    """A lent session that is closed or has its own auth raises a `ConfigurationError`, for calls and fleet fetches."""
    with pytest.deprecated_call():  # deprecated by aiohttp
        lent = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
    async with lent as session:
        with pytest.raises(ConfigurationError, match="auth"):
            static_client("http://127.0.0.1:1", session=session)
    session = aiohttp.ClientSession()
    await session.close()
    async with static_client("http://127.0.0.1:1", session=session) as client:
        with pytest.raises(ConfigurationError, match="closed"):
            await client.electric_vehicles(USER)
        with pytest.raises(ConfigurationError, match="closed"):
            await fleet_of(client, refs(3))


# --- outages and throttling -------------------------------------------------------------------------------------------


async def test_a_long_retry_after_ends_a_fleet_fetch() -> None:
    """After a long `Retry-After` no further request is sent, neither for other vehicles nor for later calls."""
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request)
        return web.Response(status=429, headers={"Retry-After": "3600"})

    async with serving(handler) as origin, static_client(origin, throttle=ThrottlePolicy(max_concurrency=4)) as client:
        with pytest.raises(RateLimitError) as caught:
            await fleet_of(client, refs(400))
        assert caught.value.retry_after == pytest.approx(3600, abs=5)
        with pytest.raises(RateLimitError):
            await client.electric_vehicles(USER)
    assert len(requests) <= 6


@pytest.mark.parametrize("adaptive", [False, True])
async def test_a_long_retry_after_ends_the_calls_in_the_queue(adaptive: bool) -> None:
    """20 calls share three slots: three requests are sent, and all calls raise `RateLimitError`."""
    waits, requests = ["3600", "3600", "3"], 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal requests
        wait = waits[requests]
        requests += 1
        await asyncio.sleep(0.01)
        return web.Response(status=429, headers={"Retry-After": wait})

    policies = {
        "throttle": ThrottlePolicy(max_concurrency=3, adaptive=adaptive),
        "retry": RetryPolicy(retry_after_max=2),
    }
    async with serving(handler) as origin, static_client(origin, **policies) as client:
        calls = (client.electric_vehicles(USER) for _ in range(20))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert requests == 3
        assert all(isinstance(error, RateLimitError) for error in errors)
        with pytest.raises(RateLimitError) as caught:
            await client.electric_vehicles(USER)
        assert caught.value.retry_after == pytest.approx(3600, abs=5), "the longest time counts"


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_a_retry_after_of_another_status_fails_one_vehicle_only(status: int) -> None:
    """A `Retry-After` of a status other than 429 and 503 fails its own vehicle, and the others are read."""

    async def handler(request: web.Request) -> web.Response:
        if str(UUID(int=3)) in request.path:
            return web.Response(status=status, headers={"Retry-After": "3600"})
        return web.Response(body=page_body(wire_row()))

    async with serving(handler) as origin, static_client(origin) as client:
        outcomes = await fleet_of(client, refs(5))
    failed = [outcome.vehicle for outcome in outcomes if isinstance(outcome, VehicleFailure)]
    assert failed == [refs(3)[-1]]


@pytest.mark.parametrize("response", [{"status": 429, "headers": {"Retry-After": "3600"}}, {"text": "{}"}])
async def test_a_token_endpoint_without_a_token_ends_a_fleet_fetch(response: dict[str, Any]) -> None:
    """If the token endpoint throttles for long or gives no token, at most three token requests are sent, and no others."""
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.Response(**response)

    async with serving(handler) as origin:
        async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin) as client:
            with pytest.raises(RateLimitError if "status" in response else DecodeError) as caught:
                await fleet_of(client, refs(300))
            assert caught.value.method == "POST"
            if "status" in response:
                with pytest.raises(RateLimitError, match="no requests until"):
                    await client.electric_vehicles(USER)
    assert set(asked) == {"POST"}
    assert len(asked) <= 3, "those that had begun before the fetch ended"


@pytest.mark.leaping
async def test_calls_that_cannot_wait_send_no_token_request_before_its_time() -> None:
    """If the token endpoint asks for 7 s, calls with `max_elapsed=1` fail and name the seconds left; then one is sent."""
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request.method)
        if len(requests) == 1:
            return web.json_response({}, status=429, headers={"Retry-After": "7"})
        return web.json_response({"access_token": "a"} if request.method == "POST" else [])

    policy = RetryPolicy(max_elapsed=1.0)
    async with serving(handler) as origin:
        async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin, retry=policy) as client:
            for left_s in (7, 7, 4, 1):
                with pytest.raises(RateLimitError) as caught:
                    await client.electric_vehicles(USER)
                assert caught.value.retry_after == pytest.approx(left_s, abs=0.5)
                await asyncio.sleep(3 if left_s < 7 or caught.value.attempts == 0 else 0)
            assert await client.electric_vehicles(USER) == []
    assert requests == ["POST", "POST", "GET"]


async def test_each_attempt_of_a_call_may_replace_a_revoked_token() -> None:
    """A call whose attempts end in 401, 503, 401 and 200 succeeds."""
    statuses, tokens = [401, 503, 401, 200], iter("abcdef")

    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response({"access_token": next(tokens)})
        return web.json_response([], status=statuses.pop(0))

    async with serving(handler) as origin, credentials_client(origin) as client:
        assert await client.electric_vehicles(USER) == []
    assert statuses == []


@pytest.mark.slow
@pytest.mark.leaping
async def test_a_single_call_ends_within_max_elapsed_however_long_the_server_hangs() -> None:
    """Calls with `max_elapsed=1` to a server that takes 3 s end after 1 s, open no circuit breaker and end no fleet."""
    clock = asyncio.get_running_loop().time

    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(3)
        return web.Response(body=page_body()) if request.path.endswith("/sessions") else web.json_response([])

    async def call() -> None:
        began = clock()
        with pytest.raises(RequestTimeoutError, match=r"within 1 s \(the rest of max_elapsed\)"):
            await client.electric_vehicles(USER)
        assert clock() - began == pytest.approx(1.0, abs=0.01)

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy(max_elapsed=1.0)) as client:
        for _ in range(3):
            await asyncio.gather(*(call() for _ in range(20)))
        assert not client.statistics().is_breaker_open
        async with client.fetch_fleet(*DAYS, refs(100)) as fleet:
            assert {type(outcome) async for outcome in fleet} == {VehicleSessions}
        assert await client.with_options(retry=RetryPolicy(max_elapsed=4.0)).electric_vehicles(USER) == []


@pytest.mark.leaping
async def test_a_call_whose_last_attempt_is_cut_short_raises_the_error_before() -> None:
    """If the server sends a 503 and then hangs, a call with `max_elapsed=1` raises `ServerError` after two attempts."""
    clock, requests = asyncio.get_running_loop().time, 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        await asyncio.sleep(0 if requests == 1 else 60)
        return web.json_response({"detail": "maintenance"}, status=503)

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy(max_elapsed=1.0)) as client:
        began = clock()
        with pytest.raises(ServerError, match="maintenance") as caught:
            await client.electric_vehicles(USER)
        assert clock() - began == pytest.approx(1.0, abs=0.01)
        assert caught.value.attempts == requests == 2


@pytest.mark.leaping
async def test_no_attempt_begins_after_a_slow_probe() -> None:
    """If a call with `max_elapsed=1` sends a probe that takes 3 s, it ends after 1 s, and sends no request of its own."""
    clock, sent, mode = asyncio.get_running_loop().time, dict[str, list[float]](), "good"

    async def handler(request: web.Request) -> web.Response:
        sent.setdefault(request.path.split("/")[-2], []).append(clock())
        await asyncio.sleep(3 if mode == "slow" else 0)
        return web.json_response([], status=500 if mode == "down" else 200)

    async def call(user: int) -> None:
        began = clock()
        with suppress(PoderoError):
            await client.electric_vehicles(UUID(int=user))
        assert all(at <= began + 1 for at in sent.pop(str(UUID(int=user)), []))

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy(max_elapsed=1.0)) as client:
        await client.electric_vehicles(USER)
        for mode in ("down", "slow") * 4:
            await asyncio.gather(*(call(user) for user in range(10, 50 if mode == "down" else 11)))
            await asyncio.sleep(10)


@pytest.mark.leaping
async def test_no_call_waits_longer_in_an_outage_than_its_policy_allows() -> None:
    """All calls end after `max_elapsed` and a few probes, and their errors count exactly the requests sent."""
    loop, status, ended, requests = asyncio.get_running_loop(), 500, [], 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return web.json_response([], status=status)

    async def call(client: PoderoClient) -> TransportError | ServerError:
        began = loop.time()
        with pytest.raises(PoderoError) as caught:
            await client.electric_vehicles(USER)
        ended.append(loop.time() - began)
        assert isinstance(caught.value, TransportError | ServerError)
        return caught.value

    policies = {"throttle": ThrottlePolicy(max_concurrency=40), "retry": RetryPolicy(max_elapsed=20)}
    async with serving(handler) as origin, static_client(origin, **policies) as client:
        first = asyncio.gather(*(call(client) for _ in range(200)))
        await asyncio.sleep(30)
        later = await asyncio.gather(*(call(client) for _ in range(200)))
        errors = [*await first, *later]
        assert sum(error.attempts for error in errors) == requests
        status = 200
        assert await client.electric_vehicles(USER) == []
    assert max(ended) < 20 + 3 * 5, "the longest wait between two probes is 5 s"
    turned_away = [error for error in errors if isinstance(error, TransportError)]
    assert len(turned_away) > 200
    assert {str(error).partition(":")[0] for error in turned_away} == {"the API is unavailable"}
    assert all(error.attempts < 8 for error in turned_away)


@pytest.mark.parametrize("asks", [False, True])
async def test_a_lent_session_that_closes_during_a_call_does_not_cancel_it(asks: bool) -> None:
    """If a lent session closes during a call, the call raises `ConfigurationError`; if cancelled, `CancelledError`."""
    held = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        held.set()
        await asyncio.sleep(60)
        return web.json_response([])

    async with serving(handler) as origin:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        async with static_client(origin, session=session) as client:
            owners = asyncio.create_task(session.get(origin))
            await held.wait()
            waiting = asyncio.create_task(client.electric_vehicles(USER))  # for the only connection
            await asyncio.sleep(0.01)
            if asks:
                waiting.cancel()
            await session.close()
            with pytest.raises(asyncio.CancelledError if asks else ConfigurationError):
                await waiting
            owners.cancel()
            await asyncio.wait([owners])


# --- impossible lists -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [10**6, 10**9, 10**18, 10**30, -(10**30)])
@pytest.mark.parametrize("count", [1, 3, 8, 60])
async def test_an_impossible_total_is_unproven_and_ends(total: int, count: int) -> None:
    """A list with an impossible total is read in a bounded number of requests, and is UNPROVEN or without progress."""
    rows = [wire_row(number) for number in range(1, count + 1)]
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request)
        return web.Response(body=page_body(*rows, total=total))

    async with serving(handler) as origin, static_client(origin) as client:
        try:
            got = await client.vehicle_sessions(USER, USER, *DAYS)
        except PoderoError as error:
            assert "no progress" in str(error)
        else:
            assert got.completeness is Completeness.UNPROVEN
            assert len(got.sessions) == count
    assert len(requests) < 600


async def test_an_unordered_list_of_a_server_that_ignores_the_days_is_read_a_few_times_only() -> None:
    """If a server ignores the days, twenty years without order are read in 1,200 requests at most, not day by day."""
    rows = [wire_row(number * 7 % 1000 + 1) for number in range(1000)]
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request)
        offset = int(request.query["offset"])
        return web.Response(body=page_body(*rows[offset : offset + 200], total=1000))

    async with serving(handler) as origin, static_client(origin) as client:
        got = await client.vehicle_sessions(USER, USER, date(2006, 1, 1), date(2026, 1, 1))
    assert got.completeness is Completeness.UNPROVEN
    assert (len(got.sessions), got.total) == (1000, 1000)
    assert len(requests) < 1200


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "responses",
    [
        [(200, '{"access_token": "t", "expires_in": 1' + "0" * 400 + "}")],
        [(200, '{"access_token": "t", "refresh_token": "\\ud800"}')],
        [(408, ""), (200, '{"access_token": "t"}')],
        [(425, ""), (200, '{"access_token": "t"}')],
    ],
    ids=["infinite life", "refresh token that is not Unicode", "408", "425"],
)
async def test_a_token_is_found_despite_invalid_optional_fields_and_passing_faults(responses: list[Any]) -> None:
    """A token response with unreadable optional fields is accepted; a token request that gets 408 or 425 is repeated."""

    async def handler(request: web.Request) -> web.Response:
        status, text = responses.pop(0) if request.method == "POST" else (200, "[]")
        return web.Response(status=status, text=text)

    async with serving(handler) as origin, credentials_client(origin) as client:
        assert await client.electric_vehicles(USER) == []


async def test_a_token_store_replaces_neither_a_folder_nor_a_link(tmp_path: Path) -> None:
    """If the path of a token store is a directory, it stays; if it is a symbolic link, its target is replaced."""
    (tmp_path / "folder").mkdir()
    store = FileTokenStore(tmp_path / "folder")
    await store.save("a", Token(value="t"))
    assert (tmp_path / "folder").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    store = FileTokenStore(tmp_path / "link")
    await store.save("a", Token(value="t"))
    assert (tmp_path / "link").is_symlink()
    assert await store.load("a") == Token(value="t")

"""What servers and callers do that nobody planned for: each once cost a fleet, or would have."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from traceback import walk_tb
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from podero_async import (
    AuthenticationError,
    ClientCredentials,
    Completeness,
    ConfigurationError,
    DecodeError,
    FileTokenStore,
    NotFoundError,
    PoderoClient,
    PoderoError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    StaticToken,
    ThrottlePolicy,
    Token,
    TransportError,
    VehicleFailure,
    VehicleRef,
)
from podero_async._decode import decode_page, decode_users, decode_vehicles
from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, USER, client_of, page_body, serving, static_client, wire_row

DAYS = (date(2026, 1, 1), date(2026, 1, 31))


def refs(count: int) -> list[VehicleRef]:
    return [VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=number + 1)) for number in range(count)]


async def fleet_of(client: PoderoClient, vehicles: Any) -> list[Any]:
    async with client.fetch_fleet(*DAYS, vehicles=vehicles) as fleet:
        return [outcome async for outcome in fleet]


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [decode_page, decode_users, decode_vehicles])
def test_bytes_that_are_no_utf8_are_a_decode_error_without_them(decode: Any) -> None:
    """One vehicle with a foreign letter would end the fleet, with the letter's owner in the traceback."""
    body = page_body(wire_row(session_outcome="Ren-X", email="Ren-X")).replace(b"-X", b"\xe9")
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert caught.value.retryable
    assert caught.value.__suppress_context__
    assert "Ren" not in repr(vars(caught.value))


async def test_a_later_page_that_cannot_be_read_is_one_vehicles_failure() -> None:
    """One vehicle with a foreign letter in a field that nobody reads would end the fleet."""
    rows = [wire_row(number * 60) for number in range(300, 0, -1)]
    rows[250] |= {"unplug_time": "2026-01-31T00:00:00", "driver": "Ren-X"}  # a naive time: the row is looked at twice

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query["offset"])
        body = page_body(*rows[offset : offset + 200], total=len(rows))
        return web.Response(body=body.replace(b"-X", b"\xe9"))

    async with serving(handler) as origin, static_client(origin) as client:
        outcomes = await fleet_of(client, refs(3))
        assert [type(outcome.error) for outcome in outcomes] == [DecodeError] * 3
        assert all(outcome.requests == 2 for outcome in outcomes)
        with pytest.raises(DecodeError) as caught:
            await client.vehicle_sessions(USER, USER, *DAYS)
        assert "Ren" not in str([frame.f_locals for frame, _ in walk_tb(caught.value.__traceback__)][1:])
        stream = client.sessions(USER, USER, *DAYS)
        assert len([await anext(stream) for _ in range(200)]) == 200
        with pytest.raises(DecodeError):
            await anext(stream)


def test_what_discovery_does_not_need_cannot_stop_it() -> None:
    """One odd field of one user would cost the whole fleet."""
    body = b'[{"id": "%s", "last_login": "soon", "num_electric_vehicles": 2, "email": 5}]' % str(UUID(int=7)).encode()
    total, (user,) = decode_users(body)
    assert (total, user.num_electric_vehicles, user.last_login, user.email) == (1, 2, None, None)
    body = b'[{"id": "%s", "device_model": {"year": "2021"}}]' % str(UUID(int=7)).encode()
    assert decode_vehicles(body)[0].device_model is None


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, bytes(70_000)),
        ({"Content-Encoding": "br"}, b"x"),
        ({"Content-Encoding": "gzip"}, b""),
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(1 << 20))),
    ],
)
async def test_an_errors_status_counts_whatever_its_body_is(headers: dict[str, str], body: bytes) -> None:
    """A long debug page would turn "not found" into a fault of the line, and a pause into nothing."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=404, headers=headers, body=body)

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.electric_vehicles(USER)
    assert caught.value.attempts == 1


async def test_identity_is_an_encoding() -> None:
    """A proxy that spells out that nothing was done would break every call."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(headers={"Content-Encoding": "Identity"}, body=b"[]")

    async with serving(handler) as origin, static_client(origin) as client:
        assert await client.electric_vehicles(USER) == []


async def test_a_servers_words_do_not_repeat_whom_it_was_asked_for() -> None:
    """An error would name a customer."""

    async def handler(_: web.Request) -> web.Response:
        detail = "No user with external id Ada Example 7, token-1"
        return web.json_response({"detail": detail}, status=404, headers={"X-Request-ID": "user-1@example.com"})

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.user_by_external_id("Ada Example 7")
    assert caught.value.detail == "No user with external id ***, ***"
    assert caught.value.request_id is None


# --- callers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stray", [None, "vehicle", (UUID(int=1), UUID(int=2))])
async def test_what_is_no_vehicle_ends_the_fleet_with_its_name(simulator: PoderoSimulator, stray: Any) -> None:
    """A lookup that found nothing would end the fleet as if it were whole."""
    async with client_of(simulator) as client:
        with pytest.raises(ValueError, match="VehicleRef"):
            await fleet_of(client, [*simulator.vehicles, *[stray] * 100, *simulator.vehicles])


async def test_a_source_that_was_cancelled_is_no_end(simulator: PoderoSimulator) -> None:
    """Half a fleet would look like all of it."""

    async def source() -> AsyncIterator[VehicleRef]:
        yield simulator.vehicles[0]
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    async with client_of(simulator) as client:
        with pytest.raises(asyncio.CancelledError):
            await fleet_of(client, source())


async def test_two_tasks_may_share_a_fleet(simulator: PoderoSimulator) -> None:
    """The second consumer would wait for ever."""

    async def consume(fleet: Any) -> int:
        return len([outcome async for outcome in fleet])

    async with client_of(simulator) as client, client.fetch_fleet(*DAYS, vehicles=simulator.vehicles) as fleet:
        async with asyncio.timeout(10):
            counts = await asyncio.gather(consume(fleet), consume(fleet))
    assert sum(counts) == 10


async def test_the_end_of_the_calendar_is_a_day() -> None:
    """ "Until for ever" would end a fleet with an error of the calendar's."""
    rows = {
        VehicleRef(user_id=UUID(int=5), vehicle_id=UUID(int=6)): [wire_row(number * 60) for number in range(1, 500)]
    }
    async with PoderoSimulator(rows=rows) as simulator, client_of(simulator) as client:
        got = await client.vehicle_sessions(UUID(int=5), UUID(int=6), date.min, date.max)
        assert len(got.sessions) == 499


@pytest.mark.leaping
async def test_closing_a_client_wakes_who_waits_in_a_pause() -> None:
    """A service that shuts down would hang for as long as the server asked to wait."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "100"})

    async with serving(handler) as origin:
        client = static_client(origin, retry=RetryPolicy(max_attempts=1))
        with pytest.raises(RateLimitError):
            await client.electric_vehicles(USER)
        waiting = [asyncio.create_task(client.electric_vehicles(USER)) for _ in range(3)]
        await asyncio.sleep(1)
        await client.aclose()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ConfigurationError] * 3


async def test_a_lent_session_must_be_open_and_have_no_auth() -> None:
    """aiohttp's own errors would come out of the first call."""
    with pytest.deprecated_call():  # aiohttp means to do without it
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


# --- servers that are down or guarded ---------------------------------------------------------------------------------


async def test_a_server_that_wants_a_long_rest_gets_it() -> None:
    """A fleet would burn all of its vehicles against a server that said "come back tomorrow"."""
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
async def test_who_waits_for_a_place_is_told_of_a_long_rest_too(adaptive: bool) -> None:
    """Calls that wait behind the one that was refused would be sent all the same, one by one."""
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
        assert caught.value.retry_after == pytest.approx(3600, abs=5), "a shorter time that came later does not count"


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_a_long_rest_is_asked_for_by_a_busy_server_only(status: int) -> None:
    """One vehicle's odd error would end a fleet."""

    async def handler(request: web.Request) -> web.Response:
        if str(UUID(int=3)) in request.path:
            return web.Response(status=status, headers={"Retry-After": "3600"})
        return web.Response(body=page_body(wire_row()))

    async with serving(handler) as origin, static_client(origin) as client:
        outcomes = await fleet_of(client, refs(5))
    failed = [outcome.vehicle for outcome in outcomes if isinstance(outcome, VehicleFailure)]
    assert failed == [refs(3)[-1]]


@pytest.mark.parametrize("answer", [{"status": 429, "headers": {"Retry-After": "3600"}}, {"text": "{}"}])
async def test_a_token_endpoint_that_gives_none_ends_a_fleet(answer: dict[str, Any]) -> None:
    """Each vehicle of thousands would fail, and ask for a token again."""
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.Response(**answer)

    async with serving(handler) as origin:
        async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin) as client:
            with pytest.raises(RateLimitError if "status" in answer else DecodeError) as caught:
                await fleet_of(client, refs(300))
            assert caught.value.method == "POST"
            if "status" in answer:
                with pytest.raises(RateLimitError, match="no requests until"):
                    await client.electric_vehicles(USER)
    assert set(asked) == {"POST"}
    assert len(asked) <= 3, "what had begun before the fleet ended"


async def test_each_attempt_may_meet_a_revoked_token() -> None:
    """A call that is tried again and meets a second revocation would end its fleet."""
    statuses, tokens = [401, 503, 401, 200], iter("abcdef")

    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response({"access_token": next(tokens)})
        return web.json_response([], status=statuses.pop(0))

    retry = RetryPolicy(backoff_initial=0.001)
    async with serving(handler) as origin:
        async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin, retry=retry) as client:
            assert await client.electric_vehicles(USER) == []
    assert statuses == []


@pytest.mark.leaping
async def test_no_call_waits_through_more_of_an_outage_than_its_policy_allows() -> None:
    """A backend's handlers would gather behind a few probes, and wait for minutes and hours."""
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
async def test_a_session_that_is_closed_meanwhile_cancels_nobody(asks: bool) -> None:
    """A handler would die of a cancellation that nobody asked for, or not of one that somebody did."""
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
            waiting = asyncio.create_task(client.electric_vehicles(USER))  # in the pool that its owner has emptied
            await asyncio.sleep(0.01)
            if asks:
                waiting.cancel()
            await session.close()
            with pytest.raises(asyncio.CancelledError if asks else ConfigurationError):
                await waiting
            owners.cancel()
            await asyncio.wait([owners])


# --- lists that cannot be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [10**6, 10**9, 10**18, 10**30, -(10**30)])
@pytest.mark.parametrize("count", [1, 3, 8, 60])
async def test_an_impossible_total_is_a_doubt_and_ends(total: int, count: int) -> None:
    """A total past any fleet would overflow, or keep the client asking until it is reached."""
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


async def test_a_server_that_ignores_the_days_is_not_asked_for_each() -> None:
    """A list without an order would be read once for each day of twenty years."""
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


async def test_a_dead_token_of_another_process_does_not_end_a_fleet(tmp_path: Path) -> None:
    """After a revocation, a worker would find its neighbour's dead token in the store, and give up."""
    async with PoderoSimulator(users=2, vehicles=2, sessions_per_vehicle=2) as simulator:
        options = {"token_store": FileTokenStore(tmp_path / "t")}
        user = simulator.vehicles[0].user_id
        async with client_of(simulator, **options) as one, client_of(simulator, **options) as other:
            await one.electric_vehicles(user)
            await other.electric_vehicles(user)
            simulator.revoke_tokens()
            await other.electric_vehicles(user)
            simulator.revoke_tokens()
            await one.electric_vehicles(user)


@pytest.mark.parametrize(
    "answer",
    ['{"access_token": "t", "expires_in": 1' + "0" * 400 + "}", '{"access_token": "t", "refresh_token": "\\ud800"}'],
)
async def test_odd_token_answers_are_taken_as_far_as_they_make_sense(answer: str) -> None:
    """An answer with one odd field would raise what nobody catches."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=answer) if request.method == "POST" else web.json_response([])

    async with serving(handler) as origin:
        async with PoderoClient(ORG, ClientCredentials("a", "b"), base_url=origin) as client:
            assert await client.electric_vehicles(USER) == []


@pytest.mark.parametrize("status", [408, 425])
async def test_a_token_request_that_came_too_slowly_or_early_is_tried_again(status: int) -> None:
    """A hiccup would be taken for refused credentials, and end a fleet."""
    statuses = [status, 200]

    async def handler(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response([])
        return web.json_response({"access_token": "t"}, status=statuses.pop(0))

    async with serving(handler) as origin:
        async with PoderoClient(
            ORG, ClientCredentials("a", "b"), base_url=origin, retry=RetryPolicy(backoff_initial=0.001)
        ) as client:
            assert await client.electric_vehicles(USER) == []


def test_secrets_that_are_no_utf8_are_refused_by_name() -> None:
    """The secret would stand in the error of the encoding that fails."""
    with pytest.raises(ConfigurationError, match="client_secret") as caught:
        ClientCredentials("a", "s3cr3t\udcff")
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="token"):
        StaticToken("t\udcff")


async def test_a_store_replaces_files_only(tmp_path: Path) -> None:
    """A path to a device would turn it into a file, and one through a link break the link."""
    (tmp_path / "folder").mkdir()
    store = FileTokenStore(tmp_path / "folder")
    await store.save("a", Token(value="t"))
    assert (tmp_path / "folder").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    store = FileTokenStore(tmp_path / "link")
    await store.save("a", Token(value="t"))
    assert (tmp_path / "link").is_symlink()
    assert await store.load("a") == Token(value="t")


async def test_refused_credentials_of_a_fleet_name_the_status(simulator: PoderoSimulator) -> None:
    """The words that explain a refusal would be masked along with the secrets."""
    async with client_of(simulator, credentials=ClientCredentials(simulator.client_id, "wrong")) as client:
        with pytest.raises(AuthenticationError, match="invalid_client"):
            await fleet_of(client, simulator.vehicles)

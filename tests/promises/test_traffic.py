"""No call is delayed, and none fails, because of faults or load that other calls of the client cause."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from podero_async import (
    ClientCredentials,
    ConfigurationError,
    PoderoClient,
    RateLimitError,
    RetryPolicy,
    ServerError,
    ThrottlePolicy,
    TransportError,
    VehicleFailure,
    VehicleRef,
)
from podero_async.backfill import SessionStore, backfill
from tests._support.clients import ORG, USER, page_body, serving, static_client

DAYS = (date(2026, 1, 1), date(2026, 1, 31))
LATENCY_S = 0.1

Record = Callable[[str, object], None]


def refs(count: int) -> list[VehicleRef]:
    return [VehicleRef(user_id=USER, vehicle_id=UUID(int=number + 1)) for number in range(count)]


def vehicle_of(request: web.Request) -> int:
    return UUID(request.path.split("/electric-vehicles/")[1].split("/")[0]).int


async def respond(request: web.Request) -> web.Response:
    """Return an empty list or no current session, after a while."""
    await asyncio.sleep(LATENCY_S)
    return web.Response(body=page_body() if request.path.endswith("/sessions") else b'{"session": null}')


async def timed(call: Any) -> float:
    clock = asyncio.get_running_loop().time
    began = clock()
    await call
    return clock() - began


async def fetch(client: PoderoClient, vehicles: list[VehicleRef]) -> list[Any]:
    async with client.fetch_fleet(*DAYS, vehicles=vehicles) as fleet:
        return [outcome async for outcome in fleet]


async def live_calls(client: PoderoClient, busy: asyncio.Task[Any]) -> list[float]:
    """Ask for the current session again and again while a fleet is fetched; return how long each call took."""
    waits = []
    while not busy.done():
        await asyncio.sleep(0.037)
        waits.append(await timed(client.current_session(USER, UUID(int=1))))
    return waits


# --- beside a fleet ---------------------------------------------------------------------------------------------------


@pytest.mark.leaping
@pytest.mark.parametrize("slots", [pytest.param(64, marks=pytest.mark.slow), 8])
async def test_live_calls_beside_a_fleet_are_as_quick_as_on_an_idle_client(slots: int, record_property: Record) -> None:
    """Live calls take at most twice the latency in the median and four times at p99, and the fleet hardly slows down."""
    vehicles = refs(slots * 15)
    policy = ThrottlePolicy(max_concurrency=slots)
    async with serving(respond) as origin, static_client(origin, throttle=policy) as client:
        await fetch(client, vehicles[: slots * 6])
        alone_s = await timed(fetch(client, vehicles))
        fleet = asyncio.create_task(timed(fetch(client, vehicles)))
        waits = await live_calls(client, fleet)
        beside_s = await fleet
    p50, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[-1]
    assert p50 < 2 * LATENCY_S
    assert p99 < 4 * LATENCY_S
    # Each live call takes one slot for its latency.
    assert beside_s < alone_s * 1.05 + len(waits) * LATENCY_S / slots
    ideal_s = len(vehicles) / slots * LATENCY_S
    assert alone_s < ideal_s * 1.05 + 2 * LATENCY_S, "the reserve for live calls costs under 5 %"
    record_property(
        "figure", f"{slots} slots: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms of {LATENCY_S * 1e3:.0f} ms"
    )


@pytest.mark.leaping
async def test_live_calls_beside_a_fleet_wait_one_interval_of_the_rate() -> None:
    """With `requests_per_second=10` no call waits over 0.1 s, and the fleet gets the rest of the rate."""
    policy = ThrottlePolicy(requests_per_second=10)
    async with serving(respond) as origin, static_client(origin, throttle=policy) as client:
        fleet = asyncio.create_task(timed(fetch(client, refs(200))))
        waits = await live_calls(client, fleet)
        assert await fleet < 1.05 * (200 + len(waits)) / 10
    assert max(waits) < LATENCY_S + 0.1 + 0.01


@pytest.mark.leaping
async def test_live_calls_leave_a_fleet_a_share() -> None:
    """While 40 tasks call without a break, the fleet still gets every eighth slot."""
    async with serving(respond) as origin, static_client(origin, throttle=ThrottlePolicy(max_concurrency=8)) as client:
        fleet = asyncio.create_task(timed(fetch(client, refs(80))))
        await asyncio.gather(*(live_calls(client, fleet) for _ in range(40)))
        assert await fleet < 1.2 * 80 * LATENCY_S


# --- faults of some vehicles, or of one endpoint ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.leaping
@pytest.mark.parametrize("status", [500, 503])
async def test_a_row_of_broken_vehicles_fails_by_itself(status: int, record_property: Record) -> None:
    """300 of 900 vehicles fail with their own error, and no other call waits for more than one probe."""

    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith("/sessions") and 300 <= vehicle_of(request) < 600:
            return web.json_response({"detail": "manufacturer is away"}, status=status)
        return await respond(request)

    async def list_calls(fleet: asyncio.Task[Any]) -> list[float]:
        waits = []
        while not fleet.done():
            await asyncio.sleep(0.3)
            waits.append(await timed(client.list_sessions(USER, UUID(int=1), *DAYS)))
        return waits

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy()) as client:
        clock = asyncio.get_running_loop().time
        began = clock()
        fleet = asyncio.create_task(fetch(client, refs(900)))
        live, lists = await asyncio.gather(live_calls(client, fleet), list_calls(fleet))
        outcomes, took_s = await fleet, clock() - began
    failures = [outcome for outcome in outcomes if isinstance(outcome, VehicleFailure)]
    assert len(failures) == 300
    assert all(isinstance(failure.error, ServerError) for failure in failures)
    assert all("manufacturer is away" in str(failure.error) for failure in failures)
    assert max(live) < 2 * LATENCY_S + 0.01
    assert max(lists) < 0.25 + 3 * LATENCY_S
    assert took_s < 60
    record_property("figure", f"{took_s:.0f} s; live calls {max(live):.2f} s at most, lists {max(lists):.2f} s")


@pytest.mark.leaping
@pytest.mark.parametrize(
    ("size", "retry_after"), [(500, "5"), (500, "3600"), pytest.param(3000, "5", marks=pytest.mark.slow)]
)
async def test_a_503_with_retry_after_delays_its_own_vehicle_only(
    size: int, retry_after: str, record_property: Record
) -> None:
    """If 2 % of the vehicles always get 503 with `Retry-After`, nothing pauses, and the others are read at full speed."""
    away = {number for number in range(1, size) if number % 50 == 49}

    async def handler(request: web.Request) -> web.Response:
        if vehicle_of(request) in away:
            await asyncio.sleep(LATENCY_S)
            return web.json_response({"detail": "away"}, status=503, headers={"Retry-After": retry_after})
        return await respond(request)

    clock = asyncio.get_running_loop().time
    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy()) as client:
        began, failures, read_s = clock(), [], 0.0
        async with client.fetch_fleet(*DAYS, vehicles=refs(size)) as fleet:
            async for outcome in fleet:
                if isinstance(outcome, VehicleFailure):
                    failures.append(outcome.error)
                else:
                    read_s = clock() - began
        assert client.statistics().pauses == 0
        assert client.statistics().limit == 64
    assert len(failures) == len(away)
    assert all(isinstance(error, ServerError) and error.retry_after == float(retry_after) for error in failures)
    assert read_s < 4 + size / 64 * LATENCY_S * 2
    record_property(
        "figure", f"{size - len(away):,} vehicles read in {read_s:.1f} s, all done in {clock() - began:.0f} s"
    )


@pytest.mark.leaping
async def test_a_503_with_retry_after_on_several_requests_pauses_all() -> None:
    """If the API responds with 503 and `Retry-After: 20` for a while, all requests pause, and every vehicle is read."""
    loop = asyncio.get_running_loop()
    requests, began = [], loop.time()

    async def handler(request: web.Request) -> web.Response:
        requests.append(loop.time() - began)
        if requests[-1] < 15:
            return web.json_response({"detail": "maintenance"}, status=503, headers={"Retry-After": "20"})
        return await respond(request)

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy()) as client:
        outcomes = await fetch(client, refs(500))
        assert client.statistics().pauses == 1
    assert not any(isinstance(outcome, VehicleFailure) for outcome in outcomes)
    assert sum(at < 19.9 for at in requests) < 40, "those that had begun before the pause"


@pytest.mark.slow
@pytest.mark.leaping
async def test_a_vehicle_that_is_always_throttled_costs_the_others_little(record_property: Record) -> None:
    """If 1 % of 1,500 vehicles always get 429 without a time, the others are read in at most thrice the usual time."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=429) if vehicle_of(request) % 100 == 99 else await respond(request)

    clock, read_s = asyncio.get_running_loop().time, {}
    for origin_handler in (respond, handler):
        async with serving(origin_handler) as origin, static_client(origin, retry=RetryPolicy()) as client:
            began = clock()
            async with client.fetch_fleet(*DAYS, vehicles=refs(1500)) as fleet:
                async for outcome in fleet:
                    if not isinstance(outcome, VehicleFailure):
                        read_s[origin_handler] = clock() - began
            assert fleet.summary.failures == (15 if origin_handler is handler else 0)
    assert read_s[handler] < 3 * read_s[respond]
    record_property("figure", f"{read_s[handler]:.1f} s with them, {read_s[respond]:.1f} s without")


@pytest.mark.leaping
@pytest.mark.parametrize(("rate", "size"), [(1, 60), (5, 150)])
async def test_a_rate_that_the_server_does_not_name_is_found(rate: int, size: int, record_property: Record) -> None:
    """If the server accepts 1 or 5 requests per second, and responds to others with 429 without a time, 95 % are read."""
    clock = asyncio.get_running_loop().time
    tokens, at, refused = float(rate), clock(), 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal tokens, at, refused
        await asyncio.sleep(0.05)
        tokens, at = min(rate, tokens + (clock() - at) * rate), clock()
        if tokens < 1:
            refused += 1
            return web.Response(status=429)
        tokens -= 1
        return web.Response(body=page_body())

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy()) as client:
        began = clock()
        outcomes = await fetch(client, refs(size))
        took_s = clock() - began
    failed = sum(isinstance(outcome, VehicleFailure) for outcome in outcomes)
    assert failed <= size // 20  # by the jitter of the retries, eight attempts of one may all be refused
    assert took_s < 2 * size / rate
    record_property("figure", f"{size} vehicles at {rate} per second in {took_s:.0f} s, {refused} refusals")


@pytest.mark.leaping
async def test_a_call_gets_through_although_all_calls_before_it_failed() -> None:
    """If all calls since the start ask for broken vehicles, the first call for another one waits for one probe at most."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=500) if vehicle_of(request) > 1 else await respond(request)

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy()) as client:
        broken = [asyncio.create_task(client.current_session(USER, UUID(int=number))) for number in range(2, 42)]
        for age_s in (0.3, 10):
            await asyncio.sleep(age_s)
            assert client.statistics().is_breaker_open or age_s > 1
            assert await timed(client.current_session(USER, UUID(int=1))) < 0.5 + LATENCY_S
        for task in broken:
            task.cancel()
        await asyncio.wait(broken)


@pytest.mark.leaping
async def test_a_cache_that_hides_an_outage_loses_no_vehicle() -> None:
    """If a cache serves the URLs that it knows while the API is down for a minute, a fleet still waits for the API."""
    clock, cached = asyncio.get_running_loop().time, set()
    began = clock()

    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        if 0.1 < clock() - began < 60 and request.path_qs not in cached:
            return web.Response(status=502, text="<html>bad gateway</html>")
        cached.add(request.path_qs)
        return web.Response(body=page_body())

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy()) as client:
        outcomes = await fetch(client, refs(500))
    assert not any(isinstance(outcome, VehicleFailure) for outcome in outcomes)
    assert clock() - began > 60


@pytest.mark.slow
@pytest.mark.leaping
async def test_a_backfill_goes_on_past_a_row_of_broken_vehicles(tmp_path: Path) -> None:
    """If 60 of 180 vehicles in a row get 500, the run finishes with 60 failures, and is not ended as an outage."""

    async def handler(request: web.Request) -> web.Response:
        if 60 <= vehicle_of(request) < 120:
            return web.json_response({"detail": "manufacturer is away"}, status=500)
        return await respond(request)

    policy = RetryPolicy(max_attempts=3, budget=20)
    async with serving(handler) as origin, static_client(origin, retry=policy) as client:
        async with SessionStore(tmp_path / "fleet.duckdb") as store:
            report = await backfill(client, store, *DAYS, vehicles=refs(180))
    assert (report.finished, report.done, report.failed) == (True, 120, 60)


@pytest.mark.slow
@pytest.mark.leaping
async def test_an_endpoint_that_is_down_does_not_stop_the_others() -> None:
    """While all lists of sessions get 503 for a minute, no live call is delayed, and few requests for lists are sent."""
    lists = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal lists
        if not request.path.endswith("/sessions"):
            return await respond(request)
        lists += 1
        return web.json_response({"detail": "maintenance"}, status=503)

    policy = RetryPolicy(max_elapsed=60.0)
    async with serving(handler) as origin, static_client(origin, retry=policy) as client:
        fleet = asyncio.create_task(fetch(client, refs(35)))
        assert max(await live_calls(client, fleet)) < 2 * LATENCY_S
        assert all("maintenance" in str(outcome.error) for outcome in await fleet)
    assert lists < 150


@pytest.mark.leaping
@pytest.mark.parametrize("has_fleet", [False, True])
async def test_an_endpoint_that_hangs_does_not_stop_the_others(has_fleet: bool, record_property: Record) -> None:
    """While 300 live calls hang, or a fleet and a list, quick calls to another endpoint succeed within their second."""
    hangs = "/sessions" if has_fleet else "/current"

    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith(hangs):
            await asyncio.sleep(3600)
        await asyncio.sleep(LATENCY_S)
        return web.json_response([] if request.path.endswith("/electric-vehicles") else {"session": None})

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy()) as client:
        quick = client.with_options(retry=RetryPolicy(max_elapsed=1.0))
        if has_fleet:
            busy: list[asyncio.Task[Any]] = [asyncio.create_task(fetch(client, refs(300)))]
            await asyncio.sleep(1)
            busy.append(asyncio.create_task(client.list_sessions(USER, UUID(int=1), *DAYS)))
        else:
            busy = [asyncio.create_task(client.current_session(USER, vehicle.vehicle_id)) for vehicle in refs(300)]
        await asyncio.sleep(1)
        calls = 5 if has_fleet else 20
        waits = await asyncio.gather(*(timed(quick.electric_vehicles(USER)) for _ in range(calls)))
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)
    assert max(waits) < 1 + LATENCY_S
    record_property("figure", f"{calls} calls at once, each within {max(waits):.1f} s")


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.leaping
async def test_a_fleet_does_not_spend_the_retries_of_other_calls() -> None:
    """A fleet whose vehicles all fail spends the budget of its retries; a single call that fails once is still retried."""
    failed: set[str] = set()

    async def handler(request: web.Request) -> web.Response:
        is_first, path = request.path not in failed, request.path
        failed.add(path)
        return web.Response(status=500) if path.endswith("/sessions") or is_first else await respond(request)

    retry = RetryPolicy(budget=20, backoff_initial=0.01)
    async with serving(handler) as origin:
        async with static_client(origin, retry=retry, throttle=ThrottlePolicy(adaptive=False)) as client:
            outcomes = await fetch(client, refs(40))
            assert sum(outcome.retries for outcome in outcomes) == 20
            assert await client.current_session(USER, UUID(int=1)) is None


async def test_calls_that_fail_do_not_spend_the_retries_of_token_requests() -> None:
    """A token request that fails once is repeated, although the calls of broken vehicles have spent their budget."""
    token_requests = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal token_requests
        if request.method == "POST":
            token_requests += 1
            if token_requests == 2:
                return web.Response(status=500)
            return web.json_response({"access_token": f"token-{token_requests}", "token_type": "Bearer"})
        if request.path.endswith("/current"):
            return web.Response(status=500)
        return web.json_response([], status=200 if request.headers["Authorization"] == "Bearer token-3" else 401)

    retry, credentials = RetryPolicy(budget=1, backoff_initial=0.001), ClientCredentials("client", "secret")
    async with serving(handler) as origin, PoderoClient(ORG, credentials, base_url=origin, retry=retry) as client:
        with pytest.raises(ServerError):
            await client.current_session(USER, UUID(int=1))
        assert await client.electric_vehicles(USER) == []
    assert token_requests == 3


@pytest.mark.leaping
async def test_a_pause_that_others_caused_is_within_the_bound_of_each_call() -> None:
    """With `max_elapsed=1` and a pause of 6 s all calls fail at once with the remaining seconds; a fleet waits."""
    requests = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        if requests == 1:
            return web.Response(status=429, headers={"Retry-After": "6"})
        return await respond(request)

    async with serving(handler) as origin, static_client(origin, retry=RetryPolicy(max_elapsed=1.0)) as client:
        for attempts in (1, 0, 0):
            with pytest.raises(RateLimitError) as caught:
                await asyncio.wait_for(client.current_session(USER, USER), 0.05)
            assert caught.value.retry_after == pytest.approx(6, abs=0.2)
            assert caught.value.attempts == attempts
        outcomes = await fetch(client, refs(20))
    assert not any(isinstance(outcome, VehicleFailure) for outcome in outcomes)


@pytest.mark.leaping
@pytest.mark.parametrize("retry_after", [{}, {"Retry-After": "1"}, {"Retry-After": "3"}])
async def test_no_call_outlasts_its_bound_when_most_responses_throttle(retry_after: dict[str, str]) -> None:
    """Of 100 calls with `max_elapsed=2` to a server that throttles three of four requests, all end within 2 s."""
    requests = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return web.Response(status=429, headers=retry_after) if requests % 4 else await respond(request)

    async def call() -> float:
        with suppress(RateLimitError, TransportError):
            await client.current_session(USER, USER)
        return clock() - began

    clock = asyncio.get_running_loop().time
    policy = RetryPolicy(max_attempts=1000, max_elapsed=2.0, budget=100_000)
    async with serving(handler) as origin, static_client(origin, retry=policy) as client:
        began = clock()
        assert max(await asyncio.gather(*(call() for _ in range(100)))) < 2 + LATENCY_S + 0.01


@pytest.mark.slow
@pytest.mark.leaping
@pytest.mark.parametrize(
    "calls", [pytest.param(50, marks=pytest.mark.slow), 100, pytest.param(300, marks=pytest.mark.slow)]
)
async def test_one_stray_throttling_response_does_not_slow_the_next_burst(calls: int) -> None:
    """After one 429 in a quiet hour, many calls at once take at most 1.5 times as long as without it."""

    async def burst(is_throttled: bool) -> float:
        requests = 0

        async def handler(request: web.Request) -> web.Response:
            nonlocal requests
            requests += 1
            await asyncio.sleep(0.5)
            if is_throttled and requests == 60:
                return web.Response(status=429, headers={"Retry-After": "1"})
            return await respond(request)

        async with serving(handler) as origin, static_client(origin) as client:
            for _ in range(60):
                await client.current_session(USER, USER)
                await asyncio.sleep(5.5 if requests > 50 else 1.0)
            return await timed(asyncio.gather(*(client.current_session(USER, USER) for _ in range(calls))))

    assert await burst(is_throttled=True) <= 1.5 * await burst(is_throttled=False)


# --- event loops ------------------------------------------------------------------------------------------------------


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with closing(asyncio.Runner()) as runner:
        yield runner


def test_a_client_in_a_second_event_loop_says_so(runner: asyncio.Runner) -> None:
    """Each call, a fleet fetch and `aclose` raise a `ConfigurationError`, even if the first loop left a timer."""

    async def first_loop() -> PoderoClient:
        async with serving(respond) as origin:
            client = static_client(origin, throttle=ThrottlePolicy(requests_per_second=0.01))
            await client.current_session(USER, USER)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.current_session(USER, USER)  # waits for the rate, by a timer of this loop
            await client._transport.session.aclose()  # only the sockets: the client itself stays open
            return client

    async def second_loop(client: PoderoClient) -> None:
        calls = (client.current_session(USER, USER), fetch(client, refs(3)), anext(client.users()), client.aclose())
        for call in calls:
            with pytest.raises(ConfigurationError, match="create a client for each event loop"):
                async with asyncio.timeout(60):
                    await call

    client = runner.run(first_loop())
    asyncio.run(second_loop(client))

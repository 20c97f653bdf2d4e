"""What the observer of a client is told: calls, attempts, pauses, circuit breakers and tokens."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import date
from typing import Any
from uuid import UUID

import attrs
import pytest
from aiohttp import web

from podero_async import (
    ApiError,
    AuthenticationError,
    ClientCredentials,
    Completeness,
    ConfigurationError,
    DecodeError,
    NotFoundError,
    PoderoClient,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    StaticToken,
    ThrottlePolicy,
    Timeouts,
    VehicleRef,
    VehicleSessions,
)
from podero_async.backfill import SessionStore, backfill
from podero_async.observer import (
    Attempt,
    AttemptEnd,
    BreakerChange,
    CallEnd,
    ObservedCall,
    Observer,
    Pause,
    TokenRenewal,
)
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import ORG, USER, VEHICLE, client_of, page_body, serving

FIRST, LAST = date(2026, 1, 1), date(2026, 6, 30)
TOKEN = StaticToken("t")
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}", re.IGNORECASE)


class Recorder(Observer):
    """Records all that it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.calls: list[tuple[ObservedCall, CallEnd]] = []
        self.attempts: list[tuple[Attempt, AttemptEnd]] = []
        self.open: set[object] = set()

    def call_began(self, call: ObservedCall) -> None:
        self.open.add(call)

    def call_ended(self, call: ObservedCall, end: CallEnd) -> None:
        self.open.remove(call)
        self.calls.append((call, end))

    def attempt_began(self, attempt: Attempt) -> None:
        assert attempt.call in self.open
        self.open.add(attempt)

    def attempt_ended(self, attempt: Attempt, end: AttemptEnd) -> None:
        assert attempt.call in self.open
        self.open.remove(attempt)
        self.attempts.append((attempt, end))

    def paused(self, pause: Pause) -> None:
        self.events.append(pause)

    def breaker_changed(self, change: BreakerChange) -> None:
        self.events.append(change)

    def token_renewed(self, renewal: TokenRenewal) -> None:
        self.events.append(renewal)

    def end_of(self, name: str) -> CallEnd:
        """Return the end of the only call of a name."""
        (end,) = [end for call, end in self.calls if call.name == name]
        return end

    def attempts_of(self, name: str) -> list[tuple[Attempt, AttemptEnd]]:
        """Return the attempts of the calls of a name."""
        return [(attempt, end) for attempt, end in self.attempts if attempt.call.name == name]


async def _all(items: Any) -> None:
    async with aclosing(items):
        async for _ in items:
            pass


async def _fleet(client: PoderoClient) -> None:
    async with client.fetch_fleet(FIRST, LAST) as fleet:
        async for _ in fleet:
            pass


Call = Callable[[PoderoClient, VehicleRef], Awaitable[object]]
CALLS: dict[str, Call] = {
    "list_sessions": lambda client, of: client.list_sessions(of.user_id, of.vehicle_id, FIRST, LAST),
    "sessions": lambda client, of: _all(client.sessions(of.user_id, of.vehicle_id, FIRST, LAST)),
    "vehicle_sessions": lambda client, of: client.vehicle_sessions(of.user_id, of.vehicle_id, FIRST, LAST),
    "current_session": lambda client, of: client.current_session(of.user_id, of.vehicle_id),
    "latest_session": lambda client, of: client.latest_session(of.user_id, of.vehicle_id),
    "user_sessions": lambda client, of: client.user_sessions(of.user_id, FIRST, LAST),
    "users": lambda client, _: _all(client.users()),
    "user_by_external_id": lambda client, _: client.user_by_external_id("customer_1"),
    "electric_vehicles": lambda client, of: client.electric_vehicles(of.user_id),
    "discover_vehicles": lambda client, _: _all(client.discover_vehicles()),
    "fetch_fleet": lambda client, _: _fleet(client),
}
PARTS = {"fetch_fleet": "vehicle_sessions", "user_sessions": "vehicle_sessions", "latest_session": "sessions"}
"""The calls that other calls make."""


@pytest.mark.parametrize("name", CALLS)
async def test_each_call_is_told_by_the_name_of_its_method(name: str, simulator: PoderoSimulator) -> None:
    """Each call has one beginning and end, its attempts belong to it or to its parts, and no path has an id."""
    seen = Recorder()
    async with client_of(simulator, observer=seen) as client:
        await CALLS[name](client, simulator.vehicles[0])
        requests = client.statistics().requests
    assert not seen.open
    tops = [call for call, _ in seen.calls if call.parent is None and not call.is_shared]
    assert [call.name for call in tops] == [name]
    parts = [call for call, _ in seen.calls if call.parent is tops[0]]
    assert {call.name for call in parts} == {PARTS[name]} if name in PARTS else not parts
    own = [(attempt, end) for attempt, end in seen.attempts if not attempt.call.is_shared]
    assert {attempt.call for attempt, _ in own} <= {*tops, *parts}
    assert seen.end_of(name).requests == len(own) == requests
    for attempt, end in own:
        assert attempt.origin == simulator.base_url
        assert (attempt.method, attempt.resend_count, attempt.cause) == ("GET", 0, None)
        assert (end.status, end.error) == (200, None)
    assert_matches_the_wire(seen, simulator)


def assert_matches_the_wire(seen: Recorder, simulator: PoderoSimulator) -> None:
    """Each template and masked path stands for the request that the simulator received, and neither has an id."""
    paths = [request.path for request in simulator.requests]
    assert len(paths) == len(seen.attempts)
    for attempt, _ in seen.attempts:
        assert not ID.search(attempt.path + attempt.template)
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(attempt.template))
        assert any(re.fullmatch(pattern, path) for path in paths), attempt.template
        assert attempt.path.partition("?")[0] == re.sub(r"{\w+}", "***", attempt.template)


async def test_a_retry_is_told_with_its_cause(simulator: PoderoSimulator) -> None:
    """An attempt that fails is told with its status or error; the next one with its number and the class of the error."""
    simulator.add_fault(Fault(kind="status", status=503, nth=1, endpoint="sessions"))
    simulator.add_fault(Fault(kind="malformed_json", nth=2, endpoint="sessions"))
    simulator.add_fault(Fault(kind="reset", nth=3, endpoint="sessions"))
    seen = Recorder()
    async with client_of(simulator, observer=seen) as client:
        whole = await CALLS["vehicle_sessions"](client, simulator.vehicles[0])
        assert client.statistics().retries == 3
    attempts = seen.attempts_of("vehicle_sessions")
    assert [attempt.resend_count for attempt, _ in attempts] == [0, 1, 2, 3]
    causes = [attempt.cause and attempt.cause.__name__ for attempt, _ in attempts]
    assert causes == [None, "ServerError", "DecodeError", "TransportError"]
    assert [end.status for _, end in attempts] == [503, 200, None, 200]
    assert [end.error and end.error.__name__ for _, end in attempts] == [None, None, "TransportError", None]
    end = seen.end_of("vehicle_sessions")
    assert (end.requests, end.retries, end.error) == (4, 3, None)
    assert (end.sessions, end.completeness) == (len(whole.sessions), Completeness.VERIFIED)  # type: ignore[attr-defined]


async def test_a_replay_after_a_401_was_sent_before_but_is_no_retry(simulator: PoderoSimulator) -> None:
    """A call that is sent again with a new token has two attempts and no retry; the new token is told, too."""
    seen = Recorder()
    async with client_of(simulator, observer=seen) as client:
        await CALLS["users"](client, simulator.vehicles[0])
        simulator.add_fault(Fault(kind="token_revoked", nth=1, endpoint="current"))
        await CALLS["current_session"](client, simulator.vehicles[0])
    sent = [(attempt.resend_count, end.status) for attempt, end in seen.attempts_of("current_session")]
    assert (sent[0], sent[-1]) == ((0, 401), (len(sent) - 1, 200))
    assert seen.end_of("current_session").retries == 0
    assert seen.events == [TokenRenewal(), TokenRenewal()]
    tokens = seen.attempts_of("token_request")
    assert [(attempt.method, attempt.limit, end.status) for attempt, end in tokens] == [("POST", None, 200)] * 2


def _page(status: int) -> web.Response:
    return web.Response(status=status, text="<html>back soon</html>", content_type="text/html")


@pytest.mark.leaping
async def test_the_faults_of_a_gateway_are_told() -> None:
    """An attempt that ended in a gateway's page has its status, and is the cause of the next attempt. Each token request of
    a fleet that fails is a failed renewal.
    """
    down: dict[str, float] = {}  # when the faults of a method end
    received: list[str] = []
    token = "old"

    async def respond(request: web.Request) -> web.Response:
        received.append(request.method)
        await asyncio.sleep(0.1)
        if asyncio.get_running_loop().time() < down.get(request.method, 0.0):
            return _page(403)
        if request.method == "POST":
            return web.json_response({"access_token": token, "expires_in": 3600})
        if request.headers["Authorization"] != f"Bearer {token}":
            return web.json_response({"detail": "expired"}, status=401)
        return web.Response(body=page_body())

    seen = Recorder()
    credentials, now = ClientCredentials("a", "b"), asyncio.get_running_loop().time
    vehicles = [VehicleRef(user_id=USER, vehicle_id=UUID(int=number)) for number in range(1, 6)]
    async with serving(respond) as origin, PoderoClient(ORG, credentials, base_url=origin, observer=seen) as client:
        await client.vehicle_sessions(USER, VEHICLE, FIRST, LAST)
        down["GET"] = now() + 0.15
        await client.list_sessions(USER, VEHICLE, FIRST, LAST)
        (first, end), (second, _) = seen.attempts_of("list_sessions")[:2]
        assert (end.status, end.error) == (403, None)
        assert (first.cause, second.cause, second.resend_count) == (None, ApiError, 1)
        seen.events.clear()
        token, down["POST"] = "new", now() + 60.0
        async with client.fetch_fleet(FIRST, LAST, vehicles) as fleet:
            assert [type(outcome) async for outcome in fleet] == [VehicleSessions] * 5
    renewals = [event for event in seen.events if isinstance(event, TokenRenewal)]
    calls = [end.error for call, end in seen.calls if call.name == "token_request"][-len(renewals) :]
    assert [renewal.error for renewal in renewals] == calls
    assert len(calls) >= 2
    assert (set(calls[:-1]), calls[-1]) == ({ApiError}, None)
    assert seen.end_of("fetch_fleet").failures == 0
    assert sorted(received) == sorted(attempt.method for attempt, _ in seen.attempts)
    assert not seen.open


async def test_a_call_of_several_requests_is_one_call() -> None:
    """A user's list of vehicles that takes several requests is one call, and an unreadable row is the error of its call."""

    async def respond(request: web.Request) -> web.Response:
        if "sessions" in request.path:
            return web.json_response({"total": 1, "limit": 50, "offset": 0, "items": [{"id": 1}]})
        numbers = range(1, 12)[int(request.query.get("offset", 0)) :][:10]
        return web.json_response([{"id": str(UUID(int=number))} for number in numbers])

    seen = Recorder()
    async with serving(respond) as origin, PoderoClient(ORG, TOKEN, base_url=origin, observer=seen) as client:
        assert len(await client.electric_vehicles(USER)) == 11
        with pytest.raises(DecodeError):
            await client.list_sessions(USER, VEHICLE, FIRST, LAST)
    assert seen.end_of("electric_vehicles").requests == len(seen.attempts_of("electric_vehicles")) == 3
    assert seen.end_of("list_sessions").error is DecodeError


@pytest.mark.leaping
async def test_a_pause_and_an_outage_are_told(simulator: PoderoSimulator) -> None:
    """A `Retry-After` is told as a pause, a long one as such; a circuit breaker is told when it opens and closes."""
    seen = Recorder()
    vehicle = simulator.vehicles[0]
    async with client_of(simulator, observer=seen, retry=RetryPolicy(max_elapsed=300)) as client:
        await CALLS["users"](client, vehicle)
        seen.events.clear()
        simulator.add_fault(Fault(kind="status", status=429, headers={"Retry-After": "7"}, nth=1, endpoint="current"))
        await CALLS["current_session"](client, vehicle)
        assert seen.events == [Pause(seconds=7.0, is_long=False)]
        seen.events.clear()
        simulator.add_fault(Fault(kind="status", status=500, times=20, endpoint="sessions"))
        await asyncio.gather(*(CALLS["vehicle_sessions"](client, each) for each in simulator.vehicles))
        changes = [BreakerChange(endpoint="sessions", is_open=is_open) for is_open in (True, False)]
        assert seen.events == changes
        seen.events.clear()
        simulator.add_fault(Fault(kind="status", status=429, headers={"Retry-After": "3600"}, endpoint="users"))
        with pytest.raises(RateLimitError):
            await CALLS["users"](client, vehicle)
    assert seen.events == [Pause(seconds=3600.0, is_long=True)]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="status", status=404), NotFoundError),
        (Fault(kind="status", status=429, headers={"Retry-After": "9999"}), RateLimitError),
        (Fault(kind="malformed_json"), DecodeError),
        (Fault(kind="hang"), RequestTimeoutError),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
async def test_a_call_that_fails_is_told_with_the_class_of_its_error(
    fault: Fault, error: type[PoderoError], simulator: PoderoSimulator
) -> None:
    """The end of a call has the class of the error that it raises, and nothing of the error's text."""
    seen = Recorder()
    async with client_of(simulator, observer=seen, retry=RetryPolicy(max_attempts=1)) as client:
        await CALLS["users"](client, simulator.vehicles[0])
        simulator.add_fault(attrs.evolve(fault, endpoint="current"))
        hasty = client.with_options(timeouts=Timeouts(read=0.02)) if fault.kind == "hang" else client
        with pytest.raises(error):
            await CALLS["current_session"](hasty, simulator.vehicles[0])
    assert seen.end_of("current_session").error is error
    assert not seen.open


@pytest.mark.parametrize("name", CALLS)
async def test_a_cancelled_call_is_told_as_cancelled(name: str, simulator: PoderoSimulator) -> None:
    """If a call is cancelled during a request, the attempts and calls end with `CancelledError`, and none stays open."""
    seen = Recorder()
    async with client_of(simulator, observer=seen) as client:
        await CALLS["users"](client, simulator.vehicles[0])
        seen.calls.clear()
        seen.attempts.clear()
        simulator.add_fault(Fault(kind="hang"))
        task = asyncio.ensure_future(CALLS[name](client, simulator.vehicles[0]))
        while not any(isinstance(one, Attempt) for one in seen.open):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert not seen.open
    errors = {end.error for _, end in seen.calls} | {end.error for _, end in seen.attempts}
    assert errors == {asyncio.CancelledError}


async def test_a_stream_that_is_left_early_has_no_error(simulator: PoderoSimulator) -> None:
    """If the consumer leaves a stream or a fleet early, its call ends without an error; the fleet counts the outcomes taken."""
    seen = Recorder()
    vehicle = simulator.vehicles[0]
    async with client_of(simulator, observer=seen) as client:
        async with aclosing(client.sessions(vehicle.user_id, vehicle.vehicle_id, FIRST, LAST)) as sessions:
            await anext(sessions)
        async with client.fetch_fleet(FIRST, LAST) as fleet:
            outcome = await anext(fleet)
    assert seen.end_of("sessions").error is None
    end = seen.end_of("fetch_fleet")
    assert (end.error, end.vehicles, end.failures) == (None, 1, 0)
    assert end.sessions == len(outcome.sessions)  # type: ignore[union-attr]
    assert not seen.open


async def test_a_vehicle_that_fails_is_an_error_of_its_own_call(simulator: PoderoSimulator) -> None:
    """In a fleet, the failure of a vehicle is told by the call for that vehicle, and counted by that of the fleet."""
    simulator.add_fault(Fault(kind="status", status=404, vehicle=simulator.vehicles[3]))
    seen = Recorder()
    async with client_of(simulator, observer=seen) as client:
        await _fleet(client)
        requests = client.statistics().requests
    errors = [end.error for call, end in seen.calls if call.name == "vehicle_sessions"]
    assert len(errors) == 10
    assert [error for error in errors if error] == [NotFoundError]
    end = seen.end_of("fetch_fleet")
    assert (end.error, end.vehicles, end.failures, end.requests) == (None, 9, 1, requests)


async def test_an_unproven_list_is_told(simulator: PoderoSimulator) -> None:
    """The end of a call has the verdict on its list, also if the list is UNPROVEN; a stream then has its error, too."""
    simulator.add_fault(Fault(kind="wrong_total", delta=5))
    seen = Recorder()
    async with client_of(simulator, observer=seen) as client:
        await CALLS["vehicle_sessions"](client, simulator.vehicles[0])
        with pytest.raises(PoderoError):
            await CALLS["sessions"](client, simulator.vehicles[0])
    assert seen.end_of("vehicle_sessions").completeness is Completeness.UNPROVEN
    assert seen.end_of("sessions").completeness is Completeness.UNPROVEN
    assert seen.end_of("sessions").error is not None


async def test_refused_credentials_are_told(simulator: PoderoSimulator) -> None:
    """If the credentials are refused, the renewal and the call are told with `AuthenticationError`."""
    seen = Recorder()
    async with client_of(simulator, observer=seen, credentials=ClientCredentials("client", "wrong")) as client:
        with pytest.raises(AuthenticationError):
            await CALLS["current_session"](client, simulator.vehicles[0])
    assert seen.events == [TokenRenewal(error=AuthenticationError)]
    assert seen.end_of("current_session").error is AuthenticationError
    assert seen.end_of("current_session").requests == 0


async def test_a_backfill_is_told_by_its_vehicles(simulator: PoderoSimulator, tmp_path: Any) -> None:
    """A backfill is told as a discovery and a call for each vehicle, and every request belongs to a call."""
    seen = Recorder()
    async with client_of(simulator, observer=seen) as client, SessionStore(tmp_path / "fleet.duckdb") as store:
        await backfill(client, store, simulator.first_day, simulator.last_day)
        requests = client.statistics().requests
    names = [call.name for call, _ in seen.calls if not call.is_shared]
    assert (names.count("discover_vehicles"), names.count("vehicle_sessions")) == (1, 10)
    assert sum(end.requests for call, end in seen.calls if not call.is_shared) == requests


class Failing(Observer):
    """Raises an error in each method."""

    def __getattribute__(self, name: str) -> Any:
        def fail(*_: object) -> None:
            raise ZeroDivisionError("mine")

        return fail if name in vars(Observer) and not name.startswith("_") else super().__getattribute__(name)


async def test_an_error_of_the_observer_reaches_no_call(
    simulator: PoderoSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    """An observer that always raises changes no call; its first error is logged with its place, and the others are not."""
    with caplog.at_level(logging.WARNING):
        async with client_of(simulator, observer=Failing()) as client:
            for call in CALLS.values():
                await call(client, simulator.vehicles[0])
    (record,) = caplog.records
    assert re.fullmatch(r"the observer failed in \S+test_observer.py:\d+: ZeroDivisionError: mine", record.getMessage())


async def test_derived_clients_share_the_observer(simulator: PoderoSimulator) -> None:
    """A client made by `with_options` tells the same observer."""
    seen = Recorder()
    async with client_of(simulator, observer=seen) as client:
        quick = client.with_options(retry=RetryPolicy(max_elapsed=1.0))
        await CALLS["current_session"](quick, simulator.vehicles[0])
    assert seen.end_of("current_session").requests == 1


def test_an_observer_is_an_observer() -> None:
    """Anything else is a `ConfigurationError` when the client is made."""
    with pytest.raises(ConfigurationError, match="observer must be an Observer, not str"):
        PoderoClient("00000000-0000-0000-0000-000000000001", ClientCredentials("a", "b"), observer="log")  # type: ignore[arg-type]


async def test_an_attempt_is_told_with_the_concurrency_limit(simulator: PoderoSimulator) -> None:
    """Each attempt is told with the limit of the client; that of a token request has none."""
    seen = Recorder()
    throttle = ThrottlePolicy(max_concurrency=3, adaptive=False)
    async with client_of(simulator, observer=seen, throttle=throttle) as client:
        await _fleet(client)
    assert {attempt.limit for attempt, _ in seen.attempts if not attempt.call.is_shared} == {3}

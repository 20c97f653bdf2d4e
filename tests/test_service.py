"""The FastAPI service in tests/examples, under uvicorn on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import aiohttp
import attrs
import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

import podero_async.guide.services
from podero_async import (
    ApiError,
    AuthenticationError,
    ChargingSession,
    DecodeError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)
from podero_async.models import VehicleRef
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import wire_row
from tests.examples import service

DAYS = "?from=2020-01-01&to=2026-12-31"
ALL = {"users": 2, "vehicles": 3, "sessions_per_vehicle": 300}
"""The first user has two vehicles with more than a page of sessions each."""

pytestmark = pytest.mark.podero(**ALL)


@attrs.frozen
class Reply:
    """A response, with its body as text."""

    status: int
    content_type: str
    text: str
    headers: Any

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@attrs.frozen
class Service:
    """The service, as its own callers see it."""

    http: aiohttp.ClientSession
    simulator: PoderoSimulator

    @property
    def vehicles(self) -> list[VehicleRef]:
        """The two vehicles of the first user."""
        first = self.simulator.vehicles[0]
        return [vehicle for vehicle in self.simulator.vehicles if vehicle.user_id == first.user_id]

    @property
    def sessions_path(self) -> str:
        return f"/users/{self.vehicles[0].user_id}/sessions{DAYS}"

    @property
    def live_path(self) -> str:
        vehicle = self.vehicles[0]
        return f"/users/{vehicle.user_id}/vehicles/{vehicle.vehicle_id}/live"

    async def get(self, path: str) -> Reply:
        async with self.http.get(path) as response:
            return Reply(response.status, response.content_type, await response.text(), response.headers)

    async def until(self, in_flight: int) -> None:
        """Wait until this number of requests to the API is in flight."""
        async with asyncio.timeout(60):
            while self.simulator.counts.concurrent != in_flight:
                await asyncio.sleep(0.001)


@pytest.fixture
def origin(podero_environment: dict[str, str]) -> Iterator[str]:
    """Run the service in a thread, with its settings from the environment."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(service.app, lifespan="on", ws="none", log_config=None, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
async def running(origin: str, podero_simulator: PoderoSimulator) -> AsyncIterator[Service]:
    """Call the service."""
    async with aiohttp.ClientSession(origin) as http:
        yield Service(http, podero_simulator)


async def test_the_sessions_of_a_user_are_streamed(running: Service) -> None:
    """Each session of each vehicle of the user is one line of JSON with the fields of `ChargingSession`."""
    reply = await running.get(running.sessions_path)
    assert (reply.status, reply.content_type) == (200, "application/x-ndjson")
    rows = [json.loads(line) for line in reply.text.splitlines()]
    truth = [row for vehicle in running.vehicles for row in running.simulator.truth(vehicle)]
    assert {row["id"]: row for row in rows} == {row["id"]: row for row in truth}
    assert len(rows) == len(truth)
    assert set(rows[0]) == {field.name for field in attrs.fields(ChargingSession)}


async def test_the_live_session(running: Service) -> None:
    """The live session of a vehicle is an object with the API's own names, unknown values included, or null."""
    running.simulator.set_current(running.vehicles[0], None)
    assert (await running.get(running.live_path)).json is None
    running.simulator.set_current(running.vehicles[0], row := wire_row(1, session_outcome="brand_new"))
    assert (await running.get(running.live_path)).json.items() >= row.items()


async def test_savings_by_external_id(running: Service) -> None:
    """A customer's savings of a month in Vienna's time are the sum over all sessions, and say if one cannot be read."""
    external_id = running.simulator.external_ids[running.vehicles[0].user_id]
    month = running.simulator.last_day.replace(day=1)
    begin = datetime(month.year, month.month, 1, tzinfo=ZoneInfo("Europe/Vienna"))
    rows = [row for vehicle in running.vehicles for row in running.simulator.truth(vehicle)]
    rows = [row for row in rows if datetime.fromisoformat(row["plug_in_time"]) >= begin]
    path = f"/customers/{external_id}/savings?month={month:%Y-%m}"
    reply = await running.get(path)
    assert reply.json["sessions"] == len(rows) > 0
    assert reply.json["actual_savings_eur"] == pytest.approx(sum(row["actual_savings_eur"] or 0.0 for row in rows))
    schemas = (await running.get("/openapi.json")).json["components"]["schemas"]
    assert {"ChargingSession", "Savings"} <= schemas.keys()
    assert reply.json["complete"] is True
    running.simulator.add_fault("malformed_row:id@#1")
    unreadable = await running.get(path)
    assert (unreadable.status, unreadable.json["complete"]) == (200, False)


def assert_problem(running: Service, reply: Reply, status: int) -> None:
    assert (reply.status, reply.content_type) == (status, "application/problem+json")
    assert reply.json == {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    assert str(running.simulator.org_id) not in reply.text + str(reply.headers)


async def test_a_mistyped_request_is_422(running: Service) -> None:
    """A mistyped id, a missing or mistyped day or month, and days in the wrong order are 422."""
    months = ("2026-05-15", "2026-13", "0001-01", "9999-12", "2026-05%0A", "may")
    for path in (
        *(
            f"/customers/{running.simulator.external_ids[running.vehicles[0].user_id]}/savings?month={month}"
            for month in months
        ),
        "/users/tesla/vehicles/tesla/live",
        f"/users/{UUID(int=1)}/sessions",
        f"/users/{UUID(int=1)}/sessions?from=yesterday&to=today",
        f"{running.sessions_path}&from=2027-01-01",
    ):
        assert_problem(running, await running.get(path), 422)


async def test_what_is_unknown_is_404(running: Service) -> None:
    """An unknown user, vehicle or external id is 404."""
    unknown = UUID(int=1)
    for path in (
        f"/users/{unknown}/sessions{DAYS}",
        f"/users/{running.vehicles[0].user_id}/vehicles/{unknown}/live",
        "/customers/nobody/savings?month=2026-10",
    ):
        assert_problem(running, await running.get(path), 404)


@pytest.mark.parametrize("refusal", ["current/status:403", "token/status:401"])
async def test_a_refusal_of_the_api_is_502(running: Service, refusal: str) -> None:
    """If the API refuses the service's own credentials, the caller gets 502."""
    running.simulator.add_fault(refusal)
    assert_problem(running, await running.get(running.live_path), 502)


@pytest.mark.parametrize("throttling", [429, 503])
async def test_a_busy_api_is_503(running: Service, throttling: int) -> None:
    """If the API asks for a long pause, the caller gets 503 with the `Retry-After`."""
    running.simulator.add_fault(f"current/status:{throttling}:retry-after=60")
    reply = await running.get(running.live_path)
    assert_problem(running, reply, 503)
    assert reply.headers["Retry-After"] == "60"


def from_gateway() -> ApiError:
    error = ApiError(404, "<html>", "GET", "/")
    error.is_from_gateway = True
    return error


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (ServerError(500, "", "GET", "/"), 503, "30"),
        (ServerError(503, "", "GET", "/", None, 60.2), 503, "61"),
        (RateLimitError(429, "", "GET", "/", None, 7.0), 503, "7"),
        (RequestTimeoutError("no response", "GET", "/"), 503, "30"),
        (TimeoutError(), 503, "30"),
        (TransportError("the connection was lost", "GET", "/"), 503, "30"),
        (DecodeError("not JSON", retryable=True), 503, "30"),
        (from_gateway(), 503, "30"),
        (TransportError("the certificate is refused", "GET", "/", retryable=False), 502, None),
        (DecodeError("id is missing", "$.items[3]"), 502, None),
        (AuthenticationError(401, "", "POST", "/"), 502, None),
        (NotFoundError(404, "", "GET", "/"), 404, None),
        (ValueError("not a uuid"), 422, None),
    ],
    ids=repr,
)
def test_a_failure_that_may_pass_is_503(error: Exception, status: int, retry_after: str | None) -> None:
    """In the guide as here, a failure that may pass is 503 with a `Retry-After`; others have the status of `http_status_of`."""
    guide: dict[str, Any] = {}
    exec((podero_async.guide.services.__doc__ or "").partition("```python\n")[2].partition("```")[0], guide)
    for response_to in (service.response_to, guide["response_to"]):
        assert response_to(error) == (status, {"Retry-After": retry_after} if retry_after else {})


async def test_a_failure_on_the_way_cuts_the_stream_off(running: Service) -> None:
    """If the second vehicle fails, the response is cut off after the first one, so that it cannot pass for a whole one."""
    first, second = running.vehicles
    running.simulator.before_page = lambda page: (
        running.simulator.remove_vehicle(second) if page.vehicle == second else None
    )
    lines = []
    async with running.http.get(running.sessions_path) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            async for line in response.content:
                lines.append(line)  # noqa: PERF401 - the lines before the error count
    assert len(lines) == len(running.simulator.truth(first))


@pytest.mark.parametrize("fault", ["current/hang", "sessions/hang"])
async def test_a_disconnect_cancels_the_call(running: Service, fault: str) -> None:
    """When the caller disconnects, the request to the API ends, and the service serves the next caller."""
    running.simulator.add_fault(fault)
    path = running.live_path if fault == "current/hang" else running.sessions_path
    request = asyncio.create_task(running.get(path))
    await running.until(1)
    request.cancel()
    await running.until(0)
    running.simulator.clear_faults()
    assert (await running.get(running.live_path)).status == 200


async def test_a_disconnect_ends_a_stream(running: Service) -> None:
    """When the caller disconnects while sessions are streamed, the request to the API ends."""
    hanging = Fault(kind="hang", endpoint="sessions", vehicle=running.vehicles[1])
    running.simulator.add_fault(hanging)
    async with running.http.get(running.sessions_path) as response:
        assert json.loads(await response.content.readline())
        await running.until(1)
        response.close()
        await running.until(0)


async def test_work_after_a_response_is_not_cancelled() -> None:
    """Work after a whole response, such as a background task, outlasts the connection."""
    is_sent, done = asyncio.Event(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        for _ in range(5):
            await asyncio.sleep(0)
        done.append(True)

    async def receive() -> Message:
        await is_sent.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            is_sent.set()

    await service.CancelOnDisconnect(app)({"type": "http"}, receive, send)
    assert done


async def test_health(running: Service) -> None:
    """The health is the client's statistics, after one request of its own."""
    await running.get(running.live_path)
    reply = await running.get("/health")
    assert (reply.status, reply.json["requests"], reply.json["is_breaker_open"]) == (200, 2, False)
    assert isinstance(reply.json["is_breaker_open"], bool)


@pytest.mark.slow
async def test_health_in_an_outage(running: Service) -> None:
    """While all requests to the API fail, the health is 503, and so are calls; after it, the health is 200 by itself."""
    running.simulator.add_fault("reset")
    calls = [asyncio.create_task(running.get(running.live_path)) for _ in range(30)]
    async with asyncio.timeout(60):
        while (await running.get("/health")).status == 200:
            await asyncio.sleep(0.05)
        for call in calls:
            assert_problem(running, await call, 503)
        assert (await running.get("/health")).json["is_breaker_open"] is True
        running.simulator.clear_faults()
        while (await running.get("/health")).status == 503:
            await asyncio.sleep(0.05)

"""Spans and metrics of OpenTelemetry, read from the SDK's exporters in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from yarl import URL

from podero_async import Completeness, RetryPolicy, ServerError, VehicleSessions
from podero_async.otel import DURATION_BUCKETS_S, OpenTelemetryObserver
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of
from tests._support.telemetry import Telemetry
from tests.test_observer import CALLS

SESSIONS = "/api/partners/v2.0/org/{org_id}/users/{user_id}/electric-vehicles/{electric_vehicle_id}/sessions"


@pytest.fixture
def telemetry() -> Telemetry:
    """Return an SDK in memory."""
    return Telemetry()


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent and span.parent.span_id


def id_of(span: ReadableSpan | trace.Span) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


async def test_a_call_is_a_span_with_a_child_for_each_attempt(simulator: PoderoSimulator, telemetry: Telemetry) -> None:
    """A call is an INTERNAL span with its counts and verdict; an attempt is a CLIENT span after the HTTP conventions."""
    async with client_of(simulator, observer=telemetry.observer) as client:
        whole = await CALLS["vehicle_sessions"](client, simulator.vehicles[0])
    assert isinstance(whole, VehicleSessions)
    call, attempt = telemetry.span("podero_async.vehicle_sessions"), telemetry.span(f"GET {SESSIONS}")
    assert (call.kind, call.parent, call.status.status_code) == (SpanKind.INTERNAL, None, StatusCode.UNSET)
    assert dict(call.attributes or {}) == {
        "podero_async.requests": 1,
        "podero_async.retries": 0,
        "podero_async.sessions": len(whole.sessions),
        "podero_async.completeness": "verified",
    }
    assert (attempt.kind, parent_of(attempt), attempt.status.status_code) == (
        SpanKind.CLIENT,
        id_of(call),
        StatusCode.UNSET,
    )
    path = SESSIONS.replace("{org_id}", "***").replace("{user_id}", "***").replace("{electric_vehicle_id}", "***")
    assert dict(attempt.attributes or {}) == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": URL(simulator.base_url).port,
        "url.full": f"{simulator.base_url}{path}?from=2026-01-01&to=2026-06-30&limit=200&offset=0",
        "url.template": SESSIONS,
        "http.response.status_code": 200,
    }


async def test_a_retry_has_its_number_and_an_error_its_type(simulator: PoderoSimulator, telemetry: Telemetry) -> None:
    """Only a request that was sent again has a resend count; `error.type` is the status, or the class of the error."""
    simulator.add_fault(Fault(kind="status", status=503, nth=1, endpoint="sessions"))
    simulator.add_fault(Fault(kind="reset", nth=2, endpoint="sessions"))
    async with client_of(simulator, observer=telemetry.observer) as client:
        await CALLS["vehicle_sessions"](client, simulator.vehicles[0])
    attempts = telemetry.spans(f"GET {SESSIONS}")
    names = ("http.request.resend_count", "http.response.status_code", "error.type")
    values = [tuple((attempt.attributes or {}).get(name) for name in names) for attempt in attempts]
    assert values == [(None, 503, "503"), (1, None, "podero_async.errors.TransportError"), (2, 200, None)]
    assert [attempt.status.status_code.name for attempt in attempts] == ["ERROR", "ERROR", "UNSET"]
    assert (telemetry.span("podero_async.vehicle_sessions").attributes or {})["podero_async.retries"] == 2
    assert telemetry.value("podero_async.retries", url_template=SESSIONS) == 2


async def test_a_failed_call_is_an_error_without_its_text(simulator: PoderoSimulator, telemetry: Telemetry) -> None:
    """The span of a failed or cancelled call has the class of its error, no text and no event."""
    simulator.add_fault(Fault(kind="status", status=500, endpoint="current"))
    simulator.add_fault(Fault(kind="hang", endpoint="vehicles"))
    async with client_of(simulator, observer=telemetry.observer, retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(ServerError):
            await CALLS["current_session"](client, simulator.vehicles[0])
        task = asyncio.ensure_future(CALLS["electric_vehicles"](client, simulator.vehicles[0]))
        while telemetry.value("podero_async.in_flight") != 1:
            await asyncio.sleep(0.001)
        assert telemetry.value("http.client.active_requests", http_request_method="GET") == 1
        task.cancel()
        await asyncio.wait([task])
    failed, cancelled = telemetry.spans("podero_async.current_session", "podero_async.electric_vehicles")
    for span, error in ((failed, "podero_async.errors.ServerError"), (cancelled, "asyncio.exceptions.CancelledError")):
        assert (span.attributes or {})["error.type"] == error
        assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())
    assert telemetry.value("podero_async.in_flight") == telemetry.value("http.client.active_requests") == 0
    assert repr(telemetry.observer) == "<OpenTelemetryObserver: 0 calls, 0 requests in flight>"


async def test_an_unproven_list_is_no_error(simulator: PoderoSimulator, telemetry: Telemetry) -> None:
    """The span of a list that was read and not proven has the verdict, and is not an error."""
    simulator.add_fault(Fault(kind="wrong_total", delta=5))
    async with client_of(simulator, observer=telemetry.observer) as client:
        await CALLS["vehicle_sessions"](client, simulator.vehicles[0])
    call = telemetry.span("podero_async.vehicle_sessions")
    assert (call.attributes or {})["podero_async.completeness"] == Completeness.UNPROVEN.value
    assert call.status.status_code is StatusCode.UNSET


async def test_the_callers_span_is_the_parent_also_in_a_fleet(simulator: PoderoSimulator, telemetry: Telemetry) -> None:
    """A fleet fetch is a child of the span around it, each vehicle a child of the fetch, and each request of its vehicle.

    The current span of the caller is not changed.
    """
    tracer = telemetry.tracer_provider.get_tracer("a service")
    async with client_of(simulator, observer=telemetry.observer) as client:
        with tracer.start_as_current_span("GET /report") as outer:
            async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
                async for _ in fleet:
                    assert trace.get_current_span() is outer
            async for _ in client.users():
                assert trace.get_current_span() is outer
    (whole,) = telemetry.spans("podero_async.fetch_fleet")
    assert parent_of(whole) == parent_of(telemetry.span("podero_async.users")) == id_of(outer)
    vehicles = telemetry.spans("podero_async.vehicle_sessions")
    assert (len(vehicles), {parent_of(vehicle) for vehicle in vehicles}) == (10, {id_of(whole)})
    pages = telemetry.spans(f"GET {SESSIONS}")
    assert {parent_of(page) for page in pages} == {id_of(vehicle) for vehicle in vehicles}
    counts = {name: (whole.attributes or {})[f"podero_async.{name}"] for name in ("vehicles", "failures", "sessions")}
    assert counts == {"vehicles": 10, "failures": 0, "sessions": fleet.summary.sessions}


async def test_a_token_request_is_a_trace_of_its_own_with_a_link(
    simulator: PoderoSimulator, telemetry: Telemetry
) -> None:
    """The request of a token is the root of a trace that links to the span of the caller that started it."""
    tracer = telemetry.tracer_provider.get_tracer("a service")
    async with client_of(simulator, observer=telemetry.observer) as client:
        with tracer.start_as_current_span("GET /report") as outer:
            await CALLS["current_session"](client, simulator.vehicles[0])
    request = telemetry.span("podero_async.token_request")
    assert request.parent is None
    assert [link.context.span_id for link in request.links] == [id_of(outer)]
    attempt = telemetry.span("POST /api/partners/v2.0/auth/token")
    assert parent_of(attempt) == id_of(request)
    assert telemetry.value("podero_async.token_renewals") == 1


@pytest.mark.leaping
async def test_metrics_have_the_names_of_the_conventions(simulator: PoderoSimulator, telemetry: Telemetry) -> None:
    """The duration of each request is in a histogram in seconds; pauses, the limit and open breakers are counted."""
    simulator.add_fault(Fault(kind="status", status=429, headers={"Retry-After": "7"}, nth=1, endpoint="current"))
    simulator.add_fault(Fault(kind="status", status=500, times=20, endpoint="sessions"))
    async with client_of(simulator, observer=telemetry.observer, retry=RetryPolicy(max_elapsed=300)) as client:
        await CALLS["current_session"](client, simulator.vehicles[0])
        calls = [CALLS["vehicle_sessions"](client, vehicle) for vehicle in simulator.vehicles]
        await asyncio.gather(*calls)
        statistics = client.statistics()
    points = telemetry.metrics()["http.client.request.duration"]
    server = {"server.address": "127.0.0.1", "server.port": URL(simulator.base_url).port}
    throttled = {"http.request.method": "GET", "http.response.status_code": 429, "error.type": "429"}
    template = {"url.template": f"{SESSIONS}/current"}
    assert [point.count for point in points if point.attributes == server | throttled | template] == [1]
    assert sum(point.count for point in points) == statistics.requests + statistics.token_requests
    assert {point.explicit_bounds for point in points} == {DURATION_BUCKETS_S}
    assert telemetry.value("podero_async.pauses") == statistics.pauses == 1
    assert telemetry.value("podero_async.limit") <= statistics.limit
    assert telemetry.value("podero_async.open_breakers", podero_async_endpoint="sessions") == 0
    assert telemetry.value("podero_async.retries") == statistics.retries


@pytest.fixture
def instrumented(telemetry: Telemetry) -> Iterator[None]:
    """Switch the instrumentation of aiohttp's client on."""
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    yield
    instrumentor.uninstrument()


@pytest.mark.usefixtures("instrumented")
async def test_aiohttps_instrumentation_makes_no_second_span(simulator: PoderoSimulator, telemetry: Telemetry) -> None:
    """With aiohttp instrumented, a request has the observer's span alone; without an observer it has that of aiohttp."""
    async with client_of(simulator, observer=telemetry.observer) as client:
        await CALLS["current_session"](client, simulator.vehicles[0])
        requests = len(simulator.requests)
    spans = telemetry.spans()
    assert len([span for span in spans if span.kind is SpanKind.CLIENT]) == requests == 2
    assert {scope.name for span in spans if (scope := span.instrumentation_scope)} == {"podero_async"}
    async with client_of(simulator) as client:
        await CALLS["current_session"](client, simulator.vehicles[0])
    assert len(telemetry.spans()) == len(spans) + 2


async def test_without_an_sdk_calls_are_made_as_usual(simulator: PoderoSimulator) -> None:
    """With the API alone, the observer makes no span, keeps nothing, and changes no call."""
    observer = OpenTelemetryObserver()
    async with client_of(simulator, observer=observer) as client:
        for call in CALLS.values():
            await call(client, simulator.vehicles[0])
    assert repr(observer) == "<OpenTelemetryObserver: 0 calls, 0 requests in flight>"


def test_a_missing_api_is_told() -> None:
    """If OpenTelemetry is not installed, the import names the extra."""
    code = "import sys; sys.modules['opentelemetry'] = None; import podero_async.otel"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: podero_async.otel needs the extra: pip install 'podero_async[otel]'" in ended.stderr

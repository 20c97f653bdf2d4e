"""Traces and metrics of OpenTelemetry, for the SDK that your program sets up: `pip install 'podero_async[otel]'`.

```python
from podero_async.otel import OpenTelemetryObserver

client = PoderoClient(org_id, credentials, observer=OpenTelemetryObserver())
```

**Spans.** Each call is a span of kind INTERNAL, such as `podero_async.vehicle_sessions`, with its counts and, for a list,
its completeness. Its parent is the span that is current where the call begins, such as that of a request to your service.
Each attempt is a span of kind CLIENT below it, with the attributes of the stable HTTP conventions. A fleet fetch is a
span with a child for each vehicle. A token serves all calls, and its renewal may outlast the call that started it, so
`podero_async.token_request` is the root of a trace of its own, with a link to the span that was current.

**Metrics.** `http.client.request.duration` and `http.client.active_requests` are those of the HTTP conventions. The others
begin with `podero_async.`: `in_flight`, `limit`, `retries`, `pauses`, `open_breakers` and `token_renewals`.

No span or metric contains an id, a token or a text of the server: in `url.full`, `***` stands for each id. `error.type` is
the status of an error response, or the class of the error. If aiohttp is instrumented as well, it makes no second span of
the client's requests. No trace context is sent to Podero.
"""

from __future__ import annotations

from contextvars import Token
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
except ImportError:
    raise ImportError("podero_async.otel needs the extra: pip install 'podero_async[otel]'") from None

from podero_async._version import __version__
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

__all__ = ["OpenTelemetryObserver"]

# https://opentelemetry.io/docs/specs/semconv/http/
SCHEMA_URL = "https://opentelemetry.io/schemas/1.26.0"
HTTP_REQUEST_METHOD = "http.request.method"
HTTP_REQUEST_RESEND_COUNT = "http.request.resend_count"
HTTP_RESPONSE_STATUS_CODE = "http.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
URL_FULL = "url.full"
URL_TEMPLATE = "url.template"
ERROR_TYPE = "error.type"
DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

# Our own attributes: of calls ...
REQUESTS = "podero_async.requests"
RETRIES = "podero_async.retries"
SESSIONS = "podero_async.sessions"
COMPLETENESS = "podero_async.completeness"
VEHICLES = "podero_async.vehicles"
FAILURES = "podero_async.failures"
# ... and of metrics.
ENDPOINT = "podero_async.endpoint"
IS_LONG = "podero_async.is_long"

_OPTIONAL_COUNTS = {"sessions": SESSIONS, "completeness": COMPLETENESS, "vehicles": VEHICLES, "failures": FAILURES}
_FIRST_ERROR = 400

# OpenTelemetry's instrumentations of HTTP clients look for this key; its value is true around requests that have a span. The
# function that sets it is in a package that depends on much else. The fallback is the key that they know for compatibility.
_SUPPRESS_HTTP = getattr(contexts, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_instrumentation")


class OpenTelemetryObserver(Observer):
    """Makes spans and metrics of a client's calls. Several clients may share one.

    Args:
        tracer_provider: The provider of the tracer; by default the global one, also if it is set later.
        meter_provider: The provider of the meter; likewise.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._calls: dict[ObservedCall, trace.Span] = {}
        self._attempts: dict[Attempt, tuple[trace.Span, Token[Context]]] = {}
        self._tracer = trace.get_tracer("podero_async", __version__, tracer_provider, SCHEMA_URL)
        meter = metrics.get_meter("podero_async", __version__, meter_provider, SCHEMA_URL)
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
        )
        self._active = meter.create_up_down_counter(
            "http.client.active_requests", "{request}", "Number of active HTTP requests."
        )
        self._in_flight = meter.create_up_down_counter(
            "podero_async.in_flight", "{request}", "Requests in flight that hold a slot of the limiter."
        )
        self._limit = meter.create_gauge(
            "podero_async.limit", "{request}", "How many requests may be in flight, as of the last request."
        )
        self._retries = meter.create_counter("podero_async.retries", "{request}", "Requests that were sent again.")
        self._pauses = meter.create_counter("podero_async.pauses", "{pause}", "Pauses that the server asked for.")
        self._open_breakers = meter.create_up_down_counter(
            "podero_async.open_breakers", "{breaker}", "Circuit breakers that let only probes through."
        )
        self._token_renewals = meter.create_counter(
            "podero_async.token_renewals", "{renewal}", "New tokens, and failures to get one."
        )

    def __repr__(self) -> str:
        return f"<OpenTelemetryObserver: {len(self._calls)} calls, {len(self._attempts)} requests in flight>"

    def call_began(self, call: ObservedCall) -> None:
        """Start the span of a call."""
        parent = None if call.parent is None else self._calls.get(call.parent)
        where = None if parent is None else trace.set_span_in_context(parent)
        links = None
        if call.is_shared:
            outer = trace.get_current_span().get_span_context()
            where, links = Context(), [trace.Link(outer)] if outer.is_valid else None
        self._calls[call] = self._tracer.start_span(f"podero_async.{call.name}", where, links=links)

    def call_ended(self, call: ObservedCall, end: CallEnd) -> None:
        """End the span of a call."""
        span = self._calls.pop(call)
        if span.is_recording():
            span.set_attribute(REQUESTS, end.requests)
            span.set_attribute(RETRIES, end.retries)
            for field, name in _OPTIONAL_COUNTS.items():
                if (value := getattr(end, field)) is not None:
                    span.set_attribute(name, str(value) if field == "completeness" else value)
            _set_error(span, _name(end.error))
        span.end()

    def attempt_began(self, attempt: Attempt) -> None:
        """Start the span of an attempt, and make it the current one."""
        server = _server(attempt.origin)
        self._count(attempt, 1, server)
        if attempt.limit is not None:
            self._limit.set(attempt.limit, server)
        if attempt.resend_count:
            self._retries.add(1, {URL_TEMPLATE: attempt.template, **server})
        parent = self._calls[attempt.call]
        if not parent.get_span_context().is_valid:
            return  # no SDK is set up
        where = trace.set_span_in_context(parent)
        attributes: dict[str, Any] = {
            HTTP_REQUEST_METHOD: attempt.method,
            **server,
            URL_FULL: attempt.origin + attempt.path,
            URL_TEMPLATE: attempt.template,
        }
        if attempt.resend_count:
            attributes[HTTP_REQUEST_RESEND_COUNT] = attempt.resend_count
        name = f"{attempt.method} {attempt.template}"
        span = self._tracer.start_span(name, where, trace.SpanKind.CLIENT, attributes)
        where = contexts.set_value(_SUPPRESS_HTTP, True, trace.set_span_in_context(span, where))
        self._attempts[attempt] = span, contexts.attach(where)

    def attempt_ended(self, attempt: Attempt, end: AttemptEnd) -> None:
        """End the span of an attempt, and record its duration."""
        has_error_status = end.status is not None and end.status >= _FIRST_ERROR
        error = str(end.status) if has_error_status else _name(end.error)
        attributes = _request(attempt.method, attempt.origin, attempt.template, end.status, error)
        self._duration.record(end.seconds, attributes)
        self._count(attempt, -1, _server(attempt.origin))
        if attempt not in self._attempts:
            return
        span, token = self._attempts.pop(attempt)
        if end.error is not GeneratorExit:  # else the task was destroyed, and this is not its context
            contexts.detach(token)
        if end.status is not None:
            span.set_attribute(HTTP_RESPONSE_STATUS_CODE, end.status)
        _set_error(span, error)
        span.end()

    def paused(self, pause: Pause) -> None:
        """Count the pauses."""
        self._pauses.add(1, {IS_LONG: pause.is_long})

    def breaker_changed(self, change: BreakerChange) -> None:
        """Count the open circuit breakers."""
        self._open_breakers.add(1 if change.is_open else -1, {ENDPOINT: change.endpoint})

    def token_renewed(self, renewal: TokenRenewal) -> None:
        """Count a new token or a failure."""
        error = _name(renewal.error)
        self._token_renewals.add(1, None if error is None else {ERROR_TYPE: error})

    def _count(self, attempt: Attempt, number: int, server: dict[str, str | int]) -> None:
        self._active.add(number, _request(attempt.method, attempt.origin))
        if attempt.limit is not None:
            self._in_flight.add(number, server)


def _set_error(span: trace.Span, error: str | None) -> None:
    if error is not None:
        span.set_attribute(ERROR_TYPE, error)
        span.set_status(trace.StatusCode.ERROR)


def _name(kind: type[BaseException] | None) -> str | None:
    if kind is None:
        return None
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# Each request has some of few attributes, so making them once saves 3 us a request.


@lru_cache(maxsize=256)
def _request(
    method: str, origin: str, template: str | None = None, status: int | None = None, error: str | None = None
) -> dict[str, str | int]:
    values = {URL_TEMPLATE: template, HTTP_RESPONSE_STATUS_CODE: status, ERROR_TYPE: error}
    present = {name: value for name, value in values.items() if value is not None}
    return {HTTP_REQUEST_METHOD: method, **_server(origin), **present}


@lru_cache(maxsize=16)
def _server(origin: str) -> dict[str, str | int]:
    url = urlsplit(origin)
    return {SERVER_ADDRESS: url.hostname or "", SERVER_PORT: url.port or (443 if url.scheme == "https" else 80)}

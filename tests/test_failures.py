"""The meaning of each error and each status."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podero_async import (
    ApiError,
    AuthenticationError,
    CompletenessError,
    ConfigurationError,
    DecodeError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)
from podero_async._failures import (
    FailureKind,
    classify,
    is_outage_sign,
    is_retryable,
    is_retryable_status,
    is_server_fault,
    is_throttling,
)

MAX_S = 120.0
"""The longest `Retry-After` that calls wait for."""

T, H, P, F = FailureKind.TRANSIENT, FailureKind.THROTTLED, FailureKind.PERMANENT, FailureKind.FATAL


def api(status: int, kind: type[ApiError] = ApiError, *, after: float | None = None, **details: Any) -> ApiError:
    error = kind(status, "x", "GET", "/x", None, after)
    for name, value in details.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("error", "kind", "retryable", "outage_sign"),
    [
        (TransportError("connection lost", "GET", "/x"), T, True, True),
        (RequestTimeoutError("no response in time", "GET", "/x"), T, True, True),
        (TransportError("TLS failed", "GET", "/x", retryable=False), P, False, True),
        *((api(status, ServerError), T, True, True) for status in (500, 502, 503, 504, 520, 530, 599)),
        *((api(status, ServerError), P, False, True) for status in (501, 505)),
        (api(503, ServerError, after=MAX_S), H, True, True),
        (api(503, ServerError, after=MAX_S + 1), F, True, True),
        (api(500, ServerError, after=MAX_S + 1), T, True, True),
        (api(429, RateLimitError), H, True, True),
        (api(429, RateLimitError, after=MAX_S), H, True, True),
        (api(429, RateLimitError, after=MAX_S + 1), F, True, True),
        (api(429, RateLimitError, after=1, attempts=0), F, True, True),
        *((api(status), T, True, False) for status in (408, 425)),
        *((api(status), P, False, False) for status in (302, 405, 409)),
        (api(400, InvalidRequestError), P, False, False),
        (api(401, AuthenticationError), F, False, False),
        (api(401, AuthenticationError, affects_all_calls=False), P, False, False),
        (api(403, PermissionDeniedError), P, False, False),
        (api(404, NotFoundError), P, False, False),
        (api(404, NotFoundError, after=MAX_S + 1), P, False, False),
        (api(422, InvalidRequestError), P, False, False),
        (DecodeError("not JSON", retryable=True), T, True, False),
        (DecodeError("not a page"), P, False, False),
        (DecodeError("not JSON", retryable=True, method="POST"), T, True, False),
        (DecodeError("not a token", method="POST"), F, False, False),
        (ConfigurationError("closed"), F, False, False),
        (CompletenessError("no progress", 1, 2), P, False, False),
        (PoderoError("any other"), P, False, False),
    ],
    ids=repr,
)
def test_every_error_has_one_meaning(error: Any, kind: FailureKind, retryable: bool, outage_sign: bool) -> None:
    """Each error says whether its call is retried, whether other calls can succeed, and whether it is a sign of an outage."""
    assert classify(error, retry_after_max=MAX_S) is kind
    assert is_retryable(error) is retryable
    assert is_outage_sign(error) is outage_sign


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ValueError(), TimeoutError(), OSError()], ids=repr)
def test_exceptions_of_others_are_not_retried(error: BaseException) -> None:
    """Cancellation and errors from outside the library are never retried."""
    assert not is_retryable(error)


@pytest.mark.parametrize(
    ("status", "throttling", "throttling_with_time", "server_fault"),
    [
        *((status, False, False, False) for status in (200, 302, 400, 401, 403, 404, 408, 422, 425)),
        (429, True, True, False),
        (503, False, True, True),
        *((status, False, False, True) for status in (500, 502, 504, 599)),
    ],
)
def test_every_status_has_one_meaning(
    status: int, throttling: bool, throttling_with_time: bool, server_fault: bool
) -> None:
    """429 asks for fewer requests, 503 only with a `Retry-After`; every 5xx is a fault of the server."""
    assert is_throttling(status, has_retry_after=False) is throttling
    assert is_throttling(status, has_retry_after=True) is throttling_with_time
    assert is_server_fault(status) is server_fault
    assert is_retryable_status(status) is (server_fault or status in {408, 425, 429})

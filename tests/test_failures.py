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
    http_status_of,
)
from podero_async._failures import (
    is_fatal,
    is_outage_sign,
    is_retryable,
    is_retryable_status,
    is_server_fault,
    is_throttling,
)


def api(status: int, kind: type[ApiError] = ApiError, *, after: float | None = None, **details: Any) -> ApiError:
    error = kind(status, "x", "GET", "/x", None, after)
    for name, value in details.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("error", "fatal", "retryable", "outage_sign"),
    [
        (TransportError("connection lost", "GET", "/x"), False, True, True),
        (RequestTimeoutError("no response in time", "GET", "/x"), False, True, True),
        (TransportError("TLS failed", "GET", "/x", retryable=False), False, False, True),
        *((api(status, ServerError), False, True, True) for status in (500, 502, 503, 504, 520, 530, 599)),
        *((api(status, ServerError), False, False, True) for status in (501, 505)),
        (api(503, ServerError, after=1), False, True, True),
        (api(503, ServerError, after=1, affects_all_calls=True), True, True, True),
        (api(429, RateLimitError), False, True, True),
        (api(429, RateLimitError, after=1, attempts=0), False, True, True),
        (api(429, RateLimitError, after=1, affects_all_calls=True), True, True, True),
        *((api(status), False, True, False) for status in (408, 425)),
        *((api(status), False, False, False) for status in (302, 405, 409)),
        (api(400, InvalidRequestError), False, False, False),
        (api(401, AuthenticationError), True, False, False),
        (api(401, AuthenticationError, affects_all_calls=False), False, False, False),
        (api(403, PermissionDeniedError), False, False, False),
        (api(404, NotFoundError), False, False, False),
        (api(422, InvalidRequestError), False, False, False),
        (DecodeError("not JSON", retryable=True), False, True, False),
        (DecodeError("not a page"), False, False, False),
        (DecodeError("not JSON", retryable=True, method="POST"), False, True, False),
        (DecodeError("not a token", method="POST"), True, False, False),
        (ConfigurationError("closed"), True, False, False),
        (CompletenessError("no progress", 1, 2), False, False, False),
        (PoderoError("any other"), False, False, False),
    ],
    ids=repr,
)
def test_every_error_has_one_meaning(error: Any, fatal: bool, retryable: bool, outage_sign: bool) -> None:
    """Each error says whether its call is retried, whether other calls can succeed,
    and whether it is a sign of an outage.
    """
    assert is_fatal(error) is fatal
    assert is_retryable(error) is retryable
    assert is_outage_sign(error) is outage_sign


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError("closed"), 500),
        (api(404, NotFoundError), 404),
        (api(400, InvalidRequestError), 422),
        (api(422, InvalidRequestError), 422),
        (api(401, AuthenticationError), 502),
        (api(403, PermissionDeniedError), 502),
        (api(429, RateLimitError), 503),
        (api(503, ServerError, after=1.0), 503),
        (api(503, RateLimitError, attempts=0), 503),
        (api(504, ServerError), 504),
        *((api(code, ServerError), 502) for code in (500, 501, 502, 520)),
        *((api(code), 502) for code in (302, 408, 409, 425)),
        (RequestTimeoutError("no response in time", "GET", "/x"), 504),
        (TimeoutError(), 504),
        (TransportError("connection lost", "GET", "/x"), 502),
        (DecodeError("not JSON"), 502),
        (CompletenessError("no progress", 1, 2), 502),
        (PoderoError("any other"), 500),
        (ValueError("user_id must be a uuid"), 422),
        (UnicodeDecodeError("ascii", b"x", 0, 1, "a bug"), 500),
        (KeyError("a bug"), 500),
        (asyncio.CancelledError(), 500),
    ],
    ids=repr,
)
def test_every_error_has_an_http_status(error: BaseException, status: int) -> None:
    """A service responds with 4xx if its caller can mend the call, and with 5xx otherwise."""
    assert http_status_of(error) == status


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

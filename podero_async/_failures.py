"""Decides whether an error is retryable, throttling, fatal for every call, or a sign of an outage, and its HTTP status."""

from __future__ import annotations

from typing import TypeVar, cast

from podero_async.errors import (
    ApiError,
    AuthenticationError,
    CompletenessError,
    ConfigurationError,
    DecodeError,
    InvalidRequestError,
    NotFoundError,
    PoderoError,
    RateLimitError,
    ServerError,
    TransportError,
)

__all__ = [
    "advice_on",
    "copy_of",
    "http_status_of",
    "is_fatal",
    "is_outage_sign",
    "is_retryable",
    "is_retryable_status",
    "is_server_fault",
    "is_throttling",
]

E = TypeVar("E", bound=BaseException)

_FIRST_ERROR, _NOT_FOUND, _NOT_ALLOWED, _UNPROCESSABLE, _TOO_MANY_REQUESTS = 400, 404, 405, 422, 429
_SERVER_ERROR, _SERVICE_UNAVAILABLE, _GATEWAY_TIMEOUT = 500, 503, 504
_RETRYABLE_CLIENT_ERRORS = frozenset({408, 425, _TOO_MANY_REQUESTS})
_FINAL_SERVER_ERRORS = frozenset({501, 505})  # the server does not support the method, or the HTTP version

_HTTP_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (ConfigurationError, 500),
    (NotFoundError, 404),
    (InvalidRequestError, 422),
    (RateLimitError, 503),
    (TimeoutError, 504),  # RequestTimeoutError, and the error of `asyncio.timeout`
    (ApiError, 502),
    (TransportError, 502),
    (DecodeError, 502),
    (CompletenessError, 502),
)
"""The HTTP status of each error; the first class that fits decides."""


def copy_of(error: E) -> E:
    """Return a copy of an error, without its traceback and causes.

    `copy.copy` does not do where tblib is installed into pickle, as Dask does: its copies share their attributes with the
    original, and keep its traceback.
    """
    make, arguments, *_ = cast("tuple[type[E], tuple[object, ...], object]", error.__reduce__())
    copied = make(*arguments)
    copied.__dict__.update(error.__dict__)
    return copied


def http_status_of(error: BaseException) -> int:
    """Return the HTTP status with which a service responds to its own caller if a call of the client fails.

    | error | status |
    |---|---|
    | a `ValueError` of the arguments, such as a mistyped id; `InvalidRequestError` | 422 |
    | `NotFoundError` | 404 |
    | `RateLimitError`, `ServerError` with status 503: try again later, after `retry_after` seconds if it is set | 503 |
    | `RequestTimeoutError`, another `TimeoutError`, `ServerError` with status 504 | 504 |
    | all other errors of the API or the network, refused credentials and missing permission included | 502 |
    | `ConfigurationError`, and every error that does not come from a call | 500 |

    401 and 403 would concern the caller's own credentials, so if Podero refuses those of the service, the status is
    another one. The text of an error names ids and paths, so respond with a text of your own, and log the error.
    """
    if isinstance(error, ServerError) and error.status in {_SERVICE_UNAVAILABLE, _GATEWAY_TIMEOUT}:
        return error.status
    if type(error) is ValueError:  # a subclass, such as a JSONDecodeError, is not about the arguments of a call
        return _UNPROCESSABLE
    return next((status for kind, status in _HTTP_STATUSES if isinstance(error, kind)), _SERVER_ERROR)


def advice_on(error: PoderoError) -> str | None:
    """Return what to check if a setting or an argument of the caller is wrong, so that no repetition helps; else None."""
    match error:
        case AuthenticationError(status=status) if status < _FIRST_ERROR or status in {_NOT_FOUND, _NOT_ALLOWED}:
            return "check PODERO_BASE_URL: it has no token endpoint"
        case NotFoundError() | InvalidRequestError():
            is_external = "/users/by-ext-id/" in error.path
            ids = "the external id" if is_external else "the ids of user and vehicle"
            return "check PODERO_ORG_ID" + (f", and {ids}" if "/users/" in error.path else "")
    return None


def is_fatal(error: PoderoError) -> bool:
    """Return whether every other call would fail the same way now."""
    match error:
        case ApiError(affects_all_calls=True) | ConfigurationError():
            return True
        case DecodeError(method="POST", retryable=False):  # the token endpoint, which all calls depend on
            return True
    return False


def is_retryable(error: BaseException) -> bool:
    """Return whether another attempt may succeed. Unknown exceptions and cancellation are never retried."""
    if isinstance(error, ApiError):
        return error.is_from_gateway or is_retryable_status(error.status)
    return isinstance(error, TransportError | DecodeError) and error.retryable


def is_retryable_status(status: int) -> bool:
    """Return whether a repeated request may get another status: 408, 425, 429, and 5xx except 501 and 505."""
    return status in _RETRYABLE_CLIENT_ERRORS or (is_server_fault(status) and status not in _FINAL_SERVER_ERRORS)


def is_outage_sign(error: Exception) -> bool:
    """Return whether an error is typical of an outage, and so says nothing about the vehicle that met it."""
    is_gateway_fault = isinstance(error, ApiError) and error.is_from_gateway
    return is_gateway_fault or isinstance(error, TransportError | ServerError | RateLimitError)


def is_throttling(status: int, *, has_retry_after: bool) -> bool:
    """Return whether a response asks for fewer requests: 429, or 503 with a `Retry-After` (perhaps for one vehicle only)."""
    return status == _TOO_MANY_REQUESTS or (status == _SERVICE_UNAVAILABLE and has_retry_after)


def is_server_fault(status: int) -> bool:
    """Return whether a status is the server's own failure (5xx)."""
    return status >= _SERVER_ERROR

"""All errors that this library raises, in one tree.

PoderoError
 +-- ConfigurationError        an argument of the client or an environment variable is wrong (also a ValueError)
 +-- TransportError            no usable response: connection, TLS, or a body that is cut short or too large
 |    +-- RequestTimeoutError  no response in time (also a TimeoutError)
 +-- ApiError                  the server responded with an error status
 |    +-- AuthenticationError    401, or the token endpoint refused the credentials
 |    +-- PermissionDeniedError  403
 |    +-- NotFoundError          404
 |    +-- InvalidRequestError    400, 422
 |    +-- RateLimitError         429
 |    +-- ServerError            5xx
 +-- DecodeError               a response, or one row of it, does not follow the API's contract
 +-- CompletenessError         a list was read, but its completeness could not be proven

Errors that another attempt may cure are raised after the last attempt that `RetryPolicy` allows. All errors can be
pickled and copied. No error holds a secret, a token, a request or response body, or a personal field.
"""

from __future__ import annotations

__all__ = [
    "ApiError",
    "AuthenticationError",
    "CompletenessError",
    "ConfigurationError",
    "DecodeError",
    "InvalidRequestError",
    "NotFoundError",
    "PermissionDeniedError",
    "PoderoError",
    "RateLimitError",
    "RequestTimeoutError",
    "ServerError",
    "TransportError",
]


class PoderoError(Exception):
    """The root of all errors of this library. Catch it to handle them all."""


class ConfigurationError(PoderoError, ValueError):
    """An argument of the client, a credential or an environment variable is missing or wrong, or the client is unusable.

    The message names the arguments and variables to correct. A client is unusable once it or its aiohttp session is
    closed, and in any event loop but its first.
    """


class _RequestError(PoderoError):
    """The data that all errors of one API call have.

    Subclasses pass all their data to `Exception.__init__` by position, so that they can be pickled.
    """

    method: str
    """The HTTP method."""
    path: str
    """The path and query of the URL. If a user is requested by an external id, the id is masked, and the query left out."""
    attempts: int = 1
    """Number of attempts that the call sent. A replay after a 401 is not counted.

    If the client refuses an attempt because an earlier `Retry-After` has not passed, the number is 0, even if the call
    sent attempts before.
    """
    request_id: str | None = None
    """The response's `X-Request-ID`, if one arrived. The vendor's support can find the request by it."""

    def _request(self) -> str:
        attempts = f", {self.attempts} attempts" if self.attempts > 1 else ""
        request_id = f" [request {self.request_id}]" if self.request_id else ""
        return f"({self.method} {self.path}{attempts}){request_id}"


class TransportError(_RequestError):
    """No usable response arrived: the connection failed, or the body was cut short, too large or unreadable.

    Check the network and the client's `base_url` (`podero-async doctor` does both), or try again later.
    """

    reason: str
    """The cause."""
    retryable: bool
    """True if a later attempt may succeed."""

    def __init__(self, reason: str, method: str, path: str, retryable: bool = True) -> None:
        super().__init__(reason, method, path, retryable)
        self.reason = reason
        self.method = method
        self.path = path
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.reason} {self._request()}"


class RequestTimeoutError(TransportError, TimeoutError):
    """No response arrived within `Timeouts` or `max_elapsed`. Try again later, or allow more time."""

    def __repr__(self) -> str:  # that of `TimeoutError` has two arguments at most
        return f"{type(self).__name__}({self.reason!r}, {self.method!r}, {self.path!r})"


class ApiError(_RequestError):
    """The server responded with a status that is not a success. Statuses without a class of their own raise this one."""

    status: int
    """The HTTP status."""
    detail: str
    """The server's message, shortened, with addresses and secrets masked."""
    retry_after: float | None
    """Seconds to wait before the next request, if they are known, for example from a `Retry-After`."""
    is_from_gateway: bool = False
    """True if a gateway responded in place of the API: not in JSON, although the endpoint has responded in JSON before.

    Such a response is a sign of an outage, so the call was repeated before the error was raised. It says nothing about the
    request: a 404 is an `ApiError` then, not a `NotFoundError`, and only a 429 keeps its class.
    """
    affects_all_calls: bool = False
    """True if every other call would fail the same way now: the credentials were refused, or the API asks for a longer
    pause than `RetryPolicy` allows. Such an error ends a fleet fetch; any other is the failure of its vehicle.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        method: str,
        path: str,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, detail, method, path, request_id, retry_after)
        self.status = status
        self.detail = detail
        self.method = method
        self.path = path
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.detail} {self._request()}"


class AuthenticationError(ApiError):
    """The server refused the token (401), or the token endpoint refused the credentials. Check the credentials.

    Refused credentials are not sent again for a minute: calls in
    that time fail with a copy of the error whose `attempts` is 0.
    If `detail` tells of an HTML page, a gateway or another server responded: check the origin, or call again later.
    """

    affects_all_calls: bool = True
    """False if the server accepts the token for other calls."""


class PermissionDeniedError(ApiError):
    """The credentials are valid but lack permission (403). Check the organization's id, or ask Podero for access."""


class NotFoundError(ApiError):
    """The organization, user or vehicle does not exist (404). Check the ids in `path`."""


class InvalidRequestError(ApiError):
    """The server rejected the parameters of the request (400, 422). `detail` names them if the server did."""


class RateLimitError(ApiError):
    """The server asked for fewer requests (429), or for a longer pause than `RetryPolicy` allows.

    If `retry_after` is set, call again after that many seconds. If `attempts` is 0, the client sent nothing,
    because a pause that the server asked for has not passed, or because no slot was free in time.
    """


class ServerError(ApiError):
    """The server failed (5xx). Try again later, after `retry_after` seconds if it is set."""


class DecodeError(_RequestError):
    """A response is not JSON, not the object that the API's contract describes, or has an unreadable row.

    To keep unreadable rows instead of raising, pass `keep_rejected` to `list_sessions`, or `on_rejected` to `sessions`.
    """

    reason: str
    """The problem, without the value that caused it."""
    json_path: str
    """The position of the problem (`$.items[3].plug_in_time`). Sessions are counted from offset 0, as in `index`."""
    index: int | None
    """The row's position in the list, if the problem is in one row."""
    retryable: bool
    """True if the response may have been damaged on its way, so that a later attempt may succeed."""

    def __init__(
        self,
        reason: str,
        json_path: str = "$",
        index: int | None = None,
        retryable: bool = False,
        method: str = "GET",
        path: str = "",
    ) -> None:
        super().__init__(reason, json_path, index, retryable, method, path)
        self.reason = reason
        self.json_path = json_path
        self.index = index
        self.retryable = retryable
        self.method = method
        self.path = path

    def __repr__(self) -> str:  # that of `Exception` has the arguments, and the request is known later
        return f"{type(self).__name__}({self.reason!r}, {self.json_path!r}, {self.method!r}, {self.path!r})"

    def __str__(self) -> str:
        request = f" {self._request()}" if self.path else ""
        return f"{self.reason} - at {self.json_path}{request}"


class CompletenessError(PoderoError):
    """A list was read as far as the server returned rows, but its completeness could not be proven.

    Streams of sessions, users and vehicles, and the fetch of a discovered fleet, raise it after the last row, so the rows
    before it can be used. Other calls raise it only if the list makes no progress, or a user's list of vehicles has
    changed while it was read. Read the list again later, or sessions by shorter windows of days.
    """

    reason: str
    """The reason for the missing proof."""
    delivered: int
    """Number of sessions delivered before the error, or of users for a list of users."""
    total: int | None
    """The server's last count of the list; None if the server does not count it."""
    path: str
    """The path of the list."""

    def __init__(self, reason: str, delivered: int, total: int | None, path: str = "") -> None:
        super().__init__(reason, delivered, total, path)
        self.reason = reason
        self.delivered = delivered
        self.total = total
        self.path = path

    def __str__(self) -> str:
        counted = "" if self.total is None else f", the server counts {self.total}"
        path = f" (GET {self.path})" if self.path else ""
        return f"{self.reason}: {self.delivered} rows delivered{counted}{path}"

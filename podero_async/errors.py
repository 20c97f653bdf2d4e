"""Every error that this library raises, in one tree.

They pickle, they copy, and none of them ever holds a secret, a token, a request or response body, or a personal field.

PoderoError
 +-- ConfigurationError        an argument of the client or an environment variable is wrong (also a ValueError)
 +-- TransportError            no usable answer came: connection, TLS, a body cut short or over the cap
 |    +-- RequestTimeoutError  no answer in time (also a TimeoutError)
 +-- ApiError                  the server answered with an error status
 |    +-- AuthenticationError    401, or the token endpoint refused the credentials
 |    +-- PermissionDeniedError  403
 |    +-- NotFoundError          404
 |    +-- InvalidRequestError    400, 422
 |    +-- RateLimitError         429
 |    +-- ServerError            5xx
 +-- DecodeError               an answer, or one row of it, is not what the contract says
 +-- CompletenessError         a list was read to its end, but could not be proven complete
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
    """The root of every error that this library raises on purpose."""


class ConfigurationError(PoderoError, ValueError):
    """An argument of the client, a credential or an environment variable is missing, wrong or contradictory."""


class _RequestError(PoderoError):
    """What all errors of one HTTP call share.

    The subclasses hand all their data to `Exception.__init__` positionally, which is what makes them pickle.
    """

    method: str
    path: str
    """The URL's path; what a caller chose freely (an external id) is masked in it."""
    attempts: int = 1
    """How many requests the call sent, the last one included; 0 if the client refused to send any."""

    def _where(self) -> str:
        tries = f", {self.attempts} attempts" if self.attempts > 1 else ""
        return f"({self.method} {self.path}{tries})"


class TransportError(_RequestError):
    """No usable answer arrived: the connection failed, or the body was cut short, over the cap or unreadable."""

    def __init__(self, reason: str, method: str, path: str, retryable: bool = True) -> None:
        super().__init__(reason, method, path, retryable)
        self.reason = reason
        self.method = method
        self.path = path
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.reason} {self._where()}"


class RequestTimeoutError(TransportError, TimeoutError):
    """No answer arrived within the bounds of `Timeouts`."""


class ApiError(_RequestError):
    """The server answered, with a status that is not a success."""

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

    status: int
    detail: str
    """The server's message, shortened, with addresses and secrets masked."""
    request_id: str | None
    """The `X-Request-ID` of the answer, to name to the vendor's support."""
    retry_after: float | None
    """Seconds that the server asked to wait, where it said so."""

    def __str__(self) -> str:
        request_id = f" [request {self.request_id}]" if self.request_id else ""
        return f"HTTP {self.status}: {self.detail} {self._where()}{request_id}"


class AuthenticationError(ApiError):
    """The credentials or the token were refused (401, or any final refusal of the token endpoint)."""


class PermissionDeniedError(ApiError):
    """The credentials are known, but may not see this (403)."""


class NotFoundError(ApiError):
    """There is no such organization, user or vehicle (404)."""


class InvalidRequestError(ApiError):
    """The server does not accept the request's parameters (400, 422)."""


class RateLimitError(ApiError):
    """Too many requests (429), still after the retries, or with a wait longer than the policy sleeps.

    `retry_after` says in how many seconds the server expects to answer again.
    """


class ServerError(ApiError):
    """The server failed (5xx), still after the retries."""


class DecodeError(_RequestError):
    """An answer is no JSON, not the object that the contract describes, or has a row that cannot be read.

    `json_path` says where (`$.items[3].plug_in_time`), `index` which row, where it is one row.
    """

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

    def __str__(self) -> str:
        where = f" {self._where()}" if self.path else ""
        return f"{self.reason} - at {self.json_path}{where}"


class CompletenessError(PoderoError):
    """A list was read to its end, but nothing proves that the rows are all of them.

    `delivered` rows were handed over; `total` is the server's own count, as last seen.
    """

    def __init__(self, reason: str, delivered: int, total: int) -> None:
        super().__init__(reason, delivered, total)
        self.reason = reason
        self.delivered = delivered
        self.total = total

    def __str__(self) -> str:
        return f"{self.reason}: {self.delivered} sessions delivered, the server counts {self.total}"

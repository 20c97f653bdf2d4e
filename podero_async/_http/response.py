"""The response to one request: its body read and decoded within bounds, its error status as our error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

import aiohttp
import attrs

from podero_async._decode import describe_error, is_json_object, no_explanation, oauth_error_code
from podero_async._failures import is_server_fault
from podero_async._http.gzip import CorruptBodyError, OversizedBodyError, inflate
from podero_async._http.retry_after import retry_after
from podero_async._http.timeouts import AttemptTimeout
from podero_async.errors import (
    ApiError,
    AuthenticationError,
    DecodeError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TransportError,
)

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_USERS_BYTES",
    "LargeBodies",
    "Response",
    "api_error",
    "body_error",
    "read_request_id",
    "read_response",
]

T = TypeVar("T")

MAX_BODY_BYTES = 8 << 20
"""The largest body, inflated: a page of 200 sessions has 136 kB."""
MAX_USERS_BYTES = 64 << 20
"""The same for a list of users, which is one response: 100,000 users fit."""

_NOT_MODIFIED = 304
_MAX_ERROR_BYTES = 64 << 10
_MIN_LARGE_BYTES = 1 << 20
_MAX_LARGE_BODIES = 4
_MIN_PROGRESS_BYTES = 64 << 10  # in five seconds; at this speed, a large body would not arrive within the total timeout
_OK = 200
_PLAIN, _GZIP = frozenset({"", "identity"}), frozenset({"gzip", "x-gzip"})
_REQUEST_ID = re.compile(r"[\w.:-]{1,100}")
_ERRORS: Mapping[int, type[ApiError]] = MappingProxyType(
    {
        400: InvalidRequestError,
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        422: InvalidRequestError,
        429: RateLimitError,
    }
)


class _UnexpectedEncodingError(CorruptBodyError):
    """The body has a content encoding other than gzip."""


class LargeBodies:
    """Bounds the large bodies that a client holds in memory at once, from their reading until they are decoded.

    Args:
        min_bytes: The size from which a body is large.
        at_once: How many large bodies may be held.
    """

    def __init__(self, *, min_bytes: int = _MIN_LARGE_BYTES, at_once: int = _MAX_LARGE_BODIES) -> None:
        self.min_bytes = min_bytes
        self._free = asyncio.Semaphore(at_once)
        self.waiting = 0
        """Bodies that wait for others."""

    async def enter(self) -> Callable[[], None]:
        """Wait until another large body may be read, and return a function that ends the reservation."""
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        return self._free.release


def _release_nothing() -> None:
    """Do nothing: the body is not large."""


@attrs.define(eq=False)
class Response:
    """Status, headers and raw body. The body is inflated when it is decoded, not when it arrives.

    As a context, it adds method, path and request id to the errors of its body, and releases the body at the end.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    _chunks: list[bytes] = attrs.field(repr=False)
    _encoding: str
    method: str = "GET"
    path: str = ""
    _max_bytes: int = MAX_BODY_BYTES
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    """The secrets of the request, which the response may repeat, and an error must not."""
    release: Callable[[], None] = attrs.field(default=_release_nothing, repr=False)
    """Ends the reservation of a large body."""
    error: ApiError | None = attrs.field(default=None, repr=False)
    """The error of the call, unless the status is 200."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
        if error is None:
            return
        if isinstance(error, DecodeError):
            error.method, error.path, error.request_id = self.method, self.path, self.request_id
        elif isinstance(error, CorruptBodyError | OversizedBodyError):
            fault = body_error(error, self.method, self.path)
            fault.request_id = self.request_id
            raise fault from None

    @property
    def request_id(self) -> str | None:
        """The `X-Request-ID`, if it holds no secret."""
        return read_request_id(self.headers, self.secrets)

    @property
    def is_plain(self) -> bool:
        """Whether the body has no content encoding."""
        return self._encoding in _PLAIN

    @property
    def declared_bytes(self) -> int:
        """The size of the inflated body. For gzip it is read from the last four bytes, which the server may get wrong."""
        if self._encoding in _GZIP and self._chunks:
            trailer = b"".join(chunk[-4:] for chunk in self._chunks[-4:])[-4:]
            return int.from_bytes(trailer, "little")
        return len(self._chunks[0]) if len(self._chunks) == 1 else sum(map(len, self._chunks))

    def body(self, max_bytes: int | None = None) -> bytes:
        """Return the inflated body.

        Raises:
            CorruptBodyError: The body is truncated, or has a content encoding other than gzip.
            OversizedBodyError: The body is larger than `max_bytes`, which defaults to the maximum of the request.
        """
        max_bytes = self._max_bytes if max_bytes is None else max_bytes
        raw = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        if self._encoding in _GZIP:
            return inflate(raw, max_bytes)
        if self._encoding not in _PLAIN:
            raise _UnexpectedEncodingError
        if len(raw) > max_bytes:
            raise OversizedBodyError(max_bytes)
        return raw

    def error_body(self) -> bytes:
        """Return the body of an error response, or nothing if it is not readable, since the status counts."""
        try:
            return self.body(_MAX_ERROR_BYTES)
        except (CorruptBodyError, OversizedBodyError):
            return b""


async def read_response(
    response: aiohttp.ClientResponse,
    method: str,
    path: str,
    attempt: AttemptTimeout,
    large_bodies: LargeBodies,
    max_bytes: int = MAX_BODY_BYTES,
    secrets: tuple[str, ...] = (),
) -> Response:
    """Read a whole response, and note each chunk as progress of the attempt.

    A large body waits until few others are held, and is held until `Response.release` is called.

    Raises:
        OversizedBodyError: The body of a response with status 200 is larger than `max_bytes`.
    """
    encoding = response.headers.get("Content-Encoding", "").lower()
    is_ok = response.status == _OK
    limit = max_bytes if is_ok else _MAX_ERROR_BYTES
    chunks: list[bytes] = []
    release = _release_nothing
    try:
        if not await _read(response, chunks, attempt, limit, large_bodies.min_bytes):
            attempt.hold()
            with ExitStack() as held:
                held.callback(await large_bodies.enter())
                await _read(response, chunks, attempt, limit, limit + 1, large_bodies)
                release = held.pop_all().close
    except (aiohttp.ClientPayloadError, OversizedBodyError):
        if is_ok:
            raise
        chunks, encoding = [], ""
    return Response(response.status, response.headers, chunks, encoding, method, path, max_bytes, secrets, release)


async def _read(
    response: aiohttp.ClientResponse,
    chunks: list[bytes],
    attempt: AttemptTimeout,
    max_bytes: int,
    enough_bytes: int,
    large_bodies: LargeBodies | None = None,
) -> bool:
    """Append to `chunks` until they hold enough, and return whether the body has ended before.

    While others wait for one of the `large_bodies`, it must make progress.
    """
    content = response.content
    if not content.is_eof() and (response.content_length or 0) > max_bytes:
        raise OversizedBodyError(max_bytes)
    size = due = sum(map(len, chunks))
    while not content.at_eof():
        if size >= enough_bytes:
            return False
        if content.is_eof():  # the rest has arrived
            chunk = content.read_nowait()
        else:
            if large_bodies is None or not large_bodies.waiting or size >= due:
                attempt.progress()
                due = size + _MIN_PROGRESS_BYTES
            else:
                attempt.hurry()
            chunk = await content.readany()
        if not chunk:  # the end arrived after the last chunk
            break
        size += len(chunk)
        if size > max_bytes:
            raise OversizedBodyError(max_bytes)
        chunks.append(chunk)
    return True


def body_error(error: CorruptBodyError | OversizedBodyError, method: str, path: str) -> TransportError:
    """Return the error of a call if the body of its response is not readable."""
    if isinstance(error, OversizedBodyError):
        reason = f"the response body is larger than {error.max_bytes:,} bytes"
        return TransportError(reason, method, path, retryable=False)
    if isinstance(error, _UnexpectedEncodingError):
        reason = "the response has a content encoding other than gzip"
        return TransportError(reason, method, path, retryable=False)
    return TransportError("the response body was cut short, or is not gzip although its header says so", method, path)


def api_error(response: Response, *, has_worked: bool = False) -> ApiError:
    """Return the error of a response if its status is not a success. It contains no secret of the request.

    Args:
        response: The response.
        has_worked: Whether the endpoint has responded as the API does before. If so, an error that is not in JSON comes
            from a gateway, such as a maintenance page, a redirect to one, or the "404 page not found" of a router.
    """
    status, method, path = response.status, response.method, response.path
    kind = _ERRORS.get(status, ServerError if is_server_fault(status) else ApiError)
    body = response.error_body()
    # The only POST is a token request, and its response may repeat the credentials in any form.
    detail = (
        (oauth_error_code(body) or no_explanation(body)) if method == "POST" else describe_error(body, response.secrets)
    )
    if status == _NOT_MODIFIED:
        detail = "not modified, although nothing was asked for again: a cache on the way has responded"
    elif 300 <= status < 400:  # noqa: PLR2004
        detail = "unexpected redirect: redirects are never followed"
    is_from_gateway = has_worked and not is_server_fault(status) and not is_json_object(body)
    if is_from_gateway and kind is not RateLimitError:
        kind = ApiError  # the API has not seen the request
    error = kind(status, detail, method, path, response.request_id, retry_after(response.headers))
    error.is_from_gateway = is_from_gateway
    return error


def read_request_id(headers: Mapping[str, str], secrets: tuple[str, ...]) -> str | None:
    """Return the `X-Request-ID`, if it is a plain one that holds no secret."""
    request_id = headers.get("X-Request-ID", "")
    is_safe = _REQUEST_ID.fullmatch(request_id) and not any(secret in request_id for secret in secrets)
    return request_id if is_safe else None

"""The response to one request: its body read and decoded within bounds, its error status as our error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TypeVar

import aiohttp
import attrs

from podero_async._decode import describe_error, no_explanation, oauth_error_code
from podero_async._failures import is_server_fault
from podero_async._http.gzip import CorruptBodyError, OversizedBodyError, inflate
from podero_async._http.retry_after import retry_after
from podero_async.errors import (
    ApiError,
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TransportError,
)

__all__ = ["MAX_BODY_BYTES", "BodyDecoder", "Response", "api_error", "body_error", "read_response"]

T = TypeVar("T")

MAX_BODY_BYTES = 64 << 20
"""The largest body, inflated: 100,000 users fit."""

_MAX_ERROR_BYTES = 64 << 10
_MAX_INLINE_BYTES = 16 << 10  # decoded in less time than a turn of the event loop takes
_MAX_LOOP_BYTES = 256 << 10  # decoded in 15 ms even if each row is faulty; a page of 200 sessions has 136 kB
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


@attrs.frozen(eq=False)
class Response:
    """Status, headers and raw body. The body is inflated when it is decoded, not when it arrives."""

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    _chunks: list[bytes] = attrs.field(repr=False)
    _encoding: str
    _max_bytes: int = MAX_BODY_BYTES

    @property
    def declared_bytes(self) -> int:
        """The size of the inflated body. For gzip it is read from the last four bytes, which the server may get wrong."""
        if self._encoding in _GZIP and self._chunks:
            trailer = b"".join(chunk[-4:] for chunk in self._chunks[-4:])[-4:]
            return int.from_bytes(trailer, "little")
        return sum(map(len, self._chunks))

    def body(self, max_bytes: int | None = None) -> bytes:
        """Return the inflated body.

        Raises:
            CorruptBodyError: The body is truncated, or has a content encoding other than gzip.
            OversizedBodyError: The body is larger than `max_bytes`, which defaults to the session's maximum.
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
    response: aiohttp.ClientResponse, on_progress: Callable[[], None], max_bytes: int = MAX_BODY_BYTES
) -> Response:
    """Read a whole response. `on_progress` is called before each chunk is awaited.

    Raises:
        OversizedBodyError: The body of a response with status 200 is larger than `max_bytes`.
    """
    encoding = response.headers.get("Content-Encoding", "").lower()
    if response.status == _OK:
        return Response(_OK, response.headers, await _read(response, max_bytes, on_progress), encoding, max_bytes)
    try:
        chunks = await _read(response, _MAX_ERROR_BYTES, on_progress)
    except (aiohttp.ClientPayloadError, OversizedBodyError):
        chunks, encoding = [], ""
    return Response(response.status, response.headers, chunks, encoding, max_bytes)


async def _read(response: aiohttp.ClientResponse, max_bytes: int, on_progress: Callable[[], None]) -> list[bytes]:
    if (response.content_length or 0) > max_bytes:
        raise OversizedBodyError(max_bytes)
    chunks = []
    size = 0
    content = response.content
    while not content.at_eof():
        on_progress()
        chunk = await content.readany()
        if not chunk:  # the end arrived after the last chunk
            break
        size += len(chunk)
        if size > max_bytes:
            raise OversizedBodyError(max_bytes)
        chunks.append(chunk)
    return chunks


class BodyDecoder:
    """Decode bodies without blocking the event loop for long.

    Args:
        max_inline_bytes: The largest body that is decoded without a pause for other tasks.
        max_loop_bytes: The largest body that is decoded on the event loop.
    """

    def __init__(self, *, max_inline_bytes: int = _MAX_INLINE_BYTES, max_loop_bytes: int = _MAX_LOOP_BYTES) -> None:
        self._max_inline_bytes = max_inline_bytes
        self._max_loop_bytes = max_loop_bytes
        self._lock = asyncio.Lock()

    async def decode(self, response: Response, decode: Callable[[bytes], T]) -> T:
        """Inflate a body, and return the value that `decode` makes of it.

        Raises:
            CorruptBodyError, OversizedBodyError: See `Response.body`.
        """
        size = response.declared_bytes
        with suppress(OversizedBodyError):  # the body is larger than its gzip trailer declares
            # 1. A small body is decoded at once.
            if size <= self._max_inline_bytes:
                return decode(response.body(self._max_loop_bytes))
            # 2. A page is decoded on the event loop, one at a time, and other tasks run in between: they send their next
            #    requests, so the server is not idle, and use the last value while it is in the CPU cache.
            if size <= self._max_loop_bytes:
                async with self._lock:
                    await asyncio.sleep(0)
                    return decode(response.body(self._max_loop_bytes))
        # 3. A larger body is decoded in a thread.
        return await asyncio.to_thread(lambda: decode(response.body()))


def body_error(error: CorruptBodyError | OversizedBodyError, method: str, path: str) -> TransportError:
    """Return the error of a call if the body of its response is not readable."""
    if isinstance(error, OversizedBodyError):
        reason = f"the response body is larger than {error.max_bytes:,} bytes"
        return TransportError(reason, method, path, retryable=False)
    if isinstance(error, _UnexpectedEncodingError):
        reason = "the response has a content encoding other than gzip"
        return TransportError(reason, method, path, retryable=False)
    return TransportError("the response body was cut short", method, path)


def api_error(response: Response, method: str, path: str, secrets: tuple[str, ...]) -> ApiError:
    """Return the error of a response if its status is not a success. It contains none of `secrets`."""
    status = response.status
    kind = _ERRORS.get(status, ServerError if is_server_fault(status) else ApiError)
    body = response.error_body()
    # The only POST is a token request, and its response may repeat the credentials in any form.
    detail = (oauth_error_code(body) or no_explanation(body)) if method == "POST" else describe_error(body, secrets)
    if 300 <= status < 400:  # noqa: PLR2004
        detail = "unexpected redirect: redirects are never followed"
    request_id = response.headers.get("X-Request-ID", "")
    is_safe = _REQUEST_ID.fullmatch(request_id) and not any(secret in request_id for secret in secrets)
    return kind(status, detail, method, path, request_id if is_safe else None, retry_after(response.headers))

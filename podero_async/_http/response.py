"""What an answer says: its body to bytes, its status to an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from types import MappingProxyType

import aiohttp
import attrs

from podero_async._decode import NO_EXPLANATION, describe_error, oauth_error_code
from podero_async._failures import is_server_fault
from podero_async._http.gzip import CorruptBodyError, OversizedBodyError, inflate
from podero_async._http.timeouts import Deadline
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

__all__ = ["Response", "api_error", "body_error", "read_response", "retry_after"]

_OK = 200
_MAX_BYTES = 64 << 20  # of any answer, inflated: 100,000 users fit
_MAX_ERROR_BYTES = 64 << 10
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


class _UnaskedEncodingError(CorruptBodyError):
    """The body is in an encoding that was not asked for."""


@attrs.frozen(eq=False)
class Response:
    """Status, headers, and the body as it came: inflated only when it is its turn to be decoded."""

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    _pieces: list[bytes] = attrs.field(repr=False)
    _encoding: str

    @property
    def expected_size(self) -> int:
        """How many bytes the body will have, inflated, by its own word."""
        if self._encoding in _GZIP and self._pieces:
            end = b"".join(piece[-4:] for piece in self._pieces[-4:])[-4:]
            return int.from_bytes(end, "little")  # how a gzip member ends
        return sum(map(len, self._pieces))

    def body(self, most: int | None = None) -> bytes:
        """Return the body, inflated.

        Raises:
            CorruptBodyError, OversizedBodyError: It is cut short, in no encoding that was asked for, or larger than `most` bytes, by default the cap.
        """
        most = _MAX_BYTES if most is None else most
        raw = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        if self._encoding in _GZIP:
            return inflate(raw, most)
        if self._encoding not in _PLAIN:
            raise _UnaskedEncodingError
        if len(raw) > most:
            raise OversizedBodyError
        return raw

    def error_body(self) -> bytes:
        """Return an error's body, as far as it can be read: whatever is wrong with it, the status counts."""
        try:
            return self.body(_MAX_ERROR_BYTES)
        except (CorruptBodyError, OversizedBodyError):
            return b""


async def read_response(response: aiohttp.ClientResponse, deadline: Deadline) -> Response:
    """Read an answer whole; each piece is progress.

    Raises:
        OversizedBodyError: The body of a good answer is over the cap.
    """
    encoding = response.headers.get("Content-Encoding", "").lower()
    if response.status == _OK:
        return Response(_OK, response.headers, await _read(response, _MAX_BYTES, deadline), encoding)
    try:
        pieces = await _read(response, _MAX_ERROR_BYTES, deadline)
    except (aiohttp.ClientPayloadError, OversizedBodyError):
        pieces, encoding = [], ""
    return Response(response.status, response.headers, pieces, encoding)


async def _read(response: aiohttp.ClientResponse, most: int, deadline: Deadline) -> list[bytes]:
    """Read the body as it came, to at most `most` bytes."""
    if (response.content_length or 0) > most:
        raise OversizedBodyError
    pieces = []
    size = 0
    content = response.content
    while not content.at_eof():
        deadline.progress()
        piece = await content.readany()
        if not piece:  # the end came on its own, after the last piece
            break
        size += len(piece)
        if size > most:
            raise OversizedBodyError
        pieces.append(piece)
    return pieces


def body_error(error: CorruptBodyError | OversizedBodyError, method: str, path: str) -> TransportError:
    if isinstance(error, OversizedBodyError):
        return TransportError("the answer is larger than the cap", method, path, retryable=False)
    if isinstance(error, _UnaskedEncodingError):
        return TransportError("the body is in an encoding that was not asked for", method, path, retryable=False)
    return TransportError("the body was cut short", method, path)


def api_error(answer: Response, method: str, path: str, secrets: tuple[str, ...]) -> ApiError:
    status = answer.status
    kind = _ERRORS.get(status, ServerError if is_server_fault(status) else ApiError)
    body = answer.error_body()
    # The only POST is a token request, and its response may repeat the credentials in any form.
    words = (oauth_error_code(body) or NO_EXPLANATION) if method == "POST" else describe_error(body, secrets)
    if 300 <= status < 400:  # noqa: PLR2004
        words = "a redirect, which is never followed"
    request_id = answer.headers.get("X-Request-ID", "")
    is_plain = _REQUEST_ID.fullmatch(request_id) and not any(secret in request_id for secret in secrets)
    return kind(status, words, method, path, request_id if is_plain else None, retry_after(answer.headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After`, in seconds or as an HTTP date; None where it is missing or neither."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, OverflowError):
        return None

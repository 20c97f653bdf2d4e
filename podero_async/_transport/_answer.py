"""What an answer says: its body to bytes, its status to an error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from types import MappingProxyType

import aiohttp
import attrs

from podero_async._decode import explain_error
from podero_async._inflate import CorruptBodyError, OversizedBodyError, inflate
from podero_async.errors import (
    ApiError,
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)

__all__ = ["SERVER_FAULTS", "Answer", "api_error", "read_answer", "retry_after"]

SERVER_FAULTS = 500
_OK = 200
_MOST_BYTES = 64 << 20  # of any answer, inflated: 100,000 users fit
_MOST_ERROR_BYTES = 64 << 10
_INFLATED_ON_LOOP = 1 << 20  # bytes, in two thirds of a millisecond; a page of 200 sessions has 136 kB
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


@attrs.frozen
class Answer:
    """Status, headers, and the body, inflated."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def read_answer(response: aiohttp.ClientResponse) -> Answer:
    """Read an answer whole.

    Raises:
        CorruptBodyError, OversizedBodyError: The body of a good answer is cut short, or over the cap.
    """
    if response.status == _OK:
        body = await _read(response, _MOST_BYTES)
    else:
        body = await _read_error(response)
    return Answer(response.status, response.headers, body)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read the body, inflated, to at most `most` bytes."""
    if (response.content_length or 0) > most:
        raise OversizedBodyError
    pieces = []
    size = 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > most:
            raise OversizedBodyError
        pieces.append(piece)
    raw = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    return await _inflated(raw, encoding, most) if encoding not in {"", "identity"} else raw


async def _read_error(response: aiohttp.ClientResponse) -> bytes:
    """Read an error's body as far as it can be: whatever is wrong with it, the status counts."""
    try:
        return await _read(response, _MOST_ERROR_BYTES)
    except (aiohttp.ClientPayloadError, CorruptBodyError, OversizedBodyError):
        return b""


async def _inflated(raw: bytes, encoding: str, most: int) -> bytes:
    if encoding not in {"gzip", "x-gzip"}:
        raise CorruptBodyError  # an encoding that was not asked for
    try:
        return inflate(raw, min(most, _INFLATED_ON_LOOP))
    except OversizedBodyError:
        if most <= _INFLATED_ON_LOOP:
            raise
    return await asyncio.to_thread(inflate, raw, most)


def api_error(answer: Answer, method: str, path: str, secrets: tuple[str, ...]) -> ApiError:
    status = answer.status
    kind = _ERRORS.get(status, ServerError if status >= SERVER_FAULTS else ApiError)
    _, words = explain_error(answer.body, secrets)
    if 300 <= status < 400:  # noqa: PLR2004
        words = "a redirect, which is never followed"
    request_id = answer.headers.get("X-Request-ID", "")
    is_plain = _REQUEST_ID.fullmatch(request_id) is not None
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

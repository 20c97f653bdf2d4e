"""Inflate a whole gzip body, up to a maximum size."""

from __future__ import annotations

import zlib
from typing import Any

_zlib: Any
try:
    from zlib_ng import zlib_ng as _zlib  # faster than zlib; installed by the extra `speed`
except ImportError:
    _zlib = zlib

__all__ = ["CorruptBodyError", "OversizedBodyError", "inflate"]

_GZIP = 31  # zlib's code for a gzip header and the largest window
_PADDING = b"\0\r\n"
_MAX_MEMBERS = 64  # each member costs a copy of the rest of the body


class CorruptBodyError(Exception):
    """The body is truncated, or is not gzip."""


class OversizedBodyError(Exception):
    """The body is larger than `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.max_bytes = max_bytes


def inflate(body: bytes, max_bytes: int) -> bytes:
    """Inflate all members of a gzip body. Zeros and line ends after the last member are ignored, as servers may append them.

    Raises:
        CorruptBodyError: The body is truncated, is not gzip, or has more than 64 members.
        OversizedBodyError: The inflated body is larger than `max_bytes`. No more than that is allocated.
    """
    inflated: bytes = b""
    for _ in range(_MAX_MEMBERS):
        member = _zlib.decompressobj(_GZIP)
        try:
            # One byte more than allowed distinguishes a body of exactly `max_bytes` from a larger one.
            inflated += member.decompress(body, max_bytes + 1 - len(inflated))
        except _zlib.error:
            raise CorruptBodyError from None
        if len(inflated) > max_bytes:
            raise OversizedBodyError(max_bytes)
        if not member.eof:
            raise CorruptBodyError
        body = member.unused_data
        if not body.strip(_PADDING):
            return inflated
    raise CorruptBodyError

"""Inflate a whole gzip body at once, with the quickest zlib that is installed, and never past a cap.

Knows bytes only.
"""

from __future__ import annotations

import zlib
from typing import Any

__all__ = ["CorruptBodyError", "OversizedBodyError", "inflate"]

_GZIP = 31  # a gzip header, and the largest window
_MAX_MEMBERS = 64  # of one body: each costs a copy of what follows it


def _quickest() -> Any:
    try:
        from zlib_ng import zlib_ng  # noqa: PLC0415  # an extra
    except ImportError:
        return zlib
    return zlib_ng


_zlib = _quickest()


class CorruptBodyError(Exception):
    """The body is no gzip, or ends too early."""


class OversizedBodyError(Exception):
    """The body would inflate past the cap."""


def inflate(body: bytes, most: int) -> bytes:
    """Inflate gzip, all members of it, to at most `most` bytes.

    Raises:
        CorruptBodyError: The body is no gzip, was cut short, or has more members than anybody needs.
        OversizedBodyError: More than `most` bytes would come out; not more than that was allocated.
    """
    inflated: bytes = b""
    for _ in range(_MAX_MEMBERS):
        member = _zlib.decompressobj(_GZIP)
        try:
            # One byte past what may come, so that a body that fills the cap to the byte is told from one over it.
            inflated += member.decompress(body, most + 1 - len(inflated))
        except _zlib.error:
            raise CorruptBodyError from None
        if len(inflated) > most:
            raise OversizedBodyError
        if not member.eof:
            raise CorruptBodyError
        body = member.unused_data
        if not body:
            return inflated
    raise CorruptBodyError

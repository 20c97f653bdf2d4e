"""Plain JSON to plain values and back, and what may be expected of them.

The only errors that leave are `DecodeError`s, whose words hold no value of the body.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from podero_async.errors import DecodeError

__all__ = ["JSON_NAMES", "REFUSED", "decode_json", "encode_json", "expect", "field", "json_name", "total_of"]

T = TypeVar("T")
REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""How msgspec refuses a body; bytes that are no UTF-8 it leaves to Python's own error."""

_MAX_PLAIN_BYTES = 8 << 20
"""As plain values, JSON takes up to 25 times its room, and the interpreter is held until all are made."""


def decode_json(body: bytes) -> Any:
    """Decode any JSON, and the NaN and Infinity that Python's servers take for JSON: a row's fault, not the page's.

    A body that is none may be the fault of the way here, so its error is `retryable`; one that is too large to look at
    counts as none.
    """
    if len(body) > _MAX_PLAIN_BYTES:
        raise DecodeError("the body is not what was asked for, and too large to say why", retryable=True)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        # The parser names a place and a character at most, never the text.
        raise DecodeError(f"the body is no JSON: {error}", retryable=True) from None


def encode_json(value: Any) -> bytes:
    """Encode plain values as JSON."""
    return msgspec.json.encode(value)


def expect(value: Any, kind: type[T], path: str) -> T:
    """Return the value, if it is of that kind.

    Raises:
        DecodeError: It is not; the error names both kinds and the path.
    """
    if isinstance(value, kind):
        return value
    raise DecodeError(f"expected {JSON_NAMES[kind]}, got {json_name(value)}", path)


def field(answer: Mapping[str, Any], name: str) -> Any:
    """Return a field that must be there."""
    if name not in answer:
        raise DecodeError("a required field is missing", f"$.{name}")
    return answer[name]


def total_of(answer: Mapping[str, Any]) -> int:
    """Return the `total` of a page."""
    total = field(answer, "total")
    if isinstance(total, bool):
        raise DecodeError("expected an integer, got a boolean", "$.total")
    return expect(total, int, "$.total")


JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


def json_name(value: Any) -> str:
    """Name the kind of a value as JSON does."""
    return JSON_NAMES.get(type(value), "something else")

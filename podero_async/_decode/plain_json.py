"""Plain JSON values: decoding and encoding them, and checking their types.

Every error is a `DecodeError`, and no message holds a value of the body.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from podero_async.errors import DecodeError

__all__ = [
    "JSON_TYPES",
    "MSGSPEC_ERRORS",
    "decode_json",
    "encode_json",
    "expect",
    "is_markup",
    "json_type",
    "plain_values",
    "required",
    "total_of",
    "uuid_text",
]

T = TypeVar("T")
MSGSPEC_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors with which msgspec refuses a body; it does not wrap Python's own error for invalid UTF-8."""

JSON_TYPES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}

_MAX_PLAIN_BYTES = 8 << 20
"""Plain values take up to 25 times the memory of their JSON, and json.loads holds the interpreter lock throughout."""


def decode_json(body: bytes) -> Any:
    """Decode any JSON, also NaN and Infinity, which servers in Python may send: they make a row unreadable, not its page.

    Raises:
        DecodeError: The body is not JSON, or too large; `retryable`, because it may be a transmission error.
    """
    if len(body) > _MAX_PLAIN_BYTES:
        raise DecodeError("unexpected response body, too large to analyse", retryable=True)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        if not body or is_markup(body):
            reason = "the response is an HTML or XML page, not JSON" if body else "the response body is empty"
            raise DecodeError(reason, retryable=True) from None
        # The parser's message names a position and at most one character.
        raise DecodeError(f"the response body is not JSON: {error}", retryable=True) from None


def is_markup(body: bytes) -> bool:
    """Return whether a body is HTML or XML, such as a proxy's error page."""
    return body[:100].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def encode_json(value: Any) -> bytes:
    """Encode plain values as JSON."""
    return msgspec.json.encode(value)


def plain_values(values: Any) -> Any:
    """Return values as plain ones: a model as a dictionary, a time or an id as its text; offsets in whole minutes."""
    return msgspec.to_builtins(values)


def uuid_text(value: UUID) -> str:
    """Return the text of a UUID, in less than a third of the time that `str` takes."""
    return msgspec.to_builtins(value)  # type: ignore[no-any-return]


def expect(value: Any, kind: type[T], path: str) -> T:
    """Return `value` if it is exactly a `kind`: a boolean is not an integer.

    Raises:
        DecodeError: It is not; the error names both JSON types and the path.
    """
    if isinstance(value, kind) and type(value) is kind:
        return value
    raise DecodeError(f"expected {JSON_TYPES[kind]}, got {json_type(value)}", path)


def required(fields: Mapping[str, Any], name: str) -> Any:
    """Return a required field."""
    if name not in fields:
        raise DecodeError("a required field is missing", f"$.{name}")
    return fields[name]


def total_of(page: Mapping[str, Any]) -> int:
    """Return the `total` of a page; 80.0 is the integer 80."""
    total = required(page, "total")
    return int(total) if isinstance(total, float) and total.is_integer() else expect(total, int, "$.total")


def json_type(value: Any) -> str:
    """Name the JSON type of a value."""
    return JSON_TYPES.get(type(value), "another type")

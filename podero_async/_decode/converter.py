"""A row's fields to a model's types, by cattrs: strict about JSON types, lenient only if the value is unambiguous.

cattrs alone would read None as "None" and "false" as True. A naive timestamp is UTC, and 80.0 is the integer 80.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

import cattrs

from podero_async._decode.plain_json import JSON_TYPES, json_type
from podero_async._decode.timestamps import to_datetime
from podero_async.errors import DecodeError
from podero_async.models import HiddenReason, SessionOutcome

__all__ = ["read_fields"]

T = TypeVar("T")


def read_fields(row: dict[str, Any], model: type[T], path: str, index: int | None) -> T:
    """Read a row's fields.

    Raises:
        DecodeError: A field is unreadable; the error names the first.
    """
    try:
        return _converter.structure(row, model)
    except cattrs.BaseValidationError as errors:
        location, reason = _first_fault(errors)
        raise DecodeError(reason, path + location, index) from None  # the cause holds the row


def _first_fault(errors: BaseException, location: str = "") -> tuple[str, str]:
    """Return the first fault of an exception tree, as a JSON path and a reason that holds no value of the row."""
    if isinstance(errors, cattrs.BaseValidationError):
        error = errors.exceptions[0]
        notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, cattrs.AttributeValidationNote)]
        return _first_fault(error, location + "".join(f".{note.name}" for note in notes))
    if isinstance(errors, KeyError):
        return location, "a required field is missing"
    return location, str(errors)


def _refuse(expected: str, value: Any) -> ValueError:
    return ValueError(f"expected {expected}, got {json_type(value)}")


def _to_uuid(value: Any, _: Any) -> uuid.UUID:
    if not isinstance(value, str):
        raise _refuse("a uuid", value)
    try:
        return uuid.UUID(value)
    except ValueError:
        raise ValueError("expected a uuid, got another string") from None


def _to_float(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("expected a number, got one out of range")
    return number


def _to_int(value: Any, _: Any) -> int:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole:
        raise _refuse("an integer", value)
    return int(value)


def _expect(value: Any, kind: type[T]) -> T:
    if isinstance(value, kind):
        return value
    raise _refuse(JSON_TYPES[kind], value)


def _to_enum(value: Any, kind: type[Enum]) -> Enum:
    return kind(_expect(value, str))


_HOOKS: dict[type, Callable[[Any, Any], Any]] = {
    datetime: to_datetime,
    uuid.UUID: _to_uuid,
    float: _to_float,
    int: _to_int,
    str: _expect,
    bool: _expect,
    SessionOutcome: _to_enum,
    HiddenReason: _to_enum,
}
_converter = cattrs.Converter(detailed_validation=True)
for _kind, _hook in _HOOKS.items():
    _converter.register_structure_hook(_kind, _hook)

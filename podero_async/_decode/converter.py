"""A row's values to a model's types, by cattrs: strict about kinds, lenient only where no reading could be wrong.

cattrs alone would make "None" of None and True of "false". A naive timestamp is UTC, and 80.0 is the integer 80.
The import takes some 8 ms, and no row that is as it should be needs it: it is imported for the first that is not.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

import cattrs

from podero_async._decode.plain_json import JSON_NAMES, json_name
from podero_async._decode.timestamps import to_datetime
from podero_async.errors import DecodeError
from podero_async.models import HiddenReason, SessionOutcome

__all__ = ["read_fields"]

T = TypeVar("T")


def read_fields(row: dict[str, Any], model: type[T], path: str, index: int | None) -> T:
    """Read a row's fields.

    Raises:
        DecodeError: One cannot be read; the error names the first.
    """
    try:
        return _converter.structure(row, model)
    except cattrs.BaseValidationError as errors:
        where, reason = _first_fault(errors)
        raise DecodeError(reason, path + where, index) from None  # the cause would carry the row into a traceback


def _first_fault(errors: BaseException, where: str = "") -> tuple[str, str]:
    """Find the first fault of an exception tree, as a JSON path and words that hold no value of the row."""
    if isinstance(errors, cattrs.BaseValidationError):
        error = errors.exceptions[0]
        notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, cattrs.AttributeValidationNote)]
        return _first_fault(error, where + "".join(f".{note.name}" for note in notes))
    if isinstance(errors, KeyError):
        return where, "a required field is missing"
    return where, str(errors)


def _refuse(expected: str, value: Any) -> ValueError:
    return ValueError(f"expected {expected}, got {json_name(value)}")


def _to_uuid(value: Any, _: Any) -> uuid.UUID:
    if not isinstance(value, str):
        raise _refuse("a uuid", value)
    try:
        return uuid.UUID(value)
    except ValueError:
        raise ValueError("expected a uuid, got another text") from None


def _to_float(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse("a number", value)
    try:
        read = float(value)
    except OverflowError:
        read = math.inf
    if not math.isfinite(read):
        raise ValueError("expected a number, got one out of range")
    return read


def _to_int(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse("an integer", value)
    if isinstance(value, float) and not value.is_integer():
        raise _refuse("an integer", value)
    return int(value)


def _exactly(kind: type[T]) -> Callable[[Any, Any], T]:
    def check(value: Any, _: Any) -> T:
        if isinstance(value, kind):
            return value
        raise _refuse(JSON_NAMES[kind], value)

    return check


def _to_outcome(value: Any, _: Any) -> SessionOutcome:
    return SessionOutcome(_exactly(str)(value, str))


def _to_hidden_reason(value: Any, _: Any) -> HiddenReason:
    return HiddenReason(_exactly(str)(value, str))


def _build_converter(hooks: Iterable[tuple[Any, Callable[[Any, Any], Any]]]) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for kind, hook in hooks:
        converter.register_structure_hook(kind, hook)
    return converter


_converter = _build_converter(
    (
        (datetime, to_datetime),
        (uuid.UUID, _to_uuid),
        (float, _to_float),
        (int, _to_int),
        (str, _exactly(str)),
        (bool, _exactly(bool)),
        (SessionOutcome, _to_outcome),
        (HiddenReason, _to_hidden_reason),
    ),
)

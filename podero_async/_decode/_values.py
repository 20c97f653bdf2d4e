"""Single JSON values to the models' types: strict about kinds, lenient only where no reading could be wrong.

cattrs alone would make "None" of None and True of "false". A naive timestamp is UTC, and 80.0 is the integer 80.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import cattrs

from podero_async._decode._json import JSON_NAMES, json_name
from podero_async.models import HiddenReason, SessionOutcome

__all__ = ["converter", "to_datetime"]

T = TypeVar("T")


def _refuse(expected: str, value: Any) -> ValueError:
    return ValueError(f"expected {expected}, got {json_name(value)}")


def to_datetime(value: Any, _: Any) -> datetime:
    if not isinstance(value, str):
        raise _refuse("a timestamp", value)
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("expected a timestamp, got another text") from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


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


converter = _build_converter(
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

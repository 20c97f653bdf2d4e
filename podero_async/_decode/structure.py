"""Rows to models one by one: the slow path, which rejects an unreadable row, or leaves an unreadable field out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from podero_async._concurrency import import_ahead
from podero_async._decode.plain_json import expect
from podero_async.errors import DecodeError
from podero_async.models import RejectedItem

__all__ = [
    "expect_any",
    "preload_converter",
    "structure_leniently",
    "structure_or_reject",
    "structure_row",
    "structure_rows",
]

T = TypeVar("T")

_CONVERTER = "podero_async._decode.converter"
_MAX_UNREADABLE = 100  # a body of millions of empty rows would take gigabytes, and half a minute


def preload_converter() -> None:
    """Import cattrs in a thread, before msgspec refuses the first row.

    It takes 11 ms of CPU time, as long as 15 pages on the fast path take, so the import of the package leaves it out.
    """
    import_ahead(_CONVERTER)


def structure_row(row: Any, model: type[T], path: str, index: int | None = None) -> T:
    """Read one row.

    Raises:
        DecodeError: The row is unreadable; the error names the first field at fault.
    """
    return _field_reader()(expect(row, dict, path), model, path, index)


def _field_reader() -> Callable[[dict[str, Any], type[T], str, int | None], T]:
    """Return the function that reads a row.

    Raises:
        DecodeError: It cannot be imported, since no file descriptor is left; a later attempt may succeed.
    """
    try:
        from podero_async._decode.converter import read_fields  # noqa: PLC0415
    except OSError as error:
        raise DecodeError(f"the rows cannot be read now: {error.strerror}", retryable=True) from error
    return read_fields


def structure_or_reject(rows: list[Any], model: type[T], first_index: int) -> tuple[list[T], list[RejectedItem]]:
    """Read rows, and return those that are unreadable as rejected items, so that they do not fail the others."""
    _field_reader()  # imported first, since a failed import is not the fault of a row
    items, rejected = [], []
    for index, row in enumerate(rows, first_index):
        try:
            items.append(structure_row(row, model, "$"))
        except DecodeError as error:
            rejected.append(RejectedItem(index=index, path=error.json_path, reason=error.reason, raw=_as_json(row)))
    return items, rejected


def _as_json(row: Any) -> Any:
    """Return a row with NaN and infinite numbers as texts, since JSON has no such numbers."""
    try:
        json.dumps(row, allow_nan=False)
    except ValueError:
        return json.loads(json.dumps(row), parse_constant=str)
    except RecursionError:  # the row is nested too deeply
        pass
    return row


def structure_rows(rows: list[Any], model: type[T], path: str, first_index: int = 0) -> list[T | DecodeError]:
    """Read rows that need only an `id`, so that one odd row does not fail a whole fleet.

    An unreadable optional field is left out. A row without a readable `id` is replaced by its error.

    Raises:
        DecodeError: More than 100 rows are unreadable, as if the list were of another model.
    """
    _field_reader()  # imported first, since a failed import is not the fault of a row
    read: list[T | DecodeError] = []
    unreadable = 0
    for index, row in enumerate(rows, first_index):
        read.append(_read_leniently(row, model, f"{path}[{index}]", index))
        unreadable += isinstance(read[-1], DecodeError)
        if unreadable > _MAX_UNREADABLE and isinstance(read[-1], DecodeError):
            raise read[-1]
    return read


def expect_any(rows: list[T | DecodeError]) -> list[T | DecodeError]:
    """Return the rows, unless each of them is unreadable.

    Raises:
        DecodeError: The error of the first row.
    """
    if rows and isinstance(rows[0], DecodeError) and all(isinstance(row, DecodeError) for row in rows):
        raise rows[0]
    return rows


def structure_leniently(row: Any, model: type[T], path: str) -> T:
    """Read one row that needs only an `id`; an unreadable optional field is left out.

    Raises:
        DecodeError: The row has no readable `id`.
    """
    read = _read_leniently(row, model, path, None)
    if isinstance(read, DecodeError):
        raise read from None  # the error before it holds the body
    return read


def _read_leniently(row: Any, model: type[T], path: str, index: int | None) -> T | DecodeError:
    while True:
        try:
            return structure_row(row, model, path, index)
        except DecodeError as error:
            names = error.json_path.removeprefix(f"{path}.").split(".")
            if not isinstance(row, dict) or names[0] not in row or names == ["id"]:
                return DecodeError(error.reason, error.json_path, index)  # without the traceback, which holds the row
            row = _without(row, names)


def _without(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return a row without the field at the end of a path, or without the field on the way that does not hold the next."""
    name, *rest = names
    if rest and isinstance(row[name], dict) and rest[0] in row[name]:
        return {**row, name: _without(row[name], rest)}
    return {field: value for field, value in row.items() if field != name}

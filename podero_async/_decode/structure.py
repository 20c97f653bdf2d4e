"""One row at a time: what says which field of a row is wrong, and reads what can be read."""

from __future__ import annotations

from typing import Any, TypeVar

from podero_async._decode.plain_json import expect
from podero_async.errors import DecodeError

__all__ = ["structured", "structured_list"]

T = TypeVar("T")


def structured_list(rows: list[Any], model: type[T], path: str, first_index: int = 0) -> list[T]:
    """Read rows of which each is needed for its id alone: an optional field that cannot be read is left out."""
    return [
        _structured_essentials(row, model, f"{path}[{index}]", index) for index, row in enumerate(rows, first_index)
    ]


def _structured_essentials(row: Any, model: type[T], path: str, index: int) -> T:
    """Leave out what a row can do without and cannot be read: no field of one user may cost the whole fleet."""
    while True:
        try:
            return structured(row, model, path, index)
        except DecodeError as error:
            name = error.json_path.removeprefix(f"{path}.").partition(".")[0]
            if not isinstance(row, dict) or name not in row or name == "id":
                raise
            row = {field: value for field, value in row.items() if field != name}


def structured(row: Any, model: type[T], path: str, index: int | None = None) -> T:
    """Read one row.

    Raises:
        DecodeError: It cannot be read; the error names the first field at fault.
    """
    from podero_async._decode.converter import read_fields  # noqa: PLC0415 - brings cattrs

    return read_fields(expect(row, dict, path), model, path, index)

"""Values of sessions to Arrow columns."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from podero_async._decode import plain_values
from podero_async.frames._schema import ENUMS, MOMENT, SESSION_SCHEMA, UUID
from podero_async.models import ChargingSession

__all__ = ["column", "encode_enum", "session_columns"]

_EARLIEST = pa.scalar(datetime.min.replace(tzinfo=UTC), MOMENT)
_LATEST = pa.scalar(datetime.max.replace(tzinfo=UTC), MOMENT)


def session_columns(
    sessions: Sequence[ChargingSession], dictionaries: Mapping[str, pa.StringArray] = ENUMS
) -> list[pa.Array]:
    """Return sessions as the columns of `SESSION_SCHEMA`.

    Args:
        sessions: The sessions.
        dictionaries: The texts with which the dictionary of each enum's column begins.

    Raises:
        ValueError: A session has a value that no column can hold.
    """
    columns = []
    for field in SESSION_SCHEMA:
        array = column(list(map(attrgetter(field.name), sessions)), field.type)
        columns.append(encode_enum(array, dictionaries[field.name]) if field.name in ENUMS else array)
    return columns


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as a column; texts of a column with a dictionary are not encoded yet.

    Raises:
        ValueError: A value does not fit into the column.
    """
    try:
        if kind == MOMENT:
            return _moments(values)
        if kind == UUID:
            return _uuids(values)
        return pa.array(values, pa.string() if pa.types.is_dictionary(kind) else kind)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise ValueError(f"a value that no column can hold: {error}") from error


def encode_enum(texts: pa.StringArray, known: pa.StringArray) -> pa.DictionaryArray:
    """Encode texts with a dictionary that begins with the known texts; the others follow in order of appearance."""
    indices = pc.index_in(texts, known)
    if indices.null_count > texts.null_count:
        unknown = pc.unique(texts.filter(pc.and_(indices.is_null(), texts.is_valid())))
        known = pa.concat_arrays([known, unknown])
        indices = pc.index_in(texts, known)
    return pa.DictionaryArray.from_arrays(indices, known)


def _moments(values: Sequence[datetime | None]) -> pa.TimestampArray:
    # Texts take 140 ns a value and datetimes 340 ns. msgspec rounds offsets to minutes, so only UTC goes through texts.
    if {value.tzinfo for value in values if value is not None} <= {UTC}:
        moments = pa.array(plain_values(values), pa.string()).cast(MOMENT)
    else:
        moments = pa.array(values, MOMENT)
    bounds = pc.min_max(moments)
    if bounds["min"].is_valid and not (bounds["min"].value >= _EARLIEST.value and bounds["max"].value <= _LATEST.value):
        raise OverflowError("a time outside the range of UTC")  # Arrow stores it, but queries fail
    return moments


def _uuids(values: Sequence[uuid.UUID | None]) -> pa.ExtensionArray:
    plain = pa.array([None if value is None else value.bytes for value in values], pa.binary(16))
    return pa.ExtensionArray.from_storage(UUID, plain)

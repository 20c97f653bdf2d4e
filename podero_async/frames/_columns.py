"""Values of sessions to Arrow columns."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from podero_async._decode import plain_values
from podero_async.frames._schema import ENUMS, MOMENT, SESSION_SCHEMA, UUID
from podero_async.models import ChargingSession

__all__ = ["column", "encode_enum", "plain_columns", "session_columns"]

_EARLIEST = pa.scalar(datetime.min.replace(tzinfo=UTC), MOMENT).value
_LATEST = pa.scalar(datetime.max.replace(tzinfo=UTC), MOMENT).value


def session_columns(sessions: Sequence[ChargingSession]) -> list[pa.Array]:
    """Return sessions as the columns of `SESSION_SCHEMA`.

    Raises:
        ValueError: A session has a value that no column can hold.
    """
    columns = plain_columns(sessions, SESSION_SCHEMA)
    for name, members in ENUMS.items():
        index = SESSION_SCHEMA.get_field_index(name)
        columns[index] = encode_enum(columns[index], members)
    return columns


def plain_columns(sessions: Sequence[ChargingSession], schema: pa.Schema) -> list[pa.Array]:
    """Return fields of sessions as columns, in which the enums are texts without a dictionary.

    Raises:
        ValueError: A session has a value that no column can hold.
    """
    return [column(list(map(attrgetter(field.name), sessions)), field) for field in schema]


def column(values: Sequence[Any], field: pa.Field) -> pa.Array:
    """Return the values of a field as a column; texts get no dictionary.

    Raises:
        ValueError: A value does not fit into the column.
    """
    try:
        if field.type == MOMENT:
            return _moments(values)
        if field.type == UUID:
            return _uuids(values)
        if field.type == pa.string():
            return pa.array(plain_values(values), pa.string())
        return pa.array(values, pa.string() if pa.types.is_dictionary(field.type) else field.type)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeError) as error:
        raise ValueError(f"no column can hold a value of {field.name}: {error}") from error


def encode_enum(texts: pa.StringArray, known: pa.StringArray) -> pa.DictionaryArray:
    """Encode texts with a dictionary that begins with the known texts; the others follow in order of appearance."""
    indices = pc.index_in(texts, known)
    if indices.null_count > texts.null_count:
        unknown = pc.unique(texts.filter(pc.and_(indices.is_null(), texts.is_valid())))
        known = pa.concat_arrays([known, unknown])
        indices = pc.index_in(texts, known)
    return pa.DictionaryArray.from_arrays(indices, known)


def _moments(values: Sequence[datetime | None]) -> pa.TimestampArray:
    # Texts take 140 ns a value, datetimes 340 ns. Only UTC goes through texts, since msgspec rounds offsets to minutes.
    if {value.tzinfo for value in values if value is not None} <= {UTC}:
        moments = pa.array(plain_values(values), pa.string()).cast(MOMENT)
    else:
        moments = pa.array(values, MOMENT)
    bounds = pc.min_max(moments)
    if bounds["min"].is_valid and not (bounds["min"].value >= _EARLIEST and bounds["max"].value <= _LATEST):
        raise OverflowError("a time outside the range of UTC")  # Arrow stores it, but queries fail
    return moments


def _uuids(values: Sequence[uuid.UUID | None]) -> pa.ExtensionArray:
    plain = pa.array([None if value is None else value.bytes for value in values], pa.binary(16))
    return pa.ExtensionArray.from_storage(UUID, plain)

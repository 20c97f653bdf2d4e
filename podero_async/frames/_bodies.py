"""Bodies of pages to Arrow columns, by Arrow's own JSON parser, which releases the interpreter lock.

Arrow accepts some values that the library refuses, and refuses some that it accepts. So only bodies that the library has
found valid are read here. If Arrow refuses a body, or might read it differently, a `ValueError` is raised, and the caller
converts the sessions instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain, repeat

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from pyarrow import json as arrow_json

from podero_async._decode import Body
from podero_async.frames._schema import MOMENT, SESSION_SCHEMA, UUID

__all__ = ["columns_of_bodies"]

_UUID_BYTES = 16
_EARLIEST = pa.scalar(datetime.min.replace(tzinfo=UTC), MOMENT)
_LATEST = pa.scalar(datetime.max.replace(tzinfo=UTC), MOMENT)


def _json_type(kind: pa.DataType) -> pa.DataType:
    return pa.string() if kind == UUID or pa.types.is_dictionary(kind) else kind


_ROW = pa.struct([(field.name, _json_type(field.type)) for field in SESSION_SCHEMA])
_PARSING = arrow_json.ParseOptions(
    explicit_schema=pa.schema([("items", pa.list_(_ROW))]),
    newlines_in_values=True,
    unexpected_field_behavior="ignore",
)


def columns_of_bodies(bodies: Sequence[Body]) -> list[pa.Array]:
    """Return the columns of the rows of some bodies, in order; enums are texts.

    Args:
        bodies: The bodies of some pages; the time per row is shortest for about 20 of them.

    Raises:
        ValueError: Arrow cannot read a value, or a column cannot hold it.
    """
    joined = b"\n".join(body.data for body in bodies)
    reading = arrow_json.ReadOptions(use_threads=False, block_size=len(joined) + 1)
    pages = arrow_json.read_json(pa.BufferReader(joined), reading, _PARSING)["items"].combine_chunks()
    if pc.list_value_length(pages).to_pylist() != [body.rows for body in bodies]:
        raise ValueError("Arrow reads another number of rows")
    rows = pages.flatten()
    if any(body.is_new for body in bodies):
        rows = rows.filter(pa.array(chain.from_iterable(body.is_new or repeat(True, body.rows) for body in bodies)))
    return [_column(field, rows.field(field.name)) for field in SESSION_SCHEMA]


def _column(field: pa.Field, values: pa.Array) -> pa.Array:
    if field.type == UUID:
        return _uuids(values)
    if field.type == MOMENT:
        bounds = pc.min_max(values)
        if bounds["min"].is_valid and (bounds["min"].value < _EARLIEST.value or bounds["max"].value > _LATEST.value):
            raise ValueError("a time outside the range of UTC")  # Arrow stores it, but queries fail
    if field.name == "is_hidden":
        return pc.fill_null(values, False)  # the only field with a default that is not null
    return values


def _uuids(texts: pa.StringArray) -> pa.ExtensionArray:
    """Return the uuids of valid texts, in any form that msgspec accepts."""
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), "")[0].as_py()
    plain = pa.py_buffer(bytes.fromhex(joined.replace("-", "")))
    if plain.size != _UUID_BYTES * len(texts):
        raise ValueError("a uuid in an unknown form")
    return pa.ExtensionArray.from_storage(
        UUID, pa.Array.from_buffers(pa.binary(_UUID_BYTES), len(texts), [None, plain])
    )

"""Digests of reads: hashes of the ids and contents of their sessions, made of columns without a step for each row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

__all__ = ["digests_of"]

_DIGITS = 32
_NULL, _SEPARATOR = b"\0null", b"\x1f"


def digests_of(numbers: Iterable[int], batches: Iterable[pa.RecordBatch]) -> list[str]:
    """Return the digests of reads, in the order of the numbers of their work items.

    A digest depends on the values and the order of the sessions, but neither on the pages nor on the batches that they
    came in.

    Args:
        numbers: The numbers of the work items; one may have no session.
        batches: Their sessions. The first column is the number of the work item.
    """
    hashes: defaultdict[int, Any] = defaultdict(sha256)
    for batch in batches:
        items, *columns = batch.columns
        rows = pc.binary_join_element_wise(
            *map(_as_bytes, columns), _SEPARATOR, null_handling="replace", null_replacement=_NULL
        )
        _, offsets, contents = rows.buffers()
        ends, contents, begin = memoryview(offsets).cast("i"), memoryview(contents), 0
        runs = pc.run_end_encode(items)
        for number, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            hashes[number].update(contents[ends[begin] : ends[end]])
            begin = end
    return [hashes[number].hexdigest()[:_DIGITS] for number in numbers]


def _as_bytes(column: pa.Array) -> pa.Array:
    """Return a column whose values are the bytes that Arrow's format has for them."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_floating(column.type):
        column = pc.add(column, 0.0)  # of -0.0 and 0.0 makes one value
    if not pa.types.is_string(column.type):
        width = pa.binary(column.type.bit_width // 8)
        column = pa.Array.from_buffers(width, len(column), column.buffers(), offset=column.offset)
    return column.cast(pa.binary())

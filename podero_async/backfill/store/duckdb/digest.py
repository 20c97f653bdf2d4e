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
_WORD = 8  # bytes


def digests_of(numbers: Iterable[int], batches: Iterable[pa.RecordBatch]) -> list[str]:
    """Return the digests of reads, in the order of the numbers of their work items.

    A digest depends on the values and the order of the sessions, but not on the pages that they came in.

    Args:
        numbers: The numbers of the work items; one may have no session.
        batches: Their sessions; those of one work item are neighbors. The first column is the number of the work item.
    """
    hashes: defaultdict[int, Any] = defaultdict(sha256)
    for batch in batches:
        items, *columns = batch.columns
        rows, width = _rows_of(columns)
        texts = [_text(column) for column in columns if pa.types.is_string(column.type)]
        runs, begin = pc.run_end_encode(items), 0
        for number, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            content = hashes[number]
            content.update(rows[begin * width : end * width])
            for offsets, text in texts:
                content.update(text[offsets[begin] : offsets[end]])
            begin = end
    return [hashes[number].hexdigest()[:_DIGITS] for number in numbers]


def _rows_of(columns: list[pa.Array]) -> tuple[memoryview, int]:
    """Return columns as rows of equal width, and the width in bytes; of a text, a row has the length, and of a null, a bit."""
    count = len(columns[0])
    nulls, words = pa.repeat(pa.scalar(0, pa.int64()), count), []
    for bit, column in enumerate(columns):
        if column.null_count:
            nulls = pc.add(nulls, pc.multiply(column.is_null().cast(pa.int64()), 1 << bit))
        words += _words(column)
    words += _words(nulls)
    rows = memoryview(bytearray(_WORD * len(words) * count)).cast("q")
    for place, values in enumerate(words):
        rows[place :: len(words)] = values
    return rows.cast("B"), _WORD * len(words)


def _words(column: pa.Array) -> list[memoryview]:
    """Return the values of a column as whole numbers of 64 bits, of which a uuid has two; those of nulls are 0."""
    if isinstance(column, pa.ExtensionArray):
        halves = _view(column.storage, 2)
        return [halves[::2], halves[1::2]]
    if pa.types.is_string(column.type):
        column = pc.binary_length(column)
    # Of -0.0 and 0.0, the addition makes one value.
    column = pc.add(column, 0.0) if pa.types.is_floating(column.type) else column.cast(pa.int64())
    return [_view(pc.fill_null(column, 0) if column.null_count else column)]


def _view(column: pa.Array, words: int = 1) -> memoryview:
    _, values = column.buffers()
    return memoryview(values).cast("q")[words * column.offset : words * (column.offset + len(column))]


def _text(column: pa.Array) -> tuple[memoryview, memoryview]:
    """Return the offsets of a column's texts, and the texts."""
    _, offsets, text = (pc.fill_null(column, "") if column.null_count else column).buffers()
    return memoryview(offsets).cast("i")[column.offset :], memoryview(text or b"")

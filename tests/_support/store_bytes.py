"""Looks for ids in the bytes of a store's files."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID


def count_found(path: Path, ids: set[UUID]) -> int:
    """Count the ids that are in the bytes of a store, its log or any file beside it."""
    data = b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())
    return sum(any(form in data for form in _forms(each)) for each in ids)


def _forms(value: UUID) -> list[bytes]:
    """Return the ways in which an id may be in a file: as text, as bytes in two orders, and as DuckDB's signed number."""
    number = int.from_bytes(value.bytes, "big") ^ (1 << 127)
    return [str(value).encode(), value.bytes, value.bytes_le, number.to_bytes(16, "little")]

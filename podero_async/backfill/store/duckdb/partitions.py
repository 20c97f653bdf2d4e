"""The partitions of an export: their state in the store, and the manifest of what the export before has written.

The state of a partition is computed from the ids and the `changed_at` of its rows, so each visible change of a row moves it.
It does not depend on a clock, since `changed_at` increases with each commit.
"""

# ruff: noqa: S608 - the SQL is composed of the statement of an export

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import attrs

__all__ = ["MANIFEST", "Manifest", "Partition", "partitions_of"]

MANIFEST = "_podero_async.json"
"""Its name begins with an underscore, so that Spark, Arrow and others do not take it for data."""
_FORMAT = "podero_async export"


@attrs.frozen
class Partition:
    """One month of sessions."""

    month: str
    rows: int
    state: str

    @property
    def condition(self) -> str:
        """The SQL condition of its rows."""
        first = f"TIMESTAMPTZ '{self.month}-01 00:00:00+00'"
        return f"plug_in_time >= {first} AND plug_in_time < {first} + INTERVAL 1 MONTH"


@attrs.define
class Manifest:
    """The files of an export by name, with the state of their rows; None if a file is being written or deleted."""

    files: dict[str, str | None] = attrs.field(factory=dict)

    @classmethod
    def parse(cls, text: bytes) -> Manifest | None:
        """Read a manifest; None if the text is not one."""
        try:
            value = json.loads(text)
            files = value["files"] if value["format"] == _FORMAT else None
        except (ValueError, KeyError, TypeError):
            return None
        return cls(files) if isinstance(files, dict) else None

    @property
    def is_unfinished(self) -> bool:
        """Whether an export was killed while it wrote the files."""
        return None in self.files.values()

    @property
    def text(self) -> bytes:
        """The manifest as a file."""
        return json.dumps({"format": _FORMAT, "files": self.files}, indent=1).encode()


def partitions_of(
    execute: Callable[[str], list[tuple[Any, ...]]], rows: str, written_by: str, suffix: str
) -> dict[str, Partition]:
    """Return the partitions by the name of their file.

    Args:
        execute: Runs a query.
        rows: The query of the rows.
        written_by: The statement that writes them: another one writes other files.
        suffix: The suffix of the files.
    """
    query = f"""
    SELECT strftime(plug_in_time, '%Y-%m') AS "month", count(*), format('{{:x}}', bit_xor(hash(id, changed_at)))
    FROM ({rows}) GROUP BY "month" ORDER BY "month"
    """
    kind = sha256(written_by.encode()).hexdigest()[:16]
    return {
        f"month={month}/data_0.{suffix}": Partition(month, count, f"{kind}-{count}-{digest}")
        for month, count, digest in execute(query)
    }

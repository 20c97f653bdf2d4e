"""A consumer of a store that follows `changed_at` alone, and so keeps a copy of the table of sessions."""

from __future__ import annotations

from typing import Any

import attrs
import duckdb

_VISIBLE = "SELECT id, * EXCLUDE (id, fetched_at, absent_at) FROM sessions"


@attrs.define
class Follower:
    """Merges by id the rows that changed after the newest change it knows."""

    newest: int = -1
    rows: dict[Any, tuple[Any, ...]] = attrs.field(factory=dict)

    def pull(self, con: duckdb.DuckDBPyConnection) -> None:
        """Take the rows that have changed since."""
        changed = con.execute(f"{_VISIBLE} WHERE epoch_us(changed_at) > {self.newest}").fetchall()
        self.rows |= {row[0]: row for row in changed}
        ((self.newest,),) = con.execute("SELECT coalesce(max(epoch_us(changed_at)), -1) FROM sessions").fetchall()

    def is_equal_to(self, con: duckdb.DuckDBPyConnection) -> bool:
        """Return whether the copy has the rows of the store."""
        return sorted(con.execute(_VISIBLE).fetchall()) == sorted(self.rows.values())

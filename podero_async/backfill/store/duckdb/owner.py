"""Whom a store is for, as it stands in its `meta`. What releases before this wrote there is for whoever comes first."""

from __future__ import annotations

import duckdb

from podero_async.backfill._values import StoreOwner

__all__ = ["claim", "owner_of"]


def owner_of(con: duckdb.DuckDBPyConnection) -> StoreOwner | None:
    """Return whom the store is for; None where nobody has taken it yet."""
    meta = dict(con.execute("SELECT key, value FROM meta").fetchall())
    return StoreOwner(meta["organization"], meta["origin"]) if "organization" in meta else None


def claim(con: duckdb.DuckDBPyConnection, source: StoreOwner) -> None:
    """Note whom the store is for, where that is not known."""
    con.execute(
        "INSERT INTO meta SELECT * FROM (VALUES ('organization', $org_id), ('origin', $origin))"
        " WHERE NOT EXISTS (FROM meta WHERE key = 'organization')",
        {"org_id": source.org_id, "origin": source.origin},
    )

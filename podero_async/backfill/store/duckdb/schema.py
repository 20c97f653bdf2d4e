"""The store's tables, its version, and how an older one becomes this one. The only room that creates or alters."""

# ruff: noqa: S608 - all that is put into SQL text is written in these rooms; values are bound

from __future__ import annotations

import duckdb

from podero_async.backfill.errors import NotAStoreError, StoreError, StoreTooNewError

__all__ = ["SCHEMA_VERSION", "SESSION_COLUMNS", "check_version", "create_tables", "migrate"]

SCHEMA_VERSION = 1

SESSION_COLUMNS = {
    "id": "UUID",
    "plug_in_time": "TIMESTAMPTZ",
    "unplug_time": "TIMESTAMPTZ",
    "inferred_session_end": "TIMESTAMPTZ",
    "desired_charging_start_time": "TIMESTAMPTZ",
    "desired_charging_end_time": "TIMESTAMPTZ",
    "charge_deadline": "TIMESTAMPTZ",
    "target_soc_pct": "DOUBLE",
    "initial_soc_pct": "DOUBLE",
    "final_soc_pct": "DOUBLE",
    "energy_charged_kwh": "DOUBLE",
    "avg_charge_power_kw": "DOUBLE",
    "peak_charge_power_kw": "DOUBLE",
    "actual_cost_eur": "DOUBLE",
    "expected_savings_eur": "DOUBLE",
    "actual_savings_eur": "DOUBLE",
    "is_at_home": "BOOLEAN",
    "session_outcome": "VARCHAR",
    "is_hidden": "BOOLEAN",
    "hidden_reason": "VARCHAR",
    "target_reachable": "BOOLEAN",
    "reachable_soc_pct": "INTEGER",
}
"""The fields of a `ChargingSession`, in its order."""

_FORMAT = "podero_async sessions"

# No index anywhere: one over random ids costs more with every row. Batches come in the order of the vehicles' ids
# instead, so that the least and greatest id, which the database keeps for each group of rows, tell where to look.
_TABLES = f"""
CREATE TABLE meta (key VARCHAR NOT NULL, value VARCHAR NOT NULL);
INSERT INTO meta VALUES ('format', '{_FORMAT}'), ('schema_version', '{SCHEMA_VERSION}');
CREATE TABLE sessions (
    user_id UUID NOT NULL,
    vehicle_id UUID NOT NULL,
    {", ".join(f"{name} {kind}" for name, kind in SESSION_COLUMNS.items())},
    fetched_at TIMESTAMPTZ NOT NULL,
    first_seen_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ,
    withdrawn_at TIMESTAMPTZ
);
CREATE TABLE receipts (
    run_id INTEGER NOT NULL,
    task INTEGER NOT NULL,
    user_id UUID NOT NULL,
    vehicle_id UUID NOT NULL,
    from_date DATE NOT NULL,
    to_date DATE NOT NULL,
    include_hidden BOOLEAN NOT NULL,
    completeness VARCHAR NOT NULL,
    total BIGINT NOT NULL,
    "count" BIGINT NOT NULL,
    digest VARCHAR NOT NULL,
    requests INTEGER NOT NULL,
    held_to DATE,
    fetched_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE failures (
    run_id INTEGER NOT NULL,
    user_id UUID NOT NULL,
    vehicle_id UUID,
    from_date DATE,
    to_date DATE,
    include_hidden BOOLEAN NOT NULL,
    kind VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    failed_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE rejected_items (
    user_id UUID NOT NULL,
    vehicle_id UUID NOT NULL,
    from_date DATE NOT NULL,
    to_date DATE NOT NULL,
    include_hidden BOOLEAN NOT NULL,
    session_id UUID,
    "index" BIGINT NOT NULL,
    path VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    raw VARCHAR NOT NULL,
    fetched_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE runs (
    run_id INTEGER NOT NULL,
    from_date DATE NOT NULL,
    to_date DATE NOT NULL,
    include_hidden BOOLEAN NOT NULL,
    refresh_days INTEGER NOT NULL,
    scope VARCHAR NOT NULL,
    vehicles BIGINT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ
);
CREATE TABLE tasks (
    run_id INTEGER NOT NULL,
    task INTEGER NOT NULL,
    user_id UUID NOT NULL,
    vehicle_id UUID NOT NULL,
    from_date DATE NOT NULL,
    to_date DATE NOT NULL
);
"""

_MIGRATIONS = {
    # Version 0, of the first prototypes, dropped what was withdrawn.
    0: "ALTER TABLE sessions ADD COLUMN withdrawn_at TIMESTAMPTZ;",
}
"""What makes a store of a version one of the next."""


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Fill an empty database."""
    con.execute(_TABLES)


def check_version(con: duckdb.DuckDBPyConnection, path: str) -> int:
    """Return the version of a store.

    Raises:
        NotAStoreError: The database is something else.
        StoreTooNewError: A later version of this library made it.
    """
    try:
        meta = dict(con.execute("SELECT key, value FROM meta").fetchall())
    except (duckdb.CatalogException, duckdb.BinderException, ValueError):
        meta = {}
    version = meta.get("schema_version", "")
    if meta.get("format") != _FORMAT or not version.isdigit():
        raise NotAStoreError("not a store of charging sessions", path)
    if int(version) > SCHEMA_VERSION:
        raise StoreTooNewError(f"a store of version {version}, and this release knows {SCHEMA_VERSION}", path)
    return int(version)


def migrate(con: duckdb.DuckDBPyConnection, path: str, version: int) -> None:
    """Make an older store one of this version, all at once or not at all.

    Raises:
        StoreError: It is opened for reading only.
    """
    if version == SCHEMA_VERSION:
        return
    (is_read_only,) = con.execute(
        "SELECT readonly FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchall()[0]
    if is_read_only:
        raise StoreError(f"a store of version {version}: open it once for writing, which brings it up to date", path)
    con.execute("BEGIN")
    for step in range(version, SCHEMA_VERSION):
        con.execute(_MIGRATIONS[step])
    con.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [str(SCHEMA_VERSION)])
    con.execute("COMMIT")

"""The tables of a store, its schema version and its owner."""

# ruff: noqa: S608 - the SQL is composed of constants of this module; values are bound

from __future__ import annotations

from uuid import uuid4

import duckdb

from podero_async.backfill._values import StoreOwner
from podero_async.backfill.errors import NotAStoreError, StoreTooNewError
from podero_async.backfill.store.duckdb.comments import add_unknown_comments
from podero_async.backfill.store.duckdb.views import LIVE_SESSIONS_WITH_UNKNOWN, VIEWS

__all__ = [
    "SCHEMA_VERSION",
    "SESSION_COLUMNS",
    "add_store_id",
    "add_unknown_fields",
    "check_version",
    "claim",
    "create_data_tables",
    "create_tables",
    "owner_of",
]

SCHEMA_VERSION = 3

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
"""The fields of a `ChargingSession`, in order."""

_FORMAT = "podero_async sessions"

# The tables have no index, since the cost of an index over random ids grows with every row. Batches arrive in the order of
# vehicle ids instead, so that DuckDB can skip most groups of rows by their minimum and maximum.
_META = f"""
CREATE TABLE meta (key VARCHAR NOT NULL, value VARCHAR NOT NULL);
INSERT INTO meta VALUES ('format', '{_FORMAT}'), ('schema_version', '{SCHEMA_VERSION}');
"""
_TABLES = f"""
CREATE TABLE sessions (
    user_id UUID NOT NULL,
    vehicle_id UUID NOT NULL,
    {", ".join(f"{name} {kind}" for name, kind in SESSION_COLUMNS.items())},
    fetched_at TIMESTAMPTZ NOT NULL,
    first_seen_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL,
    absent_at TIMESTAMPTZ,
    withdrawn_at TIMESTAMPTZ
);
CREATE TABLE coverage (
    user_id UUID NOT NULL,
    vehicle_id UUID NOT NULL,
    include_hidden BOOLEAN NOT NULL,
    from_date DATE NOT NULL,
    to_date DATE NOT NULL,
    is_settled BOOLEAN NOT NULL,
    read_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE users (
    user_id UUID NOT NULL,
    external_user_id VARCHAR,
    "role" VARCHAR,
    num_electric_vehicles INTEGER,
    first_seen_at TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ,
    gone_since TIMESTAMPTZ
);
CREATE TABLE vehicles (
    user_id UUID NOT NULL,
    vehicle_id UUID NOT NULL,
    manufacturer VARCHAR,
    model VARCHAR,
    "year" INTEGER,
    price_zone VARCHAR,
    lifecycle_state VARCHAR,
    is_authenticated BOOLEAN,
    first_seen_at TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ,
    gone_since TIMESTAMPTZ
);
CREATE TABLE ownership (
    vehicle_id UUID NOT NULL,
    user_id UUID NOT NULL,
    external_user_id VARCHAR,
    since TIMESTAMPTZ NOT NULL,
    until TIMESTAMPTZ
);
CREATE TABLE receipts (
    run_id INTEGER NOT NULL,
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
    first_failed_at TIMESTAMPTZ NOT NULL,
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
    fetched_at TIMESTAMPTZ NOT NULL,
    first_rejected_at TIMESTAMPTZ
);
CREATE TABLE runs (
    run_id INTEGER NOT NULL,
    from_date DATE NOT NULL,
    to_date DATE NOT NULL,
    include_hidden BOOLEAN NOT NULL,
    scope VARCHAR NOT NULL,
    vehicles BIGINT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    done BIGINT NOT NULL DEFAULT 0,
    failed BIGINT NOT NULL DEFAULT 0,
    unproven BIGINT NOT NULL DEFAULT 0,
    sessions_new BIGINT NOT NULL DEFAULT 0,
    sessions_changed BIGINT NOT NULL DEFAULT 0,
    sessions_unchanged BIGINT NOT NULL DEFAULT 0,
    sessions_withdrawn BIGINT NOT NULL DEFAULT 0,
    rejected BIGINT NOT NULL DEFAULT 0,
    requests BIGINT NOT NULL DEFAULT 0,
    retries BIGINT NOT NULL DEFAULT 0,
    alarms VARCHAR NOT NULL DEFAULT ''
);
CREATE TABLE forgotten (
    user_hash VARCHAR NOT NULL,
    salt VARCHAR NOT NULL,
    forgotten_at TIMESTAMPTZ NOT NULL
);
"""

_HAS_UNKNOWN_FIELDS = """
SELECT count(*) > 0 FROM duckdb_columns()
WHERE database_name = current_database() AND table_name = 'sessions' AND column_name = 'unknown_fields'
"""


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Create the tables of a store in an empty database."""
    con.execute(_META)
    add_store_id(con)
    create_data_tables(con)


def create_data_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Create the views, and all tables but `meta`."""
    con.execute(_TABLES)
    con.execute(VIEWS)


def add_unknown_fields(con: duckdb.DuckDBPyConnection) -> None:
    """Add the column of unknown fields to the sessions and to their view, unless the store has it.

    A store in which no run has kept them does not have it: nor have its exports and copies.
    """
    if con.execute(_HAS_UNKNOWN_FIELDS).fetchall() == [(False,)]:
        con.execute("ALTER TABLE sessions ADD COLUMN unknown_fields JSON")
        con.execute(LIVE_SESSIONS_WITH_UNKNOWN)
        add_unknown_comments(con)


def add_store_id(con: duckdb.DuckDBPyConnection) -> None:
    """Give the store a random id of its own."""
    con.execute("INSERT INTO meta VALUES ('store_id', ?)", [uuid4().hex])


def check_version(con: duckdb.DuckDBPyConnection, path: str) -> int:
    """Return the schema version of a store.

    Raises:
        NotAStoreError: The database is not a store.
        StoreTooNewError: A newer release of this library created the store.
    """
    try:
        meta = dict(con.execute("SELECT key, value FROM meta").fetchall())
    except (duckdb.CatalogException, duckdb.BinderException, ValueError):
        meta = {}
    version = meta.get("schema_version", "")
    if meta.get("format") != _FORMAT or not version.isdigit():
        raise NotAStoreError("not a store of charging sessions", path)
    if int(version) > SCHEMA_VERSION:
        raise StoreTooNewError(
            f"store schema version {version} is newer than this release supports ({SCHEMA_VERSION})", path
        )
    return int(version)


def owner_of(con: duckdb.DuckDBPyConnection) -> StoreOwner | None:
    """Return the owner of the store; None if no backfill has claimed it yet, or if a prototype created it."""
    meta = dict(con.execute("SELECT key, value FROM meta").fetchall())
    return StoreOwner(meta["organization"], meta["origin"]) if "organization" in meta else None


def claim(con: duckdb.DuckDBPyConnection, owner: StoreOwner) -> None:
    """Store the owner, unless the store has one."""
    con.execute(
        "INSERT INTO meta SELECT * FROM (VALUES ('organization', $org_id), ('origin', $origin))"
        " WHERE NOT EXISTS (FROM meta WHERE key = 'organization')",
        {"org_id": owner.org_id, "origin": owner.origin},
    )

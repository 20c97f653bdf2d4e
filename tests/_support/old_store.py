"""Stores as older releases left them: their tables, created by the statements of these releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

__all__ = ["create_old_store"]

_TABLES = """
CREATE TABLE meta (key VARCHAR NOT NULL, value VARCHAR NOT NULL);
INSERT INTO meta VALUES ('format', 'podero_async sessions'), ('schema_version', '{version}');
CREATE TABLE sessions (
    user_id UUID NOT NULL,
    vehicle_id UUID NOT NULL,
    id UUID, plug_in_time TIMESTAMPTZ, unplug_time TIMESTAMPTZ, inferred_session_end TIMESTAMPTZ,
    desired_charging_start_time TIMESTAMPTZ, desired_charging_end_time TIMESTAMPTZ, charge_deadline TIMESTAMPTZ,
    target_soc_pct DOUBLE, initial_soc_pct DOUBLE, final_soc_pct DOUBLE, energy_charged_kwh DOUBLE,
    avg_charge_power_kw DOUBLE, peak_charge_power_kw DOUBLE, actual_cost_eur DOUBLE, expected_savings_eur DOUBLE,
    actual_savings_eur DOUBLE, is_at_home BOOLEAN, session_outcome VARCHAR, is_hidden BOOLEAN, hidden_reason VARCHAR,
    target_reachable BOOLEAN, reachable_soc_pct INTEGER,
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


def create_old_store(path: Path, version: int, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Create a store of schema version 1 or 2 (0 had no `withdrawn_at`) with rows by table."""
    with duckdb.connect(str(path)) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(_TABLES.replace("{version}", str(version)))
        if version == 0:
            con.execute("ALTER TABLE sessions DROP COLUMN withdrawn_at")
        for table, found in rows.items():
            for row in found:
                names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
                con.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))

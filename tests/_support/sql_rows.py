"""Sessions that a statement makes, for tests that need many of them."""

from __future__ import annotations

import duckdb

from podero_async.backfill import SessionStore
from podero_async.backfill.store.duckdb import DuckDBBackend

_MOMENTS = ("unplug_time", "inferred_session_end", "desired_charging_start_time", "charge_deadline")
_NUMBERS = ("target_soc_pct", "final_soc_pct", "energy_charged_kwh", "peak_charge_power_kw", "actual_savings_eur")
_INSERT = f"""
INSERT INTO sessions BY NAME SELECT md5(n::VARCHAR)::UUID AS id, id AS user_id, id AS vehicle_id, false AS is_hidden,
    TIMESTAMPTZ '2024-01-01' + to_minutes(n * {{step}}) AS plug_in_time, 'optimized' AS session_outcome,
    {", ".join(f"plug_in_time + to_microseconds((hash(n) % 10_000_000_000)::BIGINT) AS {name}" for name in _MOMENTS)},
    {", ".join(f"hash(n) / 1e18 AS {name}" for name in _NUMBERS)}, TIMESTAMPTZ '2026-01-01' AS fetched_at,
    fetched_at AS first_seen_at, fetched_at AS changed_at
FROM range({{rows}}) t(n)
"""


async def execute(store: SessionStore, sql: str) -> None:
    """Run a statement that changes the store."""
    assert isinstance(store.backend, DuckDBBackend)
    await store.backend.call(duckdb.DuckDBPyConnection.execute, sql)


async def insert_sessions(store: SessionStore, rows: int, *, step_minutes: int = 1) -> None:
    """Insert sessions that were plugged in one after another, from 2024-01-01 on."""
    await execute(store, _INSERT.format(rows=rows, step=step_minutes))

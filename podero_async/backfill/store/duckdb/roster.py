"""The roster: the vehicles of the next run, and the days of each vehicle that the run must read."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import duckdb

from podero_async.backfill._values import RunSettings, days_needed, scope_of_list
from podero_async.backfill.store.duckdb.columns import unlisted_table, vehicles_table
from podero_async.backfill.store.duckdb.queries import stored_spans
from podero_async.models import VehicleFailure, VehicleRef

__all__ = ["add_to_roster", "clear_roster", "find_needs", "roster_scope", "scope_of_pairs"]

_PAIR = "user_id, vehicle_id"
_PAIRS_PER_SLICE = 1_024  # converting a slice holds the interpreter's lock


def clear_roster(con: duckdb.DuckDBPyConnection) -> None:
    """Start an empty roster."""
    con.execute("CREATE OR REPLACE TEMP TABLE roster (user_id UUID, vehicle_id UUID)")
    con.execute("CREATE OR REPLACE TEMP TABLE unlisted (user_id UUID, kind VARCHAR, message VARCHAR)")


def add_to_roster(con: duckdb.DuckDBPyConnection, vehicles: list[VehicleRef], failures: list[VehicleFailure]) -> None:
    """Add vehicles; if a user's vehicle list failed, add the user's vehicles that are in the store."""
    con.register("arrow_vehicles", vehicles_table(vehicles))
    con.execute("INSERT INTO roster FROM arrow_vehicles")
    if failures:
        con.register("arrow_unlisted", unlisted_table(failures))
        con.execute("INSERT INTO unlisted FROM arrow_unlisted")
        con.execute(
            f"INSERT INTO roster SELECT DISTINCT {_PAIR} FROM receipts SEMI JOIN arrow_unlisted USING (user_id)"
        )


def roster_scope(con: duckdb.DuckDBPyConnection) -> str:
    """Return the scope of a run over the roster."""
    return scope_of_pairs(con, "roster")


def scope_of_pairs(con: duckdb.DuckDBPyConnection, source: str, *values: int) -> str:
    """Return the scope of a run over the vehicles of a FROM clause, which are streamed."""
    pair = "user_id::VARCHAR || '/' || vehicle_id::VARCHAR AS pair"
    found = con.execute(f"SELECT DISTINCT {pair} FROM {source} ORDER BY pair", list(values))

    def slices() -> Iterator[list[str]]:
        while rows := found.fetchmany(_PAIRS_PER_SLICE):
            yield [pair for (pair,) in rows]

    return scope_of_list(slices())


# The stored days of a vehicle are one text. Most vehicles have the same text, so few texts are planned.
_STORED = f"(FROM receipts SEMI JOIN roster USING ({_PAIR}) WHERE include_hidden OR NOT $include_hidden)"
_HOLDINGS = f"""
CREATE OR REPLACE TEMP TABLE holdings AS
WITH texts AS (
    SELECT {_PAIR}, string_agg(from_date || '/' || held_to, ' ' ORDER BY from_date) AS days
    FROM ({stored_spans(_STORED, _PAIR)}) GROUP BY {_PAIR}
)
SELECT DISTINCT {_PAIR}, coalesce(days, '') AS days FROM roster LEFT JOIN texts USING ({_PAIR})
"""


def find_needs(con: duckdb.DuckDBPyConnection, settings: RunSettings) -> tuple[int, int]:
    """Fill the tables `holdings` and `needs`; return the number of vehicles, and of those that need no request."""
    window = (settings.window.from_date, settings.window.to_date)
    con.execute(_HOLDINGS, {"include_hidden": settings.window.include_hidden})
    con.execute("CREATE OR REPLACE TEMP TABLE needs (days VARCHAR, from_date DATE, to_date DATE)")
    for (days,) in con.execute("SELECT DISTINCT days FROM holdings").fetchall():
        stored = [_parse_days(span) for span in days.split()]
        for need in days_needed(window, stored, settings.refresh_days):
            con.execute("INSERT INTO needs VALUES (?, ?, ?)", [days, *need])
    vehicles, skipped = con.execute(
        "SELECT count(*), count(*) FILTER (days NOT IN (SELECT days FROM needs)) FROM holdings"
    ).fetchall()[0]
    return int(vehicles), int(skipped)


def _parse_days(text: str) -> tuple[date, date]:
    start, _, end = text.partition("/")
    return date.fromisoformat(start), date.fromisoformat(end)

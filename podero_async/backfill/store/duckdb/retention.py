"""Retention: the first day that a store keeps. Rows of older days are left out when its tables are written anew."""

# ruff: noqa: S608 - the SQL is composed of names of tables and of days

from __future__ import annotations

from datetime import date

import duckdb

__all__ = ["KEPT_FROM", "kept_from", "kept_rows"]

KEPT_FROM = "(SELECT max(TRY_CAST(value AS DATE)) FROM meta WHERE key = 'kept_from')"
"""SQL for the first day that the store keeps; NULL if no day was erased."""

_IS_KEPT = {
    "sessions": "plug_in_time >= DATE '{day}'::TIMESTAMPTZ",
    "coverage": "to_date >= DATE '{day}'",
    "receipts": "to_date >= DATE '{day}'",
    "failures": "to_date >= DATE '{day}' OR to_date IS NULL",  # NULL: the list of a user's vehicles failed
    "rejected_items": "to_date >= DATE '{day}'",
}
# A receipt keeps its window: its counts and its digest are those of the whole read, and no session can be told from them.
_CUT = {"coverage", "failures", "rejected_items"}


def kept_from(con: duckdb.DuckDBPyConnection) -> date | None:
    """Return the first day that the store keeps; None if no day was erased."""
    day: date | None
    ((day,),) = con.execute(f"SELECT {KEPT_FROM}").fetchall()
    return day


def kept_rows(table: str, rows: str, day: date | None) -> str:
    """Return SQL for the rows of a table that are not of days before a day; windows that begin earlier are cut there."""
    if day is None or table not in _IS_KEPT:
        return f"SELECT * FROM {rows}"
    cut = f" REPLACE (if(from_date < DATE '{day}', DATE '{day}', from_date) AS from_date)" if table in _CUT else ""
    return f"SELECT *{cut} FROM {rows} WHERE {_IS_KEPT[table].format(day=day)}"

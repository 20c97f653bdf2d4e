"""Turns a store into one of schema version 2, whose release knew receipts, but neither coverage nor absent sessions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from tests._support.old_store import create_old_store
from tests.year.recorder import Read, Recorder
from tests.year.world import DAY


def make_old(path: Path, recorder: Recorder) -> None:
    """Replace a closed store by an older one with the same sessions, and let the recorder forget what that cannot tell.

    The older release called a day held when it had been over at the read. It marked no session as absent.
    """
    with duckdb.connect(str(path)) as con:
        con.execute("SET TimeZone = 'UTC'")
        sessions = _rows(con, "SELECT * EXCLUDE (absent_at) FROM sessions")
        meta = _rows(con, "SELECT key, value FROM meta WHERE key IN ('organization', 'origin')")
        live = {str(row["id"]) for row in sessions if row["withdrawn_at"] is None}
    for session_id in live:
        recorder.known[session_id].absences.clear()
    for days in recorder.last_proven.values():
        for day in [day for day, read in days.items() if day >= read.at.date()]:
            del days[day]
    path.unlink()
    Path(f"{path}.wal").unlink(missing_ok=True)
    receipts = [_receipt(*each) for each in _spans(recorder)]
    create_old_store(path, 2, {"sessions": sessions, "meta": meta, "receipts": receipts})


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    found = con.execute(sql)
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _spans(recorder: Recorder) -> Iterator[tuple[Read, date, date]]:
    """Yield each read with the spans of days of which it is the last proven read."""
    for days in recorder.last_proven.values():
        for day in sorted(days):
            if days.get(day - DAY) is not days[day]:
                last = day
                while days.get(last + DAY) is days[day]:
                    last += DAY
                yield days[day], day, last


def _receipt(read: Read, first: date, last: date) -> dict[str, Any]:
    return {
        "run_id": read.run,
        "task": read.number,
        "user_id": read.pair.user_id,
        "vehicle_id": read.pair.vehicle_id,
        "from_date": first,
        "to_date": last,
        "include_hidden": read.include_hidden,
        "completeness": "verified",
        "total": len(read.sessions),
        "count": len(read.sessions),
        "digest": "0" * 32,
        "requests": 1,
        "held_to": last,
        "fetched_at": read.at,
    }

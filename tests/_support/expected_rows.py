"""The rows of a store and of a simulator in the same form, so that tests can compare them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import attrs

from podero_async.backfill import SessionStore
from podero_async.models import ChargingSession
from podero_async.testing import PoderoSimulator

FIRST, LAST = date(2026, 6, 1), date(2026, 6, 30)
"""The window that most tests read: the last month of a simulator's sessions."""

FIELDS = [field.name for field in attrs.fields(ChargingSession)]
TIMES = {name for name in FIELDS if name.endswith("_time") or name in {"charge_deadline", "inferred_session_end"}}

Rows = dict[tuple[str, str], dict[str, Any]]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]  # year, month, day, ...


def truth_of(
    sim: PoderoSimulator, first: date | None = None, last: date | None = None, *, include_hidden: bool = False
) -> Rows:
    """Return the rows that the simulator serves, by vehicle and session id."""
    return {
        (str(vehicle.vehicle_id), row["id"]): {name: _value(name, row.get(name)) for name in FIELDS}
        for vehicle in sim.vehicles
        for row in sim.truth(vehicle, first, last, include_hidden=include_hidden)
    }


def _value(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name in TIMES and value else value


async def held_by(store: SessionStore, where: str = "withdrawn_at IS NULL") -> Rows:
    """Return the rows of a store, by vehicle and session id; fail if a session is stored twice."""
    rows = await store.query(f"SELECT * FROM sessions WHERE {where}")
    duplicates = [row_id for row_id, count in Counter(row["id"] for row in rows).items() if count > 1]
    assert not duplicates, f"{len(duplicates)} sessions are stored more than once"
    return {(row["vehicle_id"], row["id"]): {name: row[name] for name in FIELDS} for row in rows}


async def assert_equal(path: Path | str, truth: Rows) -> None:
    """Open a store and compare its rows with the expected ones."""
    async with SessionStore(path) as store:
        stored = await held_by(store)
    assert stored.keys() == truth.keys(), (
        f"{len(truth.keys() - stored.keys())} lost, {len(stored.keys() - truth.keys())} surplus"
    )
    assert stored == truth

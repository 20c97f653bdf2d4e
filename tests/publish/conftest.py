"""The store of the tests of `publish`, which is written a batch at a time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from podero_async import User, VehicleRef
from podero_async.backfill.store.duckdb import vehicles
from podero_async.backfill.store.duckdb.connection import close_store, open_store
from tests._support.clients import wire_row
from tests._support.written_store import ONE_DAY, Read, WrittenStore


class StoreFile:
    """A store in a file, which is open only while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at = datetime.fromisoformat("2026-02-01T00:00:00Z")

    def write(self, *reads: Read, listed: dict[int, tuple[int, ...]] | None = None, **options: Any) -> None:
        """Write a batch, a day after the one before, and then the vehicles of each listed user."""
        con = open_store(str(self.path), read_only=False, memory_limit_mb=256)
        try:
            store = WrittenStore(con)
            self.at += ONE_DAY
            store.write(*reads, now=options.pop("now", self.at), keep_unknown=options.pop("keep_unknown", False))
            if listed is not None:
                self._discover(store, listed, **options)
        finally:
            close_store(con, self.path.resolve())

    def _discover(self, store: WrittenStore, listed: dict[int, tuple[int, ...]], model: str = "ID.3") -> None:
        users = [User(id=UUID(int=number), external_user_id=f"customer_{number}") for number in listed]
        cars = [
            VehicleRef(user_id=UUID(int=number), vehicle_id=UUID(int=car), model=model)
            for number, owned in listed.items()
            for car in owned
        ]
        vehicles.clear_roster(store.con)
        vehicles.add_to_roster(store.con, users, cars, [])
        vehicles.record_fleet(store.con, None, self.at, 1.0, is_complete=True)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement."""
        con = open_store(str(self.path), read_only=False, memory_limit_mb=256)
        try:
            return con.execute(sql).fetchall()
        finally:
            close_store(con, self.path.resolve())


@pytest.fixture
def made(tmp_path: Path) -> StoreFile:
    """Return a store with two sessions of each of two users."""
    made = StoreFile(tmp_path / "fleet.duckdb")
    made.write(
        Read(1, [wire_row(1), wire_row(2)]),
        Read(2, [wire_row(3), wire_row(4)], user=2),
        listed={1: (1,), 2: (2,)},
    )
    return made

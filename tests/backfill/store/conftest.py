"""Fixtures for tests of the store: a store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from podero_async.backfill.store.duckdb.connection import close_store, open_store
from tests._support.written_store import WrittenStore


@pytest.fixture
def store() -> Iterator[WrittenStore]:
    """Open an empty store."""
    con = open_store(":memory:", read_only=False, memory_limit_mb=256)
    yield WrittenStore(con)
    close_store(con, Path(":memory:"))

"""What the backfill's tests share: a small fleet, a client, a store's path and a clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from podero_async import PoderoClient
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of


@attrs.define
class Clock:
    """The time as a backfill is told it."""

    at: datetime = datetime(2026, 7, 2, 3, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(milliseconds=1)  # no two moments are the same
        return self.at

    def forward(self, **span: int) -> None:
        self.at += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    """Begin two days after the simulator's last session."""
    return Clock()


@pytest.fixture
async def sim() -> AsyncIterator[PoderoSimulator]:
    """Serve 6 users, 12 vehicles, 30 sessions each."""
    async with PoderoSimulator(users=6, vehicles=12, sessions_per_vehicle=30, seed=3) as running:
        yield running


@pytest.fixture
async def client(sim: PoderoSimulator) -> AsyncIterator[PoderoClient]:
    """Read from it."""
    async with client_of(sim) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a store that is not there yet."""
    return tmp_path / "fleet.duckdb"

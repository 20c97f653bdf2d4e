"""Fixtures for tests of the backfill: a small fleet, a client, the path of a store, and a clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from podero_async import PoderoClient
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of

AGAIN = timedelta()
"""The `fresh_for` of a run that reads provisional days again at once."""


@attrs.define
class Clock:
    """A clock for backfills, which advances by a millisecond at each call."""

    at: datetime = datetime(2026, 7, 2, 3, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(milliseconds=1)
        return self.at

    def timestamp(self) -> float:
        """Return the time for a server, which does not advance the clock."""
        return self.at.timestamp()

    def forward(self, **span: int) -> None:
        self.at += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    """Start two days after the simulator's last session."""
    return Clock()


@pytest.fixture
async def sim(clock: Clock) -> AsyncIterator[PoderoSimulator]:
    """Serve 6 users, 12 vehicles, 30 sessions each; the server has the time of the clock."""
    async with PoderoSimulator(
        users=6,
        vehicles=12,
        sessions_per_vehicle=30,
        seed=3,
        clock=clock.timestamp,
        token_lifetime_s=10**9,
    ) as running:
        yield running


@pytest.fixture
async def client(sim: PoderoSimulator) -> AsyncIterator[PoderoClient]:
    """Connect to the simulator."""
    async with client_of(sim) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a store that does not exist yet."""
    return tmp_path / "fleet.duckdb"

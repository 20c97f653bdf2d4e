"""Fixtures for tests of the backfill: a small fleet, a client, the path of a store, and a clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

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


def small_fleet(clock: Clock) -> PoderoSimulator:
    """Return a server of 6 users, 12 vehicles, 30 sessions each; it has the time of the clock."""
    return PoderoSimulator(
        users=6,
        vehicles=12,
        sessions_per_vehicle=30,
        seed=3,
        clock=clock.timestamp,
        token_lifetime_s=10**9,
    )


@pytest.fixture
async def sim(clock: Clock) -> AsyncIterator[PoderoSimulator]:
    """Serve the small fleet."""
    async with small_fleet(clock) as running:
        yield running


@pytest.fixture
async def client(sim: PoderoSimulator) -> AsyncIterator[PoderoClient]:
    """Connect to the simulator."""
    async with client_of(sim) as made:
        yield made

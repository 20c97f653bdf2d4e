"""What all tests share: the event loop they run on, and a simulator to talk to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from podero_async.testing import PoderoSimulator
from tests.leaping import LeapingLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is marked `leaping` on a loop that jumps over waits instead of sitting them out."""
    if item.get_closest_marker("leaping"):
        return {"leaping": LeapingLoop}
    return {"plain": asyncio.new_event_loop}


@pytest.fixture
async def simulator() -> AsyncIterator[PoderoSimulator]:
    """Serve a small fleet: 8 users, 10 vehicles, 40 sessions each."""
    async with PoderoSimulator(users=8, vehicles=10, sessions_per_vehicle=40, seed=1) as running:
        yield running

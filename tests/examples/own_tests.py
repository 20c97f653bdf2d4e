"""Tests of your own code against the simulator. The `conftest.py` of their root folder opts in:

pytest_plugins = ["podero_async.testing.pytest"]
"""

import pytest

from podero_async import PoderoClient, VehicleSessions
from podero_async.testing import PoderoSimulator


async def count_sessions(client: PoderoClient, simulator: PoderoSimulator) -> int:
    """Stand for your own code."""
    async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
        return sum([len(outcome.sessions) async for outcome in fleet if isinstance(outcome, VehicleSessions)])


@pytest.mark.podero(vehicles=12, sessions_per_vehicle=50, faults=["status:503@5%", "reset@2%"])
async def test_no_session_is_lost(podero_simulator: PoderoSimulator, podero_client: PoderoClient) -> None:
    """All sessions are read, although some requests fail, and so is one that is added later."""
    truth = sum(len(podero_simulator.truth(vehicle)) for vehicle in podero_simulator.vehicles)
    assert await count_sessions(podero_client, podero_simulator) == truth
    podero_simulator.insert(podero_simulator.vehicles[0])
    assert await count_sessions(podero_client, podero_simulator) == truth + 1

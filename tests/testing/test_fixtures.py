"""The fixtures and the marker of `podero_async.testing.pytest`, as a test suite uses them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest

from podero_async import ConfigurationError, PoderoClient, RetryPolicy, StaticToken
from podero_async.testing import PoderoSimulator


@pytest.mark.podero(users=3, vehicles=4, faults=["users/status:503@#1"])
async def test_the_marker_sets_the_options(podero_simulator: PoderoSimulator, podero_client: PoderoClient) -> None:
    """The marker's options are those of the simulator, and the client is one of it and retries."""
    assert len([user async for user in podero_client.users()]) == 3
    assert (len(podero_simulator.vehicles), podero_simulator.counts.faults) == (4, {"status": 1})


@pytest.mark.podero(users=2, vehicles=2)
class TestMarkers:
    """Markers of a class and of its tests."""

    @pytest.mark.podero(vehicles=5)
    def test_the_closest_marker_wins(self, podero_simulator: PoderoSimulator) -> None:
        """An option of the test replaces that of its class, and the others remain."""
        assert (len(podero_simulator.external_ids), len(podero_simulator.vehicles)) == (2, 5)

    async def test_a_method_has_a_client(self, podero_client: PoderoClient) -> None:
        """A test in a class has a client, too."""
        assert len([user async for user in podero_client.users()]) == 2


async def test_more_simulators_and_clients(
    podero_simulator_factory: Callable[..., PoderoSimulator], podero_client_factory: Callable[..., PoderoClient]
) -> None:
    """The factories start simulators and make clients with other options."""
    other = podero_simulator_factory(users=1)
    client = podero_client_factory(other, retry=RetryPolicy(max_attempts=1))
    assert [user.id async for user in client.users()] == list(other.external_ids)
    assert len([user async for user in podero_client_factory().users()]) == 10
    refused = podero_client_factory(credentials=StaticToken("unknown"))
    assert refused.statistics().requests == 0


async def test_the_environment_is_set(podero_environment: dict[str, str], podero_simulator: PoderoSimulator) -> None:
    """Code under test that reads its settings from the environment talks to the simulator."""
    assert os.environ["PODERO_BASE_URL"] == podero_environment["PODERO_BASE_URL"] == podero_simulator.base_url
    async with PoderoClient.from_env() as client:
        assert len([user async for user in client.users()]) == 10


def test_a_synchronous_test(podero_simulator: PoderoSimulator, podero_client: PoderoClient) -> None:
    """A synchronous test changes the simulator, and runs an event loop of its own for the client."""

    async def read() -> int:
        async with podero_client as client:
            return len([user async for user in client.users()])

    podero_simulator.add_vehicle()
    assert asyncio.run(read()) == 11


@pytest.fixture
async def closed_clients() -> AsyncIterator[list[PoderoClient]]:
    """Collect clients, and check after the test function that they are closed."""
    clients: list[PoderoClient] = []
    yield clients
    for client in clients:
        with pytest.raises(ConfigurationError, match="closed"):
            await client.electric_vehicles(UUID(int=1))


async def test_clients_are_closed_with_the_test(
    podero_client_factory: Callable[..., PoderoClient], closed_clients: list[PoderoClient]
) -> None:
    """When the test function has returned, all its clients are closed."""
    for _ in range(2):
        closed_clients.append(podero_client_factory())
        assert [user async for user in closed_clients[-1].users()]

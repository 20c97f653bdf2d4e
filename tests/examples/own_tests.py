"""A test of your own code against the simulator, with faults."""

from podero_async import ClientCredentials, PoderoClient
from podero_async.testing import Fault, PoderoSimulator


async def simulated_sessions() -> int:
    """Return how many sessions a fleet of twelve vehicles has, although the simulator makes requests fail."""
    faults = [Fault(kind="status", status=503, rate=0.05), Fault(kind="reset", rate=0.02)]
    async with PoderoSimulator(users=10, vehicles=12, sessions_per_vehicle=50, seed=1, faults=faults) as simulator:
        credentials = ClientCredentials(simulator.client_id, simulator.client_secret)
        async with PoderoClient(simulator.org_id, credentials, base_url=simulator.base_url) as client:
            async with client.fetch_fleet(simulator.first_day, simulator.last_day) as fleet:
                _ = [outcome async for outcome in fleet]
                return fleet.summary.sessions

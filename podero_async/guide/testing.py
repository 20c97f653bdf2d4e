"""Testing: test your own code without the API, and make the API fail.

`podero_async.testing` has a simulator of the API: a real HTTP server on loopback, so the whole client runs in your
tests, and nothing is mocked. It documents the simulator, its changes and its faults; `podero_async.testing.pytest`
documents the fixtures. Both need no extra.

# How do I test my code without the API?

With pytest, write one line into the `conftest.py` of the root folder of your tests:

    pytest_plugins = ["podero_async.testing.pytest"]

Tests then take a running simulator, a client of it, or the environment variables of one, as arguments. For tests that
are coroutines, install pytest-asyncio (with `asyncio_mode = "auto"`, or mark them) or use anyio:

```python
import pytest


@pytest.mark.podero(users=3, vehicles=4)
async def test_all_users_are_listed(podero_simulator, podero_client):
    users = [user async for user in podero_client.users()]
    assert sorted(user.external_user_id for user in users) == sorted(podero_simulator.external_ids.values())
```

Without pytest, or in another fixture of yours:

```python
from podero_async import ClientCredentials, PoderoClient
from podero_async.testing import PoderoSimulator


async def with_a_simulator() -> None:
    async with PoderoSimulator(users=3, vehicles=4) as simulator:
        credentials = ClientCredentials(simulator.client_id, simulator.client_secret)
        async with PoderoClient(simulator.org_id, credentials, base_url=simulator.base_url) as client:
            vehicle = simulator.vehicles[0]
            read = await client.vehicle_sessions(
                vehicle.user_id, vehicle.vehicle_id, simulator.first_day, simulator.last_day
            )
            assert len(read.sessions) == len(simulator.truth(vehicle))
```

# How do I test code that creates its own client from the environment?

The fixture `podero_environment` sets the `PODERO_*` variables to the simulator; the test itself may be synchronous:

```python
import asyncio

import pytest

from podero_async import PoderoClient


def number_of_users() -> int:
    async def count() -> int:
        async with PoderoClient.from_env() as client:
            return len([user async for user in client.users()])

    return asyncio.run(count())


@pytest.mark.podero(users=3)
def test_number_of_users(podero_environment):
    assert number_of_users() == 3
```

# How do I test what happens if the API fails?

Faults are texts: which requests, and what happens to them. A client retries most of them, so the test needs no more
than the result:

```python
import pytest


@pytest.mark.podero(vehicles=4, faults=["sessions/status:503@#1", "reset@5%"])
async def test_a_failure_loses_nothing(podero_simulator, podero_client):
    days = (podero_simulator.first_day, podero_simulator.last_day)
    async with podero_client.fetch_fleet(*days) as fleet:
        outcomes = [outcome async for outcome in fleet]
    assert len(outcomes) == 4
```

`status:429:retry-after=1` is a server that throttles, `hang` one that never responds, `malformed_row:id` an unreadable
row, and `status:503` without an end an outage. The prefix `sessions/` chooses an endpoint (`current`, `sessions`, `token`,
`user`, `users` or `vehicles`), `@5%` a share of the requests, and `@100%x20` the first 20: see "Faults" in
`podero_async.testing`.

# How do I test a car that is plugged in, or a session that comes late?

`plug_in`, `complete_current`, `insert`, `update` and `remove` change what the simulator serves, also while a client
reads. Some generated vehicles are plugged in from the start; `set_current(vehicle, None)` unplugs one:

```python
async def test_a_session_is_completed(podero_simulator, podero_client):
    vehicle = podero_simulator.vehicles[0]
    ids = (vehicle.user_id, vehicle.vehicle_id)
    podero_simulator.set_current(vehicle, None)
    podero_simulator.plug_in(vehicle)
    assert await podero_client.current_session(*ids) is not None
    podero_simulator.complete_current(vehicle)
    assert await podero_client.current_session(*ids) is None
```

# The simulator's sessions end in June: how do I make one of today, or of this week?

The generated sessions lie between `first_day` and `last_day`, in the first half of 2026, however late it is now. Give
`plug_in` a time:

```python
from datetime import UTC, datetime, timedelta


async def test_a_session_of_this_week(podero_simulator, podero_client):
    vehicle = podero_simulator.vehicles[0]
    podero_simulator.set_current(vehicle, None)
    podero_simulator.plug_in(vehicle, datetime.now(UTC) - timedelta(hours=9))
    podero_simulator.complete_current(vehicle)
    assert await podero_client.latest_session(vehicle.user_id, vehicle.vehicle_id, days=7) is not None
```

`PoderoSimulator(rows=...)` and `podero-async simulate --rows FILE` serve sessions of your own, of any day.

A second backfill does not read settled days again, and these days are. So to test that it stores new sessions, let them
end now, by `plug_in` as above or by `podero-async simulate --complete-every 5`, and run it with `--fresh-for 0`
(`fresh_for=timedelta(0)`).
"""

"""Fixtures and a marker for pytest. Each simulator serves in its own thread, so a test may have any event loop, or none.

To opt in, write this into the `conftest.py` of the root folder of your tests:

    pytest_plugins = ["podero_async.testing.pytest"]

A test then takes fixtures as arguments, and the marker sets the options of its simulator:

    @pytest.mark.podero(users=3, faults=["sessions/status:503@5%"])
    async def test_report(podero_simulator, podero_client):
        assert len([user async for user in podero_client.users()]) == 3

| name | meaning |
|---|---|
| `podero_simulator` | a running `PoderoSimulator`, whose methods may be called from the test |
| `podero_client` | a `PoderoClient` of this simulator, with its credentials |
| `podero_environment` | sets the `PODERO_*` environment variables to this simulator, for code that calls `PoderoClient.from_env` |
| `podero_simulator_factory` | starts more simulators: `podero_simulator_factory(users=2)` |
| `podero_client_factory` | makes more clients: `podero_client_factory(simulator, retry=...)`; without a simulator, of `podero_simulator` |
| `@pytest.mark.podero(...)` | the arguments of `PoderoSimulator`; those of a test override those of its class and module |

All fixtures have function scope. For a simulator of another scope, write a fixture with `with PoderoSimulator(...)`.

The clients retry within milliseconds. They are closed when an asynchronous test function returns, in its event loop.
pytest-asyncio in both modes, anyio's plugin and all loop scopes are supported. In a synchronous test, use a client as
`async with podero_client:`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from podero_async import ClientCredentials, ConfigurationError, PoderoClient, RetryPolicy
from podero_async.testing import PoderoSimulator

__all__: list[str] = []  # pytest finds the fixtures

_QUICK = RetryPolicy(backoff_initial=0.001, backoff_max=0.01)
_OTHER_VARIABLES = ("PODERO_USERNAME", "PODERO_PASSWORD", "PODERO_TOKEN")
_clients = pytest.StashKey[list[PoderoClient]]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "podero(**options): the options of the PoderoSimulator of this test")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let an asynchronous test function close its clients, since only its own event loop can, and may end with it."""
    clients = item.stash.get(_clients, None)
    if clients is None or not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
        return (yield)
    function = item.obj
    item.obj = _closing(function, clients)
    try:
        return (yield)
    finally:
        item.obj = function


def _closing(function: Callable[..., Awaitable[object]], clients: list[PoderoClient]) -> Callable[..., object]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> object:
        try:
            return await function(*args, **kwargs)
        finally:
            for client in clients:
                with suppress(ConfigurationError):  # used in another event loop, so only the test can close it there
                    await client.aclose()

    return call


@pytest.fixture
def podero_simulator_factory() -> Iterator[Callable[..., PoderoSimulator]]:
    """Return a function that starts a simulator with the given options; all end with the test."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(PoderoSimulator(**options))


@pytest.fixture
def podero_simulator(
    request: pytest.FixtureRequest, podero_simulator_factory: Callable[..., PoderoSimulator]
) -> PoderoSimulator:
    """Return a running simulator with the options of the marker `podero`."""
    options: dict[str, Any] = {}
    for marker in request.node.iter_markers("podero"):  # the closest first
        if marker.args:
            raise pytest.UsageError("the marker podero takes keyword arguments only, as in podero(users=3)")
        options = {**marker.kwargs, **options}
    return podero_simulator_factory(**options)


@pytest.fixture
def podero_client_factory(
    request: pytest.FixtureRequest, podero_simulator: PoderoSimulator
) -> Callable[..., PoderoClient]:
    """Return a function that makes a client of a simulator, with the given options of `PoderoClient`."""
    clients = request.node.stash[_clients] = list[PoderoClient]()

    def make(simulator: PoderoSimulator = podero_simulator, **options: Any) -> PoderoClient:
        credentials = options.pop("credentials", ClientCredentials(simulator.client_id, simulator.client_secret))
        options = {"base_url": simulator.base_url, "retry": _QUICK, **options}
        clients.append(PoderoClient(simulator.org_id, credentials, **options))
        return clients[-1]

    return make


@pytest.fixture
def podero_client(podero_client_factory: Callable[..., PoderoClient]) -> PoderoClient:
    """Return a client of the test's simulator."""
    return podero_client_factory()


@pytest.fixture
def podero_environment(podero_simulator: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the environment variables of a client of the test's simulator, and return them."""
    for name in _OTHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in podero_simulator.environment.items():
        monkeypatch.setenv(name, value)
    return podero_simulator.environment

"""The names that callers depend on."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from types import ModuleType
from typing import get_type_hints

import attrs
import pytest

import podero_async
import podero_async.backfill
import podero_async.testing
from podero_async import PoderoClient, RetryPolicy, ThrottlePolicy, Timeouts, models

PUBLIC = [
    (package, name)
    for package in (podero_async, podero_async.backfill, podero_async.testing)
    for name in package.__all__
    if callable(getattr(package, name))
]

DESIGNED = {
    "ClientCredentials",
    "PasswordCredentials",
    "StaticToken",
    "PoderoClient",
    "RetryPolicy",
    "ThrottlePolicy",
    "Timeouts",
    "PRODUCTION_URL",
    "SANDBOX_URL",
    "TokenStore",
    "FileTokenStore",
    "ChargingSession",
    "SessionsPage",
    "User",
    "ElectricVehicle",
    "VehicleRef",
    "VehicleSessions",
    "VehicleFailure",
    "FleetSummary",
    "SessionOutcome",
    "HiddenReason",
    "Completeness",
    "PoderoError",
    "ConfigurationError",
    "TransportError",
    "RequestTimeoutError",
    "ApiError",
    "AuthenticationError",
    "PermissionDeniedError",
    "NotFoundError",
    "InvalidRequestError",
    "RateLimitError",
    "ServerError",
    "DecodeError",
    "CompletenessError",
}
CALLS = [
    "list_sessions",
    "sessions",
    "vehicle_sessions",
    "current_session",
    "users",
    "user_by_external_id",
    "electric_vehicles",
    "discover_vehicles",
    "fetch_fleet",
]


def test_all_is_the_namespace_sorted() -> None:
    """A name would be public by accident, or missing from `import *`."""
    public = {name for name in vars(podero_async) if not name.startswith("_")} - {
        "errors",
        "models",
        "cli",
        "testing",
        "backfill",
    }
    assert public | {"__version__"} == set(podero_async.__all__)
    assert podero_async.__all__ == sorted(
        podero_async.__all__, key=lambda name: (not name.isupper(), name.startswith("_"), name)
    )
    assert set(podero_async.__all__) >= DESIGNED


def test_every_public_name_is_documented() -> None:
    """`help()` would be empty where it is needed most."""
    for name in podero_async.__all__:
        value = getattr(podero_async, name)
        if inspect.isclass(value):
            assert len(inspect.getdoc(value) or "") > 15, name
    for name in [*CALLS, "from_env", "aclose"]:
        assert inspect.getdoc(getattr(PoderoClient, name)), name


@pytest.mark.parametrize("name", CALLS)
def test_every_call_names_its_path_where_it_has_one(name: str) -> None:
    """A reader could not find the call in the vendor's reference."""
    if name not in {"sessions", "vehicle_sessions", "fetch_fleet"}:
        assert "`GET ..." in (inspect.getdoc(getattr(PoderoClient, name)) or "")


@pytest.mark.parametrize("policy", [RetryPolicy, ThrottlePolicy, Timeouts])
def test_policies_are_frozen_values(policy: type[attrs.AttrsInstance]) -> None:
    """A policy shared by two clients could be changed by one."""
    assert policy() == policy()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(policy(), attrs.fields(policy)[0].name, 1)


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda value: getattr(value, "__name__", value))
def test_a_public_name_shows_its_public_module(package: ModuleType, name: str) -> None:
    """Reprs, tracebacks and pickles of public names hold the public module, and annotations resolve in it."""
    value = getattr(package, name)
    assert value.__module__ == package.__name__
    assert pickle.loads(pickle.dumps(value)) is value
    get_type_hints(value)
    if inspect.isclass(value):
        get_type_hints(value.__init__)


def test_models_are_all_public() -> None:
    """A caller could not annotate what it was given."""
    assert set(models.__all__) <= set(podero_async.__all__)


def test_the_import_brings_nothing_that_is_needed_later_or_never() -> None:
    """A bot would load a terminal library, a web server and a database at its start; and what only trouble calls for."""
    heavy = ["rich", "duckdb", "pyarrow", "filelock", "argparse", "podero_async.testing", "podero_async.cli"]
    heavy += ["cattrs", "tenacity"]
    code = f"import sys, aiohttp; before = set(sys.modules); import podero_async; print(*[n for n in {heavy} if n in set(sys.modules) - before])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []

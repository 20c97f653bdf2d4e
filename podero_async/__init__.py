"""An asyncio client of Podero's Partner API that fetches every completed charging session of a fleet.

Sessions are typed, each list is verified to be complete, and the client is as fast as the API allows:

```python
import asyncio
from datetime import date
from podero_async import PoderoClient, VehicleSessions

async def main() -> None:
    async with PoderoClient.from_env() as client:
        async with client.fetch_fleet(date(2026, 1, 1), date(2026, 6, 30)) as fleet:
            async for outcome in fleet:
                if isinstance(outcome, VehicleSessions):
                    print(outcome.vehicle.vehicle_id, len(outcome.sessions), outcome.completeness)

asyncio.run(main())
```

`PoderoClient` has all calls, and its documentation lists the errors that they raise: in Python, `help(PoderoClient)`. All
errors derive from `PoderoError`.

`podero_async.guide` answers the questions of users; begin with `podero_async.guide.getting_started`. The other pages are
`podero_async.guide.completeness`, `podero_async.guide.tuning`, `podero_async.guide.errors`, `podero_async.guide.services`,
`podero_async.guide.testing`, `podero_async.guide.stores` and `podero_async.guide.operations`. `podero_async.backfill`
keeps a fleet's sessions in a database, `podero_async.publish` copies them to PostgreSQL, and `podero_async.report` makes a
page of their figures.

# Analysis

`summarize` sums sessions by month, outcome, vehicle or customer; `podero_async.frames` makes Arrow, pandas
and polars frames of them, and `podero_async.dask` makes Dask frames that a cluster fetches. `to_dict` and `to_json` of a model have the API's names and order, and FastAPI accepts the models
as response types.

# Traces and metrics

An `Observer` is told of each call and attempt (`podero_async.observer`); that of `podero_async.otel` makes spans and metrics
of OpenTelemetry.

# Services

`http_status_of` returns the HTTP status with which a service responds to its own caller if a call fails;
`podero_async.guide.services` has health checks and outages.

# Import

`import podero_async` alone loads nothing yet; the first name that is used loads aiohttp and the client, which
takes some 0.2 s. `from podero_async import PoderoClient` at the top of a module does so before an event loop runs.

# Testing

`podero_async.testing` is a simulator of the API, a real HTTP server on loopback that can also misbehave;
`podero_async.testing.pytest` has fixtures of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from podero_async._version import __version__

if TYPE_CHECKING:
    from podero_async._auth.credentials import (
        ClientCredentials,
        Credentials,
        PasswordCredentials,
        StaticToken,
        TokenEndpoint,
    )
    from podero_async._auth.store import FileTokenStore, Token, TokenStore
    from podero_async._client import PoderoClient
    from podero_async._failures import http_status_of
    from podero_async._fleet.fetch import FleetFetch
    from podero_async._flow.policies import RetryPolicy, ThrottlePolicy
    from podero_async._http.timeouts import Timeouts
    from podero_async._settings import PRODUCTION_URL, SANDBOX_URL
    from podero_async._summary import SessionTotals, summarize
    from podero_async.errors import (
        ApiError,
        AuthenticationError,
        CompletenessError,
        ConfigurationError,
        DecodeError,
        InvalidRequestError,
        NotFoundError,
        PermissionDeniedError,
        PoderoError,
        RateLimitError,
        RequestTimeoutError,
        ServerError,
        TransportError,
    )
    from podero_async.models import (
        ChargingSession,
        ClientStatistics,
        Completeness,
        DeviceModel,
        ElectricVehicle,
        FleetSummary,
        HiddenReason,
        RejectedItem,
        SessionOutcome,
        SessionsPage,
        User,
        VehicleFailure,
        VehicleOwner,
        VehicleRef,
        VehicleSessions,
    )
    from podero_async.observer import Observer

__all__ = [
    "PRODUCTION_URL",
    "SANDBOX_URL",
    "ApiError",
    "AuthenticationError",
    "ChargingSession",
    "ClientCredentials",
    "ClientStatistics",
    "Completeness",
    "CompletenessError",
    "ConfigurationError",
    "Credentials",
    "DecodeError",
    "DeviceModel",
    "ElectricVehicle",
    "FileTokenStore",
    "FleetFetch",
    "FleetSummary",
    "HiddenReason",
    "InvalidRequestError",
    "NotFoundError",
    "Observer",
    "PasswordCredentials",
    "PermissionDeniedError",
    "PoderoClient",
    "PoderoError",
    "RateLimitError",
    "RejectedItem",
    "RequestTimeoutError",
    "RetryPolicy",
    "ServerError",
    "SessionOutcome",
    "SessionTotals",
    "SessionsPage",
    "StaticToken",
    "ThrottlePolicy",
    "Timeouts",
    "Token",
    "TokenEndpoint",
    "TokenStore",
    "TransportError",
    "User",
    "VehicleFailure",
    "VehicleOwner",
    "VehicleRef",
    "VehicleSessions",
    "__version__",
    "http_status_of",
    "summarize",
]

_MODULES = (
    "_client",
    "_settings",
    "_auth.credentials",
    "_auth.store",
    "_failures",
    "_fleet.fetch",
    "_flow.policies",
    "_http.timeouts",
    "_summary",
)
_PUBLIC_MODULES = ("errors", "models", "observer")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import all names when the first one is used (PEP 562), so that `podero-async --help` does without aiohttp."""
        if name in _PUBLIC_MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=__name__)
        for module in (*_PUBLIC_MODULES, *_MODULES):
            found = vars(import_module(f"{__name__}.{module}"))
            for public in found.keys() & set(__all__):
                globals()[public] = found[public]
                if "._" in getattr(found[public], "__module__", ""):
                    found[public].__module__ = __name__  # so that reprs, tracebacks and pickles name no private module
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted(__all__)

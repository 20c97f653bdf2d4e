"""Every completed charging session of a whole fleet, from Podero's Partner API: typed, and proven complete."""

from podero_async._auth.credentials import ClientCredentials, PasswordCredentials, StaticToken, TokenEndpoint
from podero_async._auth.store import FileTokenStore, Token, TokenStore
from podero_async._client import PRODUCTION_URL, SANDBOX_URL, PoderoClient
from podero_async._fleet.fetch import FleetFetch
from podero_async._flow.policies import RetryPolicy, ThrottlePolicy
from podero_async._http import Timeouts
from podero_async._version import __version__
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

__all__ = [
    "PRODUCTION_URL",
    "SANDBOX_URL",
    "ApiError",
    "AuthenticationError",
    "ChargingSession",
    "ClientCredentials",
    "Completeness",
    "CompletenessError",
    "ConfigurationError",
    "DecodeError",
    "DeviceModel",
    "ElectricVehicle",
    "FileTokenStore",
    "FleetFetch",
    "FleetSummary",
    "HiddenReason",
    "InvalidRequestError",
    "NotFoundError",
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
]

for _name in __all__:
    _public = globals()[_name]
    if callable(_public):
        _public.__module__ = __name__  # so that reprs, tracebacks and pickles name no private module

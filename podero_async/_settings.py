"""The client's settings: their defaults, and their values in environment variables.

All faults of the variables are reported in one error.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, UnionType
from uuid import UUID

import attrs

from podero_async._auth.credentials import ClientCredentials, Credentials, PasswordCredentials, StaticToken
from podero_async._flow.policies import RetryPolicy, ThrottlePolicy
from podero_async._http import Timeouts
from podero_async._http.origin import checked_origin
from podero_async._validation import instance
from podero_async.errors import ConfigurationError

__all__ = [
    "DEFAULT_RETRY",
    "DEFAULT_THROTTLE",
    "DEFAULT_TIMEOUTS",
    "PRODUCTION_URL",
    "SANDBOX_URL",
    "Settings",
    "check_kinds",
    "read_settings",
]

PRODUCTION_URL = "https://app.podero.com"
SANDBOX_URL = "https://sandbox-app.podero.com"

DEFAULT_RETRY = RetryPolicy()
DEFAULT_THROTTLE = ThrottlePolicy()
DEFAULT_TIMEOUTS = Timeouts()

_CREDENTIALS: Mapping[tuple[str, ...], type[Credentials]] = MappingProxyType(
    {
        ("PODERO_CLIENT_ID", "PODERO_CLIENT_SECRET"): ClientCredentials,
        ("PODERO_USERNAME", "PODERO_PASSWORD"): PasswordCredentials,
        ("PODERO_TOKEN",): StaticToken,
    }
)
_CHOICE = "PODERO_CLIENT_ID with PODERO_CLIENT_SECRET, PODERO_USERNAME with PODERO_PASSWORD, or PODERO_TOKEN"
_KINDS: Mapping[str, tuple[type | UnionType, str]] = MappingProxyType(
    {
        "credentials": (Credentials, "ClientCredentials, PasswordCredentials or StaticToken"),
        "retry": (RetryPolicy, "a RetryPolicy"),
        "throttle": (ThrottlePolicy, "a ThrottlePolicy"),
        "timeouts": (Timeouts, "a Timeouts"),
    }
)


@attrs.frozen
class Settings:
    """The arguments of a client."""

    org_id: UUID
    credentials: Credentials
    base_url: str | None


def check_kinds(*, is_optional: bool = False, **values: object) -> None:
    """Raise a `ConfigurationError` if a setting has the wrong class. None is allowed if `is_optional` is true."""
    for name, value in values.items():
        if not (is_optional and value is None):
            instance(name, value, *_KINDS[name])


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the variables. If one is blank, it counts as missing.

    Raises:
        ConfigurationError: It names every variable that is missing, wrong or superfluous.
    """
    values = {name: value.strip() for name, value in environ.items() if name.startswith("PODERO_") and value.strip()}
    faults: list[str] = []
    org_id = _org_id(values.get("PODERO_ORG_ID"), faults)
    credentials = _credentials(values, faults)
    base_url = values.get("PODERO_BASE_URL")
    if base_url is not None:
        try:
            checked_origin(base_url, "PODERO_BASE_URL")
        except ConfigurationError as error:
            faults.append(str(error))
    if faults or org_id is None or credentials is None:
        raise ConfigurationError("; ".join(faults))
    return Settings(org_id, credentials, base_url)


def _org_id(text: str | None, faults: list[str]) -> UUID | None:
    if text is None:
        faults.append("PODERO_ORG_ID is missing")
        return None
    try:
        return UUID(text)
    except ValueError:
        faults.append("PODERO_ORG_ID must be a uuid")
        return None


def _credentials(values: Mapping[str, str], faults: list[str]) -> Credentials | None:
    begun = [names for names in _CREDENTIALS if any(name in values for name in names)]
    if not begun:
        faults.append(f"the credentials are missing: set {_CHOICE}")
    elif len(begun) > 1:
        present = ", ".join(name for names in begun for name in names if name in values)
        faults.append(f"{present} contradict each other: set only {_CHOICE}")
    elif missing := [name for name in begun[0] if name not in values]:
        faults.append(f"{missing[0]} is missing")
    else:
        try:
            return _CREDENTIALS[begun[0]](*(values[name] for name in begun[0]))
        except ConfigurationError as error:  # its message begins with the argument, such as `client_id`
            argument, _, fault = str(error).partition(" ")
            faults.append(f"PODERO_{argument.upper()} {fault}")
    return None

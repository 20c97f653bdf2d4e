"""Checks everything a client depends on, in order: settings, network, TLS, certificate, clock, token, organization."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Literal

import attrs

from podero_async._client import PoderoClient
from podero_async._failures import advice_on
from podero_async._http.probe import ProbeResult, Tls, probe_origin, tls_handshake
from podero_async.errors import (
    AuthenticationError,
    ConfigurationError,
    PermissionDeniedError,
    PoderoError,
    TransportError,
)

__all__ = ["Check", "diagnose"]

Fault = Literal["configuration", "credentials", "api"]

_NAMES = ("settings", "origin", "tls", "certificate", "clock", "token", "organization")
_SKIPPED_AFTER = {
    "settings": "the settings are incomplete",
    "origin": "the origin was not reached",
    "token": "there is no token",
}
_MAX_SKEW_S = 20.0  # the difference between two clocks that the token cache allows for
_MIN_CERTIFICATE_DAYS = 14


@attrs.frozen
class Check:
    """The outcome of one check."""

    name: str
    is_ok: bool | None
    """None if the check was skipped."""
    detail: str
    advice: str = ""
    """How to fix a failed check."""
    fault: Fault | None = None
    """The cause of a failed check."""


async def diagnose(make_client: Callable[[], PoderoClient]) -> list[Check]:
    """Run all checks. A check is skipped if one that it depends on has failed.

    Failures are values: no error of the library is raised. No check contains a secret.

    Args:
        make_client: Makes the client, which is closed at the end. A `ConfigurationError` of it is a failed check.
    """
    try:
        client = make_client()
    except ConfigurationError as error:
        checks = [Check("settings", False, str(error), "correct these settings", "configuration")]
    else:
        async with client:
            checks = [check async for check in _checks(client)]
    reason = _SKIPPED_AFTER.get(checks[-1].name, "")
    return [*checks, *(Check(name, None, f"skipped: {reason}") for name in _NAMES[len(checks) :])]


async def _checks(client: PoderoClient) -> AsyncIterator[Check]:
    """Yield checks up to the first failure that the remaining ones depend on."""
    transport = client._transport  # noqa: SLF001
    yield Check("settings", True, f"organization {client._org_id} at {transport.origin}")  # noqa: SLF001
    try:
        tls = await tls_handshake(transport.origin, timeout_s=transport.session.timeouts.connect)
        probe = await probe_origin(transport.session, transport.origin)
    except TransportError as error:
        yield _unreached(error)
        return
    yield Check("origin", True, f"HTTP {probe.status} in {probe.seconds * 1000:.0f} ms")
    for check in (_tls(tls), _certificate(tls), _clock(probe)):
        yield check
    token = await _token(client)
    yield token
    if token.is_ok:
        yield await _organization(client)


def _unreached(error: TransportError) -> Check:
    advice = "check the network, the firewall and PODERO_BASE_URL"
    if not error.retryable:
        advice = "check the certificate and PODERO_BASE_URL; SSL_CERT_FILE may name another certificate authority"
    return Check("origin", False, error.reason, advice, "api")


def _tls(tls: Tls | None) -> Check:
    return Check("tls", True, tls.version if tls else "no TLS: loopback")


def _certificate(tls: Tls | None) -> Check:
    if tls is None:
        return Check("certificate", None, "skipped: no TLS")
    days = (tls.valid_until - datetime.now(UTC)) // timedelta(days=1)
    detail = f"{days} days left, until {tls.valid_until:%Y-%m-%d}"
    if days < _MIN_CERTIFICATE_DAYS:
        return Check("certificate", False, detail, "ask the operator of the server to renew it", "api")
    return Check("certificate", True, detail)


def _clock(probe: ProbeResult) -> Check:
    ahead_s = probe.clock_ahead_s
    if ahead_s is None:
        return Check("clock", None, "skipped: the server sends no valid date")
    detail = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if abs(ahead_s) > _MAX_SKEW_S:
        detail += "; token expiry is computed from this clock"
        return Check("clock", False, detail, "set this machine's clock, for example with NTP", "configuration")
    return Check("clock", True, detail)


async def _token(client: PoderoClient) -> Check:
    tokens = client._transport.tokens  # noqa: SLF001
    try:
        await tokens.get()
    except AuthenticationError as error:
        if wrong_setting := advice_on(error):
            return Check("token", False, str(error), wrong_setting, "configuration")
        advice = "check the credentials; those of production and sandbox differ"
        return Check("token", False, str(error), advice, "credentials")
    except PoderoError as error:
        return Check("token", False, str(error), "try again later", "api")
    if tokens.endpoint is None:
        return Check("token", True, "static token: no token endpoint is used")
    return Check("token", True, f"from {tokens.endpoint}")


async def _organization(client: PoderoClient) -> Check:
    try:
        async with aclosing(client.users()) as users:
            await anext(users, None)
    except (AuthenticationError, PermissionDeniedError) as error:
        advice = "check PODERO_ORG_ID, and that the credentials may read this organization"
        return Check("organization", False, str(error), advice, "credentials")
    except PoderoError as error:
        wrong_setting = advice_on(error)
        fault: Fault = "configuration" if wrong_setting else "api"
        return Check("organization", False, str(error), wrong_setting or "try again later", fault)
    return Check("organization", True, "users can be listed")

"""Examine what a client depends on, one thing after the other: settings, network, TLS, clock, token, organization.

Knows what each finding means and what to do about it; how it is shown is the command's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Literal

import attrs

from podero_async._client import PoderoClient
from podero_async._http import ProbeResult, Tls
from podero_async.errors import (
    AuthenticationError,
    ConfigurationError,
    NotFoundError,
    PermissionDeniedError,
    PoderoError,
    TransportError,
)

__all__ = ["Check", "diagnose"]

Fault = Literal["configuration", "credentials", "api"]

_NAMES = ("settings", "origin", "tls", "certificate", "clock", "token", "organization")
_SKIPPED_AFTER = {
    "settings": "there is no client without its settings",
    "origin": "the origin was not reached",
    "token": "there is no token",
}
_MAX_SKEW_S = 20.0  # what the token's cache allows two clocks to disagree
_MIN_DAYS = 14
_NOT_FOUND, _NOT_ALLOWED, _FIRST_ERROR = 404, 405, 400


@attrs.frozen
class Check:
    """What was looked at, and how it is."""

    name: str
    is_ok: bool | None
    """None where it could not be looked at, or there is nothing to look at."""
    words: str
    advice: str = ""
    """What to do about it."""
    fault: Fault | None = None
    """Where to look for the cause of what is not well."""


async def diagnose(make_client: Callable[[], PoderoClient]) -> list[Check]:
    """ProbeResult at everything, in the order in which it depends on each other; what cannot be looked at is said to be skipped.

    No line of it holds a secret. What is wrong is a value: nothing is raised for it.

    Args:
        make_client: Makes a client of the settings, which is closed at the end; a `ConfigurationError` is a finding, too.
    """
    try:
        client = make_client()
    except ConfigurationError as error:
        checks = [Check("settings", False, str(error), "set what is named as it should be", "configuration")]
    else:
        async with client:
            checks = [check async for check in _findings(client)]
    why = _SKIPPED_AFTER.get(checks[-1].name, "")
    return [*checks, *(Check(name, None, f"skipped: {why}") for name in _NAMES[len(checks) :])]


async def _findings(client: PoderoClient) -> AsyncIterator[Check]:
    """ProbeResult until something is so wrong that nothing else can be looked at."""
    transport = client._transport  # noqa: SLF001
    yield Check("settings", True, f"organization {client._org_id} at {transport.origin}")  # noqa: SLF001
    try:
        tls = await transport.tls_handshake()
        look = await transport.look()
    except TransportError as error:
        yield _unreached(error)
        return
    yield Check("origin", True, f"it answers: HTTP {look.status}, {look.seconds * 1000:.0f} ms")
    for check in (_tls(tls), _certificate(tls), _clock(look)):
        yield check
    token = await _token(client)
    yield token
    if token.is_ok:
        yield await _organization(client)


def _unreached(error: TransportError) -> Check:
    advice = "check the network, the firewall and PODERO_BASE_URL"
    if not error.retryable:
        advice = (
            "the certificate must be valid, and signed by one whom this machine trusts (SSL_CERT_FILE names others)"
        )
    return Check("origin", False, error.reason, advice, "api")


def _tls(tls: Tls | None) -> Check:
    return Check("tls", True, tls.version if tls else "no TLS: loopback")


def _certificate(tls: Tls | None) -> Check:
    if tls is None:
        return Check("certificate", None, "skipped: no TLS")
    days = (tls.valid_until - datetime.now(UTC)) // timedelta(days=1)
    words = f"{days} days left, until {tls.valid_until:%Y-%m-%d}"
    if days < _MIN_DAYS:
        return Check("certificate", False, words, "whoever runs the server must renew it", "api")
    return Check("certificate", True, words)


def _clock(look: ProbeResult) -> Check:
    ahead_s = look.clock_ahead_s
    if ahead_s is None:
        return Check("clock", None, "skipped: the server does not tell the time")
    words = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if abs(ahead_s) > _MAX_SKEW_S:
        words += "; the lives of tokens are reckoned by this clock"
        return Check("clock", False, words, "set this machine's clock, as by NTP", "configuration")
    return Check("clock", True, words)


async def _token(client: PoderoClient) -> Check:
    tokens = client._transport.tokens  # noqa: SLF001
    try:
        await tokens.get()
    except AuthenticationError as error:
        if error.status < _FIRST_ERROR or error.status in {_NOT_FOUND, _NOT_ALLOWED}:
            advice = "nothing there gives tokens out: check PODERO_BASE_URL"
            return Check("token", False, str(error), advice, "configuration")
        advice = "check the credentials; they belong either to production or to the sandbox"
        return Check("token", False, str(error), advice, "credentials")
    except PoderoError as error:
        return Check("token", False, str(error), "try again later", "api")
    if tokens.endpoint is None:
        return Check("token", True, "given: no endpoint is asked for one")
    return Check("token", True, f"from {tokens.endpoint}")


async def _organization(client: PoderoClient) -> Check:
    try:
        async with aclosing(client.users()) as users:
            await anext(users, None)
    except NotFoundError as error:
        return Check("organization", False, str(error), "check PODERO_ORG_ID", "configuration")
    except (AuthenticationError, PermissionDeniedError) as error:
        advice = "these credentials may not read this organization: check them, and PODERO_ORG_ID"
        return Check("organization", False, str(error), advice, "credentials")
    except PoderoError as error:
        return Check("organization", False, str(error), "try again later", "api")
    return Check("organization", True, "its users can be listed")

"""Each thing that a client depends on is checked, and a failed check names its cause and how to fix it."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from podero_async import (
    ClientCredentials,
    ConfigurationError,
    PasswordCredentials,
    PoderoClient,
    StaticToken,
    Timeouts,
)
from podero_async._diagnostics import Check, diagnose
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import ORG, QUICK, USER, client_of, serving, static_client

NAMES = ["settings", "origin", "tls", "certificate", "clock", "token", "organization"]
SECRETS = "s3cret", "passw0rd", "t0ken", "user-1@example.com"

Checks = Mapping[str, Check]


async def diagnosed(make_client: Callable[[], PoderoClient]) -> Checks:
    """Run all checks. Each failed one must have advice and a cause, and none may show a secret."""
    checks = await diagnose(make_client)
    assert [check.name for check in checks] == NAMES
    for check in checks:
        assert bool(check.advice) == bool(check.fault) == (check.is_ok is False)
        assert check.detail.startswith("skipped: ") == (check.is_ok is None)
        assert not [secret for secret in SECRETS if secret in repr(check)]
    return {check.name: check for check in checks}


def verdicts(checks: Checks) -> list[bool | None]:
    return [check.is_ok for check in checks.values()]


def at_fault(checks: Checks) -> list[tuple[str, str | None]]:
    return [(check.name, check.fault) for check in checks.values() if check.is_ok is False]


async def test_a_working_client_passes_all_checks(simulator: PoderoSimulator) -> None:
    """With a working server all checks succeed, plain http skips the certificate, and the client is closed."""
    client = client_of(simulator)
    checks = await diagnosed(lambda: client)
    assert verdicts(checks) == [True, True, True, None, True, True, True]
    assert checks["settings"].detail == f"organization {simulator.org_id} at {simulator.base_url}"
    assert checks["origin"].detail.startswith("HTTP 404 in ")
    assert checks["tls"].detail == "no TLS: loopback"
    assert checks["certificate"].detail == "skipped: no TLS"
    assert checks["token"].detail == "from /api/partners/v2.0/auth/token (JSON)"
    with pytest.raises(ConfigurationError, match="closed"):
        await client.electric_vehicles(USER)


@pytest.mark.parametrize(
    ("style", "detail"),
    [("basic", "from /oauth2/token/ (HTTP Basic, JSON)"), ("form", "from /api/partners/v2.0/auth/token (form)")],
)
async def test_the_token_endpoint_in_use_is_named(style: Any, detail: str) -> None:
    """The token check names the path and the style of the endpoint that issued the token."""
    async with PoderoSimulator(users=1, vehicles=1, token_styles=[style]) as simulator:
        checks = await diagnosed(lambda: client_of(simulator))
    assert checks["token"].detail == detail


async def test_missing_settings_are_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a client cannot be made from the settings, all other checks are skipped."""
    for name in ("ORG_ID", "CLIENT_ID", "USERNAME", "PASSWORD", "TOKEN", "BASE_URL"):
        monkeypatch.delenv(f"PODERO_{name}", raising=False)
    monkeypatch.setenv("PODERO_CLIENT_SECRET", "s3cret")
    checks = await diagnosed(PoderoClient.from_env)
    assert verdicts(checks) == [False, *[None] * 6]
    assert at_fault(checks) == [("settings", "configuration")]
    assert checks["settings"].detail == "PODERO_ORG_ID is missing; PODERO_CLIENT_ID is missing"
    assert checks["token"].detail == "skipped: the settings are incomplete"


async def test_a_refused_connection_is_a_failed_check(unused_tcp_port: int) -> None:
    """If no server listens, the origin is at fault and the later checks are skipped."""
    for scheme in ("http", "https"):
        checks = await diagnosed(lambda: static_client(f"{scheme}://127.0.0.1:{unused_tcp_port}"))  # noqa: B023
        assert verdicts(checks) == [True, False, *[None] * 5]
        assert at_fault(checks) == [("origin", "api")]
        assert checks["origin"].detail == "the server cannot be reached: it refused the connection"
        assert checks["clock"].detail == "skipped: the origin was not reached"


async def test_an_unknown_host_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the host name cannot be resolved, the check of the origin says so."""

    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    checks = await diagnosed(lambda: static_client("https://podero.invalid"))
    assert (checks["origin"].is_ok, checks["origin"].detail) == (False, "the host name cannot be resolved")


async def test_a_silent_server_is_a_failed_check() -> None:
    """If a server accepts connections and sends nothing, the handshake ends after `Timeouts.connect`."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        origin = f"https://127.0.0.1:{silent.getsockname()[1]}"
        checks = await diagnosed(lambda: static_client(origin, timeouts=Timeouts(connect=0.02)))
    assert at_fault(checks) == [("origin", "api")]
    assert checks["origin"].detail == "no connection within 0.02 s (connect timeout)"


async def test_a_server_that_closes_the_connection_is_a_failed_check() -> None:
    """If a gateway accepts a request and closes the connection, the check of the origin fails."""

    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(hang_up) as origin:
        checks = await diagnosed(lambda: static_client(origin))
    assert at_fault(checks) == [("origin", "api")]
    assert checks["origin"].detail == "the connection was lost"


@pytest.mark.parametrize(
    "credentials", [ClientCredentials("client-1", "s3cret"), PasswordCredentials("user-1@example.com", "passw0rd")]
)
async def test_refused_credentials_are_a_failed_check(simulator: PoderoSimulator, credentials: Any) -> None:
    """A wrong secret or password is reported as a fault of the credentials, not of the network."""
    checks = await diagnosed(lambda: client_of(simulator, credentials=credentials))
    assert at_fault(checks) == [("token", "credentials")]
    assert "HTTP 401" in checks["token"].detail
    assert checks["organization"].detail == "skipped: there is no token"


@pytest.mark.parametrize("is_good", [True, False])
async def test_a_static_token_is_checked_with_the_organization(simulator: PoderoSimulator, is_good: bool) -> None:
    """No endpoint is asked for a static token. If it has expired, the check of the organization fails."""
    token = "t0ken"
    if is_good:
        async with client_of(simulator) as client:
            await anext(client.users())
        token = simulator.authorization_headers.copy().pop().removeprefix("Bearer ")
    checks = await diagnosed(lambda: client_of(simulator, credentials=StaticToken(token)))
    assert checks["token"].detail == "static token: no token endpoint is used"
    assert at_fault(checks) == ([] if is_good else [("organization", "credentials")])


@pytest.mark.parametrize(
    ("endpoint", "status", "found"),
    [
        ("token", 503, ("token", "api")),
        ("users", 403, ("organization", "credentials")),
        ("users", 404, ("organization", "configuration")),
        ("users", 500, ("organization", "api")),
    ],
)
async def test_an_error_status_names_its_cause(
    simulator: PoderoSimulator, endpoint: Any, status: int, found: tuple[str, str]
) -> None:
    """An outage, a wrong organization and a missing permission have different causes."""
    simulator.add_fault(Fault(kind="status", status=status, endpoint=endpoint))
    checks = await diagnosed(lambda: client_of(simulator))
    assert at_fault(checks) == [found]


@pytest.mark.parametrize("status", [301, 404, 405])
async def test_the_origin_of_another_service_is_a_configuration_fault(status: int) -> None:
    """If the origin has no token endpoint, the advice names PODERO_BASE_URL, and the page's HTML is not shown."""

    async def handler(_: web.Request) -> web.Response:
        page = "<html><body>nothing <b>here</b></body></html>"
        return web.Response(status=status, text=page, content_type="text/html", headers={"Location": "/login"})

    async with serving(handler) as origin:
        credentials = ClientCredentials("client-1", "s3cret")
        checks = await diagnosed(lambda: PoderoClient(ORG, credentials, base_url=origin, retry=QUICK))
    assert at_fault(checks) == [("token", "configuration")]
    assert "PODERO_BASE_URL" in checks["token"].advice
    assert "<" not in checks["token"].detail


@asynccontextmanager
async def _server_with_date(date: Callable[[], str]) -> AsyncIterator[str]:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response([], headers={"Date": date()})

    async with serving(handler) as origin:
        yield origin


@pytest.mark.parametrize(
    ("server_s", "is_ok", "detail"),
    [
        (-90, False, r"9\d s ahead of the server's; token expiry is computed from this clock"),
        (3600, False, r"(35\d\d|360[01]) s behind the server's; token expiry is computed from this clock"),
        (-15, True, r"1\d s ahead of the server's"),
    ],
)
async def test_a_clock_that_differs_by_over_20_seconds_fails(server_s: float, is_ok: bool, detail: str) -> None:
    """The clock is a configuration fault if it differs by over 20 seconds from the server's."""
    async with _server_with_date(lambda: formatdate(time.time() + server_s, usegmt=True)) as origin:
        checks = await diagnosed(lambda: static_client(origin))
    assert checks["clock"].is_ok is is_ok
    assert re.fullmatch(detail, checks["clock"].detail)
    assert at_fault(checks) == ([] if is_ok else [("clock", "configuration")])


async def test_the_clock_is_skipped_without_a_valid_date() -> None:
    """The check of the clock is skipped if the response has no valid `Date`, and the later checks run."""
    async with _server_with_date(lambda: "yesterday") as origin:
        checks = await diagnosed(lambda: static_client(origin))
    assert checks["clock"].detail == "skipped: the server sends no valid date"
    assert checks["organization"].is_ok


# --- TLS -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _over_tls(
    days: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool = True, host: str = "127.0.0.1"
) -> AsyncIterator[Checks]:
    """Run all checks against a server with a certificate that is valid for the given number of days."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    now = datetime.now(UTC)
    issued = authority.issue_cert(host, not_before=now - timedelta(days=30), not_after=now + timedelta(days=days))
    issued.configure_cert(context)
    trusting = ssl.create_default_context()
    if trusted:
        authority.configure_trust(trusting)
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with (
        PoderoSimulator(users=1, vehicles=1, ssl_context=context) as simulator,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        yield await diagnosed(lambda: client_of(simulator, session=session))
        assert not session.closed


async def test_tls_version_and_certificate_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS all checks succeed, and show the version and the end of the certificate."""
    async with _over_tls(60.5, tmp_path, monkeypatch) as checks:
        assert verdicts(checks) == [True] * 7
        assert checks["tls"].detail == "TLSv1.3"
        until = datetime.now(UTC) + timedelta(days=60.5)
        assert checks["certificate"].detail == f"60 days left, until {until:%Y-%m-%d}"


async def test_a_certificate_with_under_14_days_left_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the certificate fails if the certificate ends soon, although requests still succeed."""
    async with _over_tls(13.5, tmp_path, monkeypatch) as checks:
        assert at_fault(checks) == [("certificate", "api")]
        assert checks["certificate"].detail.startswith("13 days left, until ")
        assert checks["organization"].is_ok
    async with _over_tls(14.5, tmp_path, monkeypatch) as checks:
        assert at_fault(checks) == []


@pytest.mark.parametrize(
    ("days", "options", "reason"),
    [
        (60, {"trusted": False}, "issuer certificate|self.signed certificate"),
        (-1, {}, "certificate has expired"),
        (60, {"host": "podero.example"}, "certificate is not valid for '127.0.0.1'"),
    ],
)
async def test_a_refused_certificate_is_shown_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, options: dict[str, Any], reason: str
) -> None:
    """An untrusted, an expired and a foreign certificate are told apart."""
    async with _over_tls(days, tmp_path, monkeypatch, **options) as checks:
        assert verdicts(checks) == [True, False, *[None] * 5]
        assert checks["origin"].fault == "api"
        assert re.match(f"TLS failed: .*({reason})", checks["origin"].detail)
        assert "SSL_CERT_FILE" in checks["origin"].advice


async def test_https_to_a_plain_http_server_is_a_tls_failure(simulator: PoderoSimulator) -> None:
    """A wrong scheme in the origin is reported as a TLS failure, not as an unreachable server."""
    checks = await diagnosed(lambda: static_client(simulator.base_url.replace("http", "https")))
    assert at_fault(checks) == [("origin", "api")]
    assert checks["origin"].detail.startswith("TLS failed: ")

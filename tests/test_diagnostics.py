"""The doctor's findings: each thing that can be wrong is found, named, and put down to what is at fault."""

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

from podero_async import ClientCredentials, PasswordCredentials, PoderoClient, StaticToken
from podero_async._diagnostics import Check, diagnose
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import ORG, QUICK, client_of, serving, static_client

NAMES = ["settings", "origin", "tls", "certificate", "clock", "token", "organization"]
SECRETS = "s3cret", "passw0rd", "t0ken", "user-1@example.com"

Findings = Mapping[str, Check]


async def examined(make_client: Callable[[], PoderoClient]) -> Findings:
    """Let the doctor look; what is not well must come with advice, and nothing may tell a secret."""
    checks = await diagnose(make_client)
    assert [check.name for check in checks] == NAMES
    for check in checks:
        assert bool(check.advice) == bool(check.fault) == (check.is_ok is False)
        assert check.words.startswith("skipped: ") == (check.is_ok is None)
        assert not [secret for secret in SECRETS if secret in repr(check)]
    return {check.name: check for check in checks}


def verdicts(findings: Findings) -> list[bool | None]:
    return [check.is_ok for check in findings.values()]


def at_fault(findings: Findings) -> list[tuple[str, str | None]]:
    return [(check.name, check.fault) for check in findings.values() if check.is_ok is False]


async def test_all_is_well(simulator: PoderoSimulator) -> None:
    """Who has no trouble would be sent to look for some."""
    client = client_of(simulator)
    findings = await examined(lambda: client)
    assert verdicts(findings) == [True, True, True, None, True, True, True]
    assert findings["settings"].words == f"organization {simulator.org_id} at {simulator.base_url}"
    assert findings["origin"].words.startswith("it answers: HTTP 404, ")
    assert findings["tls"].words == "no TLS: loopback"
    assert findings["certificate"].words == "skipped: no TLS"
    assert findings["token"].words == "from /api/partners/v2.0/auth/token (JSON)"
    assert client._transport._exchange._closed


@pytest.mark.parametrize(
    ("way", "words"),
    [("basic", "from /oauth2/token/ (HTTP Basic, JSON)"), ("form", "from /api/partners/v2.0/auth/token (form)")],
)
async def test_the_token_endpoint_that_was_found_is_named(way: Any, words: str) -> None:
    """Who wants to set the endpoint, or ask the vendor about it, could not know which one it is."""
    async with PoderoSimulator(users=1, vehicles=1, token_styles=[way]) as simulator:
        findings = await examined(lambda: client_of(simulator))
    assert findings["token"].words == words


async def test_missing_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing that goes wrong with a deployment would end the doctor, too."""
    for name in ("ORG_ID", "CLIENT_ID", "USERNAME", "PASSWORD", "TOKEN", "BASE_URL"):
        monkeypatch.delenv(f"PODERO_{name}", raising=False)
    monkeypatch.setenv("PODERO_CLIENT_SECRET", "s3cret")
    findings = await examined(PoderoClient.from_env)
    assert verdicts(findings) == [False, *[None] * 6]
    assert at_fault(findings) == [("settings", "configuration")]
    assert findings["settings"].words == "PODERO_ORG_ID is missing; PODERO_CLIENT_ID is missing"
    assert findings["token"].words == "skipped: there is no client without its settings"


async def test_nobody_listens(unused_tcp_port: int) -> None:
    """A network that is down would look like wrong credentials."""
    for scheme in ("http", "https"):
        findings = await examined(lambda: static_client(f"{scheme}://127.0.0.1:{unused_tcp_port}"))  # noqa: B023
        assert verdicts(findings) == [True, False, *[None] * 5]
        assert at_fault(findings) == [("origin", "api")]
        assert findings["origin"].words == "the server cannot be reached"
        assert findings["clock"].words == "skipped: the origin was not reached"


async def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in the host would look like an outage."""

    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    findings = await examined(lambda: static_client("https://podero.invalid"))
    assert (findings["origin"].is_ok, findings["origin"].words) == (False, "the server's name is not known")


async def test_a_server_that_takes_connections_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that swallows everything would hold the doctor up for ever."""
    monkeypatch.setattr("podero_async._http.probe._MAX_S", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        findings = await examined(lambda: static_client(f"https://127.0.0.1:{silent.getsockname()[1]}"))
    assert at_fault(findings) == [("origin", "api")]
    assert findings["origin"].words == "no answer in time"


async def test_a_server_that_hangs_up() -> None:
    """A gateway with nothing behind it would pass for an origin that answers."""

    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(hang_up) as origin:
        findings = await examined(lambda: static_client(origin))
    assert at_fault(findings) == [("origin", "api")]
    assert findings["origin"].words == "the connection was lost"


@pytest.mark.parametrize(
    "credentials", [ClientCredentials("client-1", "s3cret"), PasswordCredentials("user-1@example.com", "passw0rd")]
)
async def test_refused_credentials(simulator: PoderoSimulator, credentials: Any) -> None:
    """A wrong secret would be looked for in the network."""
    findings = await examined(lambda: client_of(simulator, credentials=credentials))
    assert at_fault(findings) == [("token", "credentials")]
    assert "HTTP 401" in findings["token"].words
    assert findings["organization"].words == "skipped: there is no token"


@pytest.mark.parametrize("is_good", [True, False])
async def test_a_token_that_was_given(simulator: PoderoSimulator, is_good: bool) -> None:
    """A token that is out of date would pass for good, since nobody asks for it."""
    async with client_of(simulator) as client:
        token = await client._transport.tokens.get() if is_good else "t0ken"
    findings = await examined(lambda: client_of(simulator, credentials=StaticToken(token)))
    assert findings["token"].words == "given: no endpoint is asked for one"
    assert at_fault(findings) == ([] if is_good else [("organization", "credentials")])


@pytest.mark.parametrize(
    ("endpoint", "status", "found"),
    [
        ("token", 503, ("token", "api")),
        ("users", 403, ("organization", "credentials")),
        ("users", 404, ("organization", "configuration")),
        ("users", 500, ("organization", "api")),
    ],
)
async def test_what_the_api_refuses(
    simulator: PoderoSimulator, endpoint: Any, status: int, found: tuple[str, str]
) -> None:
    """An outage, a wrong organization and a missing permission would look the same."""
    simulator.add_fault(Fault(kind="status", status=status, endpoint=endpoint))
    findings = await examined(lambda: client_of(simulator))
    assert at_fault(findings) == [found]


@pytest.mark.parametrize("status", [301, 404, 405])
async def test_an_origin_of_something_else(status: int) -> None:
    """A typing error in the origin would be looked for in the credentials."""

    async def handler(_: web.Request) -> web.Response:
        page = "<html><body>nothing <b>here</b></body></html>"
        return web.Response(status=status, text=page, content_type="text/html", headers={"Location": "/login"})

    async with serving(handler) as origin:
        credentials = ClientCredentials("client-1", "s3cret")
        findings = await examined(lambda: PoderoClient(ORG, credentials, base_url=origin, retry=QUICK))
    assert at_fault(findings) == [("token", "configuration")]
    assert "PODERO_BASE_URL" in findings["token"].advice
    assert "<" not in findings["token"].words


@asynccontextmanager
async def _telling(date: str) -> AsyncIterator[str]:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response([], headers={"Date": date})

    async with serving(handler) as origin:
        yield origin


@pytest.mark.parametrize(
    ("server_s", "is_ok", "words"),
    [
        (-90, False, "9[01] s ahead of the server's; the lives of tokens are reckoned by this clock"),
        (3600, False, "(3599|3600|3601) s behind the server's; the lives of tokens are reckoned by this clock"),
        (-15, True, "1[56] s ahead of the server's"),
    ],
)
async def test_two_clocks(server_s: float, is_ok: bool, words: str) -> None:
    """Tokens would be used when they are dead, and the cause would be looked for in the credentials."""
    async with _telling(formatdate(time.time() + server_s, usegmt=True)) as origin:
        findings = await examined(lambda: static_client(origin))
    assert findings["clock"].is_ok is is_ok
    assert re.fullmatch(words, findings["clock"].words)
    assert at_fault(findings) == ([] if is_ok else [("clock", "configuration")])


async def test_a_server_that_does_not_tell_the_time() -> None:
    """A header of nonsense would end the doctor."""
    async with _telling("yesterday") as origin:
        findings = await examined(lambda: static_client(origin))
    assert findings["clock"].words == "skipped: the server does not tell the time"
    assert findings["organization"].is_ok


# --- TLS -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _over_tls(
    days: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool = True, host: str = "127.0.0.1"
) -> AsyncIterator[Findings]:
    """Examine a server whose certificate is good for so many days."""
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
        yield await examined(lambda: client_of(simulator, session=session))
        assert not session.closed


async def test_tls_that_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would learn which TLS is spoken, nor when the certificate ends."""
    async with _over_tls(60.5, tmp_path, monkeypatch) as findings:
        assert verdicts(findings) == [True] * 7
        assert findings["tls"].words == "TLSv1.3"
        until = datetime.now(UTC) + timedelta(days=60.5)
        assert findings["certificate"].words == f"60 days left, until {until:%Y-%m-%d}"


async def test_a_certificate_that_ends_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job would fail one night, although anybody could have seen it coming."""
    async with _over_tls(13.5, tmp_path, monkeypatch) as findings:
        assert at_fault(findings) == [("certificate", "api")]
        assert findings["certificate"].words.startswith("13 days left, until ")
        assert findings["organization"].is_ok
    async with _over_tls(14.5, tmp_path, monkeypatch) as findings:
        assert at_fault(findings) == []


@pytest.mark.parametrize(
    ("days", "options", "words"),
    [
        (60, {"trusted": False}, "issuer certificate|self.signed certificate"),
        (-1, {}, "certificate has expired"),
        (60, {"host": "podero.example"}, "certificate is not valid for '127.0.0.1'"),
    ],
)
async def test_a_certificate_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, options: dict[str, Any], words: str
) -> None:
    """'TLS failed' alone sends nobody to the certificate."""
    async with _over_tls(days, tmp_path, monkeypatch, **options) as findings:
        assert verdicts(findings) == [True, False, *[None] * 5]
        assert findings["origin"].fault == "api"
        assert re.match(f"TLS failed: .*({words})", findings["origin"].words)
        assert "SSL_CERT_FILE" in findings["origin"].advice


async def test_a_server_that_speaks_no_tls(simulator: PoderoSimulator) -> None:
    """`https` instead of `http` would look like a server that is down."""
    findings = await examined(lambda: static_client(simulator.base_url.replace("http", "https")))
    assert at_fault(findings) == [("origin", "api")]
    assert findings["origin"].words.startswith("TLS failed: ")

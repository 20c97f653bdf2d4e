"""Requests, with their tokens and secrets, go to the configured origin and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from podero_async import (
    ApiError,
    ClientCredentials,
    ConfigurationError,
    PasswordCredentials,
    PoderoClient,
    PoderoError,
    VehicleSessions,
)
from tests._support.clients import ORG, QUICK, USER, VEHICLE, serving, static_client, wire_row


@asynccontextmanager
async def recording(respond: Callable[[], web.Response]) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Respond to every request in one way; yield the origin and the list of requests."""
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request)
        return respond()

    async with serving(handle) as origin:
        yield origin, seen


@pytest.mark.parametrize(
    "base_url",
    [
        "https://a..b.example",
        "https://user:password@xn--a.example",
        "https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example",
        "http://app.podero.com",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost@evil.example",
        "http://user:password@127.0.0.1",
        "https://user:password@app.podero.com",
        "http://2130706433",
        "http://0.0.0.0",
        "http://[::ffff:10.0.0.1]",
        "http://10.0.0.1:8080",
        "ftp://127.0.0.1",
        "https://",
        "app.podero.com",
        "",
        "https://app.podero.com/elsewhere",
        "https://app.podero.com?to=elsewhere",
        "https://app.podero.com#elsewhere",
        "https://app.podero.com:x",
        "https://app.podero.com:0",
        "https://app podero.com",
        "https://app.podero.com\n",
        "https://1.2.3.4.5",
        "https://podero.1",
        "https://-",
        "https://app-.podero.com",
        None,
        5,
    ],
)
def test_an_invalid_or_unsafe_origin_is_refused(base_url: Any) -> None:
    """A URL is refused if it is plain http to a remote host, or has a part after its port. No error shows a password."""
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        static_client(base_url)
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    ["https://app.podero.com", "https://a:8443/", "http://localhost:1", "http://127.8.0.1", "http://[::1]:80"],
)
def test_https_and_http_to_loopback_are_accepted(base_url: str) -> None:
    """A gateway over https and a simulator on loopback can be used."""
    static_client(base_url)


async def test_a_304_is_an_error_that_names_its_cause() -> None:
    """A 304 is not called a redirect: the client makes no conditional requests, so the error names a cache."""
    async with recording(lambda: web.Response(status=304)) as (origin, _), static_client(origin) as client:
        with pytest.raises(ApiError, match=r"HTTP 304: not modified, .* a cache"):
            await client.electric_vehicles(USER)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to_itself", [True, False])
async def test_a_redirect_is_an_error_and_is_not_followed(status: int, to_itself: bool) -> None:
    """A redirect ends a call and a token request, whether it leads to the same origin or to another one."""
    async with recording(lambda: web.json_response([])) as (elsewhere, hits):
        target = "/elsewhere" if to_itself else elsewhere

        def redirect() -> web.Response:
            return web.Response(status=status, headers={"Location": target})

        async with recording(redirect) as (origin, seen), static_client(origin) as client:
            with pytest.raises(PoderoError, match="redirect"):
                await client.electric_vehicles(USER)
            assert len(seen) == 1
        async with recording(redirect) as (origin, seen):
            credentials = ClientCredentials("id", "secret")
            async with PoderoClient(ORG, credentials, base_url=origin, retry=QUICK) as client:
                with pytest.raises(PoderoError):
                    await client.electric_vehicles(USER)
            assert {request.method for request in seen} == {"POST"}
        assert hits == []


@pytest.fixture
def netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Name a netrc file with a login for loopback in the environment."""
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login somebody password else\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.usefixtures("netrc")
async def test_proxies_and_netrc_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens do not pass through a proxy that another program's variables name, and a netrc file replaces no token."""
    async with recording(lambda: web.json_response([])) as (proxy, through_proxy):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        async with recording(lambda: web.json_response([])) as (origin, seen), static_client(origin) as client:
            assert await client.electric_vehicles(USER) == []
        assert [request.headers["Authorization"] for request in seen] == ["Bearer token-1"]
        assert through_proxy == []


async def test_hosts_in_headers_and_bodies_are_not_contacted() -> None:
    """No header, link or cookie of a response changes the next request."""
    async with recording(lambda: web.json_response([])) as (elsewhere, hits):
        host = elsewhere.removeprefix("http://")
        headers = {
            "Location": elsewhere,
            "Refresh": f"0; url={elsewhere}",
            "Link": f'<{elsewhere}>; rel="next"',
            "Alt-Svc": f'http/1.1="{host}"; ma=3600; persist=1',
            "Content-Location": elsewhere,
            "Set-Cookie": "session=1; Path=/; Domain=127.0.0.1",
            "WWW-Authenticate": f'Bearer realm="{elsewhere}/token"',
        }
        names = ("next", "next_url", "previous", "href", "@odata.nextLink", "token_endpoint", "base_url", "api_domain")
        links = {
            **dict.fromkeys(names, f"{elsewhere}/next"),
            "links": {"next": elsewhere},
            "_links": {"next": elsewhere},
        }
        seen: list[web.Request] = []

        async def respond(request: web.Request) -> web.Response:
            seen.append(request)
            offset = int(request.query.get("offset", "0"))
            rows = [wire_row(number) for number in range(300)][offset : offset + 200]
            if request.method == "POST":
                body: dict[str, Any] = {"access_token": "token-1", "expires_in": 3600}
            elif request.path.endswith("/users"):
                users = [{"id": str(UUID(int=number)), **links} for number in (1, 2)]
                body = {"total": 2, "items": users[offset:]}
            elif request.path.endswith("/sessions"):
                body = {"total": 300, "items": [row | links for row in rows]}
            else:
                return web.json_response([{"id": str(VEHICLE), **links}], headers=headers)
            return web.json_response(body | links, headers=headers)

        async with serving(respond) as origin:
            async with PoderoClient(ORG, ClientCredentials("id", "secret"), base_url=origin) as client:
                async with client.fetch_fleet(date(2026, 1, 1), date(2026, 1, 28)) as fleet:
                    outcomes = [outcome async for outcome in fleet]
            assert [len(outcome.sessions) for outcome in outcomes if isinstance(outcome, VehicleSessions)] == [300, 300]
        assert all("Cookie" not in request.headers for request in seen)
        assert all(request.host == origin.removeprefix("http://") for request in seen)
        assert {request.headers.get("Authorization") for request in seen} == {None, "Bearer token-1"}
        assert [request.method for request in seen if "Authorization" not in request.headers] == ["POST"]
        assert hits == []


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/token",
        "//evil.example/token",
        "evil.example",
        "",
        5,
        "/x\r\nX-Evil: 1",
        "/a b",
        "/ü",
        "/a#b",
    ],
)
def test_a_token_endpoint_on_another_origin_is_refused(elsewhere: str) -> None:
    """A token endpoint is a path on the client's own origin."""
    for make in (ClientCredentials, PasswordCredentials):
        with pytest.raises(ConfigurationError, match="own origin"):
            make("id", "secret", token_endpoint=elsewhere)


@pytest.mark.parametrize(
    "path", ["/\\evil.example/token", "/@evil.example/token", "/token?to=//evil.example", "/..//evil"]
)
async def test_a_token_endpoint_that_looks_like_another_origin_is_a_path(path: str) -> None:
    """A path that some parsers take for a host is requested from the client's own origin."""
    async with recording(lambda: web.json_response({"detail": "no"}, status=404)) as (origin, seen):
        credentials = ClientCredentials("id", "secret", token_endpoint=path)
        async with PoderoClient(ORG, credentials, base_url=origin, retry=QUICK) as client:
            with pytest.raises(PoderoError):
                await client.electric_vehicles(USER)
        assert [(request.method, request.host) for request in seen] == [("POST", origin.removeprefix("http://"))]


async def test_base_url_and_headers_of_a_lent_session_are_not_used() -> None:
    """A session of another service does not receive the tokens, and its own token is not sent."""
    async with (
        recording(lambda: web.json_response([])) as (elsewhere, hits),
        recording(lambda: web.json_response([])) as (origin, seen),
        aiohttp.ClientSession(f"{elsewhere}/", headers={"authorization": "Bearer theirs"}) as session,
        static_client(origin, session=session) as client,
    ):
        assert await client.electric_vehicles(USER) == []
        assert [request.headers.getall("Authorization") for request in seen] == [["Bearer token-1"]]
        assert hits == []


@pytest.mark.usefixtures("netrc")
async def test_a_lent_session_with_a_login_for_the_same_host_is_refused() -> None:
    """A call over a lent session with a login for the host is a `ConfigurationError`, and nothing is sent."""
    async with (
        recording(lambda: web.json_response([])) as (origin, seen),
        aiohttp.ClientSession(trust_env=True) as session,
        static_client(origin, session=session) as client,
    ):
        with pytest.raises(ConfigurationError, match="netrc") as caught:
            await client.electric_vehicles(USER)
        assert seen == []
    assert caught.value.__context__ is None

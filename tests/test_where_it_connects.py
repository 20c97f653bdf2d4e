"""Requests, and above all their tokens, go to the configured origin and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from podero_async import ClientCredentials, ConfigurationError, PoderoClient, PoderoError, StaticToken
from tests.support import ORG, QUICK, USER, serving, static_client

Handler = Callable[[web.Request], web.StreamResponse]


@asynccontextmanager
async def recording(answer: Callable[[], web.Response]) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Serve one answer to everything; yields the origin and the requests that came."""
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request)
        return answer()

    async with serving(handle) as origin:
        yield origin, seen


@pytest.mark.parametrize(
    "base_url",
    [
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
        "https://app.podero.com/elsewhere",
        "https://app.podero.com?to=elsewhere",
    ],
)
def test_an_origin_that_is_none_or_unsafe_is_refused(base_url: str) -> None:
    """A token would travel readable, or to somebody who only looks like loopback."""
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        PoderoClient(ORG, StaticToken("token-1"), base_url=base_url)
    assert "password" not in str(caught.value).replace("must not hold a user or a password", "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to_itself", [True, False])
async def test_a_redirect_is_an_error_and_is_not_followed(status: int, to_itself: bool) -> None:
    """Whoever can make the server redirect could collect tokens."""
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


async def test_proxies_and_netrc_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A variable that somebody set for another program would send the tokens through its proxy."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with recording(lambda: web.json_response([])) as (proxy, through_proxy):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        async with recording(lambda: web.json_response([])) as (origin, seen), static_client(origin) as client:
            assert await client.electric_vehicles(USER) == []
        assert [request.headers["Authorization"] for request in seen] == ["Bearer token-1"]
        assert through_proxy == []


async def test_what_an_answer_says_of_other_hosts_changes_nothing() -> None:
    """An answer must not be able to send the next request, or a cookie, anywhere."""
    async with recording(lambda: web.json_response([])) as (elsewhere, hits):
        headers = {
            "Location": elsewhere,
            "Refresh": f"0; url={elsewhere}",
            "Link": f'<{elsewhere}>; rel="next"',
            "Alt-Svc": f'h2="{elsewhere}"',
            "Content-Location": elsewhere,
            "Set-Cookie": "session=1; Path=/",
        }
        async with (
            recording(lambda: web.json_response([], headers=headers)) as (origin, seen),
            static_client(origin) as client,
        ):
            for _ in range(3):
                await client.electric_vehicles(USER)
            assert len(seen) == 3
            assert all("Cookie" not in request.headers for request in seen)
            assert all(request.headers["Authorization"] == "Bearer token-1" for request in seen)
        assert hits == []

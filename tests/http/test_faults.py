"""Faults of connecting and of TLS, and every other error of aiohttp, become errors of ours that name the cause."""

from __future__ import annotations

import asyncio
import errno
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from podero_async import RequestTimeoutError, RetryPolicy, TransportError
from podero_async._http.faults import explain_connecting
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of, static_client, vehicles
from tests._support.raw_server import listening, raw_server
from tests._support.tls_proxy import Certificates, TlsProxy

AIOHTTP_ERRORS = sorted(
    (
        kind
        for kind in vars(aiohttp.client_exceptions).values()
        if isinstance(kind, type)
        and issubclass(kind, aiohttp.ClientError)
        and kind.__module__ == "aiohttp.client_exceptions"
    ),
    key=lambda kind: kind.__name__,
)
assert len(AIOHTTP_ERRORS) > 20
ONCE = RetryPolicy(max_attempts=1)


async def test_plain_http_on_a_tls_port_is_named() -> None:
    """If a server responds to a TLS handshake with plain text, the error says so, in OpenSSL's words."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(handle, "https") as origin, static_client(origin, retry=ONCE) as client:
        with pytest.raises(TransportError, match=r"may not speak TLS on this port \((wrong version|record layer)"):
            await vehicles(client)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "the server cannot be reached: it refused the connection"),
        (OSError(errno.EHOSTUNREACH, "x"), "the server cannot be reached: there is no route to it"),
        (OSError(errno.EMFILE, "x"), "the server cannot be reached (EMFILE)"),
        (OSError("several"), "the server cannot be reached"),
        (ConnectionResetError(), "the server closed the connection while it was being set up"),
    ],
    ids=repr,
)
def test_faults_of_connecting_are_told_apart(error: OSError, words: str) -> None:
    """An error names the reason why no connection was made."""
    assert explain_connecting(error) == words


@pytest.mark.parametrize("kind", [*AIOHTTP_ERRORS, OSError, ConnectionResetError, ssl.SSLError, TimeoutError])
async def test_every_error_of_aiohttp_becomes_one_of_ours(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """Each error of aiohttp becomes a `TransportError` without the URL that aiohttp's message contains."""
    error = kind.__new__(kind)  # without arguments, which differ from class to class
    error.args = ("https://app.podero.com/?secret=s3cret",)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "request", fail)
    async with static_client("http://127.0.0.1:1", retry=RetryPolicy(max_attempts=2, backoff_initial=0.001)) as client:
        with pytest.raises(TransportError) as caught:
            await vehicles(client)
    assert isinstance(caught.value, RequestTimeoutError) is issubclass(kind, TimeoutError)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.attempts == (2 if caught.value.retryable else 1)


async def test_tls_is_verified(tmp_path: Path) -> None:
    """A call ends after one attempt if the certificate is not trusted. A lent session may trust another authority."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    async with PoderoSimulator(users=3, vehicles=3, ssl_context=server_context) as simulator:
        assert simulator.base_url.startswith("https://")
        async with client_of(simulator) as client:
            with pytest.raises(TransportError, match=r"TLS failed: unable to get local issuer certificate") as caught:
                await anext(client.users())
        assert caught.value.attempts == 1, "another attempt would meet the same certificate"
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            async with client_of(simulator, session=session) as client:
                assert len([user async for user in client.users()]) == 3


async def test_a_broken_handshake_is_retried(simulator: PoderoSimulator) -> None:
    """When a handshake ends in an alert, as while a load balancer restarts, the request is repeated."""
    certificates = Certificates.issue()
    connector = aiohttp.TCPConnector(ssl=certificates.trusting)
    async with (
        TlsProxy(simulator.base_url, certificates) as proxy,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        await proxy.set_mode("alert")
        retry = RetryPolicy(backoff_initial=0.001, max_attempts=2)
        async with client_of(simulator, base_url=proxy.origin, session=session, retry=retry) as client:
            with pytest.raises(TransportError, match=r"TLS failed: .*internal error") as caught:
                await anext(client.users())
            assert caught.value.attempts == 2
            await proxy.set_mode("open")
            assert len([user async for user in client.users()]) == 8


async def test_a_wrong_certificate_is_retried_once_the_origin_has_responded(simulator: PoderoSimulator) -> None:
    """One of several servers may have a wrong certificate, so it is final only for an origin that never responded."""
    certificates = Certificates.issue()
    connector = aiohttp.TCPConnector(ssl=certificates.trusting, force_close=True)
    retry = RetryPolicy(backoff_initial=0.001, max_attempts=2)
    async with (
        TlsProxy(simulator.base_url, certificates) as proxy,
        aiohttp.ClientSession(connector=connector) as session,
        client_of(simulator, base_url=proxy.origin, session=session, retry=retry) as client,
    ):
        for attempts in (1, 2):
            await proxy.set_mode("wrong certificate")
            with pytest.raises(TransportError, match="TLS failed") as caught:
                await anext(client.users())
            assert caught.value.attempts == attempts
            await proxy.set_mode("open")
            assert len([user async for user in client.users()]) == 8


async def test_a_refused_connection_is_a_transport_error() -> None:
    """If the server does not listen in any attempt, the call ends as a `TransportError` that does not name the host."""
    async with raw_server(lambda _: None) as (origin, _):
        pass
    async with static_client(origin, retry=RetryPolicy(max_attempts=2, backoff_initial=0.001)) as client:
        with pytest.raises(TransportError, match="cannot be reached: it refused the connection") as caught:
            await vehicles(client)
    assert caught.value.attempts == 2
    assert "127.0.0.1" not in str(caught.value)

"""Probe an origin without a token: its TLS and certificate, its response time and its clock."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic, time

import attrs
from yarl import URL

from podero_async._http.faults import explain_connecting, explain_tls
from podero_async._http.retry_after import http_date
from podero_async._http.session import USER_AGENT, HttpSession
from podero_async.errors import RequestTimeoutError, TransportError

__all__ = ["ProbeResult", "Tls", "probe_origin", "tls_handshake"]

_REQUEST = ("CONNECT", "/")  # method and path that errors of the handshake name


@attrs.frozen
class Tls:
    """The outcome of a TLS handshake."""

    version: str
    """Such as `TLSv1.3`."""
    valid_until: datetime
    """The end of the certificate's validity, UTC."""


@attrs.frozen
class ProbeResult:
    """The origin's response to a request without a token."""

    status: int
    seconds: float
    clock_ahead_s: float | None
    """How far this machine's clock is ahead of the server's; None if the response has no valid `Date`."""


async def tls_handshake(origin: str, *, timeout_s: float) -> Tls | None:
    """Connect with TLS and Python's default trust store, as requests do, and disconnect. Do nothing if `origin` is http.

    Raises:
        TransportError: The server was not reached. If it is not `retryable`, TLS failed for the reason in the message.
    """
    url = URL(origin)
    if url.scheme == "http":
        return None
    context = await asyncio.to_thread(ssl.create_default_context)  # it reads a large file
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(url.raw_host, url.port, ssl=context)
    except TimeoutError:
        raise RequestTimeoutError(f"no connection within {timeout_s:g} s (connect timeout)", *_REQUEST) from None
    except ssl.SSLError as error:
        raise TransportError(explain_tls(error), *_REQUEST, retryable=False) from None
    except socket.gaierror:
        raise TransportError("the host name cannot be resolved", *_REQUEST) from None
    except OSError as error:
        raise TransportError(explain_connecting(error), *_REQUEST) from None
    tls = writer.get_extra_info("ssl_object")
    valid_until = datetime.fromtimestamp(ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]), UTC)
    writer.transport.abort()  # `close` would wait for the server
    with suppress(OSError):
        await writer.wait_closed()
    return Tls(tls.version(), valid_until)


async def probe_origin(session: HttpSession, origin: str) -> ProbeResult:
    """GET the root of the origin.

    Raises:
        TransportError: No response arrived.
    """
    began, sent_at = monotonic(), time()
    response = await session.send("GET", URL(origin).with_path("/"), "/", {"User-Agent": USER_AGENT})
    seconds = monotonic() - began
    response.release()
    server_time = http_date(response.headers.get("Date", ""))
    if server_time is None:
        return ProbeResult(response.status, seconds, None)
    # `Date` has whole seconds, so the server's clock is half a second later on average.
    return ProbeResult(response.status, seconds, sent_at + seconds / 2 - (server_time + 0.5))

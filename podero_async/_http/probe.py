"""A look at the origin itself: whether it is reached, by which TLS, and what its clock says. No token goes along."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic, time

import attrs
from yarl import URL

from podero_async._http.session import HttpSession
from podero_async.errors import RequestTimeoutError, TransportError

__all__ = ["ProbeResult", "Tls", "probe_origin", "tls_handshake"]

_MAX_S = 10.0
_WHERE = ("CONNECT", "/")  # for errors


@attrs.frozen
class Tls:
    """What was agreed upon with a server."""

    version: str
    """As in `TLSv1.3`."""
    valid_until: datetime
    """The end of its certificate."""


@attrs.frozen
class ProbeResult:
    """An answer of the origin, whatever it was."""

    status: int
    seconds: float
    clock_ahead_s: float | None
    """How far this machine's clock is ahead of the server's; None where the server does not tell the time."""


async def tls_handshake(host: str, port: int) -> Tls:
    """Connect with TLS, as every request does, and leave again.

    Raises:
        TransportError: The server was not reached; or, where it is not `retryable`, TLS failed, with the reason.
    """
    context = await asyncio.to_thread(ssl.create_default_context)  # it reads a long file
    try:
        async with asyncio.timeout(_MAX_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except TimeoutError:
        raise RequestTimeoutError("no answer in time", *_WHERE) from None
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason or "no reason is known"
        raise TransportError(f"TLS failed: {reason}", *_WHERE, retryable=False) from None
    except socket.gaierror:
        raise TransportError("the server's name is not known", *_WHERE) from None
    except OSError:
        raise TransportError("the server cannot be reached", *_WHERE) from None
    made = writer.get_extra_info("ssl_object")
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(made.getpeercert()["notAfter"]), UTC)
    writer.transport.abort()  # a polite end would wait for the server's
    with suppress(OSError):
        await writer.wait_closed()
    return Tls(made.version(), until)


async def probe_origin(exchange: HttpSession, origin: URL, headers: Mapping[str, str]) -> ProbeResult:
    """Ask for the root of the origin.

    Raises:
        TransportError: No answer came.
    """
    began, asked_at = monotonic(), time()
    answer = await exchange.send("GET", origin.with_path("/"), "/", headers)
    seconds = monotonic() - began
    try:
        # It is told in whole seconds, and somewhere on the way.
        there = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
    except (KeyError, ValueError, OverflowError):
        return ProbeResult(answer.status, seconds, None)
    return ProbeResult(answer.status, seconds, asked_at + seconds / 2 - there)

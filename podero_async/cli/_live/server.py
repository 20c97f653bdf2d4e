"""The server of the live view. It can neither delay nor fail the backfill: a reader that is slow waits for itself."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
from aiohttp import web

from podero_async.cli._live.address import Address, is_ip
from podero_async.cli._live.metrics import metrics_of
from podero_async.cli._live.page import POLICY, fragment_of, page_of
from podero_async.cli._live.watch import EVERY_S, Watch
from podero_async.cli._runtime import UsageError

__all__ = ["MAX_CONNECTIONS", "serving"]

MAX_CONNECTIONS = 32
"""More are closed at once, so that they cannot take the file descriptors that the backfill needs."""
_SHUTDOWN_S = 0.1
_PORT = re.compile(r":\d*$")
_HTML, _METRICS = "text/html; charset=utf-8", "text/plain; version=0.0.4; charset=utf-8"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "podero-async",
    "X-Content-Type-Options": "nosniff",
}
_PAGES: dict[str, tuple[str, Callable[[Watch], str]]] = {
    "/": (_HTML, page_of),
    "/fragment": (_HTML, fragment_of),
    "/metrics": (_METRICS, metrics_of),
}
# aiohttp would log a traceback for each request that is not HTTP, and Python write it to stderr.
_SILENT = logging.Logger("podero_async_live", logging.CRITICAL)  # noqa: LOG001 - it has no parent on purpose


class _Refused(asyncio.Protocol):
    """A connection that is closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


@attrs.define
class _View:
    """Responds with the page, its changing part, and the metrics."""

    watch: Watch
    host: str
    """As the user named it."""
    is_closing: bool = False
    server: web.Server = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.server = web.Server(self.respond, access_log=None, logger=_SILENT)

    def connect(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        is_welcome = not self.is_closing and len(self.server.connections) < MAX_CONNECTIONS
        return self.server() if is_welcome else _Refused()

    async def respond(self, request: web.BaseRequest) -> web.Response:
        """Respond to a request."""
        kind, make = _PAGES.get(request.path, (_HTML, None))
        if not self._is_addressed(request):
            status, text = 421, "this view is served under its own address only"
        elif make is None:
            status, text = 404, "there is / and /metrics"
        elif request.method not in {"GET", "HEAD"}:
            status, text = 405, "this view can only be read"
        else:
            return web.Response(text=make(self.watch), headers={**_HEADERS, "Content-Type": kind})
        allow = {"Allow": "GET, HEAD"} if status == 405 else {}  # noqa: PLR2004
        return web.Response(status=status, text=f"{text}\n", headers={**_HEADERS, **allow})

    def _is_addressed(self, request: web.BaseRequest) -> bool:
        """Return whether a request names this server by its address, `localhost` or the user's own name for it.

        A website of an attacker can let its own name resolve to this server (DNS rebinding), but not an address.
        """
        # Without the header, `request.host` would ask the system for a name, which may block.
        name = _PORT.sub("", request.headers.get("Host", "")).lower()
        return name in {"localhost", self.host} or is_ip(name.strip("[]"))

    async def close(self) -> None:
        """End all connections, also those whose readers are slow."""
        self.is_closing = True
        await asyncio.sleep(0)  # connections that were just accepted are refused
        for connection in self.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self.server.shutdown(_SHUTDOWN_S)


@asynccontextmanager
async def serving(address: Address, watch: Watch) -> AsyncIterator[str]:
    """Serve the view while the block runs, which gets the URL of the page.

    Raises:
        UsageError: The address cannot be used.
    """
    view = _View(watch, address.host)
    # Names may resolve to addresses that the system does not have, such as `localhost` to one of IPv6.
    host = "127.0.0.1" if address.host == "localhost" else address.host
    try:
        listening = await asyncio.get_running_loop().create_server(view.connect, host, address.port)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot serve the live view at {address}: {_reason(error)}") from error
    port = listening.sockets[0].getsockname()[1]
    sampling = asyncio.create_task(_sample(watch), name="podero_async live view")
    try:
        yield f"http://{Address(address.host, port)}/"
    finally:
        sampling.cancel()
        listening.close()
        await view.close()
        await asyncio.wait([sampling])


async def _sample(watch: Watch) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        watch.take_sample()


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or error.errno is None:
        return "the host is not known"
    return os.strerror(error.errno)

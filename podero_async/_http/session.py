"""Send one request over an aiohttp session, read its response, and translate aiohttp's errors into ours."""

from __future__ import annotations

import asyncio
import copy
import math
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import ClientRequest, ClientTimeout
from yarl import URL

from podero_async._http.faults import MAX_HEADER_BYTES, MAX_HEADERS, explain, is_final
from podero_async._http.gzip import OversizedBodyError
from podero_async._http.response import (
    MAX_BODY_BYTES,
    LargeBodies,
    Response,
    body_error,
    read_request_id,
    read_response,
)
from podero_async._http.timeouts import AttemptTimeout, AttemptTimer, Timeouts
from podero_async._version import __version__
from podero_async.errors import ConfigurationError, RequestTimeoutError, TransportError

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

__all__ = ["USER_AGENT", "HttpSession"]

USER_AGENT = f"podero_async/{__version__} aiohttp/{aiohttp.__version__} Python/{platform.python_version()}"
_CLOSED = "the client or its aiohttp session is closed"
_KEPT_BYTES = 1 << 20
_OPTIONS: dict[str, Any] = {
    "raise_for_status": False,
    "auto_decompress": False,
    "max_line_size": MAX_HEADER_BYTES,
    "max_field_size": MAX_HEADER_BYTES,
    "max_headers": MAX_HEADERS,
}
_MAX_UNUSABLE_CONNECTIONS = 10  # of a pool, for one attempt


class HttpSession:
    """Send requests over a lent aiohttp session, or over one of its own, which `aclose` closes.

    Attributes:
        timeouts: The timeouts of each attempt.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None,
        timeouts: Timeouts,
        *,
        large_bodies: LargeBodies | None = None,
    ) -> None:
        # glibc returns the memory of each body to the system and requests it again for the next one: 3 page faults (16 us)
        # for a page of 10 sessions, 20 (36 us) for one of 199. After this it keeps up to 2 MiB.
        bytes(_KEPT_BYTES)
        self._connections = _Connections(session)
        self._large_bodies = large_bodies or LargeBodies()
        self._timer = AttemptTimer()
        self._set_timeouts(timeouts)

    def with_timeouts(self, timeouts: Timeouts) -> HttpSession:
        """Return a session that shares all but the timeouts with this one."""
        derived = copy.copy(self)
        derived._set_timeouts(timeouts)  # noqa: SLF001
        return derived

    def _set_timeouts(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        # AttemptTimeout covers the rest, since aiohttp's `sock_read` counts neither connecting nor waiting in the pool.
        timeout = ClientTimeout(total=None, sock_connect=timeouts.connect)
        self._options: dict[str, Any] = {"timeout": timeout, "allow_redirects": False}
        if self._connections.is_lent:  # each option of a request costs time, so the client's own session has them
            self._options |= _OPTIONS

    @property
    def pool_size(self) -> int | None:
        """The number of connections that a lent session has for one host; None if unlimited."""
        return self._connections.pool_size

    async def aclose(self) -> None:
        """Close the session unless it is lent. Later requests fail with `ConfigurationError`."""
        await self._connections.aclose()

    async def send(
        self,
        method: str,
        url: URL,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        secrets: tuple[str, ...] = (),
        max_bytes: int = MAX_BODY_BYTES,
        left_s: float = math.inf,
    ) -> Response:
        """Send one request once, and read its whole response. The connection is released afterwards.

        Args:
            method: The HTTP method.
            url: The encoded URL.
            path: The path that errors name.
            headers: All headers except those that aiohttp adds.
            body: The request's body.
            secrets: Texts that no error may repeat if the server sends them back.
            max_bytes: The largest body, inflated.
            left_s: Seconds after which the request ends, even if its timeouts are longer.

        Raises:
            ConfigurationError: The client is closed.
            TransportError: No usable response arrived.
        """
        connections = self._connections
        session = connections.open()
        attempt = AttemptTimeout(self.timeouts, self._timer, left_s)
        received: Mapping[str, str] = {}
        try:
            with attempt:
                middlewares = _sending_once(session) if connections.is_lent else None
                response = await session.request(
                    method, url, data=body, headers=headers, middlewares=middlewares, **self._options
                )
                connections.has_worked = True
                try:
                    received = response.headers
                    return await read_response(response, method, path, attempt, self._large_bodies, max_bytes, secrets)
                finally:
                    if response.connection is not None:  # the body was not read to its end
                        response.release()
        except asyncio.CancelledError:
            # When a session closes, aiohttp cancels requests that resolve a name or wait in the pool. This becomes an
            # error, unless the task itself is cancelled as well.
            if attempt.is_task_cancelled or not (connections.is_closed or session.closed):
                raise
            raise ConfigurationError(_CLOSED) from None
        except TimeoutError:
            fault: TransportError = RequestTimeoutError(attempt.reason, method, path)
        except OversizedBodyError as error:
            fault = body_error(error, method, path)
        except (aiohttp.ClientError, OSError) as error:
            fault = TransportError(explain(error), method, path, not is_final(error, has_worked=connections.has_worked))
        except ValueError:
            if not session.trust_env:
                raise
            # aiohttp refuses an `Authorization` header if the environment has a login for the host, too.
            raise ConfigurationError(
                "the lent session has a login of its own for this host, such as one from a netrc file"
            ) from None
        fault.request_id = read_request_id(received, secrets)
        raise fault


class _Connections:
    """The aiohttp session, lent or own."""

    def __init__(self, session: aiohttp.ClientSession | None) -> None:
        if session is not None and session.auth is not None:
            raise ConfigurationError("session must not have an auth of its own: the client authorizes its requests")
        self._session = session
        self.is_lent = session is not None
        self.is_closed = False
        self.has_worked = False
        """Whether the origin has responded."""

    @property
    def pool_size(self) -> int | None:
        connector = self._session.connector if self._session is not None else None
        bounds = [bound for bound in (connector.limit, connector.limit_per_host) if bound] if connector else []
        return min(bounds, default=None)

    async def aclose(self) -> None:
        self.is_closed = True
        if self._session is not None and not self.is_lent:
            await self._session.close()

    def open(self) -> aiohttp.ClientSession:
        """Return the session, and make it before the first request if none is lent."""
        if self.is_closed or (self.is_lent and self._session is not None and self._session.closed):
            raise ConfigurationError(_CLOSED)
        if self._session is None:
            # The limiter bounds the connections. A bound in the pool would count waiting for a connection as request time.
            connector, cookie_jar = _Connector(limit=0), aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=cookie_jar, **_OPTIONS)
            # aiohttp repeats a lost request once by itself, uncounted and at once, which doubles the load in an outage.
            self._session._retry_connection = False  # noqa: SLF001  # aiohttp has no public switch
        return self._session


class _UnusableConnectionError(aiohttp.ServerDisconnectedError):
    """Bytes arrived on a connection before the request was sent, and aiohttp would take them for the response."""


class _Connector(aiohttp.TCPConnector):
    """A pool that closes a connection on which bytes arrived before the request, such as while it was idle."""

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:  # noqa: ASYNC109
        """Return a connection from the pool, or a new one."""
        for _ in range(_MAX_UNUSABLE_CONNECTIONS):
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()
        raise _UnusableConnectionError


def _sending_once(session: aiohttp.ClientSession) -> Sequence[aiohttp.ClientMiddlewareType]:
    """Return the middlewares of a session between two of our own.

    The first stops aiohttp from repeating a lost request. The last checks the connection, as `_Connector` does.
    """
    lost: list[Exception] = []

    async def send_once(request: ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if lost:
            raise lost.pop()
        try:
            return await handler(request)
        except aiohttp.ClientConnectionError as error:
            lost.append(error)
            raise

    # A request's middlewares replace those of the session, which aiohttp shows nowhere else.
    return (send_once, *getattr(session, "_middlewares", ()), _send_over_usable_connection)


async def _send_over_usable_connection(
    request: ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request over another connection if bytes arrived on the one from the pool while it was idle."""
    send = request.send

    async def send_if_usable(conn: Connection) -> aiohttp.ClientResponse:
        if conn.protocol is not None and conn.protocol.should_close:
            raise _UnusableConnectionError  # aiohttp then closes it
        return await send(conn)

    request.send = send_if_usable  # type: ignore[method-assign]  # aiohttp shows the connection nowhere else
    for _ in range(_MAX_UNUSABLE_CONNECTIONS):
        with suppress(_UnusableConnectionError):
            return await handler(request)
    raise _UnusableConnectionError

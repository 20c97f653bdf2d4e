"""One exchange over an aiohttp session that was lent, or is made and closed here; its failures as our errors."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp
from yarl import URL

from podero_async._http.gzip import OversizedBodyError
from podero_async._http.response import Response, body_error, read_response
from podero_async._http.timeouts import Deadline, Deadlines, Timeouts
from podero_async.errors import ConfigurationError, RequestTimeoutError, TransportError

__all__ = ["HttpSession"]

_KEPT = 1 << 20  # bytes
_CLOSED = "the client is closed, or the session that it was lent"


class HttpSession:
    """Send requests, each at most once, and read their answers whole."""

    def __init__(self, session: aiohttp.ClientSession | None, timeouts: Timeouts) -> None:
        if session is not None and session.auth is not None:
            raise ConfigurationError("session must not have an auth of its own: the client authorizes its calls")
        # glibc gives a body's memory back to the system and takes it again for the next one, page fault by page fault:
        # up to a quarter of a page's time, or nothing, by chance of what lies behind it. It keeps about twice as much as the
        # largest block that a process ever gave back.
        bytes(_KEPT)
        self._session = session
        self._is_lent = session is not None
        self._closed = False
        self._timeouts = timeouts
        self._deadlines = Deadlines()
        # aiohttp's own deadlines set and cancel three timers a request: a tenth of a small page's time.
        self._connecting = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect)

    @property
    def pool_size(self) -> int | None:
        """How many connections a lent session has for one host: more requests would wait in its pool."""
        connector = self._session.connector if self._session is not None else None
        bounds = [bound for bound in (connector.limit, connector.limit_per_host) if bound] if connector else []
        return min(bounds, default=None)

    async def aclose(self) -> None:
        """Close the session, unless it was lent; nothing is sent any more."""
        self._closed = True
        self._deadlines.close()
        if self._session is not None and not self._is_lent:
            await self._session.close()

    async def send(
        self, method: str, url: URL, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        """Send one request and read its answer whole; nothing of it is left open afterwards.

        Raises:
            TransportError: No usable answer arrived; the error names `path`.
        """
        session = self._open_session()
        deadline = Deadline(self._deadlines, total=self._timeouts.total, between=self._timeouts.read)
        try:
            with deadline:
                async with session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    timeout=self._connecting,
                    allow_redirects=False,
                    raise_for_status=False,
                    auto_decompress=False,
                ) as response:
                    return await read_response(response, deadline)
        except asyncio.CancelledError:
            # aiohttp cancels who looks up a name, or waits in its pool, when the session is closed.
            if deadline.is_cancelled_from_outside or not (self._closed or session.closed):
                raise
            raise ConfigurationError(_CLOSED) from None
        except TimeoutError:
            raise RequestTimeoutError("no answer in time", method, path) from None
        except OversizedBodyError as error:
            raise body_error(error, method, path) from None
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(_explain(error), method, path, not isinstance(error, _FINAL_FAULTS)) from None
        except ValueError:
            if not session.trust_env:
                raise
            # What aiohttp says to a login of the environment beside our own header.
            raise ConfigurationError(
                "the session that was lent has a login of its own for this host, as of a netrc"
            ) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed or (self._is_lent and self._session is not None and self._session.closed):
            raise ConfigurationError(_CLOSED)
        if self._session is None:
            # The throttle bounds the connections: a second bound in the pool would count waiting as request time.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
            # aiohttp repeats a lost request once by itself: uncounted, at once, and in an outage twice the load.
            self._session._retry_connection = False  # noqa: SLF001  # it has no public switch; a test holds it
        return self._session


_FINAL_FAULTS = (  # trying again would end the same way; a handshake that breaks off may be a balancer's restart
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.TooManyRedirects,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.RedirectClientError,
    aiohttp.UploadAbortedError,
)


def _explain(error: Exception) -> str:
    """Say what failed, without the URL, the host or the proxy that aiohttp's own words may hold."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the server's name is not known"
        case aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch() | ssl.SSLError():
            return "TLS failed"
        case aiohttp.ClientConnectorError():
            return "the server cannot be reached"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "the connection was lost"
        case aiohttp.ClientPayloadError():
            return "the body was cut short"
        case _:
            return f"the exchange failed ({type(error).__name__})"

"""Send one request over an aiohttp session, read its response, and translate aiohttp's errors into ours."""

from __future__ import annotations

import asyncio
import platform
import ssl
from collections.abc import Mapping

import aiohttp
from yarl import URL

from podero_async._http.gzip import OversizedBodyError
from podero_async._http.response import MAX_BODY_BYTES, Response, body_error, read_response
from podero_async._http.timeouts import AttemptTimeout, Timeouts
from podero_async._version import __version__
from podero_async.errors import ConfigurationError, RequestTimeoutError, TransportError

__all__ = ["USER_AGENT", "HttpSession"]

USER_AGENT = f"podero_async/{__version__} aiohttp/{aiohttp.__version__} Python/{platform.python_version()}"
_CLOSED = "the client or its aiohttp session is closed"


class HttpSession:
    """Send requests over a lent aiohttp session, or over an own one that `aclose` closes."""

    def __init__(
        self, session: aiohttp.ClientSession | None, timeouts: Timeouts, *, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        if session is not None and session.auth is not None:
            raise ConfigurationError("session must not have an auth of its own: the client authorizes its requests")
        self._session = session
        self._is_lent = session is not None
        self._is_closed = False
        self.timeouts = timeouts
        self._max_body_bytes = max_body_bytes
        # AttemptTimeout covers the rest, since aiohttp's `sock_read` counts neither connecting nor waiting in the pool.
        self._aiohttp_timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect)

    @property
    def pool_size(self) -> int | None:
        """The number of connections that a lent session has for one host; None if unlimited."""
        connector = self._session.connector if self._session is not None else None
        bounds = [bound for bound in (connector.limit, connector.limit_per_host) if bound] if connector else []
        return min(bounds, default=None)

    async def aclose(self) -> None:
        """Close the session unless it is lent. Later requests fail with `ConfigurationError`."""
        self._is_closed = True
        if self._session is not None and not self._is_lent:
            await self._session.close()

    async def send(
        self, method: str, url: URL, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        """Send one request once, and read its whole response. The connection is released afterwards.

        Args:
            method: The HTTP method.
            url: The encoded URL.
            path: The path that errors name.
            headers: All headers except those that aiohttp adds.
            body: The request's body.

        Raises:
            ConfigurationError: The client is closed.
            TransportError: No usable response arrived.
        """
        session = self._open_session()
        attempt = AttemptTimeout(self.timeouts)
        try:
            with attempt:
                async with session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    timeout=self._aiohttp_timeout,
                    allow_redirects=False,
                    raise_for_status=False,
                    auto_decompress=False,
                ) as response:
                    return await read_response(response, attempt.progress, self._max_body_bytes)
        except asyncio.CancelledError:
            # When a session closes, aiohttp cancels requests that resolve a name or wait in the pool. This becomes an error,
            # unless the task itself is cancelled, too.
            if attempt.is_task_cancelled or not (self._is_closed or session.closed):
                raise
            raise ConfigurationError(_CLOSED) from None
        except TimeoutError:
            raise RequestTimeoutError("no response within the timeout", method, path) from None
        except OversizedBodyError as error:
            raise body_error(error, method, path) from None
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(_explain(error), method, path, not isinstance(error, _FINAL_ERRORS)) from None
        except ValueError:
            if not session.trust_env:
                raise
            # aiohttp refuses an `Authorization` header if the environment has a login for the host, too.
            raise ConfigurationError(
                "the lent session has a login of its own for this host, such as one from a netrc file"
            ) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._is_closed or (self._is_lent and self._session is not None and self._session.closed):
            raise ConfigurationError(_CLOSED)
        if self._session is None:
            # The limiter bounds the connections. A bound in the pool would count waiting for a connection as request time.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
            # aiohttp repeats a lost request once by itself, uncounted and at once, which doubles the load in an outage.
            self._session._retry_connection = False  # noqa: SLF001  # aiohttp has no public switch
        return self._session


_FINAL_ERRORS = (  # another attempt would fail the same way; a broken handshake is not among them
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.TooManyRedirects,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.RedirectClientError,
    aiohttp.UploadAbortedError,
)


def _explain(error: Exception) -> str:
    """Describe an error without the URL, host or proxy that aiohttp's own message may contain."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host name cannot be resolved"
        case aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch() | ssl.SSLError():
            return "TLS failed"
        case aiohttp.ClientConnectorError():
            return "the server cannot be reached"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "the connection was lost"
        case aiohttp.ClientPayloadError():
            return "the response body was cut short"
        case _:
            return f"the request failed ({type(error).__name__})"

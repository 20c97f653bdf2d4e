"""One HTTP request and its answer as bytes: authorized, throttled, bounded, retried, its errors mapped.

The only room that knows aiohttp's client. Knows no endpoint but the shape of an error, and no model.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import platform
import re
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from time import time
from types import MappingProxyType
from typing import TypeVar

import aiohttp
import attrs
from yarl import URL

from podero_async._auth import TokenCache
from podero_async._credentials import Credentials, TokenRequest
from podero_async._decode import explain_error
from podero_async._inflate import CorruptBodyError, OversizedBodyError, inflate
from podero_async._retry import RETRYABLE_STATUSES, Call, Retrier, RetryPolicy, Tally
from podero_async._throttle import Throttle, ThrottlePolicy
from podero_async._token_store import TokenStore
from podero_async._version import __version__
from podero_async.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)

__all__ = ["Timeouts", "Transport"]

T = TypeVar("T")
_logger = logging.getLogger("podero_async")

_USER_AGENT = f"podero_async/{__version__} aiohttp/{aiohttp.__version__} Python/{platform.python_version()}"
_MOST_BYTES = 64 << 20  # of any answer, inflated: 100,000 users fit
_MOST_ERROR_BYTES = 64 << 10
_INFLATE_OFF_LOOP = 256 << 10  # compressed bytes; a page of 200 sessions has 22 kB
_OK, _UNAUTHORIZED, _TOO_MANY, _UNAVAILABLE, _SERVER_FAULTS = 200, 401, 429, 503, 500
_REQUEST_ID = re.compile(r"[\w.:-]{1,100}")
_ERRORS: Mapping[int, type[ApiError]] = MappingProxyType(
    {
        400: InvalidRequestError,
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        422: InvalidRequestError,
        429: RateLimitError,
    }
)


def _positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ConfigurationError(f"{attribute.name} must be a number of seconds above 0")


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long one attempt may take, in seconds. Waiting for a place or a token does not count.

    Args:
        connect: To reach the server, TLS included.
        read: Between two pieces of an answer.
        total: All of it, the last byte included.
    """

    connect: float = attrs.field(default=10.0, validator=_positive)
    read: float = attrs.field(default=30.0, validator=_positive)
    total: float = attrs.field(default=60.0, validator=_positive)


@attrs.frozen
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Send requests to one origin, through one aiohttp session that was lent, or is made and closed here."""

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        session: aiohttp.ClientSession | None,
        retry: RetryPolicy,
        throttle: ThrottlePolicy,
        timeouts: Timeouts,
        token_store: TokenStore | None,
    ) -> None:
        self._origin = _checked_origin(base_url)
        if session is not None and session.auth is not None:
            raise ConfigurationError("session must not have an auth of its own: the client authorizes its calls")
        self._session = session
        self._is_lent = session is not None
        self._closed = False
        self._longest_pause_s = retry.retry_after_max
        self._quiet_until = -math.inf
        self.throttle = Throttle(throttle, ceiling=_pool_size(session))
        self._retrier = Retrier(retry, is_outage=lambda: self.throttle.is_in_outage)
        self._timeout = aiohttp.ClientTimeout(
            total=timeouts.total, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        self.tokens = TokenCache(credentials, self._post, origin=self._origin, store=token_store)
        self._headers: dict[str, str] = {}
        self._headers_token = ""

    @property
    def is_down(self) -> bool:
        """Whether the API must be taken for down: nothing but faults, or so many that no retry can be afforded."""
        return self.throttle.is_in_outage or self._retrier.is_spent

    async def aclose(self) -> None:
        """End the token's renewal, and the session unless it was lent; who waits for a place is told."""
        self._closed = True
        self.throttle.close()
        try:
            await self.tokens.aclose()
        finally:
            if self._session is not None and not self._is_lent:
                await self._session.close()

    async def get(
        self, path: str, decode: Callable[[bytes], T], tally: Tally, *, shown_path: str | None = None, private: str = ""
    ) -> T:
        """GET a path, query included, and decode its answer.

        Args:
            path: Path and query, encoded.
            decode: What makes a value of the body. When it raises a `DecodeError` that is `retryable`, the request
                is made again.
            tally: What the request is counted on.
            shown_path: The path for errors, where the real one names a person.
            private: What the server's words must not repeat in an error.

        Raises:
            ApiError, TransportError, DecodeError: See `podero_async.errors`.
        """
        shown = shown_path or path.partition("?")[0]
        url = URL(self._origin + path, encoded=True)

        async def attempt(call: Call) -> T:
            answer = await self._authorized(url, shown, call, private)
            try:
                return decode(answer.body)
            except DecodeError as error:
                error.path = shown
                raise

        return await self._retrier.run(attempt, tally)

    async def _authorized(self, url: URL, path: str, call: Call, private: str) -> _Answer:
        """Send one attempt with a token, and once more with a new one where the server refuses the first.

        A token out of a store may be as dead as the one before: then once more with one that is new for sure.
        """
        while True:
            self._check_quiet_time("GET", path)
            place = await self._wait_for_place(call)
            try:
                token = self.tokens.current() or await self.tokens.get()
                call.tally.requests += 1
                answer = await self._exchange("GET", url, path, self._headers_for(token), None)
                self._report(answer, place)
            except TransportError:
                self.throttle.failed(place)
                raise
            finally:
                self.throttle.release()
            if answer.status == _OK:
                return answer
            if answer.status == _UNAUTHORIZED and self.tokens.invalidate(token) and call.replays < self.tokens.replays:
                call.replays += 1
                continue
            error = _api_error(answer, "GET", path, (token, private) if private else (token,))
            error.is_for_all = (error.retry_after or 0.0) > self._longest_pause_s
            del token  # a traceback with locals must not show it
            raise error

    def _check_quiet_time(self, method: str, path: str) -> None:
        """Send nothing before the time that the server named, where that is longer than is slept."""
        left_s = self._quiet_until - asyncio.get_running_loop().time()
        if left_s > 0:
            error = RateLimitError(_TOO_MANY, "the server wants no request yet", method, path, None, left_s)
            error.is_for_all = error.is_final = True
            raise error

    async def _wait_for_place(self, call: Call) -> int:
        loop = asyncio.get_running_loop()
        since = loop.time()
        place = await self.throttle.acquire()
        if not self.throttle.is_in_outage:  # waiting for a server to come back is the call's own time
            call.waited_s += loop.time() - since
        return place

    def _report(self, answer: _Answer, place: int) -> None:
        wait_s = _retry_after(answer.headers)
        if answer.status == _TOO_MANY or (answer.status == _UNAVAILABLE and wait_s is not None):
            if (
                wait_s or 0.0
            ) > self._longest_pause_s:  # an error for the caller to plan with, not a sleep for everybody
                self._quiet_until = asyncio.get_running_loop().time() + (wait_s or 0.0)
                wait_s = None
            self.throttle.pushed_back(place, wait_s)
        elif answer.status >= _SERVER_FAULTS:
            self.throttle.failed(place)
        else:
            self.throttle.succeeded()

    def _headers_for(self, token: str) -> dict[str, str]:
        if token != self._headers_token:  # built once a token, not once a request
            self._headers_token = token
            self._headers = {
                "Authorization": f"Bearer {token}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": _USER_AGENT,
            }
        return self._headers

    async def _post(self, request: TokenRequest) -> tuple[int, bytes]:
        """Send a token request. It takes no place: everything that holds one may be waiting for it."""
        url = URL(self._origin + request.path, encoded=True)
        headers = {**request.headers, "Accept-Encoding": "gzip", "User-Agent": _USER_AGENT}

        async def attempt(_: Call) -> _Answer:
            answer = await self._exchange("POST", url, request.path, headers, request.body)
            if answer.status >= _SERVER_FAULTS or answer.status in RETRYABLE_STATUSES:
                raise _api_error(answer, "POST", request.path, ())
            return answer

        answer = await self._retrier.run(attempt, Tally())
        return answer.status, answer.body

    async def _exchange(
        self, method: str, url: URL, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> _Answer:
        """Send one request and read its answer whole; nothing of it is left open afterwards."""
        try:
            async with self._open_session().request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=False,
            ) as response:
                if response.status == _OK:
                    answer = await _read(response, _MOST_BYTES)
                else:
                    answer = await _read_error(response)
                return _Answer(response.status, response.headers, answer)
        except TimeoutError:
            raise RequestTimeoutError("no answer in time", method, path) from None
        except OversizedBodyError:
            raise TransportError("the answer is larger than the cap", method, path, retryable=False) from None
        except CorruptBodyError:
            raise TransportError("the body was cut short", method, path) from None
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(_explain(error), method, path, not isinstance(error, _FINAL_FAULTS)) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed or (self._is_lent and self._session is not None and self._session.closed):
            raise ConfigurationError("the client is closed, or the session that it was lent")
        if self._session is None:
            # The throttle bounds the connections: a second bound in the pool would count waiting as request time.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
            # aiohttp repeats a lost request once by itself: uncounted, at once, and in an outage twice the load.
            self._session._retry_connection = False  # noqa: SLF001  # it has no public switch; a test holds it
        return self._session


# --- what an answer says ----------------------------------------------------------------------------------------------


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read the body, inflated, to at most `most` bytes."""
    raw = await _read_raw(response, most)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    return await _inflated(raw, encoding, most) if encoding not in {"", "identity"} else raw


async def _read_error(response: aiohttp.ClientResponse) -> bytes:
    """Read an error's body as far as it can be: whatever is wrong with it, the status counts."""
    try:
        return await _read(response, _MOST_ERROR_BYTES)
    except (aiohttp.ClientPayloadError, CorruptBodyError, OversizedBodyError):
        return b""


async def _read_raw(response: aiohttp.ClientResponse, most: int) -> bytes:
    if (response.content_length or 0) > most:
        raise OversizedBodyError
    pieces = []
    size = 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > most:
            raise OversizedBodyError
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _inflated(raw: bytes, encoding: str, most: int) -> bytes:
    if encoding not in {"gzip", "x-gzip"}:
        raise CorruptBodyError  # an encoding that was not asked for
    if len(raw) > _INFLATE_OFF_LOOP:
        return await asyncio.to_thread(inflate, raw, most)
    return inflate(raw, most)


def _api_error(answer: _Answer, method: str, path: str, secrets: tuple[str, ...]) -> ApiError:
    status = answer.status
    kind = _ERRORS.get(status, ServerError if status >= _SERVER_FAULTS else ApiError)
    _, words = explain_error(answer.body, secrets)
    if 300 <= status < 400:  # noqa: PLR2004
        words = "a redirect, which is never followed"
    request_id = answer.headers.get("X-Request-ID", "")
    is_plain = _REQUEST_ID.fullmatch(request_id) is not None
    return kind(status, words, method, path, request_id if is_plain else None, _retry_after(answer.headers))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After`, in seconds or as an HTTP date; None where it is missing or neither."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, OverflowError):
        return None


_FINAL_FAULTS = (  # trying again would end the same way
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ClientConnectorSSLError,
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
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return "the connection was lost"
        case aiohttp.ClientPayloadError():
            return "the body was cut short"
        case _:
            return f"the exchange failed ({type(error).__name__})"


# --- where requests may go --------------------------------------------------------------------------------------------


def _checked_origin(base_url: str) -> str:
    """Return the origin of `base_url`: https, or http to loopback, and nothing after the port."""
    try:
        url = URL(base_url)
    except (TypeError, ValueError):
        raise ConfigurationError("base_url must be a URL such as https://app.podero.com") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError("base_url must be a URL such as https://app.podero.com")
    if url.user or url.password:
        raise ConfigurationError("base_url must not hold a user or a password")
    if url.path not in {"", "/"} or url.query_string or url.fragment:
        raise ConfigurationError("base_url must be an origin: no path, no query, no fragment")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise ConfigurationError("base_url must be https: http goes to loopback only")
    return str(url.origin())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pool_size(session: aiohttp.ClientSession | None) -> int | None:
    """Return how many connections a lent session has for one host: more requests would wait in its pool."""
    connector = session.connector if session is not None else None
    bounds = [bound for bound in (connector.limit, connector.limit_per_host) if bound] if connector else []
    return min(bounds, default=None)

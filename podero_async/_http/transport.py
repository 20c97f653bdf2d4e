"""A call: one request, authorized, throttled and retried, until its answer can be decoded or its error is final."""

from __future__ import annotations

import asyncio
import math
import platform
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from podero_async._auth.cache import TokenCache
from podero_async._auth.credentials import Credentials
from podero_async._auth.grants import TokenRequest
from podero_async._auth.store import TokenStore
from podero_async._decode import decode_json
from podero_async._failures import (
    RETRYABLE_STATUSES,
    FailureKind,
    asks_for_long_pause,
    classify,
    is_server_fault,
    is_throttling,
)
from podero_async._flow.limiter import Limiter, NoSlotError
from podero_async._flow.policies import RetryPolicy, ThrottlePolicy
from podero_async._flow.retry import Call, NotRetriedError, RequestStats, Retrier
from podero_async._http.gzip import CorruptBodyError, OversizedBodyError
from podero_async._http.origin import checked_origin
from podero_async._http.probe import ProbeResult, Tls, probe_origin, tls_handshake
from podero_async._http.response import Response, api_error, body_error, retry_after
from podero_async._http.session import HttpSession
from podero_async._http.timeouts import Timeouts
from podero_async._redaction import Secret, strip_traceback
from podero_async._version import __version__
from podero_async.errors import ApiError, DecodeError, PoderoError, RateLimitError, TransportError

__all__ = ["Transport"]

T = TypeVar("T")

_USER_AGENT = f"podero_async/{__version__} aiohttp/{aiohttp.__version__} Python/{platform.python_version()}"
_DECODED_AT_ONCE = 16 << 10  # bytes, in less time than it takes to let others go first
_DECODED_ON_LOOP = 256 << 10  # bytes, in 15 ms where each row has its fault; a page of 200 sessions has 136 kB
_OK, _UNAUTHORIZED, _TOO_MANY_REQUESTS = 200, 401, 429


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
        origin = checked_origin(base_url)
        self._scheme, _, self._authority = origin.partition("://")
        self._exchange = HttpSession(session, timeouts)
        self._longest_pause_s = retry.retry_after_max
        self._quiet_until = {"GET": -math.inf, "POST": -math.inf}
        self.limiter = Limiter(throttle, ceiling=self._exchange.pool_size)
        self._retrier = Retrier(retry, is_breaker_closed=lambda: self.limiter.breaker.is_closed)
        self.tokens = TokenCache(credentials, self._post, origin=origin, store=token_store)
        self._headers = CIMultiDict[str]()
        self._headers_token = ""
        self._decoding = asyncio.Lock()

    @property
    def is_down(self) -> bool:
        """Whether the API must be taken for down: nothing but faults, or so many that no retry can be afforded."""
        return not self.limiter.breaker.is_closed or self._retrier.is_spent

    @property
    def origin(self) -> str:
        """Where requests go, and nowhere else."""
        return f"{self._scheme}://{self._authority}"

    async def tls_handshake(self) -> Tls | None:
        """Say which TLS a request to the origin would get; None for loopback without any.

        Raises:
            TransportError: The origin was not reached; or, where it is not `retryable`, TLS failed.
        """
        url = URL(self.origin)
        return await tls_handshake(url.raw_host or "", url.port or 0) if url.scheme == "https" else None

    async def look(self) -> ProbeResult:
        """Say how the origin answers, and what its clock says. No token is sent.

        Raises:
            TransportError: It does not answer.
        """
        return await probe_origin(self._exchange, URL(self.origin), {"User-Agent": _USER_AGENT})

    async def aclose(self) -> None:
        """End the token's renewal, and the session unless it was lent; who waits for a place is told."""
        self.limiter.close()
        try:
            await self.tokens.aclose()
        finally:
            await self._exchange.aclose()

    async def get(
        self,
        path: str,
        decode: Callable[[bytes], T],
        stats: RequestStats,
        *,
        shown_path: str | None = None,
        private: str = "",
    ) -> T:
        """GET a path, query included, and decode its answer.

        Args:
            path: Path and query, encoded.
            decode: What makes a value of the body. When it raises a `DecodeError` that is `retryable`, the request
                is made again.
            stats: What the request is counted on.
            shown_path: The path for errors, where the real one names a person.
            private: What the server's words must not repeat in an error.

        Raises:
            ApiError, TransportError, DecodeError: See `podero_async.errors`.
        """
        where, _, query = path.partition("?")
        url = URL.build(scheme=self._scheme, authority=self._authority, path=where, query_string=query, encoded=True)
        shown = shown_path or where

        async def attempt(call: Call) -> T:
            answer = await self._authorized(url, shown, call, private)
            try:
                return await self._decoded(answer, decode)
            except DecodeError as error:
                error.path = shown
                raise
            except (CorruptBodyError, OversizedBodyError) as error:
                raise body_error(error, "GET", shown) from None

        with strip_traceback():  # not a `try`: what it takes off would be put on again
            return await self._retrier.run(attempt, stats)

    async def _decoded(self, answer: Response, decode: Callable[[bytes], T]) -> T:
        """Inflate and decode a body: what is large one at a time, with a turn of the loop for the others before it.

        They send their requests, where the server would stand idle, and take what was decoded last while it is still in
        the processor's cache.
        """
        size = answer.expected_size
        with suppress(OversizedBodyError):  # a body that is not as small as it says
            if size <= _DECODED_AT_ONCE:
                return decode(answer.body(_DECODED_ON_LOOP))
            if size <= _DECODED_ON_LOOP:
                async with self._decoding:
                    await asyncio.sleep(0)
                    return decode(answer.body(_DECODED_ON_LOOP))
        return await asyncio.to_thread(lambda: decode(answer.body()))

    async def _authorized(self, url: URL, path: str, call: Call, private: str) -> Response:
        """Send one attempt with a token, and once more with a new one where the server refuses the first.

        A token out of a store may be as dead as the one before: then once more with one that is new for sure.
        """
        replays = 0
        while True:
            self._check_quiet_time("GET", path)
            place = self.limiter.try_acquire() or await self._wait_for_place(call, path)
            try:
                self._check_quiet_time("GET", path)  # it may have begun while others were before this one
                token = self.tokens.current() or await self._new_token()
                call.stats.requests += 1
                answer = await self._exchange.send("GET", url, path, self._headers_for(token))
                self._report(answer, place)
            except TransportError:
                self.limiter.failed(place)
                raise
            except NotRetriedError as wrapped:
                if isinstance(wrapped.error, TransportError):
                    self.limiter.failed(place)
                raise
            finally:
                self.limiter.release()
            if answer.status == _OK:
                return answer
            if answer.status == _UNAUTHORIZED and self.tokens.invalidate(token) and replays < self.tokens.replays:
                replays += 1
                continue
            raise self._noted(api_error(answer, "GET", path, (token, private) if private else (token,)))

    async def _new_token(self) -> str:
        try:
            return await self.tokens.get()
        except PoderoError as error:  # the token request was retried by itself
            raise NotRetriedError(error) from None

    def is_fatal(self, error: PoderoError) -> bool:
        """Return whether every other call would fail the same way now."""
        return classify(error, retry_after_max=self._longest_pause_s) is FailureKind.FATAL

    def _noted(self, error: ApiError) -> ApiError:
        """Note where the server named a time that is longer than is slept: nothing is to be sent before."""
        if asks_for_long_pause(error, self._longest_pause_s):
            until = asyncio.get_running_loop().time() + (error.retry_after or 0.0)
            self._quiet_until[error.method] = max(self._quiet_until[error.method], until)
        return error

    def _check_quiet_time(self, method: str, path: str) -> None:
        """Send nothing before the time that the server named, where that is longer than is slept."""
        if self._quiet_until[method] == -math.inf:
            return
        left_s = self._quiet_until[method] - asyncio.get_running_loop().time()
        if left_s > 0:
            error = RateLimitError(_TOO_MANY_REQUESTS, "the server wants no request yet", method, path, None, left_s)
            error.attempts = 0
            raise NotRetriedError(error)

    async def _wait_for_place(self, call: Call, path: str) -> int:
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            place = await self.limiter.acquire(self._retrier.left_s(call))
        except NoSlotError:
            call.attempts -= 1  # this one was none
            raise TransportError("the API is down: nothing but faults came", "GET", path, retryable=False) from None
        if self.limiter.breaker.is_closed:  # waiting for a server to come back is the call's own time
            call.waited_s += loop.time() - since
        return place

    def _report(self, answer: Response, place: int) -> None:
        wait_s = retry_after(answer.headers)
        if is_throttling(answer.status, has_retry_after=wait_s is not None):
            if wait_s is not None and wait_s > self._longest_pause_s:
                wait_s = None  # an error for the caller to plan with, not a sleep for everybody
            self.limiter.throttled(place, wait_s)
        elif is_server_fault(answer.status):
            self.limiter.failed(place)
        else:
            self.limiter.succeeded()

    def _headers_for(self, token: str) -> CIMultiDict[str]:
        if token != self._headers_token:  # built once a token, not once a request
            self._headers_token = token
            self._headers = CIMultiDict(
                {
                    "Authorization": Secret(f"Bearer {token}"),
                    "Accept": "application/json",
                    "Accept-Encoding": "gzip",
                    "User-Agent": _USER_AGENT,
                }
            )
        return self._headers

    async def _post(self, request: TokenRequest) -> tuple[int, bytes]:
        """Send a token request. It takes no place: everything that holds one may be waiting for it."""
        url = URL.build(scheme=self._scheme, authority=self._authority, path=request.path, encoded=True)
        headers = {**request.headers, "Accept-Encoding": "gzip", "User-Agent": _USER_AGENT}

        async def attempt(_: Call) -> tuple[int, bytes]:
            self._check_quiet_time("POST", request.path)
            answer = await self._exchange.send("POST", url, request.path, headers, request.body)
            if is_server_fault(answer.status) or answer.status in RETRYABLE_STATUSES:
                raise self._noted(api_error(answer, "POST", request.path, request.secrets))
            if answer.status != _OK:
                return answer.status, answer.error_body()
            try:
                body = answer.body()
                decode_json(body)  # invalid JSON is worth another attempt, as with every other call
            except DecodeError as error:
                error.method, error.path = "POST", request.path
                raise
            except (CorruptBodyError, OversizedBodyError) as error:
                raise body_error(error, "POST", request.path) from None
            return _OK, body

        return await self._retrier.run(attempt, RequestStats())

"""Make a call: send one request, authorized and within the limits, and repeat it until it succeeds or its error is final."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from podero_async._auth.cache import Refusals, TokenCache
from podero_async._auth.credentials import Credentials
from podero_async._auth.grants import TokenRequest
from podero_async._auth.store import TokenStore
from podero_async._decode import decode_json
from podero_async._failures import (
    FailureKind,
    asks_for_long_pause,
    classify,
    is_retryable_status,
    is_server_fault,
    is_throttling,
)
from podero_async._flow.limiter import Limiter
from podero_async._flow.policies import RetryPolicy, ThrottlePolicy
from podero_async._flow.queue import NoSlotError, Slot
from podero_async._flow.retry import Call, NotRetriedError, RequestStats, Retrier
from podero_async._http.gzip import CorruptBodyError, OversizedBodyError
from podero_async._http.origin import checked_origin
from podero_async._http.response import MAX_BODY_BYTES, BodyDecoder, Response, api_error, body_error
from podero_async._http.session import USER_AGENT, HttpSession
from podero_async._http.timeouts import Timeouts
from podero_async._redaction import Secret, strip_traceback
from podero_async.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    PoderoError,
    RateLimitError,
    RequestTimeoutError,
    TransportError,
)
from podero_async.models import ClientStatistics

__all__ = ["Transport"]

T = TypeVar("T")
_logger = logging.getLogger("podero_async")

_MAX_TOKEN_BYTES = 256 << 10
_OK, _UNAUTHORIZED, _TOO_MANY_REQUESTS = 200, 401, 429
_MAX_STORE_S = 5.0  # for one method of a token store


@attrs.frozen(eq=False, repr=False)
class _Request:
    """A GET request."""

    url: URL
    path: str
    """The path that errors name."""
    endpoint: str
    is_bulk: bool
    private: str
    max_bytes: int


class Transport:
    """Make calls to one origin. All calls share a session, a token, a limiter and a retry budget.

    Attributes:
        session: Sends the requests.
        limiter: Grants each request a slot.
        tokens: Holds the token.
    """

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
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.origin = checked_origin(base_url)
        self._scheme, _, self._authority = self.origin.partition("://")
        self._max_pause_s = retry.retry_after_max  # a derived transport keeps it, since pauses hold for all
        self._blocked_until = {"GET": -math.inf, "POST": -math.inf}
        self.session = HttpSession(session, timeouts)
        self._max_body_bytes = max_body_bytes
        self.limiter = Limiter(throttle, ceiling=self.session.pool_size)
        self.tokens = TokenCache(
            credentials,
            self._request_token,
            origin=self.origin,
            store=token_store,
            store_timeout_s=min(_MAX_STORE_S, retry.max_elapsed / 4),  # a call may wait for its lock and for a load
        )
        self._last_served: _Request | None = None  # the last request that succeeded
        self._set_retry(retry)
        self._counts = RequestStats()
        self._token_counts = RequestStats()
        self._decoder = BodyDecoder()
        self._headers = CIMultiDict[str]()
        self._headers_token = ""
        self._last_good: dict[str, _Request] = {}  # for each endpoint
        self._loops: list[asyncio.AbstractEventLoop] = []  # the one that is used; derived transports share the list

    def with_options(self, retry: RetryPolicy | None, timeouts: Timeouts | None) -> Transport:
        """Return a transport with other bounds, and a retry budget of its own, that shares all else with this one."""
        derived = copy.copy(self)
        if retry is not None:
            derived._set_retry(retry)  # noqa: SLF001
        if timeouts is not None:
            derived.session = self.session.with_timeouts(timeouts)
        return derived

    def _set_retry(self, retry: RetryPolicy) -> None:
        self._retry_after_max_s = retry.retry_after_max
        self._retrier = Retrier(retry)

    def statistics(self) -> ClientStatistics:
        """Return the state and the counts of now."""
        try:
            now = asyncio.get_running_loop().time()
        except RuntimeError:  # no event loop is running
            now = math.inf
        return ClientStatistics(
            in_flight=self.limiter.in_flight,
            queued=self.limiter.queued,
            limit=self.limiter.limit,
            paused_for_s=max(0.0, max(self.limiter.blocked_until, self._blocked_until["GET"]) - now),
            is_breaker_open=self.limiter.breakers.has_open,
            requests=self._counts.requests,
            retries=self._counts.retries,
            pauses=self.limiter.pauses,
            token_requests=self._token_counts.requests,
        )

    @property
    def is_down(self) -> bool:
        """Whether the API is unavailable: probes fail or, without circuit breakers, the retry budget is spent."""
        return self.limiter.breakers.is_down if self.limiter.is_adaptive else self._retrier.is_spent

    def is_fatal(self, error: PoderoError) -> bool:
        """Return whether every other call would fail the same way now."""
        return classify(error, retry_after_max=self._retry_after_max_s) is FailureKind.FATAL

    async def aclose(self) -> None:
        """Stop token renewal, wake queued requests with an error, and close the session unless it is lent."""
        self._check_loop()
        self.limiter.close()
        try:
            await self.tokens.aclose()
        finally:
            await self.session.aclose()

    async def get(
        self,
        path: str,
        decode: Callable[[bytes], T],
        stats: RequestStats,
        *,
        endpoint: str = "",
        is_bulk: bool = False,
        shown_path: str | None = None,
        private: str = "",
        max_bytes: int | None = None,
    ) -> T:
        """GET a path and decode its response. The request is repeated as the `RetryPolicy` says.

        Args:
            path: The encoded path with its query.
            decode: Makes a value of the body. If it raises a `DecodeError` that is `retryable`, the request is repeated.
            stats: Counts the requests.
            endpoint: The kind of request. Each has a circuit breaker of its own.
            is_bulk: Whether the call is one of many: it goes behind other calls, and its wait for a slot is not bounded.
            shown_path: The path that errors name, if the real one names a person.
            private: A text that is masked if the server repeats it in an error.
            max_bytes: The largest body, if it may be larger or must be smaller than the transport's maximum.

        Raises:
            ApiError, TransportError, DecodeError: See `podero_async.errors`.
        """
        self._check_loop()
        url_path, _, query = path.partition("?")
        url, max_bytes = self._url(url_path, query), max_bytes or self._max_body_bytes
        request = _Request(url, shown_path or url_path, endpoint, is_bulk, private, max_bytes)
        breaker = self.limiter.breakers[endpoint]

        async def attempt(call: Call) -> T:
            self._counts.retries += call.attempts > 1
            response = await self._send_authorized(request, call)
            with _reading(response, "GET", request.path):
                return await self._decoder.decode(response, decode)

        with strip_traceback():  # a `try` here would add this frame to the traceback again
            return await self._retrier.run(attempt, stats, is_breaker_closed=lambda: breaker.is_closed)

    async def _send_authorized(self, request: _Request, call: Call) -> Response:
        """Send one attempt, and send it again with another token if the server refuses its token (401)."""
        refusals = None
        while True:
            response, token = await self._send_in_slot(request, call)
            if response.status == _OK:
                self.tokens.served(token)
                self._last_served = request
                return response
            if response.status == _UNAUTHORIZED:
                refusals = refusals or Refusals()
                if await self._is_replayed(token, refusals, request, call):
                    continue
            error = api_error(response, "GET", request.path)
            if isinstance(error, AuthenticationError):
                error.affects_all_calls = refusals is not None and refusals.affects_all_calls
            self._record_long_pause(error)
            raise error

    async def _is_replayed(self, token: str, refusals: Refusals, request: _Request, call: Call) -> bool:
        """Decide within the time of the call whether it is sent again after a 401."""

        async def is_accepted(token: str) -> bool | None:
            served = self._last_served
            if served is None or served.url == request.url:
                return None
            self._check_blocked("GET", served.path)
            call.stats.requests += 1
            self._counts.requests += 1
            with suppress(TransportError):  # it takes no slot: requests in the queue would be refused before it is sent
                response = await self.session.send("GET", served.url, served.path, self._headers_for(token))
                response.release()
                if not is_server_fault(response.status) and not is_retryable_status(response.status):
                    return response.status != _UNAUTHORIZED
            return None

        with suppress(TimeoutError):
            async with asyncio.timeout(self._retrier.left_s(call)):
                return await self.tokens.refused(token, refusals, is_accepted)
        return False

    async def _send_in_slot(self, request: _Request, call: Call) -> tuple[Response, str]:
        """Send one request, and return its response and the token that it carried."""
        # 1. Fail if the server asked for no requests until later.
        self._check_blocked("GET", request.path)
        # 2. Wait for a slot.
        slot = self.limiter.try_acquire(request.endpoint, is_bulk=request.is_bulk)
        if slot is None or slot.is_probe:
            slot = await self._wait_for_slot(slot, request, call)
        try:
            # 3. Check again: the server may have asked for it while this request was queued.
            self._check_blocked("GET", request.path)
            # 4. Send the request, read the whole response, and tell the limiter how it ended.
            return await self._send_reported(request, call, slot)
        finally:
            # 5. Release the slot, before any sleep.
            self.limiter.release(slot)

    async def _send_reported(self, request: _Request, call: Call, slot: Slot) -> tuple[Response, str]:
        try:
            token = self.tokens.current() or await self._new_token(call, request.path)
            call.stats.requests += 1
            self._counts.requests += 1
            response = await self.session.send(
                "GET",
                request.url,
                request.path,
                self._headers_for(token),
                secrets=(token, request.private) if request.private else (token,),
                max_bytes=request.max_bytes,
            )
        except TransportError as error:
            self.limiter.failed(slot, error.reason)
            raise
        except NotRetriedError as wrapped:
            if isinstance(wrapped.error, TransportError):
                self.limiter.failed(slot, wrapped.error.reason)
            raise
        if response.status == _OK:
            self._last_good[request.endpoint] = request
            self.limiter.succeeded(slot)
        else:
            self._report(response, slot, api_error(response, "GET", request.path))
        return response, token

    async def _wait_for_slot(self, slot: Slot | None, request: _Request, call: Call) -> Slot:
        """Wait for a slot; if a probe is due, send it first."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            try:
                slot = slot or await self.limiter.acquire(
                    request.endpoint, is_bulk=request.is_bulk, left_s=self._retrier.left_s(call)
                )
            except NoSlotError as error:
                raise self._not_sent(error, request, call) from None
            if not slot.is_probe or not await self._probe(slot, call):
                break
            slot = None
        if request.is_bulk and slot.breaker.is_closed:  # waiting for the API to come back does count
            call.waited_s += loop.time() - since
        return slot

    async def _probe(self, slot: Slot, call: Call) -> bool:
        """Repeat the endpoint's last request that succeeded, and release the slot; return False if there is none.

        That tells an outage from the faults of some vehicles, which a request for one of these vehicles cannot do. Some
        probes are calls' own requests, in case the last success cannot be repeated any more: each second one if the
        call has not failed yet, and each eighth one otherwise, so that an outage does not use up the call's attempts.
        """
        request = self._last_good.get(slot.breaker.endpoint)
        if request is None or slot.breaker.waits % (2 if call.last_error is None else 8) == 0:
            return False
        call.stats.retries += 1
        self._counts.retries += 1
        try:
            with suppress(TransportError):  # it was reported to the limiter
                response, _ = await self._send_reported(request, call, slot)
                response.release()
        finally:
            self.limiter.release(slot)
        return True

    def _not_sent(self, error: NoSlotError, request: _Request, call: Call) -> Exception:
        """Return the error of a call that got no slot: that of its last attempt, unless a time is known."""
        call.attempts -= 1  # this one was not sent
        if call.last_error is not None and error.retry_after is None:
            call.last_error.attempts = call.attempts  # type: ignore[attr-defined]  # a request's error
            return NotRetriedError(call.last_error)
        if error.is_outage:
            reason = f"the API is unavailable: {error.reason}"
            return TransportError(reason, "GET", request.path, retryable=False)
        detail = f"the request was not sent: {error.reason}"
        limited = RateLimitError(_TOO_MANY_REQUESTS, detail, "GET", request.path, None, error.retry_after)
        limited.attempts = call.attempts
        return NotRetriedError(limited)

    async def _new_token(self, call: Call, path: str) -> str:
        try:
            async with asyncio.timeout(self._retrier.left_s(call)):
                return await self.tokens.get()
        except PoderoError as error:  # the token request was already repeated
            raise NotRetriedError(error) from None
        except TimeoutError:  # the token request goes on for other calls
            reason = "no access token in time: the token request or the token store took longer than max_elapsed"
            raise NotRetriedError(RequestTimeoutError(reason, "GET", path)) from None

    def _report(self, response: Response, slot: Slot, error: ApiError) -> None:
        wait_s, cause = error.retry_after, f"HTTP {error.status}: {error.detail}"
        if is_throttling(response.status, has_retry_after=wait_s is not None):
            if wait_s is not None and wait_s > self._max_pause_s:
                wait_s = None  # it becomes an error with `retry_after`, not a pause of all requests
            self.limiter.throttled(slot, wait_s, cause)
        elif is_server_fault(response.status):
            self.limiter.failed(slot, cause)
        else:
            self.limiter.succeeded(slot)

    def _check_loop(self) -> None:
        """Raise if the client was used in another event loop: its connections and timers belong to that one."""
        loop = asyncio.get_running_loop()
        if not self._loops:
            self._loops.append(loop)
        elif self._loops[0] is not loop:
            raise ConfigurationError(
                "the client was used in another event loop; create a client for each event loop (each `asyncio.run`)"
            )

    def _record_long_pause(self, error: ApiError) -> None:
        """Record a `Retry-After` that exceeds the maximum pause, so that nothing is sent before it has passed."""
        if asks_for_long_pause(error, self._max_pause_s):
            wait_s = error.retry_after or 0.0
            until = asyncio.get_running_loop().time() + wait_s
            self._blocked_until[error.method] = max(self._blocked_until[error.method], until)
            message = "HTTP %s: no %s request is sent for %.0f s, as the server asked"
            _logger.warning(message, error.status, error.method, wait_s)

    def _check_blocked(self, method: str, path: str) -> None:
        """Raise if a recorded `Retry-After` has not passed yet."""
        if self._blocked_until[method] == -math.inf:
            return
        left_s = self._blocked_until[method] - asyncio.get_running_loop().time()
        if left_s > 0:
            detail = "nothing was sent: the server asked for no requests until its Retry-After has passed"
            error = RateLimitError(_TOO_MANY_REQUESTS, detail, method, path, None, left_s)
            error.attempts = 0
            raise NotRetriedError(error)

    def _headers_for(self, token: str) -> CIMultiDict[str]:
        if token != self._headers_token:  # they are built once for each token
            self._headers_token = token
            self._headers = CIMultiDict(
                {
                    "Authorization": Secret(f"Bearer {token}"),
                    "Accept": "application/json",
                    "Accept-Encoding": "gzip",
                    "User-Agent": USER_AGENT,
                }
            )
        return self._headers

    def _url(self, path: str, query: str = "") -> URL:
        return URL.build(scheme=self._scheme, authority=self._authority, path=path, query_string=query, encoded=True)

    async def _request_token(self, request: TokenRequest) -> tuple[int, bytes]:
        """Send a token request. It takes no slot, since all requests that hold one may be waiting for the token.

        Returns:
            The status and the body, unless the request is worth another attempt.
        """
        path = request.path
        url = self._url(path)
        headers = {**request.headers, "Accept-Encoding": "gzip", "User-Agent": USER_AGENT}

        async def attempt(_: Call) -> tuple[int, bytes]:
            self._check_blocked("POST", path)
            self._token_counts.requests += 1
            response = await self.session.send(
                "POST", url, path, headers, request.body, secrets=request.secrets, max_bytes=_MAX_TOKEN_BYTES
            )
            if is_server_fault(response.status) or is_retryable_status(response.status):
                error = api_error(response, "POST", path)
                self._record_long_pause(error)
                raise error
            if response.status != _OK:
                return response.status, response.error_body()
            with _reading(response, "POST", path):
                body = response.body()
                decode_json(body)  # invalid JSON is retryable, as in every other call
            return _OK, body

        return await self._retrier.run(attempt, RequestStats())


@contextmanager
def _reading(response: Response, method: str, path: str) -> Iterator[None]:
    """Add method, path and request id to the errors of a body, and release the body at the end."""
    try:
        yield
    except DecodeError as error:
        error.method, error.path, error.request_id = method, path, response.request_id
        raise
    except (CorruptBodyError, OversizedBodyError) as error:
        fault = body_error(error, method, path)
        fault.request_id = response.request_id
        raise fault from None
    finally:
        response.release()

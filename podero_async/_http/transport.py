"""Make a call: send one request, authorized and within the limits,
and repeat it until it succeeds or its error is final.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from podero_async._auth.cache import TokenCache
from podero_async._auth.credentials import Credentials
from podero_async._auth.store import TokenStore
from podero_async._decode import preload_converter, unknown_field_count
from podero_async._flow.limiter import Limiter
from podero_async._flow.policies import RetryPolicy, ThrottlePolicy
from podero_async._flow.retry import Call, RequestStats, Retrier
from podero_async._http.known_good import Request
from podero_async._http.origin import checked_origin
from podero_async._http.pauses import LongPauses
from podero_async._http.request import RequestSender
from podero_async._http.response import MAX_BODY_BYTES
from podero_async._http.session import HttpSession
from podero_async._http.timeouts import Timeouts
from podero_async._http.token_request import TokenRequestSender
from podero_async._observation import Observation, guarded
from podero_async._redaction import strip_traceback
from podero_async.errors import ConfigurationError
from podero_async.models import ClientStatistics
from podero_async.observer import Observer

__all__ = ["Transport"]

T = TypeVar("T")

_MAX_STORE_S = 5.0  # for one method of a token store


class _OpenCalls:
    """The calls under way: each is inside this context. `end` ends them at once, each with a `ConfigurationError`."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Task[Any], int] = {}  # with the number of cancellations that the task had before
        self._ended: dict[asyncio.Task[Any], int] = {}

    def end(self) -> None:
        for task in self._open:
            task.cancel()
        self._ended, self._open = self._ended | self._open, {}

    def __enter__(self) -> None:
        if task := asyncio.current_task():
            self._open[task] = task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        if task is None or self._open.pop(task, None) is not None:
            return
        # As with `asyncio.timeout`, a cancellation by anyone else stays one.
        if task.uncancel() <= self._ended.pop(task) and kind is asyncio.CancelledError:
            raise ConfigurationError("the client is closed") from None


class Transport:
    """Make calls to one origin. All calls share a session, a token and a limiter.

    Attributes:
        session: Sends the requests.
        limiter: Grants each request a slot.
        tokens: Holds the token.
        observation: Tells the observer of calls.
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
        observer: Observer | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.origin = checked_origin(base_url)
        self._scheme, _, self._authority = self.origin.partition("://")
        self.session = HttpSession(session, timeouts)
        self._max_body_bytes = max_body_bytes
        observer = None if observer is None else guarded(observer)
        self.observation = Observation(observer, self.origin)
        self.limiter = Limiter(throttle, ceiling=self.session.pool_size, observer=observer)
        pauses = LongPauses(retry.retry_after_max, observer)
        self._pauses = pauses  # a derived transport keeps it, since pauses hold for all
        self._set_retry(retry)
        # Their budget is their own, so that the faults of some vehicles leave them theirs.
        self._token_requests = TokenRequestSender(self.session, Retrier(retry), pauses, self._url, self.observation)
        self.tokens = TokenCache(
            credentials,
            self._token_requests.send,
            origin=self.origin,
            store=token_store,
            observer=observer,
            store_timeout_s=min(_MAX_STORE_S, retry.max_elapsed / 4),  # a call may wait for its lock and for a load
        )
        self._requests = RequestSender(
            self.session, self._retrier, self.limiter, self.tokens, self._token_requests, pauses
        )
        preload_converter()
        self._calls = _OpenCalls()
        self._loops: list[asyncio.AbstractEventLoop] = []  # the one that is used; derived transports share the list

    def with_options(self, retry: RetryPolicy | None, timeouts: Timeouts | None) -> Transport:
        """Return a transport with other bounds, and retry budgets of its own, that shares all else with this one."""
        derived = copy.copy(self)
        if retry is not None:
            derived._set_retry(retry)  # noqa: SLF001
        if timeouts is not None:
            derived.session = self.session.with_timeouts(timeouts)
        derived._requests = self._requests.derive(derived.session, derived._retrier)  # noqa: SLF001
        return derived

    def _set_retry(self, retry: RetryPolicy) -> None:
        self._max_elapsed_s = retry.max_elapsed
        self._retrier = Retrier(retry)
        self._bulk_retrier = Retrier(
            retry
        )  # with a budget of its own, so that a fleet's faults leave other calls theirs

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
            paused_for_s=max(0.0, max(self.limiter.blocked_until, self._pauses.blocked_until("GET")) - now),
            waiting_for_token=self.tokens.waiting,
            is_token_failing=self.tokens.is_failing or self._token_requests.failure is not None,
            unknown_fields=unknown_field_count(),
            is_breaker_open=self.limiter.breakers.has_open,
            requests=self._requests.counts.requests,
            retries=self._requests.counts.retries,
            pauses=self.limiter.pauses,
            token_requests=self._token_requests.counts.requests,
        )

    @property
    def last_date(self) -> str:
        """The header `Date` of the last response."""
        return self._requests.last_date

    @property
    def is_down(self) -> bool:
        """Whether the API is unavailable: probes fail or, without circuit breakers, bulk calls have spent their budget."""
        return self.limiter.breakers.is_down if self.limiter.is_adaptive else self._bulk_retrier.is_spent

    def at_once(self, most: int) -> int:
        """Return how many requests one call may send at once, so that the rate lets each start in half of `max_elapsed`."""
        rate = self.limiter.rate_limit.bound(asyncio.get_running_loop().time())
        return most if rate == math.inf else max(1, min(most, int(rate * self._max_elapsed_s / 2)))

    async def aclose(self) -> None:
        """End all calls with an error, stop token renewal, and close the session unless it is lent."""
        self._check_loop()
        self.limiter.close()
        self._calls.end()
        try:
            await self.tokens.aclose()
        finally:
            self._requests.close()
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
            is_bulk: Whether the call is one of many: it goes behind other calls, and its wait for a slot is bounded only
                while the circuit breaker is open.
            shown_path: The path that errors name instead of the real one, which names a person.
            private: A text that is masked if the server repeats it in an error.
            max_bytes: The largest body, inflated; if None, that of the transport.

        Raises:
            ApiError, TransportError, DecodeError: See `podero_async.errors`.
        """
        self._check_loop()
        url_path, _, query = path.partition("?")
        url, max_bytes = self._url(url_path, query), max_bytes or self._max_body_bytes
        request = Request(url, shown_path or path, endpoint, is_bulk, private, max_bytes, decode)
        breaker = self.limiter.breakers[endpoint]

        attempt: Callable[[Call], Coroutine[Any, Any, T]] = partial(self._requests.send, request)
        retrier = self._bulk_retrier if is_bulk else self._retrier
        with strip_traceback(), self._calls:  # a `try` here would add this frame to the traceback again
            return await retrier.run(
                attempt, stats, subject=hash(url_path), is_breaker_closed=lambda: breaker.is_closed
            )

    def _check_loop(self) -> None:
        """Raise if the client was used in another event loop: its connections and timers belong to that one."""
        loop = asyncio.get_running_loop()
        if not self._loops:
            self._loops.append(loop)
        elif self._loops[0] is not loop:
            raise ConfigurationError(
                "the client was used in another event loop; create a client for each event loop (each `asyncio.run`)"
            )

    def _url(self, path: str, query: str = "") -> URL:
        return URL.build(scheme=self._scheme, authority=self._authority, path=path, query_string=query, encoded=True)

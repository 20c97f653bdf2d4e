"""Retries: backoff with full jitter, bounds on attempts and time, and a retry budget that calls share.

It knows errors, not HTTP. The only module that uses tenacity.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import attrs

from podero_async._concurrency import import_ahead
from podero_async._failures import is_retryable
from podero_async._flow.policies import RetryPolicy
from podero_async._observation import RequestStats
from podero_async.errors import ApiError, DecodeError, PoderoError, RateLimitError, TransportError

__all__ = ["Call", "NotRetriedError", "RequestStats", "Retrier"]

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")
_logger = logging.getLogger("podero_async")

_RETRY_COST = 5  # of the budget; a success at the first attempt adds 1
_FIRST_RETRY_COST = 1  # and of each retry of a throttled call
_MAX_FAILED = 1000


@attrs.define
class Call:
    """The state of one call."""

    stats: RequestStats
    started: float
    subject: int | None = None
    """Stands for what the call is about, such as a vehicle."""
    attempts: int = 1
    waited_s: float = 0.0
    """Seconds in the limiter's queue that do not count against `max_elapsed`."""
    paid: int = 0
    """What its retries have taken from the budget."""
    last_error: PoderoError | None = None
    """The error of the attempt before; None during the first."""
    sent: int = 0
    """Requests sent so far, as its observer counts them."""


class NotRetriedError(Exception):
    """Wraps an error that must not be retried, such as that of a token request, which had retries of its own."""

    def __init__(self, error: PoderoError) -> None:
        super().__init__(error)
        self.error = error


class Retrier:
    """Run calls under a policy. The single calls of a client share one `Retrier`, and so its budget, bulk calls another."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        random_between: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy = policy
        self._random_between = random_between
        import_ahead("tenacity")  # 10 ms, which only a call that fails needs
        self.budget = policy.budget
        """The rest of the budget."""
        self._failed: dict[int | None, None] = {}  # subjects whose last call failed in spite of its retries

    @property
    def is_spent(self) -> bool:
        """Whether the budget is too low for a retry, because too many requests have failed."""
        return self.budget < _RETRY_COST

    def left_s(self, call: Call) -> float:
        """Return how many seconds are left in which the call may begin an attempt."""
        return self._policy.max_elapsed - (asyncio.get_running_loop().time() - call.started - call.waited_s)

    async def run(
        self,
        attempt: Callable[[Call], Awaitable[T]],
        stats: RequestStats,
        *,
        subject: int | None = None,
        is_breaker_closed: Callable[[], bool] = lambda: True,
    ) -> T:
        """Await `attempt`, and repeat it as long as its error is retryable and the policy allows.

        Args:
            attempt: Sends one request.
            stats: Counts the retries.
            subject: Stands for what the call is about. If its last call failed, a first retry costs as much as a later one.
            is_breaker_closed: Whether the circuit breaker is closed. If not, only probes are sent, and retries cost
                nothing.

        Raises:
            PoderoError: The last attempt's error, with the number of attempts on it.
        """
        call = Call(stats, asyncio.get_running_loop().time(), subject)
        try:
            try:
                value = await attempt(call)  # without tenacity, which saves 25 us
            except (ApiError, TransportError, DecodeError) as error:
                if not is_retryable(error):
                    raise
                first_error = error
            else:
                if self.budget < self._policy.budget:
                    self.budget += 1
                if self._failed:
                    self._failed.pop(subject, None)
                return value
            return await self._retry(attempt, call, first_error, is_breaker_closed)
        except NotRetriedError as wrapped:
            raise wrapped.error from None
        except (ApiError, TransportError, DecodeError) as error:
            error.attempts = call.attempts
            raise

    async def _retry(
        self,
        attempt: Callable[[Call], Awaitable[T]],
        call: Call,
        first_error: PoderoError,
        is_breaker_closed: Callable[[], bool],
    ) -> T:
        try:
            import tenacity  # noqa: PLC0415  # imported ahead
        except OSError:  # no file descriptor is left
            raise first_error from None

        def give_up(state: tenacity.RetryCallState) -> bool:
            return (
                state.attempt_number >= self._policy.max_attempts
                or state.upcoming_sleep > self.left_s(call)
                or (_retry_after(state) or 0.0) > self._policy.retry_after_max
                or (is_breaker_closed() and not self._pay(call))
            )

        async def next_attempt() -> T:
            if retrying.statistics["attempt_number"] == 1:
                raise first_error
            call.attempts += 1
            call.stats.retries += 1
            try:
                value = await attempt(call)
            except PoderoError as error:
                call.last_error = error
                raise
            # If half of the servers behind a load balancer fail, a call may need several retries, and they serve it well.
            self.budget = min(self._policy.budget, self.budget + call.paid)
            self._failed.pop(call.subject, None)
            return value

        call.last_error = first_error
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_retryable),
            wait=self._wait,
            stop=give_up,
            before_sleep=_log_retry,
            reraise=True,
        )
        try:
            return await retrying(next_attempt)
        except PoderoError:
            if call.subject is not None:
                self._failed[call.subject] = None
                if len(self._failed) > _MAX_FAILED:
                    del self._failed[next(iter(self._failed))]
            raise
        finally:
            call.last_error = None  # ends the reference cycle of the call, its error and the error's traceback

    def _wait(self, state: tenacity.RetryCallState) -> float:
        ceiling = min(self._policy.backoff_max, self._policy.backoff_initial * 2.0 ** min(60, state.attempt_number - 1))
        # Callers that were told the same Retry-After must not return together, so the jitter is added to it.
        return (_retry_after(state) or 0.0) + self._random_between(0.0, ceiling)

    def _pay(self, call: Call) -> bool:
        """Take the cost of a call's next retry from the budget, if the budget covers it.

        Later retries leave a rest for the first ones of other calls, because some vehicles fail in all their attempts, and
        may be asked for again and again. A throttled call (429) has not failed: the limiter slows down until the server
        accepts it, so each of its retries costs as much as a first one.
        """
        is_first = call.attempts == 1 and call.subject not in self._failed
        is_cheap = is_first or isinstance(call.last_error, RateLimitError)
        cost, rest = (_FIRST_RETRY_COST, 0) if is_cheap else (_RETRY_COST, _RETRY_COST)
        if self.budget < cost + rest:
            return False
        self.budget -= cost
        call.paid += cost
        return True


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _retry_after(state: tenacity.RetryCallState) -> float | None:
    error = _error_of(state)
    return error.retry_after if isinstance(error, ApiError) else None


def _log_retry(state: tenacity.RetryCallState) -> None:
    _logger.info("attempt %s failed, again in %.1f s: %s", state.attempt_number, state.upcoming_sleep, _error_of(state))

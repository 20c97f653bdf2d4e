"""When a failed request is tried again, and when not: backoff with full jitter, bounds, and a budget for all.

Knows errors, not HTTP. The only room that knows tenacity.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import attrs

from podero_async._failures import is_retryable
from podero_async._flow.policies import RetryPolicy
from podero_async.errors import ApiError, DecodeError, PoderoError, TransportError

if TYPE_CHECKING:
    import tenacity

__all__ = ["Call", "NotRetriedError", "RequestStats", "Retrier"]

T = TypeVar("T")
_logger = logging.getLogger("podero_async")

_RETRY_COST = 5  # a retry takes this much of the budget; an answer at the first attempt gives 1 back


@attrs.define
class RequestStats:
    """What was spent on one purpose (a vehicle, a discovery), over all its calls."""

    requests: int = 0
    retries: int = 0


@attrs.define
class Call:
    """What changes while one call is under way."""

    stats: RequestStats
    started: float
    attempts: int = 1
    waited_s: float = 0.0
    """Seconds spent waiting for a place, which no bound counts."""


class NotRetriedError(Exception):
    """Carries an error out of an attempt that must not be retried, such as that of a call which was retried itself."""

    def __init__(self, error: PoderoError) -> None:
        super().__init__(error)
        self.error = error


class Retrier:
    """Run calls under a policy. One for all calls of a client, since the budget is shared."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        is_outage: Callable[[], bool] = lambda: False,
        random_between: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._is_outage = is_outage  # then everybody waits as it is, and the budget has nothing to keep small
        self._policy = policy
        self._random_between = random_between
        self._budget = policy.budget

    @property
    def is_spent(self) -> bool:
        """Whether no retry can be afforded: so much failed that the API must be taken for down."""
        return self._budget < _RETRY_COST

    def left_s(self, call: Call) -> float:
        """Say how many seconds may still pass before a call's last attempt."""
        return self._policy.max_elapsed - (asyncio.get_running_loop().time() - call.started - call.waited_s)

    async def run(self, attempt: Callable[[Call], Awaitable[T]], stats: RequestStats) -> T:
        """Await `attempt`, again where that may help.

        Raises:
            PoderoError: The last attempt's error, with the number of attempts on it.
        """
        call = Call(stats, asyncio.get_running_loop().time())
        try:
            answer = await attempt(call)  # the common case pays nothing for the machinery
        except NotRetriedError as wrapped:
            raise wrapped.error from None
        except (ApiError, TransportError, DecodeError) as error:
            error.attempts = call.attempts
            if not is_retryable(error):
                raise
            first = error
        else:
            self._budget = min(self._policy.budget, self._budget + 1)
            return answer
        try:
            return await self._again(attempt, call, first)
        except NotRetriedError as wrapped:
            raise wrapped.error from None
        except (ApiError, TransportError, DecodeError) as error:
            error.attempts = call.attempts
            raise

    async def _again(self, attempt: Callable[[Call], Awaitable[T]], call: Call, first: Exception) -> T:
        import tenacity  # noqa: PLC0415  # some milliseconds, which nobody needs to whom nothing ever fails

        def give_up(state: tenacity.RetryCallState) -> bool:
            return (
                state.attempt_number >= self._policy.max_attempts
                or state.upcoming_sleep > self.left_s(call)
                or (_retry_after(state) or 0.0) > self._policy.retry_after_max
                or not (self._is_outage() or self._afford())
            )

        async def next_attempt() -> T:
            if retrying.statistics["attempt_number"] == 1:
                raise first  # the attempt that was made without tenacity
            call.attempts += 1
            call.stats.retries += 1
            answer = await attempt(call)
            self._budget = min(self._policy.budget, self._budget + _RETRY_COST)
            return answer

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_retryable),
            wait=self._wait,
            stop=give_up,
            before_sleep=_log_retry,
            reraise=True,
        )
        return await retrying(next_attempt)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        ceiling = min(self._policy.backoff_max, self._policy.backoff_initial * 2.0 ** min(60, state.attempt_number - 1))
        # On top of a Retry-After the jitter stays: all who were told "1 s" would otherwise come back together.
        return (_retry_after(state) or 0.0) + self._random_between(0.0, ceiling)

    def _afford(self) -> bool:
        if self.is_spent:
            return False
        self._budget -= _RETRY_COST
        return True


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _retry_after(state: tenacity.RetryCallState) -> float | None:
    error = _error_of(state)
    return error.retry_after if isinstance(error, ApiError) else None


def _log_retry(state: tenacity.RetryCallState) -> None:
    _logger.info("attempt %s failed, again in %.1f s: %s", state.attempt_number, state.upcoming_sleep, _error_of(state))

"""When a failed request is tried again, and when not: backoff with full jitter, bounds, and a budget for all.

Knows errors, not HTTP. The only room that knows tenacity.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import attrs

from podero_async.errors import ApiError, ConfigurationError, DecodeError, TransportError

if TYPE_CHECKING:
    import tenacity

__all__ = ["RETRYABLE_STATUSES", "Call", "Retrier", "RetryPolicy", "Tally"]

T = TypeVar("T")
E = TypeVar("E", bound="ApiError | TransportError | DecodeError")
_logger = logging.getLogger("podero_async")

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_RETRY_COST = 5  # a retry takes this much of the budget; an answer at the first attempt gives 1 back


def _positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 and math.isfinite(value)):
        raise ConfigurationError(f"{attribute.name} must be a number above 0")


def _count(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{attribute.name} must be a whole number of at least 1")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how long a request is tried before its error is raised. Seconds as floats.

    Args:
        max_attempts: Attempts of one request, the first included; 1 never retries.
        max_elapsed: Seconds after which no further attempt is begun; `Timeouts` bounds the last one. Waiting for a place
            under the `ThrottlePolicy` does not count, except while nothing but faults comes.
        backoff_initial: Longest wait before the second attempt; it doubles with each further one. The wait is drawn
            evenly from 0 to that (full jitter).
        backoff_max: Where the doubling ends.
        retry_after_max: A `Retry-After` longer than this, or than what is left of `max_elapsed`, is raised as an error
            that carries it, not slept.
        budget: What retries may take in all before good answers fill it again, 5 a retry: keeps an outage from
            multiplying the load.
    """

    max_attempts: int = attrs.field(default=8, validator=_count)
    max_elapsed: float = attrs.field(default=120.0, validator=_positive)
    backoff_initial: float = attrs.field(default=0.5, validator=_positive)
    backoff_max: float = attrs.field(default=8.0, validator=_positive)
    retry_after_max: float = attrs.field(default=120.0, validator=_positive)
    budget: int = attrs.field(default=500, validator=_count)


@attrs.define
class Tally:
    """What was spent on one purpose (a vehicle, a discovery), over all its calls."""

    requests: int = 0
    retries: int = 0


@attrs.define
class Call:
    """What changes while one call is under way."""

    tally: Tally
    started: float
    attempts: int = 1
    waited_s: float = 0.0
    """Seconds spent waiting for a place, which no bound counts."""


def is_retryable(error: BaseException) -> bool:
    """Say whether another attempt may end better. Names what is retried: everything else, cancellation too, is not.

    A call may need a token first, whose own request has had its attempts: they must not multiply.
    """
    if not isinstance(error, ApiError | TransportError | DecodeError) or error.is_final:
        return False
    if isinstance(error, ApiError):
        return error.status in RETRYABLE_STATUSES
    return error.retryable


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

    async def run(self, attempt: Callable[[Call], Awaitable[T]], tally: Tally) -> T:
        """Await `attempt`, again where that may help.

        Raises:
            PoderoError: The last attempt's error, with the number of attempts on it.
        """
        call = Call(tally, asyncio.get_running_loop().time())
        try:
            answer = await attempt(call)  # the common case pays nothing for the machinery
        except (ApiError, TransportError, DecodeError) as error:
            if not is_retryable(error):
                raise _final(error, call)  # noqa: B904
            first = error
        else:
            self._budget = min(self._policy.budget, self._budget + 1)
            return answer
        try:
            return await self._again(attempt, call, first)
        except (ApiError, TransportError, DecodeError) as error:
            raise _final(error, call)  # noqa: B904

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
            call.tally.retries += 1
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


def _final(error: E, call: Call) -> E:
    if not error.is_final:
        error.attempts = call.attempts
        error.is_final = True
    return error


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _retry_after(state: tenacity.RetryCallState) -> float | None:
    error = _error_of(state)
    return error.retry_after if isinstance(error, ApiError) else None


def _log_retry(state: tenacity.RetryCallState) -> None:
    _logger.info("attempt %s failed, again in %.1f s: %s", state.attempt_number, state.upcoming_sleep, _error_of(state))

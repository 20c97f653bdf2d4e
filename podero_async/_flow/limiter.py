"""The limiter: how many requests may be in flight, and when the next one may start.

It knows nothing of HTTP: its owner reports how each request ended. Times are seconds of the event loop's clock.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

import attrs

from podero_async._flow.breaker import CircuitBreaker
from podero_async._flow.policies import ThrottlePolicy
from podero_async._flow.rate import RateEstimator
from podero_async.errors import ConfigurationError

__all__ = ["Limiter", "NoSlotError"]

_FIRST_LIMIT = 32  # high enough for a quick start, low enough for a small server
_CUT = 0.9  # the first throttling response of a burst costs a tenth of the limit, each further one a slot ...
_MAX_CUT = 0.5  # ... and the whole burst at most half
_CAUTION = 20  # successes per slot after a cut, until the limit grows by one a round again
_BURST_S = 0.01  # the delay of a late timer that a fixed or learned rate may make up for


class NoSlotError(Exception):
    """The circuit breaker stayed open for longer than the caller was ready to wait."""


@attrs.frozen(eq=False)
class _Waiter:
    slot: asyncio.Future[int]
    since: float
    max_open_s: float


class Limiter:
    """Grant slots in order of arrival, under a concurrency limit that adapts (AIMD), a pause and a rate.

    A success raises the limit by one until the first throttling response; from then on, `limit` successes raise it by
    one at most. It grows only while at least half of it is in use. A throttling response lowers it, and pauses all
    requests if it names a time. While the circuit breaker is not closed, one slot is left, for probes.
    """

    def __init__(
        self, policy: ThrottlePolicy, *, ceiling: int | None = None, rate: RateEstimator | None = None
    ) -> None:
        self.ceiling = min(policy.max_concurrency, ceiling or policy.max_concurrency)
        """The limit's upper bound."""
        self.in_flight = self.pauses = 0  # slots taken, pauses begun
        self._is_adaptive = policy.adaptive
        self._min_interval_s = 1 / policy.requests_per_second if policy.requests_per_second else 0.0
        self._rate = rate or RateEstimator()
        self.breaker = CircuitBreaker()
        self._limit = float(min(self.ceiling, _FIRST_LIMIT) if self._is_adaptive else self.ceiling)
        self._threshold = math.inf  # below it, each success raises the limit by one
        self._accepted_limit = math.inf  # 0.9 of the limit when the first burst since a success began
        self._tickets = self._successes_since_cut = 0
        self._cut_at_ticket = 0  # throttling of this ticket or an older one belongs to the last burst
        self._min_limit_of_burst = 0.0
        self._closed = False
        self._paused_until = self._next_start_at = -math.inf
        self._queue: deque[_Waiter] = deque()
        self._timer: asyncio.Handle | None = None
        self._timer_at = math.inf  # not every event loop's handle has `when()`

    def __repr__(self) -> str:
        load = f"{self.in_flight} in flight, limit {self.limit} of {self.ceiling}, {self.queued} queued"
        try:
            blocked_s, state = max(0.0, self.blocked_until - _now()), self.breaker.state(_now()).value
        except RuntimeError:  # no event loop is running
            return f"<Limiter: {load}>"
        return f"<Limiter: {load}, blocked for {blocked_s:.1f} s, breaker {state}>"

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return max(1, int(self._limit))

    @property
    def queued(self) -> int:
        """How many callers wait for a slot."""
        return len(self._queue)

    @property
    def blocked_until(self) -> float:
        """The time before which no request may start, by a pause or the circuit breaker."""
        return max(self._paused_until, self.breaker.blocked_until)

    def try_acquire(self) -> int | None:
        """Take a slot and return its ticket, as `acquire` does, or return None if the caller would have to wait."""
        if self._closed:
            raise ConfigurationError("the client is closed")
        if self._queue or self.in_flight >= self.limit or max(self.blocked_until, self._next_start_at) > _now():
            return None
        return self._grant()

    async def acquire(self, max_open_s: float = math.inf) -> int:
        """Wait for a slot, and return its ticket: the number of the start, by which the request's outcome is reported.

        The caller gives the slot back with `release`. A cancelled call keeps no slot.

        Args:
            max_open_s: How many seconds to wait while the circuit breaker is open, checked whenever a probe fails.

        Raises:
            NoSlotError: The circuit breaker stayed open for longer.
            ConfigurationError: The limiter is closed.
        """
        if ticket := self.try_acquire():
            return ticket
        waiter = _Waiter(asyncio.get_running_loop().create_future(), _now(), max_open_s)
        self._queue.append(waiter)
        self._dispatch()  # sets the timer if nothing but time is missing
        try:
            return await waiter.slot
        except asyncio.CancelledError:
            if waiter in self._queue:
                self._queue.remove(waiter)  # at once: a pause could collect any number of cancelled callers
            elif waiter.slot.exception() is None:
                self.release()  # the slot was granted just before the cancellation: pass it on
            raise

    def release(self) -> None:
        """Give a slot back."""
        self.in_flight -= 1
        self._dispatch()

    def close(self) -> None:
        """End all waits with a `ConfigurationError`, and refuse new callers."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._reject(math.inf, lambda: ConfigurationError("the client is closed"))

    def succeeded(self) -> None:
        """Report a success."""
        if not self.breaker.is_closed:
            self._limit = max(self._limit, float(self.in_flight))  # probes that hang keep their slots
        self.breaker.succeeded()
        if self._is_adaptive and self._limit < self.ceiling and self.in_flight * 2 >= self._limit:
            self._limit = min(float(self.ceiling), self._limit + self._growth())
            self._dispatch()

    def throttled(self, ticket: int, retry_after: float | None = None) -> None:
        """Report a throttling response: an adaptive limit falls; with `retry_after`, all requests pause for these seconds."""
        if self._is_adaptive:
            self._adapt_to_throttling(ticket)
        if retry_after:
            self.pause(retry_after)
            if self._is_adaptive:
                self._rate.throttled(_now(), self.blocked_until, tells_rate=self.breaker.throttled_bursts == 1)
        self._dispatch()  # a probe may be due

    def failed(self, ticket: int) -> None:
        """Report a fault: single ones change nothing, many in a row open the circuit breaker."""
        if self._is_adaptive and self.breaker.failed(ticket, _now(), limit=self.limit):
            self._wait_for_probe(threshold=self.ceiling)
        self._dispatch()  # a probe may be due

    def pause(self, seconds: float) -> None:
        """Grant no slot for `seconds` from now. A shorter pause does not end a longer one."""
        if _now() >= self.blocked_until:
            self.pauses += 1
        self._paused_until = max(self._paused_until, _now() + seconds)

    def _adapt_to_throttling(self, ticket: int) -> None:
        is_new_burst = ticket > self._cut_at_ticket
        if is_new_burst and not self.breaker.throttled_bursts:
            self._accepted_limit = max(1.0, self._limit * _CUT)
            self._rate.remember()
        if self.breaker.throttled(ticket, _now(), is_new_burst=is_new_burst):
            self._wait_for_probe(threshold=self._accepted_limit)
        elif self.breaker.is_closed:
            self._cut(is_new_burst=is_new_burst)

    def _wait_for_probe(self, *, threshold: float) -> None:
        if self.breaker.waits == 1:  # it has just opened
            self._limit, self._threshold, self._successes_since_cut = 1.0, threshold, 0
        open_s = _now() - self.breaker.opened_at
        self._reject(_now(), lambda: NoSlotError(f"all requests have failed for {open_s:.1f} s"))

    def _cut(self, *, is_new_burst: bool) -> None:
        if is_new_burst:
            self._cut_at_ticket = self._tickets
            self._min_limit_of_burst = max(1.0, self._limit * _MAX_CUT)
            self._limit = max(1.0, self._limit * _CUT)
        else:
            self._limit = min(self._limit, max(self._min_limit_of_burst, self._limit - 1))  # never above the present
        self._threshold, self._successes_since_cut = self._limit, 0

    def _growth(self) -> float:
        """Return how much a success raises the limit."""
        if self._limit < self._threshold:
            return 1.0
        # The limit was nearly right when it was cut, so it grows slowly at first. Later the server may accept more.
        self._successes_since_cut += 1
        return min(1.0, self._successes_since_cut / (_CAUTION * self._limit)) / self._limit

    def _grant(self) -> int:
        now = _now()
        self.in_flight += 1
        self._tickets += 1
        self.breaker.started(self._tickets, now)
        if interval := max(self._min_interval_s, self._rate.started(now)):
            self._next_start_at = max(self._next_start_at, now - _BURST_S) + interval
        return self._tickets

    def _dispatch(self) -> None:
        """Grant slots to the queue, or set the timer for the time when that will be possible."""
        while self._queue:
            start_at = max(self.blocked_until, self._next_start_at)
            if self.in_flight >= self.limit:
                if self.breaker.is_closed or self.in_flight >= self.ceiling:
                    return
                # A probe that hangs keeps the only slot for as long as its timeout allows.
                start_at = max(start_at, self.breaker.next_probe_at)
            if start_at > _now():
                self._set_timer(start_at)
                return
            slot = self._queue.popleft().slot
            if not slot.done():
                slot.set_result(self._grant())

    def _reject(self, now: float, error: Callable[[], Exception]) -> None:
        """Raise an error in each caller whose `max_open_s` are over."""
        waiters, self._queue = self._queue, deque[_Waiter]()
        for waiter in waiters:
            if now - max(waiter.since, self.breaker.opened_at) < waiter.max_open_s:
                self._queue.append(waiter)
            elif not waiter.slot.done():
                waiter.slot.set_exception(error())

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = asyncio.get_running_loop().call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch()


def _now() -> float:
    return asyncio.get_running_loop().time()

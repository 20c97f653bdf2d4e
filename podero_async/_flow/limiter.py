"""The limiter: how many requests may be in flight, and when the next one may start.

It knows nothing of HTTP: its owner reports how each request ended. Times are seconds of the event loop's clock.
"""

from __future__ import annotations

import asyncio
import logging
import math

from podero_async._flow.breaker import CircuitBreaker, CircuitBreakers
from podero_async._flow.concurrency import ConcurrencyLimit, pause_after
from podero_async._flow.policies import ThrottlePolicy
from podero_async._flow.queue import NoSlotError, Slot, SlotQueue, Waiter
from podero_async._flow.rate import RateEstimator, RateLimit
from podero_async.errors import ConfigurationError
from podero_async.observer import Observer, Pause

__all__ = ["Limiter"]

_logger = logging.getLogger("podero_async")


class Limiter:
    """Grant slots under a concurrency limit, a pause and a rate that all calls share, and a circuit breaker per endpoint.

    Interactive calls go before bulk calls, which keep a minimum share (see `SlotQueue`). A throttling response lowers
    the limit, and pauses all requests if it names a time. While an endpoint's breaker is not closed, its calls wait and
    single probes are sent; other endpoints' calls go on.
    """

    def __init__(
        self,
        policy: ThrottlePolicy,
        *,
        ceiling: int | None = None,
        rate: RateEstimator | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.ceiling = min(policy.max_concurrency, ceiling or policy.max_concurrency)
        """Upper bound of the limit."""
        self.in_flight = self.pauses = 0  # slots taken now, and pauses begun
        self.bulk_in_flight = 0  # slots taken by bulk calls
        self.is_adaptive = policy.adaptive  # otherwise circuit breakers are not used
        self.rate_limit = RateLimit(policy.requests_per_second, rate or RateEstimator())
        self._concurrency = ConcurrencyLimit(self.ceiling, is_adaptive=self.is_adaptive)
        self.breakers = CircuitBreakers(observer)  # of each endpoint that was used
        self.queue = SlotQueue()
        self._has_open_breaker = False  # as of the last report that may have changed it
        self._starts = self._cut_at_start = (
            0  # throttling responses to this start or an older one belong to the last burst
        )
        self._closed = False
        self._observer = observer
        self.blocked_until = -math.inf  # no request may start before this time, because of a pause
        self._timer: asyncio.Handle | None = None
        self._timer_at = math.inf  # not every event loop's handle has `when()`

    def __repr__(self) -> str:
        load = f"{self.in_flight} in flight, limit {self.limit} of {self.ceiling}, {self.queued} queued"
        try:
            paused = f", paused for {self.paused_s:.1f} s" if self.paused_s else ""
            states = {name: each.value for name, each in self.breakers.states(_now()).items() if each.value != "closed"}
        except RuntimeError:  # no event loop is running
            return f"<Limiter: {load}>"
        return f"<Limiter: {load}{paused}, breakers {states or 'closed'}>"

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return self._concurrency.value

    @property
    def queued(self) -> int:
        """How many callers wait for a slot."""
        return self.queue.size

    @property
    def paused_s(self) -> float:
        """Seconds until the current pause ends, or 0 without a pause. Needs a running event loop."""
        return max(0.0, self.blocked_until - _now())

    def try_acquire(self, endpoint: str = "", *, is_bulk: bool = False) -> Slot | None:
        """Take a slot as `acquire` does, or return None if the caller would have to wait."""
        if self._closed:
            raise ConfigurationError("the client is closed")
        breaker = self.breakers[endpoint]
        has_slot = self._concurrency.has_slot(self.in_flight, self.bulk_in_flight, breaker, is_bulk=is_bulk)
        if self.queue.size or not has_slot:
            return None
        now = asyncio.get_running_loop().time()
        if now < self.blocked_until or now < self.rate_limit.next_start_at:
            return None
        return self._grant(breaker, now, is_bulk=is_bulk) if breaker.is_calm or breaker.next_start_at <= now else None

    async def acquire(
        self, endpoint: str = "", *, is_bulk: bool = False, left_s: float = math.inf, is_new: bool = True
    ) -> Slot:
        """Wait for a slot. The caller reports the request's outcome with it, and gives it back with `release`.

        A cancelled call keeps no slot.

        Args:
            endpoint: The kind of request: each has its own circuit breaker.
            is_bulk: Whether the call is one of many that the caller makes at once, as in a fleet fetch.
            left_s: How many seconds to wait: in all if the call is interactive; if it is bulk, while the circuit breaker
                is open, checked whenever a probe fails.
            is_new: Whether no attempt of the call has failed. Such calls are probes before others.

        Raises:
            NoSlotError: No slot was granted in that time, or none can be granted because the pause lasts longer.
            ConfigurationError: The limiter is closed.
        """
        if left_s <= 0 and not is_bulk:
            raise self._out_of_time(self.breakers[endpoint])
        if slot := self.try_acquire(endpoint, is_bulk=is_bulk):
            return slot
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.create_future(), self.breakers[endpoint], is_bulk, loop.time(), left_s, is_new)
        expiry = None
        if waiter.gives_up_before(self.blocked_until):
            raise self._too_late()
        if not is_bulk and left_s < math.inf:
            expiry = loop.call_at(waiter.since + left_s, self._expire, waiter)
        self.queue.append(waiter)
        self._dispatch()  # sets the timer if the caller waits only for a time
        try:
            return await waiter.slot
        except asyncio.CancelledError:
            # The waiter is removed now, not at its turn: cancelled callers would pile up during a pause.
            if not self.queue.remove(waiter) and waiter.slot.exception() is None:
                self.release(waiter.slot.result())  # granted just before the cancellation: pass it on
            raise
        finally:
            if expiry is not None:
                expiry.cancel()

    def release(self, slot: Slot) -> None:
        """Give a slot back."""
        self.in_flight -= 1
        self.bulk_in_flight -= slot.is_bulk
        slot.breaker.in_flight -= 1
        slot.breaker.interactive_in_flight -= not slot.is_bulk
        if self.queue.size:
            self._dispatch()

    def close(self) -> None:
        """End all waits with a `ConfigurationError`, and refuse new callers."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.queue.reject(lambda _: True, lambda: ConfigurationError("the client is closed"))

    def succeeded(self, slot: Slot) -> None:
        """Report a success."""
        before = self._concurrency.value
        is_news = not slot.breaker.is_calm
        if before == self.ceiling and not is_news:
            return
        if is_news:
            slot.breaker.succeeded(_now(), limit=before)
            self._has_open_breaker = self.breakers.has_open
        if before < self.ceiling:  # so `adaptive` is true
            self._concurrency.grow(self.in_flight)
        if is_news or self._concurrency.value > before:
            self._dispatch()

    def throttled(
        self, slot: Slot, retry_after: float | None = None, cause: str = "", *, tells_rate: bool = True
    ) -> None:
        """Report a throttling response: an adaptive limit falls, and all requests pause for `retry_after` seconds."""
        before = min(self._concurrency.value, slot.breaker.max_in_flight)
        if self.is_adaptive:
            self._adapt_to_throttling(slot, cause)
            retry_after = pause_after(before) if retry_after is None else retry_after
        if retry_after:
            self.pause(retry_after, cause)
            if self.is_adaptive:
                teaches = tells_rate and slot.breaker.throttled_bursts == 1
                self.rate_limit.estimator.throttled(
                    _now(), self.blocked_until, tells_rate=teaches, min_starts=int(before) // 2
                )
        self._has_open_breaker = self.breakers.has_open
        self._dispatch()  # a probe may be due

    def failed(self, slot: Slot, cause: str = "") -> None:
        """Report a fault: single ones change nothing, many in a row open the endpoint's circuit breaker."""
        if self.is_adaptive:
            now, limit = _now(), self.limit
            if slot.breaker.failed(slot.number, now, limit=limit, is_another_down=self.breakers.is_down, cause=cause):
                self._end_outlasted_waits(slot.breaker)
            self._has_open_breaker = self.breakers.has_open
        self._dispatch()  # a probe may be due

    def pause(self, seconds: float, cause: str = "") -> None:
        """Grant no slot for `seconds` from now. A shorter pause does not end a longer one."""
        if _now() >= self.blocked_until:
            self.pauses += 1
            _logger.info("all requests pause for %.1f s, as the server asked: %s", seconds, cause or "throttled")
            if self._observer is not None:
                self._observer.paused(Pause(seconds=seconds, is_long=False))
        self.blocked_until = max(self.blocked_until, _now() + seconds)
        self.queue.reject(lambda waiter: waiter.gives_up_before(self.blocked_until), self._too_late)

    def _adapt_to_throttling(self, slot: Slot, cause: str) -> None:
        is_new_burst = slot.number > self._cut_at_start
        if is_new_burst and not any(breaker.throttled_bursts for breaker in self.breakers.values()):
            self._concurrency.remember()
            self.rate_limit.estimator.remember()
        is_another_down = self.breakers.is_down
        if slot.breaker.throttled(
            slot.number, _now(), is_new_burst=is_new_burst, is_another_down=is_another_down, cause=cause
        ):
            if slot.breaker.waits == 1 and not is_another_down:  # it has just opened
                self._concurrency.restore()
            self._end_outlasted_waits(slot.breaker)
        elif slot.breaker.is_closed:
            self._concurrency.cut(self.in_flight, is_new_burst=is_new_burst)
            if is_new_burst:
                self._cut_at_start = self._starts

    def _grant(self, breaker: CircuitBreaker, now: float, *, is_bulk: bool) -> Slot:
        self.in_flight += 1
        self.bulk_in_flight += is_bulk
        self._starts += 1
        breaker.interactive_in_flight += not is_bulk
        slot = Slot(self._starts, breaker, breaker.waits > 0, is_bulk)
        breaker.started(self._starts, now)
        self.rate_limit.started(now, is_filled=self._concurrency.is_filled(self.in_flight))
        return slot

    def _dispatch(self) -> None:
        """Grant slots to the queue, or set the timer for the time when that will be possible."""
        while self.queue.size:
            # If only bulk calls wait, their own limit counts: searching their queue without result costs a third more.
            is_full_for_bulk = self.bulk_in_flight >= self._concurrency.value_for_bulk and not self.queue.interactive
            if (is_full_for_bulk or self.in_flight >= self._concurrency.value) and not self._has_open_breaker:
                return  # the next release dispatches again
            now = asyncio.get_running_loop().time()
            if now < self.blocked_until or now < self.rate_limit.next_start_at:
                self._set_timer(max(self.blocked_until, self.rate_limit.next_start_at))
                return
            next_one = self.queue.pop(now, self._start_at)
            if isinstance(next_one, Waiter):
                next_one.slot.set_result(self._grant(next_one.breaker, now, is_bulk=next_one.is_bulk))
            else:
                if next_one < math.inf:
                    self._set_timer(next_one)
                return

    def _start_at(self, waiter: Waiter) -> float:
        """Return when a caller may start, as far as slots and its circuit breaker are concerned."""
        breaker = waiter.breaker
        if self._concurrency.has_slot(self.in_flight, self.bulk_in_flight, breaker, is_bulk=waiter.is_bulk):
            return -math.inf if breaker.is_calm else breaker.next_start_at
        if breaker.is_closed or self.in_flight >= self.ceiling:
            return math.inf
        # Requests that hang keep their slots for as long as their timeout allows. Probes are sent beside them.
        return max(breaker.next_start_at, breaker.next_probe_at)

    def _too_late(self) -> NoSlotError:
        return NoSlotError("all requests pause for longer than max_elapsed allows", retry_after=self.paused_s)

    def _out_of_time(self, breaker: CircuitBreaker) -> NoSlotError:
        if not breaker.is_closed:
            return NoSlotError(breaker.describe_outage(_now()), is_outage=True)
        retry_after = max(0.0, max(self.blocked_until, self.rate_limit.next_start_at) - _now()) or None
        return NoSlotError("no slot was free within max_elapsed", retry_after=retry_after)

    def _expire(self, waiter: Waiter) -> None:
        """End the wait of an interactive caller whose time is over."""
        if not waiter.slot.done():
            self.queue.remove(waiter)
            waiter.slot.set_exception(self._out_of_time(waiter.breaker))

    def _end_outlasted_waits(self, breaker: CircuitBreaker) -> None:
        """End the waits of bulk callers for which the breaker was open for too long."""
        self.queue.reject(lambda waiter: waiter.has_outlasted(breaker, _now()), lambda: self._out_of_time(breaker))

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

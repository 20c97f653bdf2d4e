"""How many requests may be under way: an adaptive limit, one pause for all, and an optional rate.

Knows nothing of HTTP: it is told how a request ended. Time is the event loop's, so a test's loop may bend it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable

import attrs

from podero_async._flow.policies import ThrottlePolicy
from podero_async._flow.rate import RateEstimator
from podero_async.errors import ConfigurationError

__all__ = ["Limiter", "NoSlotError"]

_FIRST_LIMIT = 32  # enough for a quick start, little enough for a server that bears less
_CUT = 0.9  # one pushback costs a tenth; each further one of the same burst a place ...
_DEEPEST_CUT = 0.5  # ... and one burst at most half
_CAUTION = 20  # times the limit: good answers after a cut until the limit grows by one a round again
_BURST_S = 0.01  # how far a rate may catch up after a late timer
_OUTAGE_AT = 10  # faults in a row, at the least
_REFUSED_AT = 3  # bursts of pushbacks in a row: the first tells how much is borne, the third that nothing is
_FIRST_PROBE_S, _MAX_PROBE_S = 0.25, 5.0


class NoSlotError(Exception):
    """Nothing but faults came for as long as the waiter was ready to wait."""


@attrs.frozen(eq=False)
class _Waiter:
    turn: asyncio.Future[int]
    since: float
    patience_s: float


class Limiter:
    """Hand out places for requests: first come, first served.

    The limit grows by one for each good answer until the first pushback, from then on by at most one for every `limit`
    good answers, and only while at least half of it is in use. It falls when the server pushes back; where that names a
    time, everything waits, and a pace is learned as well.
    """

    def __init__(self, policy: ThrottlePolicy, *, ceiling: int | None = None) -> None:
        self._ceiling = min(policy.max_concurrency, ceiling or policy.max_concurrency)
        self._adaptive = policy.adaptive
        self._least_interval = 1 / policy.requests_per_second if policy.requests_per_second else 0.0
        self._pace = RateEstimator()
        self._limit = float(min(self._ceiling, _FIRST_LIMIT) if policy.adaptive else self._ceiling)
        self._threshold = math.inf  # below it the limit grows quickly
        self._in_flight = 0
        self._started = 0  # places ever handed out: tells which requests a cut has already answered
        self._cut_at_start = 0  # a pushback of a request that started before this one belongs to the last cut
        self._cut_floor = 0.0
        self._good_since_cut = 0
        self._borne = math.inf  # the limit at the last burst of pushbacks after a good answer, less a cut
        self._failures_in_a_row = self._bursts_in_a_row = 0
        self._outage = 0  # faults that made everybody wait, since the last good answer
        self._outage_until_place = 0
        self._outage_since = -math.inf
        self._closed = False
        self._resume_at = -math.inf
        self._next_start_at = -math.inf
        self._started_at = -math.inf  # the last of them
        self._waiters: deque[_Waiter] = deque()
        self._timer: asyncio.Handle | None = None
        self._timer_at = math.inf  # not every event loop's handles tell
        self.pauses = 0

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return max(1, int(self._limit))

    @property
    def ceiling(self) -> int:
        """The limit's upper bound."""
        return self._ceiling

    @property
    def in_flight(self) -> int:
        """How many places are taken."""
        return self._in_flight

    def take(self) -> int | None:
        """Take a place, if one can be had at once; return its number, as `acquire` does."""
        if self._closed:
            raise ConfigurationError("the client is closed")
        if self._waiters or self._in_flight >= self.limit or self._wait_s():
            return None
        return self._hand_over()

    async def acquire(self, patience_s: float = math.inf) -> int:
        """Wait for a place, and return its number, which the answer is reported with.

        A place must be given back with `release`. Cancelling a waiter takes no place.

        Args:
            patience_s: How many seconds of an outage are waited through.

        Raises:
            NoSlotError: It lasts longer. That is noticed with the next fault: a probe finds one every few seconds.
        """
        if place := self.take():
            return place
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), loop.time(), patience_s)
        self._waiters.append(waiter)
        self._hand_out()  # sets the timer, where it is time that is waited for
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.cancelled():
                # Leave the queue now: a pause could otherwise collect any number of the cancelled.
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
            elif waiter.turn.exception() is None:
                self.release()  # the place came just as the caller was cancelled: pass it on
            raise

    def release(self) -> None:
        """Give a place back."""
        self._in_flight -= 1
        self._hand_out()

    def close(self) -> None:
        """Tell everybody who waits, and who will, that there are no more places."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._turn_away(math.inf, lambda: ConfigurationError("the client is closed"))

    def _turn_away(self, now: float, error: Callable[[], Exception] = NoSlotError) -> None:
        """Tell those whose patience is at an end by then, each with an error of its own."""
        kept = deque[_Waiter]()
        for waiter in self._waiters:
            if now - max(waiter.since, self._outage_since) < waiter.patience_s:
                kept.append(waiter)
            elif not waiter.turn.done():
                waiter.turn.set_exception(error())
        self._waiters = kept

    @property
    def is_in_outage(self) -> bool:
        """Whether nothing but faults came for a while."""
        return self._outage > 0

    def succeeded(self) -> None:
        """Report a good answer."""
        if self._outage:
            self._limit = max(self._limit, float(self._in_flight))  # beside what still hangs
        self._failures_in_a_row = self._bursts_in_a_row = self._outage = 0
        if self._adaptive and self._limit < self._ceiling and self._in_flight * 2 >= self._limit:
            self._limit = min(float(self._ceiling), self._limit + self._growth())
            self._hand_out()

    def throttled(self, place: int, retry_after: float | None = None) -> None:
        """Report an answer that says "too much" (429, or 503 with a time): the limit falls, and `retry_after` seconds pause all."""
        if place > self._cut_at_start:
            self._bursts_in_a_row += 1
            if self._bursts_in_a_row == 1:
                self._borne = max(1.0, self._limit * _CUT)
                self._pace.remember()
        if self._outage or self._bursts_in_a_row >= _REFUSED_AT:
            self._endure(place, self._borne)
        else:
            self._cut(place)
        if retry_after:
            self.pause(retry_after)
            if self._adaptive:
                now = asyncio.get_running_loop().time()
                self._pace.throttled(now, self._resume_at, tells_rate=self._bursts_in_a_row == 1)
        self._hand_out()  # a probe may be due at once

    def failed(self, place: int) -> None:
        """Report a fault. One is bad luck; half as many in a row as may be under way are an outage, which needs few probes."""
        self._failures_in_a_row += 1
        if self._outage or self._failures_in_a_row >= max(_OUTAGE_AT, self.limit // 2):
            self._endure(place, self._ceiling)
            self._hand_out()  # a probe may be due at once

    def _endure(self, place: int, threshold: float) -> None:
        """Leave one place until a good answer comes, from where the limit grows quickly, up to `threshold`.

        Each fault of the outage makes everybody wait, twice as long as the one before.
        """
        if not self._adaptive:
            return
        if not self._outage:
            self._limit = 1.0
            self._threshold = threshold
            self._good_since_cut = 0
            self._outage_since = asyncio.get_running_loop().time()
        if place > self._outage_until_place:
            self._outage_until_place = self._started  # what is under way already tells nothing new
            wait_s = min(_MAX_PROBE_S, _FIRST_PROBE_S * 2.0 ** min(self._outage, 10))
            self._resume_at = max(self._resume_at, self._started_at + wait_s)  # to hang has been wait enough
            self._outage += 1
            self._turn_away(asyncio.get_running_loop().time())

    def pause(self, seconds: float) -> None:
        """Hand out no place to anybody for so many seconds from now."""
        now = asyncio.get_running_loop().time()
        if now >= self._resume_at:
            self.pauses += 1
        self._resume_at = max(self._resume_at, now + seconds)

    def _growth(self) -> float:
        """Return what a good answer adds to the limit."""
        if self._limit < self._threshold:
            return 1.0
        # Slow after a cut, since the limit was nearly right; then faster, since the server may bear more by now.
        self._good_since_cut += 1
        return min(1.0, self._good_since_cut / (_CAUTION * self._limit)) / self._limit

    def _cut(self, place: int, factor: float = _CUT) -> None:
        if not self._adaptive:
            return
        if place > self._cut_at_start:
            self._cut_at_start = self._started
            self._cut_floor = max(1.0, self._limit * _DEEPEST_CUT)
            self._limit = max(1.0, self._limit * factor)
        else:
            self._limit = min(self._limit, max(self._cut_floor, self._limit - 1))  # an outage may have left less
        self._threshold = self._limit
        self._good_since_cut = 0

    def _hand_over(self) -> int:
        self._in_flight += 1
        self._started += 1
        self._started_at = now = asyncio.get_running_loop().time()
        interval = max(self._least_interval, self._pace.started(now))
        if interval:
            self._next_start_at = max(self._next_start_at, now - _BURST_S) + interval
        return self._started

    def _wait_s(self) -> float:
        """Say how long the pause and the rate still forbid a start."""
        until = max(self._resume_at, self._next_start_at)
        if until == -math.inf:
            return 0.0
        return max(0.0, until - asyncio.get_running_loop().time())

    def _hand_out(self) -> None:
        while self._waiters:
            if self._in_flight < self.limit:
                wait_s = self._wait_s()
            elif self._outage and self._in_flight < self._ceiling:
                wait_s = max(self._wait_s(), self._next_probe_s())  # what hangs would keep its place for long
            else:
                return
            if wait_s > 0:
                self._set_timer(wait_s)
                return
            turn = self._waiters.popleft().turn
            if not turn.done():
                turn.set_result(self._hand_over())

    def _next_probe_s(self) -> float:
        return self._started_at + _MAX_PROBE_S - asyncio.get_running_loop().time()

    def _set_timer(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + wait_s
        if self._timer is not None and at < self._timer_at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer, self._timer_at = loop.call_later(wait_s, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._hand_out()

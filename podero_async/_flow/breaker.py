"""The circuit breaker: while all requests fail, it lets only single probes through.

It decides; the limiter, which owns the queue and the timer, acts. Times are seconds of the event loop's clock.
"""

from __future__ import annotations

import enum
import math

__all__ = ["BreakerState", "CircuitBreaker"]

_MIN_FAULTS = 10  # in a row; fewer do not open the breaker, however low the limit is
_MIN_BURSTS = 3  # in a row; the first shows how much the server accepts, the third that it accepts nothing
_MIN_WAIT_S, _MAX_WAIT_S = 0.25, 5.0


class BreakerState(enum.Enum):
    CLOSED = "closed"  # requests are sent as usual
    OPEN = "open"  # nothing is sent before `blocked_until`
    HALF_OPEN = "half-open"  # one probe is sent; its outcome closes the breaker or opens it again


class CircuitBreaker:
    """Count faults in a row, and decide when a probe may be sent.

    Faults open a closed breaker when their number reaches half of the concurrency limit, and at least 10; three bursts
    of throttling responses open it as well. Each failed probe doubles the wait for the next one, from 0.25 s to 5 s.
    The first success closes the breaker.
    """

    def __init__(self) -> None:
        self._faults = 0
        self.throttled_bursts = 0
        """Bursts of throttling responses since the last success."""
        self.waits = 0
        """Waits since the breaker opened; 0 if it is closed."""
        self._started, self._started_at = 0, -math.inf  # ticket and time of the last start
        self._judged = 0  # the newest ticket before the current wait
        self.opened_at = -math.inf
        """The time when the breaker last opened."""
        self.blocked_until = -math.inf
        """No request may start before this time. It stays in force if the breaker closes earlier."""

    @property
    def is_closed(self) -> bool:
        """Whether requests are sent as usual."""
        return not self.waits

    @property
    def next_probe_at(self) -> float:
        """The time when a probe may be sent although earlier ones have no response yet."""
        return self._started_at + _MAX_WAIT_S

    def state(self, now: float) -> BreakerState:
        """Return the state at a time."""
        if self.is_closed:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.blocked_until else BreakerState.HALF_OPEN

    def started(self, ticket: int, now: float) -> None:
        """Record the start of a request."""
        self._started, self._started_at = ticket, now

    def succeeded(self) -> None:
        """Record a success: the breaker closes."""
        self._faults = self.throttled_bursts = self.waits = 0

    def failed(self, ticket: int, now: float, *, limit: int) -> bool:
        """Record a fault, under the current concurrency limit. Return whether a wait begins."""
        self._faults += 1
        return self._opens(ticket, now, is_due=self._faults >= max(_MIN_FAULTS, limit // 2))

    def throttled(self, ticket: int, now: float, *, is_new_burst: bool) -> bool:
        """Record a throttling response. Return whether a wait begins."""
        self.throttled_bursts += is_new_burst
        return self._opens(ticket, now, is_due=self.throttled_bursts >= _MIN_BURSTS)

    def _opens(self, ticket: int, now: float, *, is_due: bool) -> bool:
        if self.is_closed:
            if not is_due:
                return False
            self.opened_at = now
        elif ticket <= self._judged:
            return False  # the request started before the current wait, so its failure adds nothing
        self._judged = self._started
        wait_s = min(_MAX_WAIT_S, _MIN_WAIT_S * 2.0 ** min(self.waits, 10))
        # The wait counts from the last start, so the time for which a probe hung is part of it.
        self.blocked_until = max(self.blocked_until, self._started_at + wait_s)
        self.waits += 1
        return True

"""The circuit breaker of one endpoint: while all its requests fail, it lets only single probes through.

It decides; the limiter, which owns the queue and the timer, acts. Times are seconds of the event loop's clock.
"""

from __future__ import annotations

import enum
import logging
import math
from collections import deque

from podero_async.observer import BreakerChange, Observer

__all__ = ["BreakerState", "CircuitBreaker", "CircuitBreakers"]

_logger = logging.getLogger("podero_async")

_MIN_FAULTS = 10  # in a row; fewer do not open the breaker, however low the limit is
_MIN_BURSTS = 3  # in a row; the first shows how much the server accepts, the third that it accepts nothing
_MIN_WAIT_S, _MAX_WAIT_S = 0.25, 5.0
_MIN_THROTTLED = 4  # of the last ten requests; fewer may have met unavailable vehicles by chance
_RECENT_REQUESTS = 10


class BreakerState(enum.Enum):
    CLOSED = "closed"  # requests are sent as usual
    OPEN = "open"  # nothing is sent before `blocked_until`
    HALF_OPEN = "half-open"  # one probe is sent; its outcome closes the breaker or opens it again


class CircuitBreaker:
    """Count an endpoint's faults in a row, and decide when a probe may be sent.

    A closed breaker opens after faults in a row, as many as half of the concurrency limit but at least 10, or after
    three bursts of throttling responses. If another endpoint is known to be down, one fault or throttling response is
    enough. Each failed probe doubles the wait for the next one, from 0.25 s to 5 s. The first success closes the
    breaker. If a probe had failed, or the server had throttled, requests then start slowly: one in flight, and one more
    for each success. If the first probe succeeds, the faults were those of some resources (vehicles of one
    manufacturer, for instance), and requests go on at full speed.
    """

    def __init__(self, endpoint: str = "", observer: Observer | None = None) -> None:
        self.endpoint = endpoint
        self._observer = observer
        self.in_flight = 0
        """Requests in flight to this endpoint, counted by the limiter."""
        self.interactive_in_flight = 0
        """How many of them are interactive."""
        self.max_in_flight = math.inf
        """Upper bound of `in_flight` after an outage; infinite at other times."""
        self.last_cause = ""
        """The reason of the last fault, such as "HTTP 503: maintenance"."""
        self.throttled_bursts = 0
        """Bursts of throttling responses since the last success."""
        self.waits = 0
        """Waits since the breaker opened; 0 if it is closed."""
        self.opened_at = -math.inf
        """The time when the breaker last opened."""
        self.blocked_until = -math.inf
        """While the breaker is open, no request may start before this time."""
        self.is_calm = True
        """Whether all recent requests succeeded. If so, a further success changes nothing, and any request may start."""
        self.is_down = False
        """Whether the endpoint as a whole fails, not only some resources: a probe failed, or the server throttles all."""
        self._faults = 0
        self._throttled: deque[int] = deque(maxlen=_MIN_THROTTLED)  # the numbers of starts
        self._started, self._started_at = 0, -math.inf  # number and time of the last start
        self._judged = 0  # the newest start before the current wait

    @property
    def is_closed(self) -> bool:
        """Whether requests are sent as usual."""
        return not self.waits

    @property
    def next_probe_at(self) -> float:
        """The time when a probe may be sent although earlier ones have no response yet."""
        return self._started_at + _MAX_WAIT_S

    @property
    def next_start_at(self) -> float:
        """The earliest time of the next start; infinite if another request must end first."""
        if not self.waits:
            return -math.inf if self.in_flight < self.max_in_flight else math.inf
        return max(self.blocked_until, self.next_probe_at) if self.in_flight else self.blocked_until

    def state(self, now: float) -> BreakerState:
        """Return the state at a time."""
        if self.is_closed:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.blocked_until else BreakerState.HALF_OPEN

    def describe_outage(self, now: float) -> str:
        """Return the message of an error that says for how long the breaker has been open."""
        cause = f", the last with {self.last_cause}" if self.last_cause else ""
        return f"all requests have failed for {now - self.opened_at:.1f} s{cause}"

    def started(self, number: int, now: float) -> None:
        """Record the start of a request. Starts are numbered over all endpoints."""
        self._started, self._started_at = number, now
        self.in_flight += 1

    def succeeded(self, now: float, *, limit: int) -> None:
        """Record a success under the current concurrency limit: the breaker closes."""
        if self.waits:
            _logger.info("requests to %s succeed again after %.1f s", self.endpoint, now - self.opened_at)
            self._tell(is_open=False)
            if self.is_down:
                self.max_in_flight = max(1, self.in_flight)  # probes that hang keep their slots
        self._faults = self.throttled_bursts = self.waits = 0
        self.is_down = False
        if self.max_in_flight < math.inf:
            self.max_in_flight = self.max_in_flight + 1 if self.max_in_flight + 1 < limit else math.inf
        self.is_calm = self.max_in_flight == math.inf

    def failed(self, number: int, now: float, *, limit: int, is_another_down: bool = False, cause: str = "") -> bool:
        """Record a fault, under the current concurrency limit. Return whether a wait begins."""
        self._faults += 1
        self.is_calm = False
        self.last_cause = cause
        return self._opens(number, now, is_due=is_another_down or self._faults >= max(_MIN_FAULTS, limit // 2))

    def concerns_all(self, number: int, *, is_429: bool, is_retry: bool) -> bool:
        """Record a throttling response. Return whether it concerns all requests, and not only the resource of its call.

        A 429 does at the call's first attempt. Others do if several of the last requests were throttled, or if no request
        has succeeded since such a response. A 503 of a later attempt does not count, since it may be that of one vehicle.
        """
        if is_429 or not is_retry:
            self._throttled.append(number)
        near = sum(abs(number - other) < _RECENT_REQUESTS for other in self._throttled)
        are_several = near == _MIN_THROTTLED or self.throttled_bursts > 0 or self.is_down
        return are_several or (is_429 and not is_retry)

    def throttled(
        self, number: int, now: float, *, is_new_burst: bool, is_another_down: bool = False, cause: str = ""
    ) -> bool:
        """Record a throttling response. Return whether a wait begins."""
        self.throttled_bursts += is_new_burst
        self.is_calm = False
        self.last_cause = cause
        return self._opens(number, now, is_due=is_another_down or self.throttled_bursts >= _MIN_BURSTS)

    def _opens(self, number: int, now: float, *, is_due: bool) -> bool:
        if self.is_closed:
            if not is_due:
                return False
            self.opened_at = now
            self.is_down = self.throttled_bursts >= _MIN_BURSTS
            _logger.warning(
                "all recent requests to %s failed, the last with %s; only probes are sent",
                self.endpoint,
                self.last_cause or "no response",
            )
            self._tell(is_open=True)
        elif number <= self._judged:
            return False  # the request started before the current wait, so its failure adds nothing
        else:
            self.is_down = True
        self._judged = self._started
        wait_s = min(_MAX_WAIT_S, _MIN_WAIT_S * 2.0 ** min(self.waits, 10))
        # The wait counts from the last start, so the time for which a probe hung is part of it.
        self.blocked_until = self._started_at + wait_s
        self.waits += 1
        return True

    def _tell(self, *, is_open: bool) -> None:
        if self._observer is not None:
            self._observer.breaker_changed(BreakerChange(endpoint=self.endpoint, is_open=is_open))


class CircuitBreakers(dict[str, CircuitBreaker]):
    """The circuit breakers by endpoint; each is made when it is first asked for."""

    def __init__(self, observer: Observer | None = None) -> None:
        super().__init__()
        self._observer = observer

    def __missing__(self, endpoint: str) -> CircuitBreaker:
        breaker = self[endpoint] = CircuitBreaker(endpoint, self._observer)
        return breaker

    @property
    def has_open(self) -> bool:
        """Whether an endpoint's breaker is open or half-open."""
        return any(breaker.waits for breaker in self.values())

    @property
    def is_down(self) -> bool:
        """Whether an endpoint as a whole is known to fail: its probes fail, or it throttles all requests."""
        return any(breaker.is_down for breaker in self.values())

    def states(self, now: float) -> dict[str, BreakerState]:
        """Return the state of each breaker at a time."""
        return {endpoint: breaker.state(now) for endpoint, breaker in self.items()}

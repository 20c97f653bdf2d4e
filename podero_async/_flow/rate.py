"""How many requests start per second: at most a fixed rate, and a rate that is learned from throttling responses.

Arithmetic on times in seconds. The limiter reports each start, and asks when the next one may be.
"""

from __future__ import annotations

import logging
import math

__all__ = ["RateEstimator", "RateLimit"]

_logger = logging.getLogger("podero_async")

_BURST_S = 0.01  # the delay of a late timer that a fixed or learned rate may make up for

# Empirical: with these values, over 90 % of the rate limits of the servers in tests/flow/test_rate.py are used.
_MIN_CUT = 0.04  # the part of an exact rate that is given up: the request that was throttled was one too many
_TRUSTED_AFTER = 3.5  # times the pause: a burst that lasted longer shows the rate by itself
_GROWTH = 0.5  # growth per second of a rate whose error may be 100 %; proportional to the square of the error
_HOLD_S = 25.0  # for this long a rate grows by its error alone, since one step too far costs a pause ...
_PROBE_GROWTH = 0.02  # ... then by this part times (seconds / 5)^2, since the server may accept more by now
_DROP_AT = 4.0  # times the learned rate: then the bound is dropped
_MAX_EXPONENT = 9.0  # far beyond `_DROP_AT`: keeps exp() from overflowing after a long time without a request
_IDLE_S = 5.0  # starts before a gap of this length say nothing about the rate
_MIN_RATE = 0.1  # per second: a server that refuses everything is still asked
_MIN_SPAN_S = 0.001  # keeps quotients finite
_MAX_GAP = 2.0  # intervals of a known rate: a start after a longer gap was not delayed by the rate
_MIN_USE = 0.5  # of a known rate: if less was used by a few starts, the rate was not the reason for the throttling
_MIN_STARTS = 3
_MIN_SHARE = 0.5  # of the starts before the previous pause: with fewer, the rate is not the cause; a window may be cut
_MAX_CONTRADICTIONS = 2  # then the throttling has another cause ...
_IGNORED_PAUSES = 100  # ... and this many pauses are ignored ...
_MAX_ALIKE = 8  # ... or fewer, if eight in a row follow similar numbers of starts, which is rare by chance


class RateEstimator:
    """Bound the rate of starts, from the first throttling response that names a time.

    Such a response sets the rate to that of the starts since the last pause, less a cut. The rate then grows, slowly at
    first, and is dropped when it reaches four times that value. If a server hides a limit of 200 requests a second,
    92 % of it are used with the estimator, and 51 % without.

    A server that throttles at random would make the rate fall with each response. Such a server is recognized by the
    starts between two pauses: a hidden rate allows at least as many when they are slower, and chance often half as many.
    Then the bound is given up for the next hundred pauses, or until eight in a row follow similar numbers of starts, since
    a hidden rate that has dropped looks like chance at first.

    This is a variant of the CUBIC rate limiter in botocore's adaptive retry mode, which also starts with the first
    throttling response, measures its own rate, cuts it, and lets it grow with the time since. The differences: botocore
    cuts by 30 % for each throttling response, grows by a cubic function up to twice the measured rate, and keeps its
    bound for ever. Here a burst of responses is one cut, of 4 % or more if the rate is not well known; growth is
    exponential, then quadratic; and the bound is dropped in the end. botocore ignores the time that a response names.
    """

    def __init__(self) -> None:
        self._rate = math.inf
        self._growth = 0.0
        self._remembered = self._rate, self._growth
        self._throttled_at = 0.0  # the rate before the last cut
        self._starts_before = 0  # the last pause, if the rate was known
        self._contradictions = self._ignored_pauses = self._alike = 0
        self._grows_since = -math.inf  # the end of the last pause
        # The sample: starts since the last pause, or since the last start that nothing but the callers delayed.
        self._since = math.inf
        self._starts = 0
        self._started_at = -math.inf  # the last start

    def bound(self, now: float) -> float:
        """Return the bound on starts per second; infinite if none is known."""
        return math.inf if self._rate == math.inf else self._rate_at(now)

    def started(self, now: float, *, is_filled: bool = True) -> float:
        """Count a start. Return how many seconds later the next one may be.

        Args:
            now: The current time.
            is_filled: Whether the concurrency limit is in use. If not, the callers set the rate of the starts, so those
                say nothing about the server.
        """
        rate = self._rate if self._rate == math.inf else self._rate_at(now)
        idle_s, self._started_at = now - self._started_at, now
        if idle_s > _IDLE_S or not (is_filled or idle_s * rate < _MAX_GAP):
            self._since, self._starts = now, 0
        self._starts += 1
        if rate == math.inf:
            return 0.0
        if rate > self._rate * _DROP_AT:
            self._rate = math.inf
        return 1 / rate

    def remember(self) -> None:
        """Keep the present rate, in case the throttling that begins now does not show the server's."""
        self._remembered = self._rate, self._growth

    def throttled(self, now: float, resume_at: float, *, tells_rate: bool = True, min_starts: int = 1) -> None:
        """Learn from a throttling response; starts are counted again from the end of the pause.

        If the starts lasted only for a short time, the server may have spent saved-up capacity, or may count within
        windows. Their rate is then too high, and the rate over the time with the pause is too low, so the new rate lies
        between the two. If the starts were fewer than allowed, their rate is a rough estimate as well. The rougher the
        estimate, the faster it grows.

        Args:
            now: The current time. If it lies before the end of the last pause, the response belongs to the same burst
                and is ignored.
            resume_at: The end of the pause.
            tells_rate: False if no request has succeeded since the last burst. Such a server accepts nothing at the
                moment, so neither this response nor the first one shows a rate, and the remembered rate is restored.
            min_starts: A sample of fewer starts shows no rate, unless it used half of a known one.
        """
        span_s = now - self._since
        if span_s < 0:
            return
        if not tells_rate:
            self._rate, self._growth = self._remembered
        elif self._is_sample(now, span_s, min_starts):
            if self._ignored_pauses:
                self._ignore()
            elif self._is_cause(self.bound(now)):
                self._cut(now, max(_MIN_SPAN_S, span_s), max(_MIN_SPAN_S, resume_at - now))
            else:
                self._give_up()
        self._since = self._grows_since = resume_at
        self._starts = 0

    def _is_cause(self, allowed: float) -> bool:
        """Return whether the rate may be the cause of the throttling; false once the starts contradict that twice."""
        if allowed == math.inf:
            self._starts_before = self._contradictions = 0
            return True
        if allowed >= self._throttled_at:  # the rate had grown back, as it does below a hidden rate
            self._contradictions = max(0, self._contradictions - 1)
        elif self._starts < _MIN_SHARE * self._starts_before:
            self._contradictions += 1
        self._starts_before = self._starts
        return self._contradictions < _MAX_CONTRADICTIONS

    def _ignore(self) -> None:
        """Ignore a pause; ignore no more after eight in a row with similar numbers of starts, as under a hidden rate."""
        is_alike = self._starts_before / 2 <= self._starts <= self._starts_before * 2
        self._alike = self._alike + 1 if is_alike else 0
        self._starts_before = self._starts
        self._ignored_pauses = 0 if self._alike == _MAX_ALIKE else self._ignored_pauses - 1

    def _cut(self, now: float, span_s: float, pause_s: float) -> None:
        # The weight of the rate over the time with the pause; 0.5 gives the geometric mean.
        weight = 0.5 * math.exp(-span_s / (_TRUSTED_AFTER * pause_s))
        cut = max(_MIN_CUT, 1 - (span_s / (span_s + pause_s)) ** weight)
        allowed, used = self.bound(now), self._starts / span_s
        error = cut if allowed == math.inf else max(cut, 1 - used / allowed)
        self._throttled_at = min(allowed, used)
        self._rate = max(_MIN_RATE, self._throttled_at * (1 - cut))
        self._growth = _GROWTH * error**2
        _logger.info("requests are limited to %.1f per second: the server throttled %.1f", self._rate, used)

    def _give_up(self) -> None:
        _logger.info("requests are no longer limited to %.1f per second: the server throttles at any rate", self._rate)
        self._rate, self._growth = math.inf, 0.0
        self.remember()
        self._ignored_pauses = _IGNORED_PAUSES

    def _is_sample(self, now: float, span_s: float, min_starts: int) -> bool:
        """Return whether the sample shows the server's rate, and not only that of the callers."""
        if self._starts >= min_starts or self._rate == math.inf:
            return self._starts >= min_starts
        return self._starts >= _MIN_STARTS and self._starts / max(_MIN_SPAN_S, span_s) >= _MIN_USE * self.bound(now)

    def _rate_at(self, now: float) -> float:
        span_s = max(0.0, now - self._grows_since)
        late_s = max(0.0, span_s - _HOLD_S)
        return self._rate * (math.exp(min(_MAX_EXPONENT, self._growth * span_s)) + _PROBE_GROWTH * (late_s / 5) ** 2)


class RateLimit:
    """Space the starts evenly, by a fixed rate or by that of an estimator, whichever is lower.

    Args:
        requests_per_second: The fixed rate; None for no such bound.
        estimator: Learns the other rate.
    """

    def __init__(self, requests_per_second: float | None, estimator: RateEstimator) -> None:
        self.set(requests_per_second)
        self.estimator = estimator
        self.next_start_at = -math.inf
        """The time before which no request may start."""

    def set(self, requests_per_second: float | None) -> None:
        """Change the fixed rate, from the start after the next one."""
        self._min_interval_s = 1 / requests_per_second if requests_per_second else 0.0

    def bound(self, now: float) -> float:
        """Return the bound on starts per second, fixed or learned, or infinity without any."""
        fixed = 1 / self._min_interval_s if self._min_interval_s else math.inf
        return min(fixed, self.estimator.bound(now))

    def started(self, now: float, *, is_filled: bool) -> None:
        """Count a start, made while the concurrency limit was in use (`is_filled`) or not."""
        if interval_s := self.estimator.started(now, is_filled=is_filled) or self._min_interval_s:
            interval_s = max(interval_s, self._min_interval_s)
            self.next_start_at = max(self.next_start_at, now - _BURST_S) + interval_s

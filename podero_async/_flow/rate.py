"""A rate learned from a server that says "not before": how many requests a second it bears.

Pure arithmetic on moments in seconds; the throttle reports each start and asks when the next one may be.
"""

from __future__ import annotations

import math

__all__ = ["RateEstimator"]

_MIN_CUT = 0.04  # where the pace was right, and has just grown past what the server bears
_DOUBT = 3.5  # times the pause: starts that lasted longer tell the rate by themselves
_HASTE = 0.5  # the square of what a guess may be wrong by, times this: how much a second it grows
_SLOW_FOR_S = 25.0  # a step too far costs a pause, so what was borne is left slowly ...
_FAST_GROWTH = 0.02  # ... and after that ever faster, since the server may bear more by now
_FORGET_AT = 4.0  # times the pace after the last pushback: it bounds nothing any more
_MAX_GROWN = 9.0  # a power of e, far beyond that: more might be no number any more
_IDLE_S = 5.0  # without a start: what came before tells no rate


class RateEstimator:
    """Bound the rate of starts after the first pushback that named a time; before that there is no bound."""

    def __init__(self) -> None:
        self._rate = math.inf
        self._growth = 0.0
        self._before = self._rate, self._growth
        self._since = math.inf  # when starts began, or will begin after the pause
        self._starts = 0
        self._started_at = -math.inf  # the last of them

    def started(self, now: float) -> float:
        """Count a start; return how many seconds later the next one may be."""
        self._starts += 1
        idle_s, self._started_at = now - self._started_at, now
        if self._rate == math.inf:
            if idle_s > _IDLE_S:
                self._since, self._starts = now, 1
            return 0.0
        rate = self._rate_at(now)
        if rate > self._rate * _FORGET_AT:
            self._rate = math.inf
            self._since, self._starts = now, 1
        return 1 / rate

    def remember(self) -> None:
        """Keep what is known now: a pushback after good answers comes, which may turn out to tell nothing."""
        self._before = self._rate, self._growth

    def throttled(self, now: float, resume_at: float, *, tells_rate: bool = True) -> None:
        """Take the rate since the last pause, less a cut, for what is borne; starts count anew from `resume_at`.

        Where starts lasted for a short time only, the server may have borne a supply that it had saved up, or counts within
        windows. Then their rate is too high, but that over the time with the pause is too low: what lies between is tried.
        Where starts were fewer than the pace allowed, their rate is a rough guess, too. A server that bears nothing at the
        moment does not tell a rate, and did not with its first refusal: what is remembered holds again.
        """
        lasted = now - self._since
        if lasted < 0:
            return  # one more answer to the same burst
        if tells_rate:
            lasted = max(0.001, lasted)
            pause = max(0.001, resume_at - now)
            doubt = 0.5 * math.exp(-lasted / (_DOUBT * pause))
            cut = max(_MIN_CUT, 1 - (lasted / (lasted + pause)) ** doubt)
            allowed, used = self._rate_at(now), self._starts / lasted
            roughness = cut if allowed == math.inf else max(cut, 1 - used / allowed)
            self._rate = max(0.1, min(allowed, used) * (1 - cut))
            self._growth = _HASTE * roughness**2  # the rougher the guess, the sooner it is tried to go faster
        else:
            self._rate, self._growth = self._before
        self._since = resume_at
        self._starts = 0

    def _rate_at(self, now: float) -> float:
        lasted = max(0.0, now - self._since)
        late = max(0.0, lasted - _SLOW_FOR_S)
        return self._rate * (math.exp(min(_MAX_GROWN, self._growth * lasted)) + _FAST_GROWTH * (late / 5) ** 2)

"""The concurrency limit: additive increase, multiplicative decrease find how many requests the server accepts at once."""

from __future__ import annotations

import math

from podero_async._flow.breaker import CircuitBreaker

__all__ = ["ConcurrencyLimit", "pause_after"]

_FIRST_LIMIT = 32  # high enough for a quick start, low enough for a small server
_CUT = 0.9  # the first throttling response of a burst costs a tenth of the limit, each further one a slot ...
_MAX_CUT = 0.5  # ... and the whole burst at most half
_MIN_LIMIT_WITH_BULK_RESERVE = (
    20  # from this limit on, bulk calls leave a slot to single ones, which costs 5 % or less ...
)
_MIN_LIMIT_WITH_FREE_RESERVE = 8  # ... or from this one on below the ceiling, since the limit grows by the reserve
_MIN_LIMIT_WITH_RESERVE = (
    32  # from this limit on, bulk calls leave another slot, which no call to their endpoint takes, ...
)
_INTERACTIVE_RESERVE = 8  # ... and the interactive calls to one endpoint leave an eighth to the others
_MIN_LIMIT_WITHOUT_PAUSE, _PAUSE_S = 3, 1.0
_CAUTION = 20  # successes per slot after a cut, until the limit again grows by one per round


class ConcurrencyLimit:
    """A limit between 1 and a ceiling.

    A success raises it by one until the first throttling response; from then on, `limit` successes raise it by one at
    most. It grows only while at least half of it is in use. A throttling response lowers it; if less than half was in
    use, the response says nothing about the limit, so it may grow back as quickly as before.
    """

    def __init__(self, ceiling: int, *, is_adaptive: bool) -> None:
        self.ceiling = ceiling
        """The limit's upper bound."""
        self.value = 0
        """How many requests may be in flight."""
        self.value_for_bulk = 0
        """How many bulk calls may be in flight."""
        self.interactive_per_endpoint = 0
        """How many interactive calls to one endpoint may be in flight."""
        self.per_endpoint = 0
        """An interactive call starts only below this number in flight to its endpoint."""
        self._set(min(ceiling, _FIRST_LIMIT) if is_adaptive else ceiling)
        self._threshold = math.inf  # below it, each success raises the limit by one
        self._before_throttling = self._limit
        self._min_of_burst = 0.0
        self._successes_since_cut = 0

    def has_slot(self, in_flight: int, bulk_in_flight: int, breaker: CircuitBreaker, *, is_bulk: bool) -> bool:
        """Return whether a request may start beside those in flight; from a limit of 32 on, no endpoint takes all slots."""
        if is_bulk:
            return in_flight < self.value and bulk_in_flight < self.value_for_bulk
        return (
            in_flight < self.value
            and breaker.in_flight < self.per_endpoint
            and breaker.interactive_in_flight < self.interactive_per_endpoint
        )

    def is_filled(self, in_flight: int) -> bool:
        """Return whether at least half of the limit is in use."""
        return in_flight * 2 >= self._limit

    def grow(self, in_flight: int) -> None:
        """Raise the limit after a success if it is in use."""
        if self._limit >= self.ceiling or not self.is_filled(in_flight):
            return
        growth = 1.0
        if self._limit >= self._threshold:
            # The limit was nearly right when it was cut, so it grows slowly at first. Later the server may accept more.
            self._successes_since_cut += 1
            growth = min(1.0, self._successes_since_cut / (_CAUTION * self._limit)) / self._limit
        self._set(self._limit + growth)

    def remember(self) -> None:
        """Keep the limit from before the throttling that begins now."""
        self._before_throttling = self._limit

    def cut(self, in_flight: int, *, is_new_burst: bool) -> None:
        """Lower the limit after a throttling response."""
        is_filled = self.is_filled(in_flight)
        if is_new_burst:
            self._min_of_burst = max(1.0, self._limit * _MAX_CUT)
            self._set(self._limit * _CUT)
        else:
            self._set(min(self._limit, max(self._min_of_burst, self._limit - 1)))  # never above the present limit
        if is_filled or self._threshold < math.inf:
            self._threshold, self._successes_since_cut = self._limit, 0

    def restore(self) -> None:
        """Return to a tenth below the remembered limit: a server that throttles everything shows no limit."""
        self._set(math.ceil(self._before_throttling * _CUT))
        self._threshold, self._successes_since_cut = self._limit, 0

    def _set(self, limit: float) -> None:
        self._limit = min(float(self.ceiling), max(1.0, limit))
        self.value = int(self._limit)
        has_reserve = self.value >= _MIN_LIMIT_WITH_RESERVE
        min_limit = _MIN_LIMIT_WITH_FREE_RESERVE if self.value < self.ceiling else _MIN_LIMIT_WITH_BULK_RESERVE
        self.value_for_bulk = self.value - (self.value >= min_limit) - has_reserve
        self.per_endpoint = self.value - has_reserve
        self.interactive_per_endpoint = self.value - self.value // _INTERACTIVE_RESERVE * has_reserve


def pause_after(limit: float) -> float | None:
    """Return the pause after a throttling response without a time: a second if two requests at once are too fast."""
    return _PAUSE_S if limit < _MIN_LIMIT_WITHOUT_PAUSE else None

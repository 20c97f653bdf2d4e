"""What the live view shows: the progress of a backfill, the state of its client, and samples of the last minutes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import date

import attrs

from podero_async.backfill import Progress
from podero_async.models import ClientStatistics

__all__ = ["EVERY_S", "MAX_SAMPLES", "Sample", "Watch"]

EVERY_S = 2.0
"""Seconds between two samples."""
MAX_SAMPLES = 150
_RATE_OVER = 15
"""Samples over which speeds are computed: half a minute."""


@attrs.frozen
class Sample:
    """The state at one moment."""

    at_s: float
    """Of the clock."""
    requests: int
    received: int
    """Windows of vehicles."""
    in_flight: int
    limit: int
    is_paused: bool


@attrs.define(kw_only=True)
class Watch:
    """Takes samples of a backfill; reading it costs the backfill nothing, and changes nothing."""

    progress: Progress
    statistics: Callable[[], ClientStatistics]
    from_date: date
    to_date: date
    clock: Callable[[], float] = time.monotonic
    started: float = attrs.field(factory=time.time)
    """Seconds of Unix time."""
    samples: deque[Sample] = attrs.field(factory=lambda: deque(maxlen=MAX_SAMPLES + 1), init=False)
    _started_s: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._started_s = self.clock()
        self.take_sample()

    @property
    def seconds(self) -> float:
        """The age of the run."""
        return self.clock() - self._started_s

    def take_sample(self) -> None:
        """Remember the state of now; the oldest sample beyond the maximum is dropped."""
        now = self.statistics()
        self.samples.append(
            Sample(self.clock(), now.requests, self.progress.received, now.in_flight, now.limit, now.paused_for_s > 0)
        )

    def requests_per_second(self) -> float:
        """Return the mean rate of the last half minute."""
        return self._speed(lambda sample: sample.requests)

    def seconds_left(self) -> float | None:
        """Return how long the rest takes at the speed of the last half minute; None if that is not known."""
        speed = self._speed(lambda sample: sample.received)
        return (self.progress.work_items - self.progress.received) / speed if speed else None

    def _speed(self, count: Callable[[Sample], int]) -> float:
        first, last = self.samples[max(0, len(self.samples) - 1 - _RATE_OVER)], self.samples[-1]
        return (count(last) - count(first)) / (last.at_s - first.at_s) if last.at_s > first.at_s else 0.0

    def rates(self) -> list[float]:
        """Return the requests per second between each two samples."""
        return [
            (after.requests - before.requests) / max(after.at_s - before.at_s, 1e-3)
            for before, after in zip(self.samples, list(self.samples)[1:], strict=False)
        ]

"""Deadlines of many awaits at once, watched by one timer: timers for each would cost as much as decoding a small page.

Knows tasks only. A deadline ends like `asyncio.timeout`: its task is cancelled, and what comes out is a `TimeoutError`,
unless somebody else cancelled the task as well.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

import attrs

from podero_async._validation import positive

__all__ = ["Deadline", "Deadlines", "Timeouts"]

_LATE_S = 0.05


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long one attempt may take, in seconds. Waiting for a place or a token does not count.

    Args:
        connect: To reach the server, TLS included.
        read: To the first piece of an answer, connecting and the wait in a lent session's pool included, and between two
            pieces.
        total: All of it, the last byte included.
    """

    connect: float = attrs.field(default=10.0, validator=positive)
    read: float = attrs.field(default=30.0, validator=positive)
    total: float = attrs.field(default=60.0, validator=positive)


class Deadlines:
    """Those that are under way in one event loop."""

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._is_closed = False
        self._has_waited = False

    def close(self) -> None:
        """Leave no timer behind, as soon as those that are under way have ended. None may start any more."""
        self._is_closed = True
        self._rest()

    def start(self, deadline: Deadline) -> None:
        """Watch a deadline."""
        self._running.add(deadline)
        if deadline.at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._set_timer(deadline.at)

    def end(self, deadline: Deadline) -> None:
        """Watch it no longer. The timer stays: the next deadline is mostly later, and then it costs nothing."""
        self._running.discard(deadline)
        if self._is_closed:
            self._rest()

    def _rest(self) -> None:
        if self._timer is not None and not self._running:
            self._timer.cancel()

    def _set_timer(self, at: float) -> None:
        self._timer, self._timer_at = asyncio.get_running_loop().call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        now = max(asyncio.get_running_loop().time(), self._timer_at)  # some clocks are coarser than their timers
        self._has_waited = now - self._timer_at > _LATE_S and not self._has_waited
        if self._has_waited:
            self._set_timer(now + _LATE_S)  # the loop stood still: what came meanwhile is progress yet to be noted
            return
        for deadline in [each for each in self._running if each.at <= now]:
            self._running.discard(deadline)
            deadline.expire()
        self._timer, self._timer_at = None, math.inf
        if self._running:
            self._set_timer(min(each.at for each in self._running))


class Deadline:
    """A context manager that a task may stay in for so many seconds, and so many without progress.

    Args:
        deadlines: Who watches it.
        total: Seconds for all of it.
        between: Seconds until the first progress, and from each to the next.
    """

    __slots__ = ("_between", "_cancelling", "_deadlines", "_end", "_is_over", "_loop", "_task", "at")

    def __init__(self, deadlines: Deadlines, *, total: float, between: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task")
        self._deadlines = deadlines
        self._task = task
        self._cancelling = task.cancelling()
        self._between = between
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._end = now + total
        self.at = min(self._end, now + between)

    def __enter__(self) -> Self:
        self._deadlines.start(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deadlines.end(self)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from None

    @property
    def is_cancelled_from_outside(self) -> bool:
        """Whether somebody else asked the task to end; to be asked once the deadline was left."""
        return self._task.cancelling() > self._cancelling

    def progress(self) -> None:
        """Note that there was some."""
        self.at = min(self._end, self._loop.time() + self._between)

    def expire(self) -> None:
        """Cancel the task."""
        self._is_over = True
        self._task.cancel()

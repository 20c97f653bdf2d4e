"""How long one attempt may take."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

import attrs

from podero_async._validation import positive

__all__ = ["AttemptTimeout", "AttemptTimer", "Timeouts"]

_HURRY_S = 5.0


@attrs.frozen(kw_only=True)
class Timeouts:
    """Timeouts of one attempt, in seconds. Waiting for a slot of the limiter or for a token does not count.

    The attempts of single calls also end at the `max_elapsed` of the `RetryPolicy`.

    Args:
        connect: To connect to the server, TLS included.
        read: Until the first byte of the response, which includes connecting and waiting for a connection of a lent
            session's pool; then between two chunks of the body.
        total: Until the last byte of the response.
    """

    connect: float = attrs.field(default=10.0, validator=positive)
    read: float = attrs.field(default=30.0, validator=positive)
    total: float = attrs.field(default=60.0, validator=positive)


class AttemptTimer:
    """One timer of the event loop for all attempts of a client: one for each costs 2 % of a small request.

    It is set for the earliest deadline. It is not cancelled when that attempt ends, because the next one needs it, too.
    """

    def __init__(self) -> None:
        self.attempts: set[AttemptTimeout] = set()
        """The attempts that expire at their deadlines."""
        self.at = math.inf
        """The time when the timer fires."""
        self._timer: asyncio.TimerHandle | None = None

    def fire_at(self, at: float) -> None:
        """Fire at a time that is earlier than the one that was set."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.at = asyncio.get_running_loop().call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        now = max(self.at, asyncio.get_running_loop().time())  # the clock may be coarser than the timer
        self._timer, self.at = None, math.inf
        for attempt in [attempt for attempt in self.attempts if attempt.deadline <= now]:
            self.attempts.remove(attempt)
            attempt.expire()
        if self.attempts:
            self.fire_at(min(attempt.deadline for attempt in self.attempts))


class AttemptTimeout:
    """Applies `read` and `total` to the task that enters it, as a context. Raises `TimeoutError` when one has passed.

    A cancellation by anyone else stays a cancellation, even if it comes at the same moment.

    Args:
        timeouts: The timeouts.
        timer: The timer of the client.
        left_s: Seconds that the call has left, if they are bounded.
    """

    __slots__ = (
        "_cancelling",
        "_end",
        "_is_hurried",
        "_left_s",
        "_loop",
        "_reason",
        "_task",
        "_timeouts",
        "_timer",
        "deadline",
    )

    def __init__(self, timeouts: Timeouts, timer: AttemptTimer, left_s: float = math.inf) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a request must be sent from a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._timeouts = timeouts
        self._timer = timer
        now = self._loop.time()
        self._left_s = left_s
        self._end = now + min(timeouts.total, left_s)
        self.deadline = min(self._end, now + timeouts.read)
        self._reason = ""
        self._is_hurried = False

    def __enter__(self) -> Self:
        self._timer.attempts.add(self)
        if self.deadline < self._timer.at:
            self._timer.fire_at(self.deadline)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.attempts.discard(self)
        if self._reason and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from None

    @property
    def reason(self) -> str:
        """The timeout that has passed, in words."""
        # aiohttp applies the connect timeout.
        return self._reason or f"no connection within {self._timeouts.connect:g} s (connect timeout)"

    @property
    def is_task_cancelled(self) -> bool:
        """Whether something else has cancelled the task since the attempt began. Valid after the context has been left."""
        return self._task.cancelling() > self._cancelling

    def progress(self) -> None:
        """Start `read` anew, since a chunk arrived."""
        self.deadline, self._is_hurried = min(self._end, self._loop.time() + self._timeouts.read), False
        if self.deadline < self._timer.at:  # it was held
            self._timer.fire_at(self.deadline)

    def hurry(self) -> None:
        """Expire in a few seconds without further progress, since other attempts wait for this one."""
        hurried = self._loop.time() + _HURRY_S
        if hurried < self.deadline:
            self.deadline, self._is_hurried = hurried, True
            if hurried < self._timer.at:
                self._timer.fire_at(hurried)

    def hold(self) -> None:
        """Apply only `total` until the next progress, while the client itself does not read."""
        self.deadline = self._end

    def expire(self) -> None:
        """Cancel the task, since a timeout has passed."""
        if self._is_hurried:
            self._reason = "the response came too slowly while others waited for it"
        elif self.deadline < self._end:
            self._reason = f"no response within {self._timeouts.read:g} s (read timeout)"
        elif self._left_s < self._timeouts.total:
            self._reason = f"no response within {max(0.0, self._left_s):.3g} s (the rest of max_elapsed)"
        else:
            self._reason = f"no complete response within {self._timeouts.total:g} s (total timeout)"
        self._task.cancel()

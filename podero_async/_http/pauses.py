"""Requests that are not sent: since no slot was free in time, or a `Retry-After` above the maximum pause has not passed."""

from __future__ import annotations

import asyncio
import logging
import math

from podero_async._flow.queue import NoSlotError
from podero_async._flow.retry import Call, NotRetriedError
from podero_async.errors import ApiError, RateLimitError, TransportError
from podero_async.observer import Observer, Pause

__all__ = ["LongPauses", "not_sent"]

_TOO_MANY_REQUESTS = 429
_logger = logging.getLogger("podero_async")


class LongPauses:
    """Record the long pauses that the server asks for, one per HTTP method: token requests are POST, all others GET.

    Attributes:
        max_pause_s: The longest `Retry-After` that the limiter waits for.
    """

    def __init__(self, max_pause_s: float, observer: Observer | None = None) -> None:
        self.max_pause_s = max_pause_s
        self._observer = observer
        self._blocked_until = {"GET": -math.inf, "POST": -math.inf}

    def blocked_until(self, method: str) -> float:
        """Return the time before which no request of a method is sent, on the clock of the event loop."""
        return self._blocked_until[method]

    def record(self, error: ApiError) -> bool:
        """Record the pause that a throttling response asks for, unless the limiter waits for it; return whether it is long.

        The limiter waits for GET requests only.
        """
        wait_s = error.retry_after or 0.0
        is_long = wait_s > self.max_pause_s
        if is_long or (error.method == "POST" and wait_s):
            error.affects_all_calls = is_long
            until = asyncio.get_running_loop().time() + wait_s
            self._blocked_until[error.method] = max(self._blocked_until[error.method], until)
            message = "HTTP %s: no %s request is sent for %.0f s, as the server asked"
            _logger.warning(message, error.status, error.method, wait_s)
            if self._observer is not None:
                self._observer.paused(Pause(seconds=wait_s, is_long=True))
        return is_long

    def left_s(self, method: str) -> float:
        """Return how many seconds are left of the pause of a method; 0 without one."""
        return max(0.0, self._blocked_until[method] - asyncio.get_running_loop().time())

    def check(self, method: str, path: str) -> None:
        """Raise if a recorded pause has not passed yet.

        Raises:
            NotRetriedError: It wraps a `RateLimitError` with the seconds that are left.
        """
        if self._blocked_until[method] == -math.inf:
            return
        if error := self.error(method, path):
            raise NotRetriedError(error)

    def error(self, method: str, path: str) -> RateLimitError | None:
        """Return the error of a request that is not sent because of a recorded pause; None if the pause has passed."""
        left_s = self.left_s(method)
        if not left_s:
            return None
        detail = "nothing was sent: the server asked for no requests until its Retry-After has passed"
        error = RateLimitError(_TOO_MANY_REQUESTS, detail, method, path, None, left_s)
        error.attempts = 0
        error.affects_all_calls = method == "GET" or left_s > self.max_pause_s
        return error


def not_sent(error: NoSlotError, path: str, call: Call) -> Exception:
    """Return the error of a call that got no slot: that of its last attempt, unless it is known when to call again."""
    call.attempts -= 1  # this one was not sent
    if call.last_error is not None and error.retry_after is None:
        call.last_error.attempts = call.attempts  # type: ignore[attr-defined]  # a request's error
        return NotRetriedError(call.last_error)
    if error.is_outage:
        return TransportError(f"the API is unavailable: {error.reason}", "GET", path, retryable=False)
    detail = f"the request was not sent: {error.reason}"
    limited = RateLimitError(_TOO_MANY_REQUESTS, detail, "GET", path, None, error.retry_after)
    limited.attempts = call.attempts
    return NotRetriedError(limited)

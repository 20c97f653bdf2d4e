"""How long one attempt may take."""

from __future__ import annotations

import asyncio

import attrs

from podero_async._validation import positive

__all__ = ["AttemptTimeout", "Timeouts"]


@attrs.frozen(kw_only=True)
class Timeouts:
    """Timeouts of one attempt, in seconds. Waiting for a slot of the limiter or for a token does not count.

    Args:
        connect: To connect to the server, TLS included.
        read: Until the first byte of the response, which includes connecting and waiting for a connection of a lent
            session's pool; then between two chunks of the body.
        total: Until the last byte of the response.
    """

    connect: float = attrs.field(default=10.0, validator=positive)
    read: float = attrs.field(default=30.0, validator=positive)
    total: float = attrs.field(default=60.0, validator=positive)


class AttemptTimeout:
    """Applies `read` and `total` to one attempt, with one `asyncio.timeout` that is moved when a chunk arrives.

    Attributes:
        context: The `asyncio.timeout`. It raises `TimeoutError` only if nothing else cancelled the task.
    """

    __slots__ = ("_cancelling", "_end", "_loop", "_read_s", "_task", "context")

    def __init__(self, timeouts: Timeouts) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request must be sent from a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._read_s = timeouts.read
        self._end = self._loop.time() + timeouts.total
        self.context = asyncio.timeout_at(self._next_deadline())

    @property
    def is_task_cancelled(self) -> bool:
        """Whether something else has cancelled the task since the attempt began. Valid after `context` has been left."""
        return self._task.cancelling() > self._cancelling

    def progress(self) -> None:
        """Start `read` anew, since a chunk arrived."""
        self.context.reschedule(self._next_deadline())

    def _next_deadline(self) -> float:
        return min(self._end, self._loop.time() + self._read_s)

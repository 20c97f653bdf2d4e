"""SIGINT, SIGTERM and SIGHUP: they end a command, at once or when it is ready, and also while it blocks."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType
from typing import Any, ParamSpec, TextIO, TypeVar

import attrs

from podero_async.cli._runtime import Exit, OutputError, discard, say

__all__ = ["Interrupted", "Signals", "StandardOutput"]

P = ParamSpec("P")
T = TypeVar("T")

_EXITS = {"SIGHUP": Exit.HANGUP, "SIGINT": Exit.INTERRUPTED, "SIGTERM": Exit.TERMINATED}
_EXIT_OF = {getattr(signal, name): code for name, code in _EXITS.items() if hasattr(signal, name)}


class Interrupted(BaseException):
    """Raised when a signal has ended the command. Not an `Exception`, so that no error handler catches it."""


@attrs.define
class Signals:
    """The signals of one command. The first one asks it to end; a second Ctrl-C, or too long a wait, ends the process.

    As process 1 of a container, a process gets only the signals that it handles. So these are handled to the last line of
    `main` (before, by `_entry`), by functions in Python, which can end a blocked read or write.
    """

    shutdown_s: float
    """Seconds from the first signal to the forced end of the process."""
    event: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    """Set by the first signal."""
    exit: Exit = attrs.field(default=Exit.INTERRUPTED, init=False)
    """The exit code of the first signal."""
    on_forced_end: list[Callable[[], object]] = attrs.field(factory=list, init=False)
    """Called before a forced end, such as to remove a temporary directory."""
    _is_graceful: bool = attrs.field(default=False, init=False)
    _is_blocked: bool = attrs.field(default=False, init=False)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _task: asyncio.Task[Any] | None = attrs.field(default=None, init=False)
    _end: float = attrs.field(default=math.inf, init=False)
    """When the process is ended by force, in seconds of the monotonic clock."""
    _timer: threading.Timer | None = attrs.field(default=None, init=False)
    _before: dict[int, Any] = attrs.field(factory=dict, init=False)
    """The previous handlers of the handled signals."""

    @property
    def left_s(self) -> float:
        """How many seconds are left until the forced end; infinite before the first signal."""
        return self._end - monotonic()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals while the block runs; outside of the main thread, they keep their usual effect.

        A signal that the caller ignores, as `nohup` does with SIGHUP, stays ignored.
        """
        with suppress(ValueError):
            for number in _EXIT_OF:
                if (handler := signal.getsignal(number)) is not signal.SIG_IGN:
                    signal.signal(number, self._handle)
                    self._before[number] = handler
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for number, handler in self._before.items():
                signal.signal(number, handler)

    async def supervise(self, command: Coroutine[Any, Any, Exit]) -> Exit:
        """Run the coroutine of a command; the first signal cancels it, unless it runs `gracefully`.

        Raises:
            Interrupted: A signal has cancelled it.
        """
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            with self._waking(self._loop):
                return await command
        except asyncio.CancelledError:
            if self.event.is_set():
                raise Interrupted from None
            raise
        finally:
            self._loop = None

    @contextmanager
    def _waking(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Let signals wake the event loop, even if they arrive just before the loop begins to wait."""
        with suppress(NotImplementedError, RuntimeError):
            for number in self._before:
                loop.add_signal_handler(number, lambda: None)
                signal.signal(number, self._handle)
        try:
            yield
        finally:
            with suppress(NotImplementedError, RuntimeError):
                for number in self._before:
                    loop.remove_signal_handler(number)
                    signal.signal(number, self._handle)

    @contextmanager
    def gracefully(self) -> Iterator[Signals]:
        """Let the first signal only set `event` while the block runs; the block ends by itself."""
        self._is_graceful = True
        try:
            yield self
        finally:
            self._is_graceful = False

    def blocked(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Call a function that may block the event loop, such as a read or write.

        Raises:
            Interrupted: A signal has ended the call. While the command runs `gracefully`, only the forced end does.
        """
        self._is_blocked = True
        try:
            return call(*args, **options)
        finally:
            self._is_blocked = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._timer is not None:
            if number == signal.SIGINT:
                self._leave("stopped at once; committed data is safe", Exit.INTERRUPTED)
            return
        self.exit, self._end = _EXIT_OF[number], monotonic() + self.shutdown_s
        # A thread of its own ends the process even if the event loop is blocked.
        self._timer = threading.Timer(self.shutdown_s, self._time_out)
        self._timer.daemon = True
        self._timer.start()
        if self._loop is None or (self._is_blocked and not self._is_graceful):
            raise Interrupted
        self._loop.call_soon_threadsafe(self._ask)

    def _ask(self) -> None:
        self.event.set()
        if not self._is_graceful and self._task is not None:
            self._task.cancel()

    def _time_out(self) -> None:
        self._leave("shutdown timed out; committed data is safe", self.exit)

    def _leave(self, message: str, code: Exit) -> None:
        """End the process without closing anything. The store treats this as a crash, and loses nothing committed."""
        if sys.__stderr__ is not None and sys.__stderr__.isatty():
            sys.__stderr__.write("\x1b[?25h\n")  # a progress bar hides the cursor
        say(message)
        for clean_up in self.on_forced_end:
            clean_up()
        if not self._is_blocked:
            sys.stdout.flush()
        os._exit(code)


@attrs.frozen
class StandardOutput:
    """Stdout whose errors are `OutputError`, unlike those of other files, and whose writes a signal can end."""

    stream: TextIO
    signals: Signals

    def write(self, text: str) -> int:
        """Write a text."""
        return self.do(self.stream.write, text)

    def flush(self) -> None:
        """Write the buffered text."""
        self.do(self.stream.flush)

    def write_bytes(self, chunk: bytes) -> None:
        """Write bytes."""
        self.do(self.stream.buffer.write, chunk)

    def do(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Call a method of the stream.

        Raises:
            OutputError: The stream cannot be written to.
            Interrupted: A signal has ended a write that blocked; later writes are discarded.
        """
        try:
            return self.signals.blocked(call, *args, **options)
        except Interrupted:
            discard(self.stream)
            raise
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

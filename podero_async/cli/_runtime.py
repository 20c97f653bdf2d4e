"""The process around a command: exit codes, error lines, standard streams, the event loop, and signals."""

from __future__ import annotations

import asyncio
import enum
import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import attrs

__all__ = [
    "Exit",
    "StopRequest",
    "UsageError",
    "discard",
    "in_one_line",
    "interruptible_read",
    "open_missing_streams",
    "run_loop",
    "say",
    "stop_on_signals",
]


class Exit(enum.IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    INCOMPLETE = 1
    USAGE = 2
    CREDENTIALS = 3
    API = 4
    STORE = 5
    PROVISIONAL = 6
    INTERRUPTED = 130
    TERMINATED = 143


class UsageError(Exception):
    """Raised by a command if its arguments cannot be used."""


def say(message: object) -> None:
    """Write one line to stderr. If stderr cannot be written to, only the exit code tells of an error."""
    try:
        print(f"podero-async: {in_one_line(message)}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def in_one_line(text: object) -> str:
    """Return a text without line breaks and control characters, since parts of it may come from a server."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def run_loop(command: Coroutine[Any, Any, Exit]) -> Exit:
    """Run a command on a new event loop, uvloop's if it is installed."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(command)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return uvloop.new_event_loop


def discard(stream: TextIO) -> None:
    """Redirect the stream to /dev/null, so that flushing at interpreter exit cannot fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def open_missing_streams() -> None:
    """Open stdin, stdout and stderr if the caller closed them; otherwise a store's file gets their numbers.

    Characters that stdout's encoding does not have are written as escapes.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


_EXIT_OF = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


@attrs.define
class StopRequest:
    """Whether a signal asked the command to stop, and the exit code for that signal."""

    shutdown_s: float
    event: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    exit: Exit = attrs.field(default=Exit.INTERRUPTED, init=False)
    _timer: asyncio.TimerHandle | None = attrs.field(default=None, init=False)

    def receive(self, number: signal.Signals) -> None:
        """Set the event when the first signal arrives, and end the process when a SIGINT follows."""
        if not self.event.is_set():
            self.event.set()
            self.exit = _EXIT_OF[number]
            self._timer = asyncio.get_running_loop().call_later(self.shutdown_s, self._time_out)
        elif number is signal.SIGINT:
            _leave("stopped at once; committed data is safe", Exit.INTERRUPTED)

    def close(self) -> None:
        """Cancel the forced end, when the command has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _time_out(self) -> None:
        _leave("shutdown timed out; committed data is safe", self.exit)


@contextmanager
def stop_on_signals(shutdown_s: float) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request to stop while the block runs.

    If the block does not end within `shutdown_s` seconds, or when a second SIGINT arrives, the process ends by force.
    On Windows, and if this is not the main thread, signals keep their usual effect.
    """
    loop, stop, before = asyncio.get_running_loop(), StopRequest(shutdown_s), {}
    with suppress(NotImplementedError, RuntimeError, ValueError):
        for number in _EXIT_OF:
            handler = signal.getsignal(number)
            loop.add_signal_handler(number, stop.receive, number)
            before[number] = handler
    try:
        yield stop
    finally:
        stop.close()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextmanager
def interruptible_read() -> Iterator[None]:
    """Let one Ctrl-C end a blocking read in the block; it takes two when asyncio's handler is set."""
    before = signal.getsignal(signal.SIGINT)
    with suppress(ValueError):  # outside of the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, before)


def _leave(message: str, code: Exit) -> None:
    """End the process without cleaning up. The store treats this as a crash, and loses nothing committed."""
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        sys.__stderr__.write("\x1b[?25h\n")  # a progress bar hides the cursor
    say(message)
    sys.stdout.flush()
    os._exit(code)

"""SIGINT and SIGTERM as a wish to stop: the first ends the work in order, a second SIGINT the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import attrs

from podero_async.cli._runtime import Exit, say

__all__ = ["StopWish", "ends_on_ctrl_c", "wishes_to_stop"]

_MAX_S = 4.5
"""That the work may take to end: whoever sent the signal waits five seconds, and then kills."""
_EXITS = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


@attrs.define
class StopWish:
    """Whether somebody wants the work to end, and with which exit code the process then does."""

    event: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    exit: Exit = attrs.field(default=Exit.INTERRUPTED, init=False)
    _timer: asyncio.TimerHandle | None = attrs.field(default=None, init=False)

    def take(self, number: signal.Signals) -> None:
        """Note a signal."""
        if not self.event.is_set():
            self.event.set()
            self.exit = _EXITS[number]
            self._timer = asyncio.get_running_loop().call_later(_MAX_S, self._give_up)
        elif number is signal.SIGINT:
            _leave("stopped at once; what was committed stays", Exit.INTERRUPTED)

    def settle(self) -> None:
        """Note that the work has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        _leave("the end took too long, and was not waited for; what was committed stays", self.exit)


@contextmanager
def wishes_to_stop() -> Iterator[StopWish]:
    """Take the signals of this process, within."""
    loop, wish, before = asyncio.get_running_loop(), StopWish(), {}
    # Windows: Ctrl-C interrupts, instead. And where `main` runs in a thread, signals are the main thread's.
    with suppress(NotImplementedError, RuntimeError, ValueError):
        for number in _EXITS:
            handler = signal.getsignal(number)
            loop.add_signal_handler(number, wish.take, number)
            before[number] = handler
    try:
        yield wish
    finally:
        wish.settle()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextmanager
def ends_on_ctrl_c() -> Iterator[None]:
    """Let one Ctrl-C end a read that blocks: the event loop would only note it until the read is over."""
    before = signal.getsignal(signal.SIGINT)
    with suppress(ValueError):  # in a thread: signals are the main thread's
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, before)


def _leave(message: str, code: Exit) -> None:
    """End the process as it stands. The store takes that as it takes any crash: what was committed is right."""
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        sys.__stderr__.write("\x1b[?25h\n")  # a bar hides the cursor
    say(message)
    sys.stdout.flush()
    os._exit(code)

"""The entry point: handles signals, and only then imports the command line, which takes half a second."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["main"]

_SIGNALS = ("SIGHUP", "SIGINT", "SIGTERM")


def main(argv: Sequence[str] | None = None, **options: Any) -> int:
    """Run one command, and return the exit code of the process.

    Args:
        argv: The arguments after the program's name; None takes those of the process.
        options: See `podero_async.cli._main.main`.
    """
    with _ending_at_signals():
        from podero_async.cli._main import main as run  # noqa: PLC0415 - after the signals

        return run(argv, **options)


@contextmanager
def _ending_at_signals() -> Iterator[None]:
    """End the process at a signal, until the command handles them: process 1 of a container would not get it.

    A signal that the caller ignores stays ignored; outside of the main thread, they keep their usual effect.
    """
    before: dict[int, Any] = {}
    with suppress(ValueError):
        for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
            if (handler := signal.getsignal(number)) is not signal.SIG_IGN:
                signal.signal(number, _leave)
                before[number] = handler
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _: FrameType | None) -> None:
    """End the process; an exception could be lost in the module that is being imported."""
    with suppress(OSError):
        os.write(2, b"podero-async: interrupted\n")
    os._exit(128 + number)

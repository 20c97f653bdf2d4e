"""The process around a command: exit codes, error lines, standard streams, and the event loop."""

from __future__ import annotations

import asyncio
import enum
import io
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TextIO

__all__ = [
    "MESSAGES",
    "Exit",
    "OutputError",
    "UsageError",
    "discard",
    "in_one_line",
    "open_missing_streams",
    "run_loop",
    "say",
]

MESSAGES = logging.getLogger("podero_async_cli")
"""Gets the lines of `say`, summaries and ends of commands, for a log file. Not below the library's logger, since they may quote arguments."""
MESSAGES.setLevel(logging.INFO)
MESSAGES.propagate = False
MESSAGES.addHandler(logging.NullHandler())  # without any, logging would write the lines to stderr


class Exit(enum.IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    INCOMPLETE = 1
    USAGE = 2
    CREDENTIALS = 3
    API = 4
    STORE = 5
    PROVISIONAL = 6
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class UsageError(Exception):
    """Raised by a command if its arguments cannot be used."""


class OutputError(OSError):
    """Raised if stdout cannot be written to."""


def say(message: object) -> None:
    """Write one line to stderr. If stderr cannot be written to, only the exit code tells of an error."""
    text = in_one_line(message)
    MESSAGES.warning("%s", text)
    try:
        print(f"podero-async: {text}", file=sys.stderr, flush=True)
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

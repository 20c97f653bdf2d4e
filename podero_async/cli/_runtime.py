"""What a command owes to the process that it runs in: exit codes, one line for an error, an event loop."""

from __future__ import annotations

import asyncio
import enum
import io
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TextIO

__all__ = ["Exit", "UsageError", "discard", "in_one_line", "ready_streams", "run_loop", "say"]


class Exit(enum.IntEnum):
    """How a command ends."""

    DONE = 0
    INCOMPLETE = 1
    USAGE = 2
    CREDENTIALS = 3
    API = 4
    STORE = 5
    INTERRUPTED = 130
    TERMINATED = 143


class UsageError(Exception):
    """What was asked for cannot be done, whatever the API says."""


def say(message: object) -> None:
    """Write one line to stderr; where nobody can read it, the exit code still tells."""
    try:
        print(f"podero-async: {in_one_line(message)}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def in_one_line(text: object) -> str:
    """Return a text without line breaks and control characters: parts of it may come from a server."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def run_loop(command: Coroutine[Any, Any, Exit]) -> Exit:
    """Run a command on an event loop of its own, the fastest that is installed."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(command)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return uvloop.new_event_loop


def discard(stream: TextIO) -> None:
    """Send what is still buffered nowhere: the interpreter would trip over it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def ready_streams() -> None:
    """Open stdin, stdout and stderr where the caller closed them: a store's file would get their numbers.

    Letters that a stream's encoding does not have are written as escapes.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")

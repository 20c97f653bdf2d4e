"""Lets errors out without the frames they came through: tracebacks are shown with locals, and those hold secrets."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Self

from podero_async.errors import PoderoError

__all__ = ["Secret", "SecretBytes", "as_secret", "strip_traceback"]


class Secret(str):
    """A text that no repr shows, and so no traceback with locals, whose ever; written or formatted it is what it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class SecretBytes(bytes):
    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


def as_secret(value: str) -> str:
    """Hide a text; what is none will be refused."""
    return Secret(value) if isinstance(value, str) else value


class strip_traceback:  # noqa: N801  # it reads as what it does
    """Whatever fails inside, its error comes out without the frames below, this function's own included.

    Tokens, headers and bodies are locals there, ours and aiohttp's, and of the errors that an error was made from. What
    its caller was handling stays its context. A cancellation comes out bare, too, since a timeout makes it a cause.
    Of what was not foreseen the frames are kept: they say where the defect is.
    """

    __slots__ = ("_handled",)

    def __enter__(self) -> Self:
        self._handled = sys.exception()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, PoderoError | asyncio.CancelledError):
            # With what remains the interpreter goes on: the frame that the `with` stands in is not added again.
            error.__traceback__ = error.__cause__ = None
            error.__context__ = self._handled
            error.__suppress_context__ = False  # which setting a cause has changed

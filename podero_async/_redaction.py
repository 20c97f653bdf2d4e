"""Lets errors out without the frames they came through: tracebacks are shown with locals, and those hold secrets."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Self

from podero_async.errors import PoderoError

__all__ = ["without_frames"]


class without_frames:  # noqa: N801  # it reads as what it does
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

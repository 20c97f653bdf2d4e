"""Secret strings, and errors without the tracebacks that would show secrets."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Self

from podero_async.errors import PoderoError

__all__ = ["Secret", "SecretBytes", "as_secret", "strip_traceback"]


class Secret(str):
    """A `str` with the `repr` `'***'`, so that secrets stay out of reprs and tracebacks.

    `str()`, formatting and JSON encoding give the real value.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class SecretBytes(bytes):
    """The same for `bytes`, if a request body holds credentials."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


def as_secret(value: str) -> str:
    """Wrap a string as a `Secret`; leave any other value for the validator to reject."""
    return Secret(value) if isinstance(value, str) else value


class strip_traceback:  # noqa: N801  # used like a function, as `contextlib.suppress` is
    """Strip the traceback from any `PoderoError` or `CancelledError` that is raised inside the block.

    If an error report shows local variables, the inner frames (ours and aiohttp's) show tokens, headers and bodies.
    A cancellation is stripped because `asyncio.timeout` makes it the cause of its `TimeoutError`. If the caller was
    handling another exception, that one stays the context. Other exceptions keep their frames, since these locate a defect.
    """

    __slots__ = ("_handled",)

    def __enter__(self) -> Self:
        self._handled = sys.exception()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and isinstance(error, PoderoError | asyncio.CancelledError):
            # The interpreter re-raises the error as it is left here, without adding the current frame again.
            error.__traceback__ = error.__cause__ = None
            error.__context__ = self._handled
            error.__suppress_context__ = False  # assigning `__cause__` has set it to True

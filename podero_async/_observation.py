"""Tells a client's observer of its calls and attempts, and counts their requests.

Without an observer, coroutines and streams are returned as they are.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from time import perf_counter
from traceback import extract_tb
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import attrs

from podero_async.observer import Attempt, AttemptEnd, CallEnd, ObservedCall, Observer

__all__ = ["CallObservation", "Observation", "RequestStats", "guarded"]


class _Response(Protocol):
    status: int


T = TypeVar("T")
R = TypeVar("R", bound=_Response)

_logger = logging.getLogger("podero_async")


@attrs.define
class RequestStats:
    """Counts over all requests of one purpose, such as a vehicle or a discovery."""

    requests: int = 0
    retries: int = 0
    call: CallObservation | None = attrs.field(default=None, init=False, repr=False, eq=False)
    """The call that sends them; None without an observer."""

    def of_part(self) -> RequestStats:
        """Return counts for a part of the same call."""
        part = RequestStats()
        part.call = self.call
        return part

    def note(self, **fields: Any) -> None:
        """Note fields of the call's `CallEnd`."""
        if self.call is not None:
            self.call.fields |= fields


class CallObservation:
    """Tells an observer that a call begins, and that it has ended when the context is left.

    Until then, the requests that `stats` counts are requests of this call. If they were another call's before, that one
    is its parent.
    """

    __slots__ = ("_before", "_began", "_observer", "_outer", "_stats", "call", "fields", "origin")

    def __init__(self, observer: Observer, origin: str, name: str, stats: RequestStats, *, is_shared: bool) -> None:
        self._observer = observer
        self.origin = origin
        self._stats = stats
        self._before = (stats.requests, stats.retries)
        self._outer = stats.call
        self._began = 0.0
        parent: ObservedCall | None = None if self._outer is None else self._outer.call
        # To mypy, a `Self` among the arguments is not the class.
        self.call: ObservedCall = ObservedCall(name=name, parent=parent, is_shared=is_shared)  # type: ignore[arg-type]
        self.fields: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._stats.call = self
        self._observer.call_began(self.call)
        self._began = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        stats = self._stats
        stats.call = self._outer
        requests, retries = self._before
        fields = {"requests": stats.requests - requests, "retries": stats.retries - retries, **self.fields}
        error = None if kind is GeneratorExit else kind
        self._observer.call_ended(self.call, CallEnd(seconds=perf_counter() - self._began, error=error, **fields))

    async def attempt(self, sending: Awaitable[R], attempt: Attempt) -> R:
        """Send one of the call's requests, and tell the observer of it."""
        status = None
        self._observer.attempt_began(attempt)
        began = perf_counter()
        try:
            response = await sending
            status = response.status
            return response
        finally:
            error = sys.exception() if status is None else None
            end = AttemptEnd(
                seconds=perf_counter() - began, status=status, error=None if error is None else type(error)
            )
            self._observer.attempt_ended(attempt, end)


@attrs.frozen
class Observation:
    """The observation of one client.

    Attributes:
        observer: The observer, guarded; None if the client has none.
        origin: The origin of all requests.
    """

    observer: Observer | None
    origin: str

    def begin(self, name: str, stats: RequestStats) -> CallObservation | None:
        """Return the observation of a call, as a context to enter; None without an observer."""
        if self.observer is None:
            return None
        return CallObservation(self.observer, self.origin, name, stats, is_shared=False)

    def call(
        self,
        name: str,
        stats: RequestStats,
        calling: Coroutine[Any, Any, T],
        fields_of: Callable[[T], dict[str, Any]] | None = None,
        *,
        is_shared: bool = False,
    ) -> Coroutine[Any, Any, T]:
        """Return the coroutine of a call, observed if the client has an observer.

        Args:
            name: The name of the call.
            stats: Counts its requests.
            calling: Makes the call.
            fields_of: Returns fields of `CallEnd` for the result.
            is_shared: Whether the call serves all calls.
        """
        if self.observer is None:
            return calling
        observed = CallObservation(self.observer, self.origin, name, stats, is_shared=is_shared)
        return _observe(observed, calling, fields_of)

    def stream(self, name: str, stats: RequestStats, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Return the stream of a call's items, observed if the client has an observer."""
        observed = self.begin(name, stats)
        return items if observed is None else _observe_stream(observed, items)


async def _observe(
    observed: CallObservation, calling: Coroutine[Any, Any, T], fields_of: Callable[[T], dict[str, Any]] | None
) -> T:
    with observed:
        result = await calling
        if fields_of is not None:
            observed.fields |= fields_of(result)
        return result


async def _observe_stream(observed: CallObservation, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    with observed:
        async with aclosing(items):
            async for item in items:
                yield item


def guarded(observer: Observer) -> Observer:
    """Return an observer that passes all on to another one; the first error of that one is logged, and all are dropped."""
    guard, failures = Observer(), 0

    def protect(hook: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object) -> None:
            nonlocal failures
            try:
                hook(*args)
            except Exception as error:  # noqa: BLE001  # the caller's own code
                failures += 1
                if failures == 1:
                    # Without the traceback, whose context may be the error of a call.
                    frame = extract_tb(error.__traceback__)[-1]
                    where = f"{frame.filename}:{frame.lineno}"
                    _logger.warning("the observer failed in %s: %s: %s", where, type(error).__name__, error)

        return call

    for name in [name for name in vars(Observer) if not name.startswith("_")]:
        setattr(guard, name, protect(getattr(observer, name)))
    return guard

"""Operations in the store's thread that end soon after their caller is cancelled."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import attrs
import duckdb

from podero_async.backfill.errors import StoreError

__all__ = ["Interruptible", "run_interruptible"]

T = TypeVar("T")

_INTERRUPT_EVERY_S = 0.05  # a query that is just starting misses an interrupt


@attrs.define(kw_only=True)
class Interruptible(ABC, Generic[T]):
    """An operation that runs in the thread of the store and can be cancelled from the event loop."""

    target: str
    """The path that errors name."""
    _is_cancelled: bool = attrs.field(default=False, init=False)
    _is_begun: bool = attrs.field(default=False, init=False)
    _running: duckdb.DuckDBPyConnection | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @abstractmethod
    def work(self, con: duckdb.DuckDBPyConnection) -> T:
        """Do the work; each statement that may take long runs through `execute`."""

    def cancel(self) -> bool:
        """Cancel the operation; return whether it has begun, so that the caller must wait for its end.

        Call it again until the operation has ended: a query that is just starting misses an interrupt.
        """
        with self._lock:
            self._is_cancelled = True
            if self._running is not None:
                self._running.interrupt()
            return self._is_begun

    def run(self, con: duckdb.DuckDBPyConnection) -> T:
        """Do the work, unless the operation is cancelled already."""
        with self._lock:
            self.check()
            self._is_begun = True
        return self.work(con)

    def execute(self, con: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement, which a cancellation interrupts."""
        with self.interrupted(con):
            return con.execute(sql, list(values)).fetchall()

    @contextmanager
    def interrupted(self, con: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Let a cancellation interrupt the statements of the block."""
        try:
            with self._lock:
                self.check()
                self._running = con
            yield
        finally:
            with self._lock:  # an interrupt must not reach a later query of another caller
                self._running = None

    def check(self) -> None:
        """Check that the operation is not cancelled.

        Raises:
            StoreError: It is cancelled.
        """
        if self._is_cancelled:
            raise StoreError("the operation was cancelled", self.target)


async def run_interruptible(
    call: Callable[[Callable[[duckdb.DuckDBPyConnection], T]], Awaitable[T]], operation: Interruptible[T]
) -> T:
    """Run an operation in the thread of a store; if the caller is cancelled, wait until the operation has ended.

    Args:
        call: Runs a function on the connection in the thread.
        operation: The operation.
    """
    running = asyncio.ensure_future(call(operation.run))
    running.add_done_callback(_retrieve_error)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while operation.cancel() and not running.done():
            try:
                await asyncio.wait([running], timeout=_INTERRUPT_EVERY_S)
            except asyncio.CancelledError:
                continue  # cancelled again; the first cancellation is raised below
        running.cancel()  # it is queued behind another operation and will not begin
        raise


def _retrieve_error(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not log it after a cancellation

"""The store as callers hold it: one file, one thread that writes. Knows no SQL; what does is imported when it is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from podero_async.backfill.errors import StoreError
from podero_async.errors import ConfigurationError

if TYPE_CHECKING:
    import duckdb

    from podero_async.backfill.store.duckdb.export import Exported
    from podero_async.backfill.store.duckdb.queries import StoreStatus

__all__ = ["SessionStore"]

P = ParamSpec("P")
T = TypeVar("T")

_GIVEN_UP_EVERY_S = 0.05  # until an export takes note of it


class SessionStore:
    """A store of a fleet's charging sessions: one DuckDB file, opened by one process at a time.

    Used as `async with SessionStore("fleet.duckdb") as store`. Everything runs in one thread of its own, one call after
    the other, so the event loop is never blocked. A process that is killed at any moment leaves a store that is right.
    """

    def __init__(self, path: str | PathLike[str], *, read_only: bool = False, memory_limit_mb: int = 1024) -> None:
        """Name a store; nothing is opened yet.

        Args:
            path: The file, which is made where there is none; `:memory:` for a store that is gone when it is closed.
            read_only: Whether it may only be read: then it must exist, and other readers may have it open, too.
            memory_limit_mb: Most memory that the database takes for its buffers, in MB.
        """
        self.path = fspath(path)
        self._read_only = read_only
        self._memory_limit_mb = memory_limit_mb
        self._thread: ThreadPoolExecutor | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._resolved = Path()

    def __repr__(self) -> str:
        return f"SessionStore({self.path!r})"

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            ConfigurationError: What the extra `backfill` brings is not installed.
            StoreInUseError: Another process, or another `SessionStore`, has it open.
            NotAStoreError: The file is something else.
            StoreTooNewError: A later version of this library made it.
            StoreError: It cannot be opened for another reason.
        """
        if self._thread is not None:
            raise RuntimeError("a store is open already")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podero_async store")
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.aclose)
            await self._in_thread(self._open)
            undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store."""
        await self.aclose()

    async def aclose(self) -> None:
        """Finish what is being written, and close the file. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            # The thread takes one thing after the other: this comes behind whatever a cancelled caller left there.
            closing = asyncio.wrap_future(thread.submit(self._close))
            try:
                await asyncio.shield(closing)
            finally:
                thread.shutdown(wait=False)

    async def status(self) -> StoreStatus:
        """Say what the store holds: coverage, freshness, failures."""
        from podero_async.backfill.store.duckdb.queries import read_status  # noqa: PLC0415

        return await self.call(read_status, self.path)

    async def query(self, sql: str, values: Sequence[Any] | None = None) -> list[dict[str, Any]]:
        """Run one SQL query over the tables, and return its rows; times are aware datetimes in UTC, ids are texts.

        Raises:
            StoreError: The query is wrong.
        """
        from podero_async.backfill.store.duckdb.queries import read_rows  # noqa: PLC0415

        return await self.call(read_rows, sql, values)

    async def export(
        self,
        target: str | PathLike[str],
        format: Literal["parquet", "csv", "jsonl"] = "parquet",  # noqa: A002 - what it is
        *,
        partition_by: Literal["month"] | None = None,
        include_withdrawn: bool = True,
    ) -> Exported:
        """Write the table of sessions to a file; what was there before is replaced once the new one is whole.

        Where the caller is cancelled, the export ends at once and leaves nothing behind.

        Args:
            target: The file; with `partition_by`, a directory that must be empty or not exist yet.
            format: Times are UTC: of Parquet as such, of the others as ISO 8601 texts.
            partition_by: `month` makes one directory a month of `plug_in_time`: `month=2026-01/`.
            include_withdrawn: Whether sessions that the server shows no more are written, too.

        Raises:
            ValueError: There is no such format or partition.
            StoreError: The target cannot be written, or is the store itself.
        """
        from podero_async.backfill.store.duckdb.export import Export  # noqa: PLC0415

        export = Export(
            target=fspath(target),
            store=self._resolved,
            kind=format,
            partition_by=partition_by,
            include_withdrawn=include_withdrawn,
        )
        writing = asyncio.create_task(self.call(export.write), name="podero_async export")
        writing.add_done_callback(_note_error)
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            while export.give_up() and not writing.done():
                await asyncio.wait([writing], timeout=_GIVEN_UP_EVERY_S)
            writing.cancel()  # it waits behind another call, and will not begin
            raise

    async def call(
        self, work: Callable[Concatenate[duckdb.DuckDBPyConnection, P], T], /, *args: P.args, **options: P.kwargs
    ) -> T:
        """Run a function over the database in the store's thread: how this package's other rooms reach it.

        Where the caller is cancelled, the function still runs to its end.
        """
        from podero_async.backfill.store.duckdb.connection import translated  # noqa: PLC0415

        connection = self._connection
        if connection is None:
            raise StoreError("the store is not open", self.path)

        def do() -> T:
            with translated(self.path):
                return work(connection, *args, **options)

        return await self._in_thread(do)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise StoreError("the store is not open", self.path)
        return await asyncio.wrap_future(self._thread.submit(work))

    def _open(self) -> None:
        # The thread keeps what it opened: a caller who was cancelled meanwhile would leave it open for ever.
        try:
            import pyarrow  # type: ignore[import-untyped]  # noqa: F401, ICN001, PLC0415 - both must be there

            from podero_async.backfill.store.duckdb.connection import open_store  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(f"a store needs {error.name}: install podero_async[backfill]") from error
        self._resolved = Path(self.path).resolve()  # the process may go to another directory meanwhile
        self._connection = open_store(self.path, read_only=self._read_only, memory_limit_mb=self._memory_limit_mb)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            from podero_async.backfill.store.duckdb.connection import close_store, translated  # noqa: PLC0415

            with translated(self.path):
                close_store(connection, self._resolved)


def _note_error(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # whoever was cancelled does not ask

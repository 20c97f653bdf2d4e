"""The store as users hold it: an async context manager over the backend of a database."""

# Protocols are passed to `_backend_with`, which only checks against them.
# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from uuid import UUID

from podero_async import _validation as arguments
from podero_async._paging.window import Window
from podero_async.backfill._coverage import DayCounts
from podero_async.backfill.errors import StoreError
from podero_async.backfill.store._protocol import (
    StoreBackend,
    SupportsExport,
    SupportsForget,
    SupportsQuery,
    SupportsSnapshot,
)
from podero_async.backfill.store._status import Exported, RunStatus, StoreStatus
from podero_async.errors import ConfigurationError

if TYPE_CHECKING:
    from podero_async.backfill.store.duckdb import DuckDBBackend

__all__ = ["SessionStore"]

T = TypeVar("T")

_logger = logging.getLogger("podero_async")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SessionStore:
    """A store of a fleet's charging sessions: a DuckDB file that one process opens at a time.

    Use it as `async with SessionStore("fleet.duckdb") as store`. All operations run one after another in a thread of the
    store, so they do not block the event loop. If the process is killed, the store stays consistent.
    """

    def __init__(self, path: str | PathLike[str], *, read_only: bool = False, memory_limit_mb: int = 1024) -> None:
        """Describe a store without opening it.

        Args:
            path: The file, which is created if it does not exist; `:memory:` keeps the store in memory until it is closed.
            read_only: Whether to open an existing store for reading; other readers may open it at the same time.
            memory_limit_mb: The maximum size of the database's buffers, in MB.
        """
        self.path = fspath(path)
        self._read_only = read_only
        self._memory_limit_mb = memory_limit_mb
        self._backend: StoreBackend | None = None
        self.close_warning = ""
        """Set when the store is closed: a warning if its newest rows are still in the file `.wal`; otherwise empty."""

    def __repr__(self) -> str:
        return f"SessionStore({getattr(self, 'path', None)!r})"  # unset if __init__ failed

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            ConfigurationError: The extra `backfill` is not installed.
            StoreInUseError: Another process, or another `SessionStore` of this process, has the store open.
            NotAStoreError: The file is not a store.
            StoreTooNewError: A newer release of this library created the store.
            StoreError: The store cannot be opened for another reason.
        """
        backend_class = await _load_backend(self.path)
        if self._backend is not None:
            raise RuntimeError(f"the store is open already: {self.path}")
        backend = self._backend = backend_class(
            self.path, read_only=self._read_only, memory_limit_mb=self._memory_limit_mb
        )
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.aclose)
            await backend.open()
            undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store."""
        await self.aclose()

    async def aclose(self) -> None:
        """Finish the current operation and close the store. A second call does nothing.

        If the disk has no space to merge the newest rows into the file, they stay in the file `.wal` beside it, where all
        readers find them. Then `close_warning` says so, and is logged.
        """
        backend, self._backend = self._backend, None
        if backend is not None:
            self.close_warning = await backend.close()
            if self.close_warning:
                _logger.warning("%s", self.close_warning)

    @property
    def backend(self) -> StoreBackend:
        """The open database, for the modules of this package.

        Raises:
            StoreError: The store is not open.
        """
        if self._backend is None:
            raise StoreError("the store is not open", self.path)
        return self._backend

    async def status(self, now: Callable[[], datetime] = _utc_now) -> StoreStatus:
        """Return a summary of the store: its coverage, its age and its failures.

        Args:
            now: Returns the time, since days are counted up to today; for tests.
        """
        return await self.backend.status(now())

    async def days(
        self, from_date: date, to_date: date, *, include_hidden: bool = False, now: Callable[[], datetime] = _utc_now
    ) -> DayCounts:
        """Count the days of the known vehicles in a window by state: settled, provisional and missing.

        Days after today, and vehicles that have gone, are not counted.

        Args:
            from_date: First UTC day, inclusive.
            to_date: Last UTC day, inclusive.
            include_hidden: Whether to count only reads that included sessions hidden by the server.
            now: Returns the time; for tests.

        Raises:
            ValueError: The days are not a window.
        """
        window = Window.of(from_date, to_date, include_hidden=include_hidden)
        return await self.backend.count_window(window, now().astimezone(UTC).date())

    async def runs(self, limit: int | None = None) -> list[RunStatus]:
        """Return the records of the newest runs with their counts, the newest first; None returns all of them."""
        return await self.backend.runs(limit)

    async def query(self, sql: str, values: Sequence[Any] | None = None) -> list[dict[str, Any]]:
        """Run one SQL query over the tables and return its rows; times are aware datetimes in UTC, ids are texts.

        If the caller is cancelled, the query ends soon.

        Args:
            sql: The query; `?` stands for a value. Settings (`SET ...;`) may come before it.
            values: The values, in order.

        Raises:
            QueryError: The query is wrong, or a statement before the last one returns or changes rows; then none is run.
        """
        return await self._backend_with(SupportsQuery, "SQL queries").query(sql, values)

    def stream(
        self, sql: str, *, max_rows: int = 1_000
    ) -> AsyncGenerator[tuple[list[str], list[tuple[Any, ...]]], None]:
        """Run one SQL query; yield its column names with at most `max_rows` rows at a time, and with no rows at the end.

        Unlike `query`, it takes little memory. If the caller is cancelled, the query ends soon. Close the stream with
        `contextlib.aclosing`.

        Raises:
            QueryError: The query is wrong.
        """
        return self._backend_with(SupportsQuery, "SQL queries").stream(sql, max_rows)

    async def export(
        self,
        target: str | PathLike[str],
        format: Literal["parquet", "csv", "jsonl"] = "parquet",  # noqa: A002 - the field's term
        *,
        partition_by: Literal["month"] | None = None,
        include_withdrawn: bool = True,
        since: datetime | None = None,
        overwrite: bool = False,
    ) -> Exported:
        """Write the table of sessions to a file; an existing file is replaced after the new one is complete.

        If the caller is cancelled, the export ends at once and the target stays as it was. A pipe gets the rows as they
        are written. The columns are those of the table, without `absent_at`; the rows are in no particular order.

        An export by month that is repeated writes only the months in which the `changed_at` of a row has moved; the file
        `_podero_async.json` says which files the export has written. It removes no other file.

        The target may be an address in an object store, such as `s3://bucket/prefix`, `gs://...` or `abfss://...`.
        Credentials come from the environment, a profile or the instance. Each object is replaced when its new content is
        complete. If the export is cancelled, the current upload still runs to its end; if it is killed, the same call
        makes the export whole. One export at a time may write to an address. The file of one object has to fit into the
        directory for temporary files.

        Args:
            target: The file or address; with `partition_by`, a directory or prefix that is empty or does not exist yet.
            format: The file format. Ids are text. Times are UTC: timestamps in Parquet, ISO 8601 text in the other formats.
            partition_by: `month` writes a directory for each month of `plug_in_time`: `month=2026-01/`.
            include_withdrawn: Whether to write sessions that the server no longer returns, too.
            since: If given, only sessions whose `changed_at` is later are written.
            overwrite: With `partition_by`, whether to repeat an earlier export.

        Raises:
            ValueError: The format or the partition is unknown, or `since` has no time zone.
            ConfigurationError: The endpoint of the object store is not an origin, or plain http to a remote host.
            StoreError: The target cannot be written, it is a database, or it has files of others.
        """
        return await self._backend_with(SupportsExport, "export").export(
            fspath(target),
            format,
            partition_by=partition_by,
            include_withdrawn=include_withdrawn,
            since=since,
            overwrite=overwrite,
        )

    async def check_snapshot(self, target: str | PathLike[str]) -> None:
        """Check that `snapshot` can write to a file, for example before a long run. The file stays as it is.

        Raises:
            StoreError: The target cannot be written, or it is not a snapshot.
        """
        await self._backend_with(SupportsSnapshot, "snapshots").check_snapshot(fspath(target))

    async def snapshot(self, target: str | PathLike[str]) -> int:
        """Write a consistent copy of the store to a file, and return its size in bytes.

        An older snapshot is replaced when the new one is complete; a process that has the older one open keeps reading
        it. A snapshot is a store: open it with `read_only=True`, or with any tool that reads DuckDB files. Use it instead
        of a copy of the open store, whose newest rows are in the file `.wal` beside it. If the caller is cancelled, the
        older snapshot stays.

        Raises:
            StoreError: The target cannot be written, or it is not a snapshot.
        """
        return await self._backend_with(SupportsSnapshot, "snapshots").snapshot(fspath(target))

    async def forget(self, user_id: UUID | str) -> int:
        """Erase a user from the store, and return the number of erased sessions.

        The file is written anew without the user's rows, so it must fit twice on the disk for a while. Later runs leave the
        user out: the store keeps only a hash of the id. If the caller is cancelled, the store is unchanged. Exports and
        snapshots that were made before still have the user. Call it while no backfill writes to the store.

        Raises:
            ValueError: The id is not a uuid.
            StoreError: The store is in memory or open for reading, or the file cannot be written.
        """
        user = arguments.uuid("user_id", user_id)
        return await self._backend_with(SupportsForget, "erasure").forget(user)

    async def forget_before(self, day: date) -> int:
        """Erase all sessions that were plugged in before a UTC day, and return their number.

        It works as `forget` does, and erases all records of these days. Later runs read no day before it, also if their
        window begins earlier. An earlier day than that of a former call erases nothing: the later day stays.

        Raises:
            ValueError: The day is not a date, or after today.
            StoreError: As `forget`.
        """
        if arguments.day("day", day) > _utc_now().date():  # it could not be moved back
            raise ValueError(f"day is {day}, after today (UTC)")
        return await self._backend_with(SupportsForget, "erasure").forget_before(day)

    def _backend_with(self, protocol: type[T], name: str) -> T:
        """Return the backend if it has the operations of a protocol."""
        backend = self.backend
        if not isinstance(backend, protocol):
            raise StoreError(f"this kind of store has no {name}", self.path)
        return backend


async def _load_backend(path: str) -> type[DuckDBBackend]:
    """Import the backend in a thread, since the first import of DuckDB and Arrow takes a while."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="podero_async import")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, _import_backend, path)
    finally:
        thread.shutdown(wait=False)


def _import_backend(path: str) -> type[DuckDBBackend]:
    try:
        from podero_async.backfill.store.duckdb import DuckDBBackend  # noqa: PLC0415 - the core has no DuckDB
    except ImportError as error:
        raise ConfigurationError(f"a store needs {error.name}: install podero_async[backfill]") from error
    except OSError as error:
        raise StoreError(f"the database cannot be loaded: {error.strerror}", path) from error
    return DuckDBBackend

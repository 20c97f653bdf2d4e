"""The target: one transaction of PostgreSQL, through ADBC. libpq reads passwords, so that no code of ours holds one."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar
from urllib.parse import parse_qsl

from podero_async.backfill.store import ArrowStream
from podero_async.errors import ConfigurationError
from podero_async.publish.errors import TargetError

__all__ = ["Target", "checked_url"]

P = ParamSpec("P")
T = TypeVar("T")

_SCHEMES = ("postgresql://", "postgres://")
_SECRETS = {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
_HOSTS = re.compile(r"((\[[^]]*\]|[^:,]*)(:\d*)?(,|$))*")
_CONNECT_TIMEOUT_S = 30
_PREFIX = re.compile(r"^(?:[A-Z_]+: )?(?:\[libpq\] )?")


def checked_url(url: str) -> str:
    """Return the URL with our defaults.

    Raises:
        ConfigurationError: It is not a URL of PostgreSQL, or it has a password.
    """
    scheme = next((each for each in _SCHEMES if url.startswith(each)), None)
    if scheme is None:
        raise ConfigurationError("the target must be a URL that begins with postgresql://")
    # libpq takes a password from before the first @. An @ or a slash within it may make a part of it a host's name.
    rest, _, query = url.removeprefix(scheme).partition("?")
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    before, has_user, _ = (rest + "?" + query).rpartition("@")
    hosts = rest.partition("/")[0].rpartition("@")[2]
    if (has_user and ":" in before) or names & _SECRETS or not _HOSTS.fullmatch(hosts):
        raise ConfigurationError(
            "the target's URL must not have a password: set PGPASSWORD, or write it into the file ~/.pgpass"
        )
    defaults = {"fallback_application_name": "podero_async", "connect_timeout": str(_CONNECT_TIMEOUT_S)}
    if "PGCONNECT_TIMEOUT" in os.environ:
        del defaults["connect_timeout"]
    added = "&".join(f"{name}={value}" for name, value in defaults.items() if name not in names)
    return f"{url}{'&' if query else '' if url.endswith('?') else '?'}{added}"


class Target:
    """A transaction, which is rolled back unless it is committed. All but `cancel` is called in one thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._lock = threading.Lock()
        self._canceller: threading.Thread | None = None
        self._is_cancelled = False

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            ConfigurationError: The extra `postgres` is not installed.
            TargetError: The server cannot be reached, or refuses the connection.
        """
        try:
            from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError(f"publishing needs {error.name}: install podero_async[postgres]") from error
        self._connection = _translated(dbapi.connect, self._url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection; the server rolls back an open transaction."""
        with self._lock:
            connection, self._connection = self._connection, None
        with suppress(Exception):  # the connection may be broken
            connection.close()

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows."""
        with self._connection.cursor() as cursor:
            # The driver would fetch rows by COPY, which PostgreSQL does not allow for all statements.
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            self._call(cursor.execute, statement)
            rows: list[tuple[Any, ...]] = self._call(cursor.fetchall) if cursor.description else []
            return rows

    def copy(self, table: str, rows: ArrowStream) -> int:
        """Copy rows into a temporary table, and return their number."""
        with self._connection.cursor() as cursor:
            return int(self._call(cursor.adbc_ingest, table, rows, mode="append", temporary=True))

    def commit(self) -> None:
        """Commit the transaction."""
        self._call(self._connection.commit)

    def _call(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        if self._is_cancelled:
            raise TargetError("the call was cancelled")
        return _translated(call, *args, **options)

    def cancel(self) -> None:
        """Let the current statement, and all later ones, fail. Call it from any thread; it does not wait."""
        self._is_cancelled = True
        if self._canceller is None or not self._canceller.is_alive():
            self._canceller = threading.Thread(target=self._cancel, name="podero_async cancel", daemon=True)
            self._canceller.start()

    def _cancel(self) -> None:
        with self._lock, suppress(Exception):
            if self._connection is not None:
                self._connection.adbc_cancel()


def _translated(call: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
    """Call the driver.

    Raises:
        TargetError: An error of the driver. The statement, and details that may quote a row, are left out.
    """
    from adbc_driver_manager import Error  # noqa: PLC0415 - an extra

    try:
        return call(*args, **options)
    except Error as error:
        reason, state = _reason_of(error, args[0] if args else None), error.sqlstate
    # Outside of the handler, so that the driver's error is not the context of this one.
    raise TargetError(f"the target database failed: {reason}", state)


def _reason_of(error: Any, statement: object) -> str:
    """Return the server's message or, if it sent none, that of libpq."""
    for name, value in error.details or ():
        if name in {"PG_DIAG_MESSAGE_PRIMARY", b"PG_DIAG_MESSAGE_PRIMARY"}:
            return " ".join(value.decode(errors="replace").split())
    text = str(error).replace(f"Failed to execute query '{statement}': ", "")
    return " ".join(_PREFIX.sub("", text).strip().partition("\n")[0].split())

"""A backfill in a process of its own that kills itself with SIGKILL at a statement of a batch.

Usage: `python -m tests._support.kill_process STORE URL ORG ID SECRET FROM TO NOW AT`. `AT` counts the statements from 1; a
number greater than that of the last statement kills the process after the commit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any
from unittest.mock import patch

import attrs

from podero_async import ClientCredentials, PoderoClient
from podero_async.backfill import SessionStore, backfill
from podero_async.backfill.store.duckdb import DuckDBBackend
from podero_async.backfill.store.duckdb.upsert import write_batch

Operation = Callable[..., Any]


@attrs.define
class Breaking:
    """A connection that calls `happen` before statement `at`, counted from 1, and records all statements."""

    real: Any
    at: int | None
    happen: Callable[[], None]
    statements: list[str] = attrs.field(factory=list)

    def execute(self, statement: str, *values: Any) -> Any:
        self.statements.append(statement)
        if len(self.statements) == self.at:
            self.happen()
        return self.real.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@contextmanager
def replaced(operation: Operation, replacement: Operation) -> Iterator[None]:
    """Let open DuckDB stores run `replacement(connection, ...)` in place of an operation."""
    call = DuckDBBackend.call

    async def calling(self: DuckDBBackend, work: Operation, *arguments: Any, **options: Any) -> Any:
        return await call(self, replacement if work is operation else work, *arguments, **options)

    with patch.object(DuckDBBackend, "call", calling):
        yield


async def main(
    path: str, url: str, org_id: str, client_id: str, client_secret: str, first: str, last: str, now: str, at: str
) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write_and_die(con: Any, *arguments: Any) -> Any:
        breaking: Any = Breaking(con, int(at), die)
        write_batch(breaking, *arguments)
        die()

    credentials = ClientCredentials(client_id, client_secret)
    window, moment = (date.fromisoformat(first), date.fromisoformat(last)), datetime.fromisoformat(now)
    async with PoderoClient(org_id, credentials, base_url=url) as client, SessionStore(path) as store:
        with replaced(write_batch, write_and_die):
            await backfill(client, store, *window, fresh_for=timedelta(), now=lambda: moment)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A backfill in a process of its own that kills itself inside a transaction.

`python -m tests._support.kill_process STORE URL ORG ID SECRET FROM TO NOW AT`: SIGKILL comes instead of the batch's statement AT.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from unittest.mock import patch

import attrs

from podero_async import ClientCredentials, PoderoClient
from podero_async.backfill import SessionStore, backfill
from podero_async.backfill.store.duckdb.upsert import write_batch


@attrs.define
class Breaking:
    """A connection to the database on which something happens instead of its statement `at`, counted from 1."""

    real: Any
    at: int | None
    happen: Callable[[], None]
    said: list[str] = attrs.field(factory=list)

    def execute(self, statement: str, *values: Any) -> Any:
        self.said.append(statement)
        if len(self.said) == self.at:
            self.happen()
        return self.real.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


async def main(
    path: str, url: str, org_id: str, client_id: str, client_secret: str, first: str, last: str, now: str, at: str
) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def writing(con: Any, *arguments: Any) -> Any:
        breaking = Breaking(con, int(at), die)
        written = write_batch(breaking, *arguments)  # type: ignore[arg-type]  # it behaves like one
        if int(at) > len(breaking.said):
            die()  # the moment after the commit
        return written

    credentials = ClientCredentials(client_id, client_secret)
    window, moment = (date.fromisoformat(first), date.fromisoformat(last)), datetime.fromisoformat(now)
    async with PoderoClient(org_id, credentials, base_url=url) as client, SessionStore(path) as store:
        with patch("podero_async.backfill._writer.write_batch", writing):
            await backfill(client, store, *window, refresh_days=60, now=lambda: moment)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

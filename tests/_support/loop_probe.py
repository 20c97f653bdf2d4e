"""How long a process holds up its event loop, to be measured apart: `python -m tests._support.loop_probe STORE ORG URL ID SECRET FROM TO`.

Reads the users, the fleet and, into a store, the fleet again, while tokens expire. Prints the longest callback in
milliseconds of its own CPU time, what the garbage collector took in it left out; and the collector's longest pause.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from podero_async import ClientCredentials, PoderoClient, ThrottlePolicy
from podero_async.backfill import SessionStore, backfill
from podero_async.backfill import _writer as writer  # noqa: F401  # with DuckDB and Arrow, as a service would


class Watch:
    """Watches every callback of the loop that runs in this thread, and the collector."""

    def __init__(self) -> None:
        self.longest_s = self.collector_s = 0.0
        self._collecting_since = self._collected_s = 0.0
        self._plain = asyncio.Handle._run
        self._thread = threading.get_ident()

    @contextmanager
    def watching(self) -> Iterator[None]:
        def timed(handle: asyncio.Handle) -> None:  # a function, which binds to the handle
            self._timed(handle)

        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)
            asyncio.Handle._run = self._plain  # type: ignore[method-assign]

    def _timed(self, handle: asyncio.Handle) -> None:
        self._collected_s, began = 0.0, time.thread_time()
        self._plain(handle)
        self.longest_s = max(self.longest_s, time.thread_time() - began - self._collected_s)

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._collecting_since = now
        else:
            if threading.get_ident() == self._thread:  # another thread's pass is not in the callback's own time
                self._collected_s += now - self._collecting_since
            self.collector_s = max(self.collector_s, now - self._collecting_since)


async def main(store_path: str, org_id: str, url: str, client_id: str, secret: str, first: str, last: str) -> None:
    days = date.fromisoformat(first), date.fromisoformat(last)
    gc.collect()
    gc.freeze()
    watch = Watch()
    async with (
        # Few requests at once: a token must not expire while they queue before a server that is slow.
        PoderoClient(
            org_id,
            ClientCredentials(client_id, secret),
            base_url=url,
            throttle=ThrottlePolicy(max_concurrency=8),
        ) as client,
        SessionStore(store_path) as store,
    ):
        with watch.watching():
            users = read = 0  # what is read is let go one by one: all at once would take its time, too
            async for _ in client.users():
                users += 1
            async with client.fetch_fleet(*days) as fleet:
                async for _ in fleet:
                    read += 1
            report = await backfill(client, store, *days)
    print(watch.longest_s * 1e3, watch.collector_s * 1e3, users, read, report.done)  # noqa: T201  # read by the test


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

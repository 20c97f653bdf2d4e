"""A process that measures how long the library holds its event loop.

Usage: `python -m tests._support.loop_probe STORE ORG URL ID SECRET FROM TO`.

Reads the users, then the fleet, then the fleet again into a store, while tokens are renewed. Prints the CPU time of the longest
callback in milliseconds and in pages, the collector's longest pause in milliseconds, and the numbers of users and vehicles.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import date

from podero_async import ClientCredentials, PoderoClient, ThrottlePolicy
from podero_async._decode import decode_page
from podero_async.backfill import SessionStore, backfill
from podero_async.backfill.store import duckdb  # noqa: F401  # imports DuckDB and Arrow before the measurement
from tests._support.clients import page_body, wire_row

TRIES = 3


class LoopWatch:
    """Measures every callback of the loop that runs in this thread, and the garbage collector.

    Time is this thread's CPU time without the collector's. To be independent of the machine it is compared with the time
    in which the same process decodes one page of 200 sessions.
    """

    def __init__(self) -> None:
        self.longest_s = self.collector_s = self.page_s = 0.0
        self._collecting_since = self._excluded_s = 0.0
        self._run_handle = asyncio.Handle._run
        self._thread = threading.get_ident()

    @property
    def longest_pages(self) -> float:
        """The longest callback as a multiple of the time of one page."""
        return self.longest_s / self.page_s

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the callbacks, and take the time of a page before and after."""

        def timed(handle: asyncio.Handle) -> None:  # a function, so that it binds to the handle
            self._timed(handle)

        self._measure_page()
        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)
            asyncio.Handle._run = self._run_handle  # type: ignore[method-assign]
            self._measure_page()

    def _measure_page(self) -> None:
        began = time.thread_time()
        self.page_s = max(self.page_s, _page_s())
        self._excluded_s += time.thread_time() - began

    def _timed(self, handle: asyncio.Handle) -> None:
        self._excluded_s, began = 0.0, time.thread_time()
        self._run_handle(handle)
        self.longest_s = max(self.longest_s, time.thread_time() - began - self._excluded_s)

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._collecting_since = now
        else:
            if threading.get_ident() == self._thread:  # another thread's collection is not in this thread's CPU time
                self._excluded_s += now - self._collecting_since
            self.collector_s = max(self.collector_s, now - self._collecting_since)


async def watch_loop(work: Callable[[], Awaitable[object]], *, below_pages: float) -> LoopWatch:
    """Watch some work until its longest callback is short enough, at most three times, since a busy machine may stretch one."""
    for _ in range(TRIES):
        watch = LoopWatch()
        with watch.watching():
            await work()
        if watch.longest_pages < below_pages:
            break
    return watch


def _page_s() -> float:
    """Return the CPU time of decoding one page of 200 sessions, the median of 30."""
    body = page_body(*(wire_row(number) for number in range(200)))
    times = []
    for _ in range(30):
        began = time.thread_time()
        decode_page(body)
        times.append(time.thread_time() - began)
    return statistics.median(times)


async def main(store_path: str, org_id: str, url: str, client_id: str, secret: str, first: str, last: str) -> None:
    days = date.fromisoformat(first), date.fromisoformat(last)
    gc.collect()
    gc.freeze()
    watch = LoopWatch()
    credentials = ClientCredentials(client_id, secret)
    throttle = ThrottlePolicy(max_concurrency=8)  # so that few requests meet a token that was revoked
    async with (
        PoderoClient(org_id, credentials, base_url=url, throttle=throttle) as client,
        SessionStore(store_path) as store,
    ):
        with watch.watching():
            users = vehicles = 0  # counted one by one: freeing a whole list at once would be a long callback, too
            async for _ in client.users():
                users += 1
            async with client.fetch_fleet(*days) as fleet:
                async for _ in fleet:
                    vehicles += 1
            report = await backfill(client, store, *days)
    figures = [watch.longest_s * 1e3, watch.longest_pages, watch.collector_s * 1e3, users, vehicles, report.done]
    print(json.dumps(figures))  # noqa: T201  # read by the test


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

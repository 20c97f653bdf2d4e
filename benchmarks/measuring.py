"""Measurements: figures, samples of throughput, and the time for which the event loop is blocked."""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import attrs

__all__ = ["Figure", "LoopProbe", "Sample", "median", "quartiles", "sample"]


@attrs.frozen(kw_only=True)
class Figure:
    """One row of the report."""

    name: str
    value: str
    aim: str = ""
    reached: bool | None = None
    """None if the figure has no aim."""
    note: str = ""


@attrs.frozen
class Sample:
    """Sessions per second of wall-clock time and of CPU time."""

    per_second: float
    per_cpu_second: float


async def sample(fetch: Callable[[], Awaitable[int]]) -> Sample:
    """Measure one fetch."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    sessions = await fetch()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Sample(sessions / wall, sessions / cpu)


def median(values: list[float]) -> float:
    return statistics.median(values)


def quartiles(values: list[float]) -> str:
    """Format the interquartile range."""
    if len(values) < 2:
        return "one pair"
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{low:.2f} to {high:.2f}"


class LoopProbe:
    """The longest block of the event loop: by a callback, without the garbage collector, and by the collector."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.own_s = 0.0
        self.own_cpu_s = 0.0
        """CPU time of the callback's thread, which excludes other threads on the same core, and their collections."""
        self.collector_s = 0.0
        self._collecting_since = self._collecting_since_cpu = 0.0
        self._collected_s = self._collected_cpu_s = 0.0
        self._thread = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Time every callback of every event loop until the end of the block."""
        plain = asyncio.Handle._run  # noqa: SLF001

        def timed(handle: asyncio.Handle) -> None:
            self._collected_s, self._collected_cpu_s, self._thread = 0.0, 0.0, threading.get_ident()
            wall, cpu = time.perf_counter(), time.thread_time()
            plain(handle)
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            self.longest_s = max(self.longest_s, wall)
            self.own_s = max(self.own_s, wall - self._collected_s)
            self.own_cpu_s = max(self.own_cpu_s, cpu - self._collected_cpu_s)

        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]  # noqa: SLF001
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)
            asyncio.Handle._run = plain  # type: ignore[method-assign]  # noqa: SLF001

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        if phase == "start":
            self._collecting_since, self._collecting_since_cpu = now, cpu
        else:
            self._collected_s += now - self._collecting_since  # of any thread: it stops all of them
            if threading.get_ident() == self._thread:
                self._collected_cpu_s += cpu - self._collecting_since_cpu
            self.collector_s = max(self.collector_s, now - self._collecting_since)

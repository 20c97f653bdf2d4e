"""Where a fetch's CPU time goes, by room: the stack is sampled a thousand times a second of CPU."""

from __future__ import annotations

import gc
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

__all__ = ["Profile", "compared"]

_EVERY_S = 0.001
_ROOMS = (  # what a frame's file or function belongs to; the innermost frame that is listed decides
    ("decoding", ("podero_async/_decode", "benchmarks/peers.py:_decoded")),
    ("inflating", ("podero_async/_inflate", "benchmarks/peers.py:_inflated")),
    ("aiohttp", ("/aiohttp/", "/yarl/", "/multidict/")),
    (
        "token, throttle, retries, transport",
        tuple(f"podero_async/{room}" for room in ("_transport", "_auth", "_throttle", "_pace", "_retry", "_api")),
    ),
    ("fan-out, pages, verdict", ("podero_async/",)),
    ("the peer's own loop", ("benchmarks/peers.py",)),
)
_COLLECTOR, _EVENT_LOOP = "the garbage collector", "asyncio's event loop"


class Profile:
    """Samples of one fetch, and what it took."""

    def __init__(self) -> None:
        self._samples: Counter[str] = Counter()
        self._cpu_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample until the end of the block."""
        before = signal.signal(signal.SIGPROF, self._on_tick)
        gc.callbacks.append(_on_collection)  # a tick during a collection is taken when this is called after it
        signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)
        began = time.process_time()
        try:
            yield
        finally:
            self._cpu_s += time.process_time() - began
            signal.setitimer(signal.ITIMER_PROF, 0)
            gc.callbacks.remove(_on_collection)
            signal.signal(signal.SIGPROF, before)

    def us_by_room(self, count: int) -> Mapping[str, float]:
        """Return microseconds of CPU by room, for each of so many requests."""
        samples = self._samples.total() or 1
        return {room: 1e6 * self._cpu_s * share / samples / count for room, share in self._samples.items()}

    def _on_tick(self, _: int, frame: FrameType | None) -> None:
        self._samples[_room_of(frame)] += 1


def _on_collection(_: str, __: Mapping[str, int]) -> None:
    return


def _room_of(frame: FrameType | None) -> str:
    while frame is not None:
        code = frame.f_code
        if code is _on_collection.__code__:
            return _COLLECTOR
        place = f"{code.co_filename}:{code.co_name}"
        for room, marks in _ROOMS:
            if any(mark in place for mark in marks):
                return room
        frame = frame.f_back
    return _EVENT_LOOP


def compared(own: Mapping[str, float], theirs: Mapping[str, float]) -> Iterator[str]:
    """Write two profiles side by side as a table, in microseconds a request."""
    yield "| microseconds of CPU a request | ours | the floor |"
    yield "|---|---|---|"
    for room in (*(room for room, _ in _ROOMS), _EVENT_LOOP, _COLLECTOR):
        if room in own or room in theirs:
            yield f"| {room} | {own.get(room, 0.0):.0f} | {theirs.get(room, 0.0):.0f} |"
    yield f"| all | {sum(own.values()):.0f} | {sum(theirs.values()):.0f} |"

"""Stops work at each of its steps: a step is a moment at which a task of the library is resumed or suspended.

Tasks of the simulator and of aiohttp have no steps of their own, since the library is suspended while it waits for them.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from types import AsyncGeneratorType
from typing import Any

import attrs

__all__ = [
    "WAYS",
    "Steps",
    "Sweep",
    "Way",
    "Work",
    "by_a_sibling",
    "by_a_timeout",
    "by_cancelling",
    "by_ctrl_c",
    "calm",
    "left_open",
]

_LOOP_TURNS = 20  # then `left_open` waits in real time
_MAX_TRIES = 5  # of a step that seems slow, since the machine may have paused

Work = Coroutine[Any, Any, None]


@attrs.define
class Steps:
    """Counts steps from 1, and calls `act` at `times` steps from step `at` on. If `act` is None, nothing is counted."""

    at: int
    act: Callable[[], object] | None = None
    times: int = 1
    was_stopped: bool = False
    count: int = 0
    places: list[str] = attrs.field(factory=list)
    """The library's part of the stack at step `at`, as file and line of each call."""
    acted_at: float = 0.0
    ended_at: float = 0.0
    ours: list[asyncio.Task[Any]] = attrs.field(factory=list)
    """The tasks that the library has started."""
    others: list[asyncio.Task[Any]] = attrs.field(factory=list)
    """All other tasks, except the simulator's."""

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count the steps of the tasks that the library starts from now on."""
        loop.set_task_factory(self._make_task)

    def counted(self, work: Work) -> Work:
        """Count the steps of a test's own coroutine, too."""
        return _Counted(work, self)

    def begin(self, work: Work) -> asyncio.Task[None]:
        """Start work as a task and count its steps until it has ended."""
        loop = asyncio.get_running_loop()
        self.watch(loop)
        task = asyncio.Task(self.counted(work), loop=loop)
        task.add_done_callback(lambda _: self.end(loop))
        return task

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop counting, and stop recording new tasks."""
        self.act = None
        self.ended_at = loop.time()
        loop.set_task_factory(None)

    def step(self, work: Any) -> None:
        """Count a step of a task, and act if it is time."""
        if self.act is None:
            return
        self.count += 1
        if self.count == self.at:
            self.places = _places_of(work)
            self.acted_at = asyncio.get_running_loop().time()
        if self.at <= self.count < self.at + self.times:
            self.act()

    def left(self, *, of_others: bool = False) -> list[str]:
        """Return the names of the tasks that have not ended."""
        return [task.get_name() for task in self.ours + self.others * of_others if not task.done()]

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        code = getattr(work, "cr_code", None)
        file = code.co_filename if code else ""
        is_ours = "/podero_async/" in file and "/testing/" not in file
        task = asyncio.Task(_Counted(work, self) if is_ours else work, loop=loop, **options)
        if "/testing/" not in file and "/aiohttp/web" not in file:
            (self.ours if is_ours else self.others).append(task)
        return task


class _Counted(Coroutine[Any, Any, Any]):
    """The coroutine of a task, wrapped to report its steps."""

    def __init__(self, work: Coroutine[Any, Any, Any], steps: Steps) -> None:
        self._work = work
        self._steps = steps
        self.__qualname__ = getattr(work, "__qualname__", "work")

    def send(self, value: Any) -> Any:
        return self._stepped(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        return self._stepped(self._work.throw, *error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, None, Any]:
        raise TypeError("only its task awaits this coroutine")

    def _stepped(self, resume: Callable[..., Any], *values: Any) -> Any:
        self._steps.step(self._work)
        awaited = resume(*values)
        self._steps.step(self._work)
        return awaited


def _places_of(work: Any) -> list[str]:
    places = []
    while work is not None:
        frame = next((got for name in ("cr", "ag", "gi") if (got := getattr(work, f"{name}_frame", None))), None)
        if frame is not None and "/podero_async/" in frame.f_code.co_filename:
            places.append(f"{frame.f_code.co_filename.rpartition('/podero_async/')[2]}:{frame.f_lineno}")
        inner = next((got for name in ("cr", "ag") if (got := getattr(work, f"{name}_await", None))), None)
        if inner is None and type(work).__name__.startswith("async_generator_"):
            inner = next((each for each in gc.get_referents(work) if isinstance(each, AsyncGeneratorType)), None)
        work = inner
    return places


@attrs.define
class Sweep:
    """Yields `Steps` to stop at, one later each time, until the work ends before its stop.

    Fails if the work goes on after a stop, or ends more than `longest_s` after it. On a leaping loop computing takes no time,
    so only a wait of the library or of a fault can exceed that bound; on other loops, give a bound for slow machines.
    """

    longest_s: float = 0.5
    places: set[str] = attrs.field(factory=set)
    slowest_s: float = 0.0
    count: int = 0

    def __iter__(self) -> Iterator[Steps]:
        at = 1
        while True:
            took: list[float] = []
            while not took or (took[-1] > self.longest_s / 2 and len(took) < _MAX_TRIES):
                steps = Steps(at)
                yield steps
                took.append(steps.ended_at - steps.acted_at if steps.was_stopped else 0.0)
            if steps.count < at:
                return
            stop = f"stopped at step {at} of {steps.count}, {' '.join(steps.places)}"
            assert steps.was_stopped or steps.count == at, f"{stop}: it went on"
            assert min(took) < self.longest_s, f"{stop}: it ended after {min(took):.2f} s"
            self.slowest_s = max(self.slowest_s, min(took))
            self.places.update(steps.places)
            self.count = at
            at += 1

    @property
    def figure(self) -> str:
        """The sweep in one line, for `record_property`."""
        return f"{self.count} steps, {len(self.places)} lines, stopped within {self.slowest_s * 1000:.0f} ms"


Way = Callable[[Work, Steps], Awaitable[None]]
"""Runs work, stops it at the step, and records whether it was stopped; fails if the stop raises the wrong error."""


async def by_cancelling(work: Work, steps: Steps) -> None:
    task = steps.begin(work)
    steps.act = task.cancel
    await asyncio.wait([task])
    steps.was_stopped = task.cancelled()
    if not steps.was_stopped:
        task.result()


async def by_cancelling_twice(work: Work, steps: Steps) -> None:
    """Cancel again at the next step, while the work is ending."""
    steps.times = 2
    await by_cancelling(work, steps)


async def by_a_timeout(work: Work, steps: Steps) -> None:
    async def with_a_deadline() -> None:
        async with asyncio.timeout(None) as scope:
            steps.act = lambda: scope.reschedule(asyncio.get_running_loop().time())
            await work
            steps.act = None

    try:
        await steps.begin(with_a_deadline())
    except TimeoutError:
        steps.was_stopped = True


async def by_a_sibling(work: Work, steps: Steps) -> None:
    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def fail() -> None:
        await failing

    async def in_a_group() -> None:
        async with asyncio.TaskGroup() as group:
            sibling = group.create_task(fail())
            steps.act = lambda: failing.set_exception(KeyError("sibling"))
            await work
            steps.act = None
            if not failing.done():
                sibling.cancel()

    try:
        await steps.begin(in_a_group())
    except ExceptionGroup as group:
        assert [repr(error) for error in group.exceptions] == ["KeyError('sibling')"]
        steps.was_stopped = True


WAYS = [by_cancelling, by_cancelling_twice, by_a_timeout, by_a_sibling]


def by_ctrl_c(runner: asyncio.Runner, work: Work, steps: Steps) -> None:
    """Run work as the main task of a program, and send this process a SIGINT at the step."""
    steps.watch(runner.get_loop())
    steps.act = lambda: signal.raise_signal(signal.SIGINT)
    try:
        runner.run(steps.counted(work))
    except KeyboardInterrupt:
        steps.was_stopped = True
    steps.end(runner.get_loop())


def _open_files_and_threads() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208  # called hundreds of times


async def calm() -> tuple[int, int]:
    """Count the open files, sockets included, and the threads, when all threads have ended or after a second."""
    give_up_at = time.monotonic() + 1
    while threading.active_count() > 1 and time.monotonic() < give_up_at:
        await asyncio.sleep(0.002)
    return _open_files_and_threads()


async def left_open(before: tuple[int, int]) -> tuple[int, int]:
    """Count the files and threads that are open in addition to `before`; wait up to a minute for them to close.

    A count below `before` is returned as 0, since files and threads of an earlier test may have closed in between.
    """
    give_up_at = time.monotonic() + 60
    for turn in itertools.count():
        files, threads = (max(0, now - then) for now, then in zip(_open_files_and_threads(), before, strict=True))
        if not (files or threads) or time.monotonic() > give_up_at:
            break
        await asyncio.sleep(0 if turn < _LOOP_TURNS else 0.002)
    return files, threads

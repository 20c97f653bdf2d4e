"""Stop the library's work at each of its steps: whenever one of its tasks goes on, and whenever one is suspended.

The tasks of the simulator and of aiohttp do not count: where the library waits for them, it is suspended itself.
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

_TURNS = 20  # of the loop, in which most things go
_LOOKS = 5  # at a step that took long: the machine may have paused, not the library

Work = Coroutine[Any, Any, None]


@attrs.define
class Steps:
    """Counts steps from 1 while there is an `act`, which is called at the one numbered `at`, or there and at the next ones."""

    at: int
    act: Callable[[], object] | None = None
    times: int = 1
    was_stopped: bool = False
    count: int = 0
    places: list[str] = attrs.field(factory=list)
    """Where in the library the task waited whose step it was: each call of the stack, as file and line."""
    acted_at: float = 0.0
    ended_at: float = 0.0
    ours: list[asyncio.Task[Any]] = attrs.field(factory=list)
    """Every task that the library made meanwhile ..."""
    others: list[asyncio.Task[Any]] = attrs.field(factory=list)
    """... and every other, but for the simulator's."""

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count the steps of the tasks that the library makes from now on."""
        loop.set_task_factory(self._make_task)

    def counted(self, work: Work) -> Work:
        """Count the steps of a coroutine of the test's own, too, once it is a task's."""
        return _Counted(work, self)

    def begin(self, work: Work) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        self.watch(loop)
        task = asyncio.Task(self.counted(work), loop=loop)
        task.add_done_callback(lambda _: self.end(loop))
        return task

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count no more, and take no note of what begins now."""
        self.act = None
        self.ended_at = loop.time()
        loop.set_task_factory(None)

    def step(self, work: Any) -> None:
        if self.act is None:
            return
        self.count += 1
        if self.count == self.at:
            self.places = _places_of(work)
            self.acted_at = asyncio.get_running_loop().time()
        if self.at <= self.count < self.at + self.times:
            self.act()

    def left(self, *, of_others: bool = False) -> list[str]:
        """Name the tasks that are still there."""
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
    """A task's coroutine, which tells of its steps."""

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
        raise TypeError("a task's own coroutine is awaited by nobody else")

    def _stepped(self, go_on: Callable[..., Any], *values: Any) -> Any:
        self._steps.step(self._work)
        waits_for = go_on(*values)
        self._steps.step(self._work)
        return waits_for


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
    """Hands out steps to stop at, each one later than the last, until the work comes to its end before; then tells a figure.

    Fails where a stop took long to come out, or never did.
    """

    longest_s: float = 0.1
    places: set[str] = attrs.field(factory=set)
    slowest_s: float = 0.0
    count: int = 0

    def __iter__(self) -> Iterator[Steps]:
        at = 1
        while True:
            took: list[float] = []
            while not took or (took[-1] > self.longest_s / 2 and len(took) < _LOOKS):
                steps = Steps(at)
                yield steps
                took.append(steps.ended_at - steps.acted_at if steps.was_stopped else 0.0)
            if steps.count < at:
                return
            where = f"stopped at step {at} of {steps.count}, {' '.join(steps.places)}"
            assert steps.was_stopped or steps.count == at, f"{where}: it went on"
            assert min(took) < self.longest_s, f"{where}: it came out after {min(took):.2f} s"
            self.slowest_s = max(self.slowest_s, min(took))
            self.places.update(steps.places)
            self.count = at
            at += 1

    @property
    def figure(self) -> str:
        return f"{self.count} steps, {len(self.places)} places, out within {self.slowest_s * 1000:.0f} ms"


Way = Callable[[Work, Steps], Awaitable[None]]
"""Runs the work, stops it at the step, and notes whether it was stopped; fails where that does not look as it should."""


async def by_cancelling(work: Work, steps: Steps) -> None:
    task = steps.begin(work)
    steps.act = task.cancel
    await asyncio.wait([task])
    steps.was_stopped = task.cancelled()
    if not steps.was_stopped:
        task.result()


async def by_cancelling_twice(work: Work, steps: Steps) -> None:
    """Do not even wait for the end that the first one began."""
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
    """Run the work as a program's main task, and send this process a SIGINT at the step."""
    steps.watch(runner.get_loop())
    steps.act = lambda: signal.raise_signal(signal.SIGINT)
    try:
        runner.run(steps.counted(work))
    except KeyboardInterrupt:
        steps.was_stopped = True
    steps.end(runner.get_loop())


def what_is_open() -> tuple[int, int]:
    """Count open files, sockets included, and threads."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208  # asked for hundreds of times


async def calm() -> tuple[int, int]:
    """Return what is open once the threads that others told to go are gone, or have had their time."""
    give_up_at = time.monotonic() + 1
    while threading.active_count() > 1 and time.monotonic() < give_up_at:
        await asyncio.sleep(0.002)
    return what_is_open()


async def left_open(before: tuple[int, int]) -> tuple[int, int]:
    """Return how many files and threads more than before are open, once all that was told to go has had its time.

    Fewer are none: what another test told to go may have gone meanwhile.
    """
    give_up_at = time.monotonic() + 1
    for turn in itertools.count():
        files, threads = (max(0, now - then) for now, then in zip(what_is_open(), before, strict=True))
        if not (files or threads) or time.monotonic() > give_up_at:
            break
        await asyncio.sleep(0 if turn < _TURNS else 0.002)
    return files, threads

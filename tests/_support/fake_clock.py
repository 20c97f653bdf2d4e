"""An event loop with a clock that a test moves, and Hypothesis state machines that run on it without waiting."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

T = TypeVar("T")


class SteppingLoop(asyncio.BaseEventLoop):
    """Runs callbacks that are ready, or become ready while its clock moves. It has no sockets and no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._now = self._until = 0.0
        self._selector = self

    def time(self) -> float:
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Run everything that is due within `seconds`, each timer at its own time; 0 runs only ready callbacks."""
        self._until = self._now + seconds
        self.run_forever()

    def lag(self, seconds: float) -> None:
        """Move the clock without running anything, as if a callback had blocked the loop."""
        self._now += seconds

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Make this the running loop, so that a test can call its objects before any task runs."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None or self._now + timeout > self._until:  # nothing more is due
            self._now = self._until
            self.stop()
        else:
            self._now += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def run_by_clockwork(work: Coroutine[Any, Any, T], *, within_s: float) -> T:
    """Run a coroutine that waits only for time, and return its result. Work takes no time on the loop's clock."""
    loop = SteppingLoop()
    task = loop.create_task(work)
    loop.pass_time(within_s)
    loop.close()
    return task.result()


class Machine(RuleBasedStateMachine):
    """A state machine that checks its promise again at the end of each run, and counts the runs."""

    runs: ClassVar[int] = 0

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.finish()
                type(self).runs += 1
        finally:
            self.clean_up()

    def finish(self) -> None:
        """Check the promise at the end of a run."""

    def clean_up(self) -> None:
        """Release everything, even if the run failed."""


class LoopMachine(Machine):
    """A machine with its own loop. An error in a callback or a spawned task fails the run, too."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppingLoop()
        self.accidents: list[BaseException] = []
        self.loop.set_exception_handler(lambda _, context: self.accidents.append(_accident(context)))
        self._tasks: list[asyncio.Task[Any]] = []

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task, which is cancelled at the end of the run."""
        task = self.loop.create_task(work)
        self._tasks.append(task)
        return task

    def step(self, seconds: float = 0.0) -> None:
        """Let time pass; raise the error of a callback or a task."""
        self.loop.pass_time(seconds)
        for accident in self.accidents:
            raise accident
        ended = [task for task in self._tasks if task.done()]
        self._tasks = [task for task in self._tasks if not task.done()]
        for task in ended:
            if not task.cancelled():
                task.result()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Record an assertion that fails in a callback, if the caller of the callback catches its errors."""
        try:
            yield
        except AssertionError as error:
            self.accidents.append(error)
            raise

    def clean_up(self) -> None:
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.pass_time(0)
        self.loop.close()


def _accident(context: dict[str, Any]) -> BaseException:
    error = context.get("exception")
    return error if isinstance(error, BaseException) else AssertionError(context["message"])


def run_machine(machine: type[Machine], runs: float, *, steps: int = 40) -> str:
    """Run a machine `runs` times; return a figure for the summary."""
    machine.runs = 0
    with _unlogged():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=max(1, round(runs)),
                stateful_step_count=steps,
                deadline=None,
                print_blob=True,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return f"{machine.runs:,} runs of up to {steps} steps, 0 failures"


@contextmanager
def _unlogged() -> Iterator[None]:
    """Disable the library's log, so that the output of thousands of runs does not hide the failure."""
    logger = logging.getLogger("podero_async")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False

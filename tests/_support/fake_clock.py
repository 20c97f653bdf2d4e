"""State machines on a loop whose clock they hold: time passes when they say so, and nothing is waited for."""

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
    """Runs what is ready, and what becomes ready while its clock is moved. It knows no sockets and no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._now = self._until = 0.0
        self._selector = self

    def time(self) -> float:
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Run all that is due within so many seconds, each at its own moment; 0 for what is ready now."""
        self._until = self._now + seconds
        self.run_forever()

    def lag(self, seconds: float) -> None:
        """Let time pass in which the loop does nothing: whoever has its turn keeps it."""
        self._now += seconds

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Do something on the loop before anything else gets its turn."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None or self._now + timeout > self._until:  # nothing more happens before the time is up
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
    """Run what waits for time alone, and return what it returns, however slow the machine is: work takes no time."""
    loop = SteppingLoop()
    task = loop.create_task(work)
    loop.pass_time(within_s)
    loop.close()
    return task.result()


class Machine(RuleBasedStateMachine):
    """A machine that is held to its promise once more at the end of each run; counts the runs."""

    runs: ClassVar[int] = 0

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.finish()
                type(self).runs += 1
        finally:
            self.clean_up()

    def finish(self) -> None:
        """Check what must hold at the end."""

    def clean_up(self) -> None:
        """Leave nothing behind, whatever happened."""


class LoopMachine(Machine):
    """A machine with a loop of its own. What fails there, and is told to nobody or kept quiet, fails the run."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppingLoop()
        self.accidents: list[BaseException] = []
        self.loop.set_exception_handler(lambda _, context: self.accidents.append(_accident(context)))
        self._tasks: list[asyncio.Task[Any]] = []

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task; it is ended with the machine."""
        task = self.loop.create_task(work)
        self._tasks.append(task)
        return task

    def step(self, seconds: float = 0.0) -> None:
        """Let time pass, and all that is ready have its turn; raise what a task ended with."""
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
        """Note what fails in a place whose errors somebody else catches."""
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
    """Run a machine so many times; say how often that was."""
    machine.runs = 0
    with _unlogged():
        # A run that fails is shrunk, and printed as the calls that repeat it.
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
    """Keep what thousands of runs log from standing before what failed."""
    logger = logging.getLogger("podero_async")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False

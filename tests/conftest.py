"""What all tests share: the event loop they run on, a simulator to talk to, and how figures are told.

A test tells a figure with pytest's own `record_property("figure", ...)`; all of them stand at the end of the run.
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest

from podero_async.backfill import SessionStore
from podero_async.testing import PoderoSimulator
from podero_async.testing._oauth import TokenDesk
from tests._support.time_warp import LeapingLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is marked `leaping` on a loop that jumps over waits instead of sitting them out."""
    if item.get_closest_marker("leaping"):
        return {"leaping": LeapingLoop}
    return {"plain": asyncio.new_event_loop}


def pytest_configure() -> None:
    """Take Ctrl-C as every program does: a shell's background job would ignore it, with all the processes it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the long forms be made longer, or shorter."""
    parser.addoption("--soak-scale", type=float, default=1.0, help="how many times as long the long forms take")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the figures that tests told."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    figures = [
        (report.nodeid, value) for report in reports for name, value in report.user_properties if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for node, value in sorted(figures):
            terminalreporter.write_line(f"{node}: {value}")


_ADDRESS = re.compile(r"[\w.+-](@|%40)\w", re.IGNORECASE)


class LogWatch(logging.Handler):
    """Looks at each line that is logged for what simulators expect and issue, and for any address; keeps none else."""

    def __init__(self) -> None:
        super().__init__()
        self.private = {"token-1"}  # of tests/support.py
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a line whose words, arguments or traceback with locals tell something private."""
        line = f"{record.getMessage()} {record.args!r}"
        if record.exc_info and (error := record.exc_info[1]):
            trace = traceback.TracebackException(type(error), error, error.__traceback__, capture_locals=True)
            line += "".join(trace.format())
        if _ADDRESS.search(line) or any(word in line for word in self.private):
            self.leaks.append(line)


@pytest.fixture(scope="session")
def _log_watches() -> Iterator[list[LogWatch]]:
    """Tell the watches that are on what each simulator expects and issues."""
    watches: list[LogWatch] = []
    issue, answer = TokenDesk.issue, TokenDesk.answer

    def issuing(self: TokenDesk, **options: Any) -> dict[str, Any]:
        issued = issue(self, **options)
        for watch in watches:
            watch.private |= {str(issued[name]) for name in ("access_token", "refresh_token") if name in issued}
        return issued

    def answering(self: TokenDesk, *arguments: Any, **options: Any) -> Any:
        for watch in watches:
            watch.private |= {self.client_secret, self.username, self.password}
        return answer(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenDesk, "issue", issuing)
        patch.setattr(TokenDesk, "answer", answering)
        yield watches


@pytest.fixture(autouse=True)
def log_watch(_log_watches: list[LogWatch]) -> Iterator[LogWatch]:
    """Fail whatever test leaves a secret or an address in the library's log, at whatever level."""
    watch, logger = LogWatch(), logging.getLogger("podero_async")
    level = logger.level
    _log_watches.append(watch)
    logger.addHandler(watch)
    logger.setLevel(logging.DEBUG)
    yield watch
    logger.setLevel(level)
    logger.removeHandler(watch)
    _log_watches.remove(watch)
    assert not watch.leaks


@pytest.fixture
def soak_scale(request: pytest.FixtureRequest) -> float:
    """Say how many times as long a long form is to take."""
    scale: float = request.config.getoption("--soak-scale")
    return scale


@pytest.fixture
def store_without_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stores do their work on the loop: a leaping one would leap over what a thread of theirs takes."""

    async def at_once(_: SessionStore, work: Callable[[], Any]) -> Any:
        return work()

    monkeypatch.setattr(SessionStore, "_in_thread", at_once)
    monkeypatch.setattr("podero_async.backfill._writer._MAX_WAIT_S", 10.0)  # a commit takes real time


@pytest.fixture
async def simulator() -> AsyncIterator[PoderoSimulator]:
    """Serve a small fleet: 8 users, 10 vehicles, 40 sessions each."""
    async with PoderoSimulator(users=8, vehicles=10, sessions_per_vehicle=40, seed=1) as running:
        yield running

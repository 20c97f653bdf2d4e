"""Fixtures and options of all tests: the event loop, a simulator, and the watch over the library's log.

A test reports a figure with `record_property("figure", ...)`; the summary of the run lists all figures.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import signal
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from podero_async.backfill import SessionStore
from podero_async.testing import PoderoSimulator
from tests._support.time_warp import LeapingLoop

if TYPE_CHECKING:
    from tests._support.browser import OpenPage

pytest_plugins = ["podero_async.testing.pytest", "tests._support.postgres_server"]

FAKE_TOKEN = "token-1"
"""The token of the clients that `tests._support.clients` connects to fake servers."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests that are marked `leaping` on a loop whose clock jumps over waits."""
    if item.get_closest_marker("leaping"):
        return {"leaping": LeapingLoop}
    return {"plain": asyncio.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    """Let only the long forms draw new examples, and restore the handler of SIGINT, which a background job ignores."""
    no_bounds = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.register_profile("fresh", no_bounds)
    hypothesis.settings.register_profile("repeatable", no_bounds, derandomize=True)
    is_long_form = config.option.markexpr == "soak"
    hypothesis.settings.load_profile("fresh" if is_long_form else "repeatable")
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--soak-scale`, which scales the soak tests."""
    parser.addoption("--soak-scale", type=float, default=1.0, help="factor of the size of soak tests")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the figures that tests reported."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    figures = [
        (report.nodeid, value) for report in reports for name, value in report.user_properties if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for node, value in sorted(figures):
            terminalreporter.write_line(f"{node}: {value}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the long form of a slow proof out of `-m slow`."""
    for item in items:
        if item.get_closest_marker("soak"):
            item.own_markers = [mark for mark in item.own_markers if mark.name != "slow"]


_EMAIL_ADDRESS = re.compile(r"[\w.+-](@|%40)\w", re.IGNORECASE)


class LogWatch(logging.Handler):
    """Collects the log records that contain an e-mail address, a token of a fake server, or a secret of a simulator."""

    def __init__(self) -> None:
        super().__init__()
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Search the message, its arguments, and the traceback with the local variables of each frame."""
        line = f"{record.getMessage()} {record.args!r}"
        if record.exc_info and (error := record.exc_info[1]):
            trace = traceback.TracebackException(type(error), error, error.__traceback__, capture_locals=True)
            line += "".join(trace.format())
        secrets = {FAKE_TOKEN}.union(*(simulator.secrets for simulator in PoderoSimulator.instances()))
        if _EMAIL_ADDRESS.search(line) or any(secret in line for secret in secrets):
            self.leaks.append(line)


@pytest.fixture(autouse=True)
def log_watch() -> Iterator[LogWatch]:
    """Fail any test during which the library logs a secret or an e-mail address, at any level."""
    watch, logger = LogWatch(), logging.getLogger("podero_async")
    level = logger.level
    logger.addHandler(watch)
    logger.setLevel(logging.DEBUG)
    yield watch
    logger.setLevel(level)
    logger.removeHandler(watch)
    assert not watch.leaks


@pytest.fixture
def soak_scale(request: pytest.FixtureRequest) -> float:
    """Return the factor by which soak tests are scaled."""
    scale: float = request.config.getoption("--soak-scale")
    return scale


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a store without sessions, which costs more time than copying it."""
    made = tmp_path_factory.mktemp("empty") / "fleet.duckdb"

    async def create() -> None:
        async with SessionStore(made):
            pass

    asyncio.run(create())
    return made


@pytest.fixture
def path(tmp_path: Path, empty_store: Path) -> Path:
    """Return the path of a store without sessions, which no backfill has claimed yet."""
    return Path(shutil.copy(empty_store, tmp_path))


@pytest.fixture
def new_path(tmp_path: Path) -> Path:
    """Return the path of a store that does not exist yet."""
    return tmp_path / "fleet.duckdb"


def small_fleet() -> PoderoSimulator:
    """Return a server of 8 users, 10 vehicles, 40 sessions each."""
    return PoderoSimulator(users=8, vehicles=10, sessions_per_vehicle=40, seed=1)


@pytest.fixture
async def simulator() -> AsyncIterator[PoderoSimulator]:
    """Serve a small fleet."""
    async with small_fleet() as running:
        yield running


@pytest.fixture(scope="session")
def open_page() -> Iterator[OpenPage]:
    """Start a browser, and return a function that opens a page in it."""
    from tests._support.browser import running_browser  # noqa: PLC0415 - not every test needs it

    yield from running_browser()

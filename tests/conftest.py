"""What all tests share: the event loop they run on, a simulator to talk to, and how figures are told.

A test tells a figure with pytest's own `record_property("figure", ...)`; all of them stand at the end of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from podero_async.testing import PoderoSimulator
from tests.leaping import LeapingLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is marked `leaping` on a loop that jumps over waits instead of sitting them out."""
    if item.get_closest_marker("leaping"):
        return {"leaping": LeapingLoop}
    return {"plain": asyncio.new_event_loop}


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


@pytest.fixture
def soak_scale(request: pytest.FixtureRequest) -> float:
    """Say how many times as long a long form is to take."""
    scale: float = request.config.getoption("--soak-scale")
    return scale


@pytest.fixture
async def simulator() -> AsyncIterator[PoderoSimulator]:
    """Serve a small fleet: 8 users, 10 vehicles, 40 sessions each."""
    async with PoderoSimulator(users=8, vehicles=10, sessions_per_vehicle=40, seed=1) as running:
        yield running

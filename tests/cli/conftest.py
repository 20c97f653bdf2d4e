"""Fixtures of the commands' tests: an environment, a simulated fleet, a filled store, and `main` to call."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import podero_async
from podero_async.cli import main
from podero_async.testing import PoderoSimulator
from tests._support.clients import QUICK
from tests._support.commands import Call, Ended, settings_of, whole_fleet

_ROOT = Path(podero_async.__file__).parents[1]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each command without settings of this machine, on a terminal of 80 columns."""
    for name in [name for name in os.environ if name.startswith("PODERO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture
async def served(simulator: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> PoderoSimulator:
    """Serve a small fleet, and point the environment to it."""
    for name, value in settings_of(simulator).items():
        monkeypatch.setenv(name, value)
    return simulator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a store that does not exist yet."""
    return tmp_path / "fleet.duckdb"


@pytest.fixture
async def filled(call: Call, served: PoderoSimulator, path: Path) -> Path:
    """Fill a store with the sessions of the small fleet."""
    assert (await call(*whole_fleet(served, path))).code == 0
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Call `main` in a thread, beside the simulator in the test's event loop; retries are quick."""

    async def run(*argv: str, **keywords: Any) -> Ended:
        code = await asyncio.to_thread(main, argv, **{"retry": QUICK, **keywords})
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def on_terminal(call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call `main` with a stdout that claims to be a terminal."""

    async def run(*argv: str, **keywords: Any) -> Ended:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        return await call(*argv, **keywords)

    return run

"""Fixtures of the commands' tests: an environment, a simulated fleet, a filled store, and `main` to call."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

import podero_async
from podero_async.backfill import SessionStore, backfill
from podero_async.cli import main
from podero_async.testing import PoderoSimulator
from tests._support.clients import QUICK, client_of
from tests._support.commands import Call, Ended, settings_of
from tests.conftest import small_fleet

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


@pytest.fixture(scope="session")
def filled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fill a store with the sessions of the small fleet."""
    made = tmp_path_factory.mktemp("filled") / "fleet.duckdb"

    async def fill() -> None:
        async with small_fleet() as sim, client_of(sim) as client, SessionStore(made) as store:
            await backfill(client, store, sim.first_day, sim.last_day)

    asyncio.run(fill())
    return made


@pytest.fixture
def filled(served: PoderoSimulator, filled_store: Path, tmp_path: Path) -> Path:
    """Return a copy of the filled store whose owner is the served fleet."""
    copy = Path(shutil.copy(filled_store, tmp_path))
    with duckdb.connect(str(copy)) as con:
        con.execute("UPDATE meta SET value = ? WHERE key = 'origin'", [served.base_url])
    return copy


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

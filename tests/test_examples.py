"""The examples in tests/examples run as they stand, against the simulator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import podero_async.backfill
from podero_async.backfill import SessionStore
from podero_async.testing import PoderoSimulator
from tests.examples import bot, fleet, nightly, own_tests

EXAMPLES = Path(__file__).parent / "examples"


@pytest.mark.usefixtures("podero_environment")
async def test_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    """The fleet example prints a line for each vehicle and then the summary."""
    await fleet.main()
    printed = capsys.readouterr().out
    assert printed.count("verified\n") == 10
    assert "FleetSummary(vehicles=10, failures=0" in printed


@pytest.mark.usefixtures("podero_environment")
async def test_nightly(tmp_path: Path) -> None:
    """The nightly example fills a store, and succeeds again on the next night."""
    path = str(tmp_path / "fleet.duckdb")
    assert await nightly.nightly(path) is True
    assert await nightly.nightly(path) is True


@pytest.mark.usefixtures("podero_environment")
async def test_bot(podero_simulator: PoderoSimulator, tmp_path: Path) -> None:
    """The bot replies in kWh for a customer's external id."""
    async with bot.make_client(str(tmp_path / "token.json")) as client:
        external_id = next(iter(podero_simulator.external_ids.values()))
        assert re.fullmatch(r"\d+\.\d kWh this week", await bot.charged_this_week(client, external_id))


test_own_tests = own_tests.test_no_session_is_lost


@pytest.mark.usefixtures("podero_environment")
async def test_nightly_queries(tmp_path: Path) -> None:
    """The SQL in the documentation of `podero_async.backfill` returns rows from a store."""
    path = str(tmp_path / "fleet.duckdb")
    await nightly.nightly(path)
    queries = re.findall(r"^    (SELECT .*?;)$", podero_async.backfill.__doc__ or "", re.DOTALL | re.MULTILINE)
    assert len(queries) == 3
    async with SessionStore(path, read_only=True) as store:
        for query in queries:
            assert await store.query(query)


def test_every_example_has_a_test() -> None:
    """Each example has a test of its name in this module, or a module of tests beside it."""
    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"__init__"}
    modules = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert all(f"test_{name}" in globals() or f"test_{name}" in modules for name in names)

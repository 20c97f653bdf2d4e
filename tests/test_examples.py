"""The examples in tests/examples run as they stand, against the simulator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

import podero_async.backfill
from podero_async.backfill import SessionStore
from podero_async.testing import PoderoSimulator
from tests.examples import bot, fleet, nightly, own_tests, service

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture
def environment(simulator: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the environment variables at the simulator."""
    for name in ("PODERO_USERNAME", "PODERO_PASSWORD", "PODERO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PODERO_ORG_ID", str(simulator.org_id))
    monkeypatch.setenv("PODERO_CLIENT_ID", simulator.client_id)
    monkeypatch.setenv("PODERO_CLIENT_SECRET", simulator.client_secret)
    monkeypatch.setenv("PODERO_BASE_URL", simulator.base_url)


@pytest.mark.usefixtures("environment")
async def test_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    """The fleet example prints a line for each vehicle and then the summary."""
    await fleet.main()
    printed = capsys.readouterr().out
    assert printed.count("verified\n") == 10
    assert "FleetSummary(vehicles=10, failures=0" in printed


@pytest.mark.usefixtures("environment")
async def test_nightly(tmp_path: Path) -> None:
    """The nightly example fills a store, and succeeds again on the next night."""
    path = str(tmp_path / "fleet.duckdb")
    assert await nightly.nightly(path) is True
    assert await nightly.nightly(path) is True


@pytest.mark.usefixtures("environment")
async def test_service(simulator: PoderoSimulator) -> None:
    """The backend responds with 200, 404 for an unknown vehicle and 422 for an id that is not a uuid."""
    runner = web.AppRunner(service.make_app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    ref = simulator.vehicles[0]
    try:
        async with ClientSession(f"http://{host}:{port}") as session:
            for vehicle_id, status in ((ref.vehicle_id, 200), (ref.user_id, 404), ("tesla", 422)):
                async with session.get(f"/users/{ref.user_id}/vehicles/{vehicle_id}/live") as response:
                    assert response.status == status
                    assert str(simulator.org_id) not in await response.text()
    finally:
        await runner.cleanup()


@pytest.mark.usefixtures("environment")
async def test_bot(simulator: PoderoSimulator, tmp_path: Path) -> None:
    """The bot replies in kWh for a customer's external id."""
    async with bot.make_client(str(tmp_path / "token.json")) as client:
        users = [user async for user in client.users()]
        external_id = next(user.external_user_id for user in users if user.external_user_id)
        assert re.fullmatch(r"\d+\.\d kWh this week", await bot.charged_this_week(client, external_id))


async def test_own_tests() -> None:
    """The simulator example reads all sessions through the faults."""
    assert await own_tests.simulated_sessions() > 500


@pytest.mark.usefixtures("environment")
async def test_nightly_queries(tmp_path: Path) -> None:
    """The SQL in the documentation of `podero_async.backfill` returns rows from a store."""
    path = str(tmp_path / "fleet.duckdb")
    await nightly.nightly(path)
    queries = re.findall(r"^    (SELECT .*?;)$", podero_async.backfill.__doc__ or "", re.DOTALL | re.MULTILINE)
    assert len(queries) == 4
    async with SessionStore(path, read_only=True) as store:
        for query in queries:
            assert await store.query(query)


def test_every_example_has_a_test() -> None:
    """No example is without a test of its name in this module."""
    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"__init__"}
    assert all(f"test_{name}" in globals() for name in names)

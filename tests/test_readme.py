"""The README tells the truth: its code runs, and its commands are the ones that exist."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from aiohttp import ClientSession, web

from podero_async import RetryPolicy, ThrottlePolicy, Timeouts, errors
from podero_async.backfill import SessionStore
from podero_async.testing import PoderoSimulator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def environment(simulator: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PODERO_USERNAME", "PODERO_PASSWORD", "PODERO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PODERO_ORG_ID", str(simulator.org_id))
    monkeypatch.setenv("PODERO_CLIENT_ID", simulator.client_id)
    monkeypatch.setenv("PODERO_CLIENT_SECRET", simulator.client_secret)
    monkeypatch.setenv("PODERO_BASE_URL", simulator.base_url)


def block(name: str) -> SimpleNamespace:
    """Run the one code block that defines a name."""
    (code,) = (code for code in BLOCKS if re.search(rf"^(async )?def {name}\b", code, re.MULTILINE))
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    return SimpleNamespace(**names)


@pytest.mark.usefixtures("environment")
async def test_the_fleets_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing that a reader tries would fail."""
    await block("main").main()
    printed = capsys.readouterr().out
    assert printed.count("verified\n") == 10
    assert "FleetSummary(vehicles=10, failures=0" in printed


@pytest.mark.usefixtures("environment")
async def test_the_backends_block_runs(simulator: PoderoSimulator) -> None:
    """A service built after it would not start, or answer nothing."""
    runner = web.AppRunner(block("live").app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    ref = simulator.vehicles[0]
    try:
        async with ClientSession(f"http://{host}:{port}") as session:
            async with session.get(f"/users/{ref.user_id}/vehicles/{ref.vehicle_id}/live") as answer:
                assert isinstance((await answer.json())["charging"], bool)
            async with session.get(f"/users/{ref.user_id}/vehicles/{ref.user_id}/live") as answer:
                assert answer.status == 404
            simulator.revoke_tokens()
            simulator.client_secret = "changed"
            async with session.get(f"/users/{ref.user_id}/vehicles/{ref.vehicle_id}/live") as answer:
                assert answer.status in {200, 503}
    finally:
        await runner.cleanup()


@pytest.mark.usefixtures("environment")
async def test_the_bots_block_runs(simulator: PoderoSimulator, tmp_path: Path) -> None:
    """A bot built after it would not answer."""
    bot = block("charged_this_week")
    async with bot.make_client(str(tmp_path / "token.json")) as client:
        users = [user async for user in client.users()]
        user = next(user for user in users if user.external_user_id)
        assert re.fullmatch(r"\d+\.\d kWh this week", await bot.charged_this_week(client, user.external_user_id))


@pytest.mark.usefixtures("environment")
async def test_the_backfills_block_and_queries_run(tmp_path: Path) -> None:
    """A nightly job built after it would not run, or a question not be answered."""
    store = tmp_path / "fleet.duckdb"
    assert await block("nightly").nightly(str(store)) is True
    (queries,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    async with SessionStore(store, read_only=True) as reopened:
        answers = [await reopened.query(query) for query in queries.split(";") if query.strip()]
    assert [len(answer) > 0 for answer in answers] == [True, True, True]


async def test_the_simulators_block_runs() -> None:
    """A reader could not test code of their own."""
    assert await block("simulated_sessions").simulated_sessions() > 500


def test_every_block_is_run_by_a_test() -> None:
    """A block would rot unnoticed."""
    assert len(BLOCKS) == 5


@pytest.mark.parametrize(
    "policy", [RetryPolicy(), ThrottlePolicy(), Timeouts()], ids=lambda policy: type(policy).__name__
)
def test_the_knobs_are_as_the_readme_says(policy: attrs.AttrsInstance) -> None:
    """A reader would tune from wrong numbers."""
    name = type(policy).__name__
    match = re.search(rf"`{name}\((.*?)\)`: ", README)
    assert match, name
    for argument in match[1].replace(", ...", "").split(", "):
        knob, value = argument.split("=")
        assert str(getattr(policy, knob)) == value


def test_every_error_is_in_the_table() -> None:
    """An error would surprise a reader."""
    for name in set(errors.__all__) - {"ApiError"}:
        assert f"`{name}`" in README, name

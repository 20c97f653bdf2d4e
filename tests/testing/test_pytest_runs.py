"""The fixtures in a user's test suite: a package in a temporary folder, with a pytest run of its own under `-W error`."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
OPT_IN = 'pytest_plugins = ["podero_async.testing.pytest"]\n'

SYNCHRONOUS = """
    import asyncio, json, pytest, urllib.request
    from podero_async.testing import PoderoSimulator

    def log_in(simulator):
        body = {"grant_type": "client_credentials", "client_id": simulator.client_id, "client_secret": simulator.client_secret}
        headers = {"Content-Type": "application/json"}
        url = f"{simulator.base_url}/api/partners/v2.0/auth/token"
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=60) as response:
            return json.load(response)

    @pytest.mark.podero(users=2, token_lifetime_s=60)
    def test_without_a_loop(podero_simulator):
        assert log_in(podero_simulator)["expires_in"] == 60
        assert podero_simulator.counts.tokens_issued == 1

    def test_with_a_loop_of_its_own(podero_simulator, podero_client):
        async def main():
            async with podero_client:
                return [user.id async for user in podero_client.users()]
        assert asyncio.run(main()) == list(podero_simulator.external_ids)

    def test_unused(podero_client): pass

    @pytest.fixture(scope="module")
    def fleet():
        with PoderoSimulator(users=3) as simulator:
            yield simulator

    @pytest.mark.parametrize("number", [1, 2])
    def test_another_scope(fleet, number):
        assert "access_token" in log_in(fleet)
        assert fleet.counts.tokens_issued == number
"""

ASYNCHRONOUS = """
    import asyncio, pytest

    async def read(client, simulator, number=0):
        ref = simulator.vehicles[number]
        days = simulator.first_day, simulator.last_day
        read = await client.vehicle_sessions(ref.user_id, ref.vehicle_id, *days)
        assert [str(session.id) for session in read.sessions] == [row["id"] for row in simulator.truth(ref)]
        row = simulator.insert(ref)
        assert row["id"] in {str(s.id) for s in (await client.vehicle_sessions(ref.user_id, ref.vehicle_id, *days)).sessions}

    MARK
    async def test_function(podero_client, podero_simulator):
        await read(podero_client, podero_simulator)

    MARK
    @pytest.mark.parametrize("attempt", range(3))
    async def test_again(podero_client_factory, podero_simulator, attempt):
        await asyncio.gather(*(read(podero_client_factory(), podero_simulator, number) for number in range(3)))

    MARK
    @pytest.mark.podero(faults=["current/hang"])
    async def test_left_early(podero_client, podero_simulator):
        ref = podero_simulator.vehicles[0]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await podero_client.current_session(ref.user_id, ref.vehicle_id)

    @FIXTURE
    async def users(podero_client):
        return [user.id async for user in podero_client.users()]

    MARK
    async def test_a_fixture_uses_the_client(users, podero_simulator, podero_client):
        assert users == list(podero_simulator.external_ids)
        await read(podero_client, podero_simulator)
"""

SCOPES = """
    @pytest.mark.asyncio(loop_scope="module")
    @pytest.mark.parametrize("attempt", range(2))
    async def test_a_module_s_loop(podero_client, podero_simulator, attempt):
        await read(podero_client, podero_simulator)

    @pytest.mark.asyncio(loop_scope="session")
    async def test_the_session_s_loop(podero_client, podero_simulator):
        await read(podero_client, podero_simulator)

    @pytest.mark.asyncio(loop_scope="class")
    class TestClass:
        async def test_one(self, podero_client, podero_simulator):
            await read(podero_client, podero_simulator)

        async def test_two(self, podero_client, podero_simulator):
            await read(podero_client, podero_simulator)
"""

ANYIO = """
    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""


def asynchronous(mark: str, fixture: str, *more: str) -> str:
    """Return a module of asynchronous tests with the marks of a pytest plugin."""
    code = ASYNCHRONOUS.replace("MARK", mark).replace("FIXTURE", fixture)
    return dedent(code) + "".join(map(dedent, more))


async def run(folder: Path, *options: str, **files: str) -> str:
    """Write modules into a folder, run pytest there, and return the last line of its output."""
    for name, code in files.items():
        (folder / f"{name}.py").write_text(dedent(code), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "pytest", "-W", "error", "--strict-markers"),
        *("-p", "no:cacheprovider", "-q", *options),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 300)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = out.decode()
    assert process.returncode == 0, text
    return re.sub(r" in [\d.]+s.*", "", text.splitlines()[-1])


@pytest.mark.slow
async def test_synchronous_tests(tmp_path: Path) -> None:
    """Synchronous tests use the simulator without any asyncio plugin, and other fixtures may share one."""
    assert await run(tmp_path, conftest=OPT_IN, test_it=SYNCHRONOUS) == "5 passed"


@pytest.mark.slow
async def test_pytest_asyncio_strict(tmp_path: Path) -> None:
    """With pytest-asyncio in strict mode, every loop scope has a client, beside synchronous tests."""
    code = asynchronous("@pytest.mark.asyncio", "__import__('pytest_asyncio').fixture", SCOPES)
    options = (
        "-p",
        "pytest_asyncio.plugin",
        "-o",
        "asyncio_mode=strict",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
    )
    assert await run(tmp_path, *options, conftest=OPT_IN, test_it=code, test_sync=SYNCHRONOUS) == "16 passed"


@pytest.mark.slow
async def test_pytest_asyncio_auto(tmp_path: Path) -> None:
    """With pytest-asyncio in auto mode, unmarked tests have a client, beside marked ones."""
    code = asynchronous("", "pytest.fixture", SCOPES)
    options = (
        "-p",
        "pytest_asyncio.plugin",
        "-o",
        "asyncio_mode=auto",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
    )
    assert await run(tmp_path, *options, conftest=OPT_IN, test_it=code, test_sync=SYNCHRONOUS) == "16 passed"


@pytest.mark.slow
async def test_anyio(tmp_path: Path) -> None:
    """With anyio's plugin, tests and fixtures have a client."""
    code = asynchronous("@pytest.mark.anyio", "pytest.fixture", ANYIO)
    assert (
        await run(tmp_path, "-p", "anyio.pytest_plugin", conftest=OPT_IN, test_it=code, test_sync=SYNCHRONOUS)
        == "11 passed"
    )


@pytest.mark.slow
async def test_nobody_s_pytest_imports_aiohttp_unasked(tmp_path: Path) -> None:
    """Without the opt-in, pytest imports neither the library nor aiohttp, and knows no fixture of it."""
    code = """
        import sys, pytest

        def test_it(request):
            assert not {"aiohttp", "podero_async"} & set(sys.modules)
            with pytest.raises(pytest.FixtureLookupError):
                request.getfixturevalue("podero_simulator")
    """
    assert await run(tmp_path, test_it=code) == "1 passed"


def test_the_package_registers_no_plugin() -> None:
    """The package has no entry point of pytest, which would load the fixtures in everybody's runs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "pytest11" not in project.get("entry-points", {})

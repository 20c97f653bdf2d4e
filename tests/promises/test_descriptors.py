"""If no file descriptor is free, calls raise the errors of the library, and commands say which limit was reached."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import pytest

from podero_async.testing import Fault, PoderoSimulator
from tests._support.commands import end_of, one_vehicle, settings_of, whole_fleet

_ROOT = Path(__file__).parents[2]
_FLEET_WITHOUT_DESCRIPTORS = """
import asyncio, resource, sys
from datetime import date
from podero_async import ClientCredentials, PoderoClient, PoderoError, VehicleFailure

async def main(org, url, client_id, secret, first, last):
    async with PoderoClient(org, ClientCredentials(client_id, secret), base_url=url) as client:
        vehicles = [vehicle async for vehicle in client.discover_vehicles()]
        for name in ("cattrs", "cattrs.converters", "podero_async._decode.converter", "tenacity"):
            sys.modules.pop(name, None)  # as if the first failure came before the import
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        held = []
        try:
            while True:
                held.append(open("/dev/null"))
        except OSError:
            pass
        outcomes = 0
        async with client.fetch_fleet(date.fromisoformat(first), date.fromisoformat(last), vehicles) as fleet:
            async for outcome in fleet:
                if isinstance(outcome, VehicleFailure):
                    assert isinstance(outcome.error, PoderoError)
                else:
                    assert not outcome.rejected, "no row is at fault"
                outcomes += 1
        for file in held:
            file.close()
        print(outcomes)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_a_fleet_without_descriptors_fails_vehicle_by_vehicle(simulator: PoderoSimulator) -> None:
    """If no file descriptor is left when a page must be read row by row,
    each vehicle has an outcome, without bare errors.
    """
    simulator.add_fault(Fault(kind="malformed_row", field="energy_charged_kwh", nth={2, 3}, endpoint="sessions"))
    arguments = [simulator.org_id, simulator.base_url, simulator.client_id, simulator.client_secret]
    arguments += [simulator.first_day, simulator.last_day]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _FLEET_WITHOUT_DESCRIPTORS, *map(str, arguments)),
        cwd=_ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert output.decode().split() == [str(len(simulator.vehicles))], errors.decode()[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("descriptors", [14, 24, *(pytest.param(n, marks=pytest.mark.soak) for n in (16, 40, 64))])
@pytest.mark.parametrize("name", ["backfill", "sessions", "status"])
async def test_a_command_without_descriptors_says_so(
    simulator: PoderoSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descriptors: int, name: str
) -> None:
    """Under any limit of open files a command ends with a documented exit code, and never blames its output."""
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    for setting, value in settings_of(simulator).items():
        monkeypatch.setenv(setting, value)
    store = tmp_path / "fleet.duckdb"
    argv = {
        "backfill": whole_fleet(simulator, store),
        "sessions": one_vehicle(simulator),
        "status": ["status", f"--store={store}"],
    }[name]
    command = shlex.join([sys.executable, "-m", "podero_async", *argv])
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"ulimit -n {descriptors}; exec {command}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    ended = await end_of(process)
    assert ended.code in {0, 1, 2, 4, 5}, ended.err
    assert "output" not in ended.err
    if ended.code:
        assert all(line.startswith("podero-async: ") for line in ended.err.splitlines())

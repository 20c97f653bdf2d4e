"""The FastAPI service in tests/examples as it runs in production: under uvicorn, and under gunicorn with two workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from podero_async.models import VehicleRef
from podero_async.testing import Fault, PoderoSimulator

APP = "tests.examples.service:app"
ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.podero(users=1, vehicles=2, sessions_per_vehicle=600)]


@asynccontextmanager
async def serving(*command: str, **environment: str) -> AsyncIterator[tuple[Process, aiohttp.ClientSession]]:
    """Start a server, which gets the socket as `{fd}`, in a process of its own, and call it with a connection a request."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *[part.format(fd=listening.fileno()) for part in command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            pass_fds=[listening.fileno()],
            stderr=PIPE,
            stdout=PIPE,
            start_new_session=True,
        )
        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            async with aiohttp.ClientSession(origin, connector=aiohttp.TCPConnector(force_close=True)) as http:
                yield process, http
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers, too, which hold the pipes
            await process.wait()


def sessions_path(vehicle: VehicleRef) -> str:
    return f"/users/{vehicle.user_id}/sessions?from=2020-01-01&to=2026-12-31"


async def output_after(process: Process) -> str:
    """Wait for the end of the process, and return all that it wrote."""
    async with asyncio.timeout(60):
        written = await process.communicate()
    return b"".join(written).decode()


@pytest.mark.usefixtures("podero_environment")
async def test_a_stream_outlasts_sigterm(podero_simulator: PoderoSimulator) -> None:
    """A stream that runs when the service gets SIGTERM ends whole, and the service ends after it, with nothing left open."""
    first, second = podero_simulator.vehicles
    async with (
        serving("uvicorn", APP, "--fd", "{fd}") as (process, http),
        http.get(sessions_path(first)) as response,
    ):
        podero_simulator.latency_s = 0.3
        lines = [await response.content.readline()]
        process.send_signal(signal.SIGTERM)
        lines += [line async for line in response.content]
        output = await output_after(process)
    truth = [row["id"] for vehicle in (first, second) for row in podero_simulator.truth(vehicle)]
    assert {json.loads(line)["id"] for line in lines} == set(truth)
    assert "Application shutdown complete" in output
    assert "Traceback" not in output
    assert "Unclosed" not in output


@pytest.mark.usefixtures("podero_environment")
async def test_a_stream_that_hangs_is_cut_off(podero_simulator: PoderoSimulator) -> None:
    """After the graceful timeout, a stream that hangs is cut off, and the client is closed."""
    first, second = podero_simulator.vehicles
    podero_simulator.add_fault(Fault(kind="hang", endpoint="sessions", vehicle=second))
    async with (
        serving("uvicorn", APP, "--fd", "{fd}", "--timeout-graceful-shutdown", "1") as (process, http),
        http.get(sessions_path(first)) as response,
    ):
        for _ in podero_simulator.truth(first):
            await response.content.readline()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
        output = await output_after(process)
    assert "Application shutdown complete" in output
    assert "Unclosed" not in output


@pytest.mark.usefixtures("podero_environment")
async def test_two_workers_share_one_token(podero_simulator: PoderoSimulator, tmp_path: Path) -> None:
    """Two gunicorn workers with one token file make one token request, and SIGTERM ends both."""
    vehicle = podero_simulator.vehicles[0]
    live = f"/users/{vehicle.user_id}/vehicles/{vehicle.vehicle_id}/live"
    command = [
        "gunicorn",
        "--workers",
        "2",
        "--worker-class",
        "uvicorn_worker.UvicornWorker",
        "--bind",
        "fd://{fd}",
        APP,
    ]
    async with serving(*command, TOKEN_FILE=str(tmp_path / "token.json")) as (process, http):

        async def call(path: str) -> Any:
            async with http.get(path) as response:
                assert response.status == 200
                return await response.json()

        token_requests: set[int] = set()
        async with asyncio.timeout(60):
            while token_requests != {0, 1}:
                await asyncio.gather(*[call(live) for _ in range(8)])
                health = await asyncio.gather(*[call("/health") for _ in range(8)])
                token_requests |= {each["token_requests"] for each in health if each["requests"]}
        process.send_signal(signal.SIGTERM)
        output = await output_after(process)
    assert podero_simulator.counts.requests["token"] == 1
    assert process.returncode == 0
    assert "Traceback" not in output

"""`podero-async simulate`: its output, the fleet that it serves, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientSession

from podero_async import PoderoClient, VehicleRef
from tests._support.clients import USER, VEHICLE, wire_row
from tests._support.commands import Call, Ended, end_of, start


@asynccontextmanager
async def _simulating(*argv: str, end: int = signal.SIGTERM) -> AsyncIterator[list[str]]:
    """Run the command, yield the lines that it prints first, and end it with a signal."""
    process = await start("simulate", "--port", "0", *argv)
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(60):
            while not lines or not lines[-1].startswith("# podero-async"):
                line = await process.stdout.readline()
                assert line, await end_of(process)
                lines.append(line.decode().rstrip("\n"))
        yield lines
        process.send_signal(end)
        assert await end_of(process) == Ended(0, "", "")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _take(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Set the environment to the printed settings, and return the arguments of the printed example."""
    for line in lines[:4]:
        name, _, value = line.removeprefix("export ").partition("=")
        monkeypatch.setenv(name, value)
    return shlex.split(lines[-1].removeprefix("# podero-async "))


@pytest.mark.slow
async def test_the_printed_settings(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The printed command prints sessions, a shell can evaluate the settings, and tokens live as long as they should."""
    size = ("--vehicles=3", "--users=2", "--sessions=5", "--seed=7")
    async with _simulating(*size, "--token-lifetime=90.5", end=signal.SIGINT) as lines:
        assert "3 vehicles, 15 sessions" in lines[4]
        ended = await call(*_take(lines, monkeypatch), "--include-hidden")
        assert (ended.code, ended.err, len(ended.out.splitlines())) == (0, "", 5)
        assert await _evaluated(lines) == [line.partition("=")[2] for line in lines[:4]]
        body = {"grant_type": "client_credentials"} | {
            name: os.environ[f"PODERO_{name.upper()}"] for name in ("client_id", "client_secret")
        }
        url = f"{os.environ['PODERO_BASE_URL']}/api/partners/v2.0/auth/token"
        async with ClientSession() as session, session.post(url, json=body) as response:
            assert (await response.json())["expires_in"] == 90.5


async def _evaluated(lines: list[str]) -> list[str]:
    """Return the settings of a shell that has evaluated the lines."""
    shell = await asyncio.create_subprocess_exec(
        "sh", "-eu", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]}
    )
    script = [*lines, 'echo "$PODERO_BASE_URL|$PODERO_ORG_ID|$PODERO_CLIENT_ID|$PODERO_CLIENT_SECRET"']
    out, _ = await shell.communicate("\n".join(script).encode())
    return out.decode().strip().split("|")


async def test_rows_from_a_file_and_faults(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--rows` serves recorded rows, and `--faults` makes requests fail."""
    file = tmp_path / "rows.jsonl"
    owner = {"user_id": str(USER), "vehicle_id": str(VEHICLE)}
    file.write_text("".join(json.dumps(owner | wire_row(number)) + "\n" for number in range(3)))
    faults = ("--faults", "sessions/status:404@#1", "sessions/status:403@#2")
    async with _simulating(f"--rows={file}", *faults) as lines:
        assert "1 vehicles, 3 sessions" in lines[4]
        argv = _take(lines, monkeypatch)
        ends = [await call(*argv) for _ in range(3)]
        assert [(ended.code, len(ended.out.splitlines())) for ended in ends] == [(2, 0), (3, 0), (0, 3)]


async def test_changes_while_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--complete-every` lists ever more sessions that end now, and `--move-every` moves vehicles to other users."""
    size = ("--vehicles=2", "--users=3", "--sessions=1")
    async with _simulating(*size, "--complete-every=0.01", "--move-every=0.01", "--latency=0.001") as lines:
        assert "2 vehicles, 2 sessions, users customer_1 to customer_3" in lines[4]
        _take(lines, monkeypatch)
        async with PoderoClient.from_env() as client, asyncio.timeout(60):
            yesterday = datetime.now(UTC).date() - timedelta(days=1)
            pairs, sessions = set[VehicleRef](), 0
            while len(pairs) < 4 or sessions < 5:
                async with client.fetch_fleet(yesterday, date.max, include_hidden=True) as fleet:
                    pairs |= {outcome.vehicle async for outcome in fleet if outcome.vehicle is not None}
                sessions = max(sessions, fleet.summary.sessions)
    assert len({pair.vehicle_id for pair in pairs}) == 2


async def test_a_port_in_use(call: Call) -> None:
    """If the port is in use, the exit code is 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = await call("simulate", f"--port={taken.getsockname()[1]}")
    assert ended.code == 2
    assert "in use" in ended.complaint


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ('{"user_id": 1}', "line 1: "), ("{", "line 1: "), ("\udcff", "codec")],
)
async def test_unreadable_rows(call: Call, tmp_path: Path, content: str | None, said: str) -> None:
    """One line names the file and the number of the bad line."""
    file = tmp_path / "rows.jsonl"
    if content is not None:
        file.write_bytes(content.encode(errors="surrogateescape"))
    ended = await call("simulate", f"--rows={file}")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.complaint
    assert "rows.jsonl" in ended.complaint


async def test_rows_and_sizes_exclude_each_other(call: Call) -> None:
    """The exit code is 2 if `--rows` is given together with the size of a fleet."""
    ended = await call("simulate", "--rows=rows.jsonl", "--sessions=0")
    assert ended.code == 2
    assert "leave out" in ended.complaint


@pytest.mark.slow
async def test_rows_without_a_vehicle(tmp_path: Path) -> None:
    """An empty file is served, and no example is printed."""
    file = tmp_path / "rows.jsonl"
    file.write_text("\n")
    process = await start("simulate", "--port=0", f"--rows={file}")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        lines = [await process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGTERM)
    assert await end_of(process) == Ended(0, "", "")
    assert lines[4] == b"# 0 vehicles, 0 sessions\n"

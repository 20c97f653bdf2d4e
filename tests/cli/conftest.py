"""Ways to run a command: in this process, as a process of its own, and on a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest

import podero_async
from podero_async.cli import _pace, main
from podero_async.cli.commands import sessions as _sessions
from podero_async.testing import PoderoSimulator
from tests._support.clients import QUICK

_ROOT = Path(podero_async.__file__).parents[1]


@attrs.frozen
class Ended:
    """How a command ended, and what it wrote."""

    code: int | None
    out: str
    err: str

    def __attrs_post_init__(self) -> None:
        for name in ("PODERO_CLIENT_SECRET", "PODERO_PASSWORD", "PODERO_TOKEN"):
            secret = os.environ.get(name)
            assert not secret or secret not in self.out + self.err, f"{name} was shown"
        assert "Traceback" not in self.out + self.err

    @property
    def complaint(self) -> str:
        """The one line on stderr."""
        (line,) = self.err.splitlines()
        assert line.startswith("podero-async: ")
        return line.removeprefix("podero-async: ")


Call = Callable[..., Awaitable[Ended]]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every command without the settings of whoever runs the tests, and with retries that nobody waits for."""
    for name in [name for name in os.environ if name.startswith("PODERO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(_sessions, "_RETRY", QUICK)
    monkeypatch.setattr(_pace, "_RETRY", QUICK)


def settings(simulator: PoderoSimulator) -> dict[str, str]:
    """Return the environment of a client."""
    return {
        "PODERO_BASE_URL": simulator.base_url,
        "PODERO_ORG_ID": str(simulator.org_id),
        "PODERO_CLIENT_ID": simulator.client_id,
        "PODERO_CLIENT_SECRET": simulator.client_secret,
    }


@pytest.fixture
async def served(simulator: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> PoderoSimulator:
    """Serve a small fleet, and set the environment to it."""
    for name, value in settings(simulator).items():
        monkeypatch.setenv(name, value)
    return simulator


def one_vehicle(simulator: PoderoSimulator) -> list[str]:
    """Return the arguments that ask for all of the first vehicle's sessions."""
    vehicle = simulator.vehicles[0]
    return [
        "sessions",
        f"--user={vehicle.user_id}",
        f"--vehicle={vehicle.vehicle_id}",
        f"--from={simulator.first_day}",
        f"--to={simulator.last_day}",
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a store that is not there yet."""
    return tmp_path / "fleet.duckdb"


def whole_fleet(simulator: PoderoSimulator, path: Path) -> list[str]:
    """Return the arguments that bring all of a simulator's sessions into a store."""
    return ["backfill", f"--store={path}", f"--from={simulator.first_day}", f"--to={simulator.last_day}"]


@pytest.fixture
async def filled(call: Call, served: PoderoSimulator, path: Path) -> Path:
    """Fill a store with the sessions of the small fleet."""
    assert (await call(*whole_fleet(served, path))).code == 0
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Call `main` in a thread, beside the simulator of the test's event loop."""

    async def run(*argv: str) -> Ended:
        code = await asyncio.to_thread(main, argv)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def on_terminal(call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call `main` with an output that calls itself a terminal."""

    async def run(*argv: str) -> Ended:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        return await call(*argv)

    return run


async def start(*argv: str, code: str = "") -> asyncio.subprocess.Process:
    """Start a command as a process of its own, its output in pipes; with code, after that has run."""
    code += "; import sys; from podero_async.cli import main; sys.exit(main())"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *(("-m", "podero_async") if code.startswith(";") else ("-c", code)),
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def start_on_small_disk(kib: int, *argv: str) -> asyncio.subprocess.Process:
    """Start a command that may write no file longer than that, as if the disk were full."""
    command = shlex.join([sys.executable, "-m", "podero_async", *argv])
    return await asyncio.create_subprocess_exec(
        *("bash", "-c", f"ulimit -f {kib}; exec {command}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # What measures the tests' coverage would not find room for its figures, either.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
    )


async def end_of(process: asyncio.subprocess.Process) -> Ended:
    """Wait for a command's end."""
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return Ended(process.returncode, out.decode(), err.decode())


async def run_on_pty(*argv: str, err_too: bool = False, look: Callable[[str], None] = lambda _: None) -> Ended:
    """Run a command as a process of its own on a real terminal; stderr is a pipe, or of the terminal, too.

    Whenever something was written, `look` is called with all of it, in this thread.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = pty.openpty()
    stderr = theirs if err_too else asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "podero_async", *argv, stdin=theirs, stdout=theirs, stderr=stderr
        )
    finally:
        os.close(theirs)
    try:
        async with asyncio.timeout(30):
            out = await asyncio.to_thread(_read_all, ours, lambda text: loop.call_soon_threadsafe(look, text))
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
        os.close(ours)
    return Ended(process.returncode, out.decode(), (err or b"").decode())


def _read_all(terminal: int, look: Callable[[str], object]) -> bytes:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux, once nobody writes to it any more
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)
        look(b"".join(parts).decode(errors="replace"))

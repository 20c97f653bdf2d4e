"""Runs `podero-async` for tests: in this process, as another process, and on a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs

from podero_async.testing import PoderoSimulator

Call = Callable[..., Awaitable["Ended"]]
"""Runs `main` with arguments; keywords are those of `main`."""


@attrs.frozen
class Ended:
    """The exit code and the output of a command."""

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
        """The only line on stderr."""
        (line,) = self.err.splitlines()
        assert line.startswith("podero-async: ")
        return line.removeprefix("podero-async: ")


def settings_of(simulator: PoderoSimulator) -> dict[str, str]:
    """Return the environment variables of a client of a simulator."""
    return simulator.environment


def one_vehicle(simulator: PoderoSimulator) -> list[str]:
    """Return the arguments that print all sessions of the first vehicle."""
    vehicle = simulator.vehicles[0]
    return [
        "sessions",
        f"--user={vehicle.user_id}",
        f"--vehicle={vehicle.vehicle_id}",
        f"--from={simulator.first_day}",
        f"--to={simulator.last_day}",
    ]


def whole_fleet(simulator: PoderoSimulator, path: Path) -> list[str]:
    """Return the arguments that fetch all sessions of a simulator into a store."""
    return ["backfill", f"--store={path}", f"--from={simulator.first_day}", f"--to={simulator.last_day}"]


async def start(
    *argv: str,
    script: str = "main()",
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
) -> asyncio.subprocess.Process:
    """Start a command as a process.

    Args:
        argv: The arguments of the command.
        script: Python that calls `main`; its last expression is the exit code.
        stdin: Takes the place of an empty input.
        stdout: Takes the place of a pipe.
        stderr: Takes the place of a pipe.
    """
    *statements, call = script.strip().splitlines()
    code = "\n".join(["import sys", "from podero_async.cli import main", *statements, f"sys.exit({call})"])
    program = ("-m", "podero_async") if script == "main()" else ("-c", code)
    return await asyncio.create_subprocess_exec(
        sys.executable, *program, *argv, stdin=stdin, stdout=stdout, stderr=stderr
    )


async def start_on_small_disk(kib: int, *argv: str) -> asyncio.subprocess.Process:
    """Start a command that cannot write files longer than `kib` KiB, as if the disk were full."""
    command = shlex.join([sys.executable, "-m", "podero_async", *argv])
    return await asyncio.create_subprocess_exec(
        *("bash", "-c", f"ulimit -f {kib}; exec {command}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # The limit would also apply to coverage's data file.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
    )


async def start_as_process_1(*argv: str) -> asyncio.subprocess.Process:
    """Start a command as process 1 of a PID namespace, as in a container; a signal goes to `child_of` the process."""
    return await asyncio.create_subprocess_exec(
        *("unshare", "--fork", "--pid", "--mount-proc", sys.executable, "-m", "podero_async", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def child_of(pid: int) -> int:
    """Return the id of the only child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


async def start_in_pipe(reader: str, *argv: str) -> asyncio.subprocess.Process:
    """Start a command whose stdout another command reads; stderr gets its process id, and its exit code at the end."""
    command = shlex.join([sys.executable, "-m", "podero_async", *argv])
    script = f"{{ {command} & echo $! >&2; wait $!; echo $? >&2; }} | {reader} > /dev/null"
    return await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # so that the caller can end all of it
    )


async def end_of(process: asyncio.subprocess.Process) -> Ended:
    """Wait for the end of a command."""
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Ended(process.returncode, (out or b"").decode(), (err or b"").decode())


async def run_on_pty(*argv: str, stream: str = "stdout", look: Callable[[str], None] = lambda _: None) -> Ended:
    """Run a command as a process; stdin and `stream` are a pseudo-terminal, the other stream is a pipe.

    After each output to the terminal, `look` is called with all of it, in this thread.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = pty.openpty()
    streams = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, stream: theirs}
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "podero_async",
            *argv,
            stdin=theirs,
            stdout=streams["stdout"],
            stderr=streams["stderr"],
        )
    finally:
        os.close(theirs)
    try:
        async with asyncio.timeout(60):
            shown = await asyncio.to_thread(_read_all, ours, lambda text: loop.call_soon_threadsafe(look, text))
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
        os.close(ours)
    texts = {"stdout": out, "stderr": err, stream: shown}
    return Ended(process.returncode, texts["stdout"].decode(), texts["stderr"].decode())


def _read_all(terminal: int, look: Callable[[str], object]) -> bytes:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux raises at the end of a terminal
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)
        look(b"".join(parts).decode(errors="replace"))

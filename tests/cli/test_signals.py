"""SIGINT and SIGTERM: a request to stop, a forced end if the command takes too long, and the exit codes of both."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from podero_async.backfill import SessionStore
from podero_async.cli._runtime import Exit
from podero_async.cli._signals import Interrupted, Signals
from podero_async.testing import PoderoSimulator
from tests._support.commands import child_of, end_of, one_vehicle, start, start_as_process_1


@pytest.fixture
def forced_ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the exit codes of forced ends instead of ending the process."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_the_first_signal_requests_a_stop(forced_ends: list[int], number: signal.Signals, code: int) -> None:
    """The first signal sets the event and the exit code; a later SIGTERM changes nothing, and handlers are restored."""
    if (ignored := signal.getsignal(number)) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    before = signal.getsignal(number)
    signals = Signals(shutdown_s=60)

    async def wait_for_both() -> Exit:
        with signals.gracefully() as stop:
            os.kill(os.getpid(), number)
            async with asyncio.timeout(60):
                await stop.event.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
            return stop.exit

    with signals.handled():
        assert await signals.supervise(wait_for_both()) == code
    assert forced_ends == []
    assert signal.getsignal(number) == before
    signal.signal(number, ignored)


async def test_a_signal_cancels_a_command_that_does_not_ask_for_it() -> None:
    """Outside of `gracefully`, the first signal cancels the command, which cleans up."""
    cleaned: list[bool] = []
    signals = Signals(shutdown_s=60)

    async def wait() -> Exit:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(5)
        finally:
            cleaned.append(True)
        return Exit.DONE

    with signals.handled(), pytest.raises(Interrupted):
        await signals.supervise(wait())
    assert (signals.exit, cleaned) == (Exit.TERMINATED, [True])


async def test_a_cancellation_without_a_signal_is_raised() -> None:
    """If the command is cancelled for another reason, the cancellation is not taken for a signal."""

    async def cancelled() -> Exit:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Signals(shutdown_s=60).supervise(cancelled())


async def test_a_command_that_ends_in_time_is_not_forced(forced_ends: list[int]) -> None:
    """The forced end is cancelled when the block is left."""
    signals, before = Signals(shutdown_s=60), set(threading.enumerate())
    with pytest.raises(Interrupted), signals.handled():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
    for timer in set(threading.enumerate()) - before:
        timer.join()
    assert forced_ends == []


async def test_a_forced_end_cleans_up(forced_ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files are removed, and the cursor that a progress bar has hidden is shown again."""
    written: list[str] = []

    class _Terminal:
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            written.append(text)

    monkeypatch.setattr("sys.__stderr__", _Terminal())
    signals = Signals(shutdown_s=60)
    signals.on_forced_end.append(lambda: written.append("cleaned"))
    with signals.handled():
        for _ in range(2):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except Interrupted:
                continue
    assert "cleaned" in written
    assert "\x1b[?25h" in "".join(written)
    assert forced_ends == [130]


async def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    """A command runs in a thread, without handlers of its own."""
    signals = Signals(shutdown_s=60)

    async def done() -> Exit:
        return Exit.DONE

    def run() -> Exit:
        with signals.handled():
            return asyncio.run(signals.supervise(done()))

    assert await asyncio.to_thread(run) is Exit.DONE


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    """Under `nohup`, the end of the terminal does not end a command."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals(shutdown_s=60).handled():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_ends_a_blocked_read() -> None:
    """During a call that blocks, the first signal raises at once."""
    reading, writing = os.pipe()
    signals = Signals(shutdown_s=60)
    timer = threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGTERM])
    with signals.handled(), pytest.raises(Interrupted):
        timer.start()
        signals.blocked(os.read, reading, 1)
    assert signals.exit is Exit.TERMINATED
    os.close(reading)
    os.close(writing)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["argparse", "aiohttp"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_signal_ends_a_command_that_is_being_imported(
    tmp_path: Path, module: str, number: signal.Signals, code: int
) -> None:
    """While the modules of the program or of one command are imported, a signal ends it at once, with one line."""
    # The import takes an exception for a failure of the module, as those of some compiled modules do.
    (tmp_path / f"{module}.py").write_text(
        "import sys, time\ntry:\n  print(flush=True)\n  time.sleep(60)\nexcept BaseException:\n  raise ImportError from None\n"
    )
    process = await start("doctor", script=f"sys.path.insert(0, {str(tmp_path)!r})\nmain()")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        await process.stdout.readline()
    process.send_signal(number)
    ended = await end_of(process)
    assert (ended.code, ended.complaint) == (code, "interrupted")


def _commands(served: PoderoSimulator, store: Path) -> dict[str, list[str]]:
    window = [f"--from={served.first_day}", f"--to={served.last_day}"]
    return {
        "sessions": one_vehicle(served),
        "doctor": ["doctor"],
        "verify": ["verify", f"--store={store}"],
        "dry run": ["backfill", f"--store={store}.new", *window, "--dry-run"],
        "backfill": ["backfill", f"--store={store}.new", *window],
    }


async def _until_waiting(served: PoderoSimulator) -> None:
    """Wait until a command waits for a response."""
    before = len(served.requests)
    async with asyncio.timeout(60):
        while len(served.requests) == before:
            await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        *((name, signal.SIGINT, 130) for name in ("sessions", "doctor", "verify", "dry run", "backfill")),
        ("sessions", signal.SIGHUP, 129),
        ("backfill", signal.SIGHUP, 129),
        ("backfill", signal.SIGTERM, 143),
    ],
    ids=lambda value: getattr(value, "name", value),
)
async def test_a_signal_ends_each_command(
    served: PoderoSimulator, filled: Path, name: str, number: signal.Signals, code: int
) -> None:
    """A command that waits for the API ends at a signal with one line, its exit code, and no file but the stores."""
    served.latency_s = 60
    waiting = asyncio.create_task(_until_waiting(served))
    process = await start(*_commands(served, filled)[name])
    await waiting
    process.send_signal(number)
    ended = await end_of(process)
    assert ended.code == code
    assert "interrupted" in ended.complaint
    assert {file.name for file in filled.parent.iterdir()} <= {filled.name, f"{filled.name}.new"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sessions", "doctor", "verify", "dry run", "backfill"])
async def test_sigterm_ends_each_command_as_process_1(served: PoderoSimulator, filled: Path, name: str) -> None:
    """As process 1 of a container, which gets handled signals only, a command ends at SIGTERM with exit code 143."""
    try:
        subprocess.run(["unshare", "--fork", "--pid", "--mount-proc", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"PID namespaces are not allowed here: {error}")
    served.latency_s = 60
    waiting = asyncio.create_task(_until_waiting(served))
    process = await start_as_process_1(*_commands(served, filled)[name])
    await waiting
    os.kill(child_of(process.pid), signal.SIGTERM)
    ended = await end_of(process)
    assert ended.code == 143
    assert "interrupted" in ended.complaint


@pytest.mark.slow
async def test_a_signal_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's store is removed if a signal ends the demo."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = await start("demo", "--vehicles=300", "--plain")
    async with asyncio.timeout(60):
        while not list(tmp_path.glob("podero-async-*/demo.duckdb")):
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    ended = await end_of(process)
    assert (ended.code, ended.complaint) == (143, "interrupted")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_signal_ends_the_read_of_vehicles_from_a_pipe(served: PoderoSimulator, path: Path, loop: str) -> None:
    """While a command reads `--vehicles -` from a pipe without end, a signal ends it."""
    script = "main()" if loop == "uvloop" else "sys.modules.update(uvloop=None)\nmain()"
    reading, writing = os.pipe()
    argv = ["backfill", f"--store={path}", f"--from={served.first_day}", f"--to={served.last_day}", "--vehicles=-"]
    process = await start(*argv, script=script, stdin=reading)
    os.close(reading)
    async with asyncio.timeout(60):
        while "pipe_read" not in Path(f"/proc/{process.pid}/wchan").read_text():
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    ended = await end_of(process)
    os.close(writing)
    assert (ended.code, ended.complaint) == (143, "interrupted")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "code", "said"),
    [
        (signal.SIGINT, signal.SIGINT, 130, "stopped at once; committed data is safe"),
        (signal.SIGTERM, None, 143, "shutdown timed out; committed data is safe"),
    ],
)
async def test_a_command_that_does_not_stop_is_ended(
    path: Path, first: signal.Signals, second: signal.Signals | None, code: int, said: str
) -> None:
    """A second Ctrl-C or the end of the shutdown time ends a process that does not stop, and its store stays readable."""
    shutdown_s = 60 if second else 0.3
    script = f"from tests._support.stubborn_command import COMMAND\nmain(commands=[COMMAND], {shutdown_s=})"
    process = await start("stubborn", f"--store={path}", script=script)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"started\n"
        process.send_signal(first)
        assert await process.stdout.readline() == b"stopping\n"
    if second:
        process.send_signal(second)
    ended = await end_of(process)
    assert (ended.code, ended.out, ended.complaint) == (code, "", said)
    async with SessionStore(path, read_only=True) as store:
        assert (await store.status()).vehicles == 0

"""SIGINT and SIGTERM: a request to stop, a forced end if the command takes too long, and the exit codes of both."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from podero_async.backfill import SessionStore
from podero_async.cli._runtime import interruptible_read, stop_on_signals
from podero_async.testing import PoderoSimulator
from tests._support.commands import end_of, one_vehicle, start


@pytest.fixture
def forced_ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the exit codes of forced ends instead of ending the process."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_first_signal_requests_a_stop(forced_ends: list[int], number: signal.Signals, code: int) -> None:
    """The first signal sets the event and the exit code; a later SIGTERM changes nothing, and handlers are restored."""
    before = signal.getsignal(number)
    with stop_on_signals(shutdown_s=60) as stop:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            await stop.event.wait()
        stop.receive(signal.SIGTERM)
    assert (stop.exit, forced_ends) == (code, [])
    assert signal.getsignal(number) == before


async def test_a_command_that_ends_in_time_is_not_forced(forced_ends: list[int]) -> None:
    """The forced end is cancelled when the block is left."""
    with stop_on_signals(shutdown_s=0.01) as stop:
        stop.receive(signal.SIGTERM)
    await asyncio.sleep(0.03)
    assert forced_ends == []


async def test_a_forced_end_shows_the_cursor_again(forced_ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """If a progress bar has hidden the cursor of a terminal, the cursor is shown again."""
    written: list[str] = []

    class _Terminal:
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            written.append(text)

    monkeypatch.setattr("sys.__stderr__", _Terminal())
    with stop_on_signals(shutdown_s=60) as stop:
        stop.receive(signal.SIGINT)
        stop.receive(signal.SIGINT)
    assert "\x1b[?25h" in "".join(written)
    assert forced_ends == [130]


async def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    """A command runs in a thread, without handlers of its own."""

    async def stopping() -> bool:
        with stop_on_signals(shutdown_s=60) as stop, interruptible_read():
            return stop.event.is_set()

    assert await asyncio.to_thread(asyncio.run, stopping()) is False


async def test_one_ctrl_c_ends_a_blocking_read() -> None:
    """During a read, SIGINT has Python's own handler, which raises at once."""
    before = signal.getsignal(signal.SIGINT)
    with interruptible_read():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
async def test_ctrl_c_ends_a_command_without_a_traceback(served: PoderoSimulator) -> None:
    """A command that does not handle signals ends with one line and exit code 130."""
    served.latency_s = 60
    process = await start(*one_vehicle(served))
    async with asyncio.timeout(20):
        while not served.requests:
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    ended = await end_of(process)
    assert (ended.code, ended.complaint) == (130, "interrupted")


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
    script = f"from tests._support.stubborn_command import COMMAND\nmain(commands=[COMMAND], shutdown_s={60 if second else 0.3})"
    process = await start("stubborn", f"--store={path}", script=script)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"started\n"
        process.send_signal(first)
        assert await process.stdout.readline() == b"stopping\n"
    if second:
        process.send_signal(second)
    ended = await end_of(process)
    assert (ended.code, ended.out, ended.complaint) == (code, "", said)
    async with SessionStore(path, read_only=True) as store:
        assert (await store.status()).vehicles == 0

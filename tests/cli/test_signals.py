"""SIGINT and SIGTERM: a request to stop, a forced end if the command takes too long, and the exit codes of both."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from podero_async.backfill import SessionStore
from podero_async.cli._runtime import Exit
from podero_async.cli._signals import Interrupted, Signals
from podero_async.testing import PoderoSimulator
from tests._support.commands import end_of, one_vehicle, start


@pytest.fixture
def forced_ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the exit codes of forced ends instead of ending the process."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_the_first_signal_requests_a_stop(forced_ends: list[int], number: signal.Signals, code: int) -> None:
    """The first signal sets the event and the exit code; a later SIGTERM changes nothing, and handlers are restored."""
    before = signal.getsignal(number)
    signals = Signals(shutdown_s=60)

    async def wait_for_both() -> Exit:
        with signals.gracefully() as stop:
            os.kill(os.getpid(), number)
            async with asyncio.timeout(5):
                await stop.event.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
            return stop.exit

    with signals.handled():
        assert await signals.supervise(wait_for_both()) == code
    assert forced_ends == []
    assert signal.getsignal(number) == before


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
    signals = Signals(shutdown_s=0.01)
    with pytest.raises(Interrupted), signals.handled():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(5)
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
    with Signals(shutdown_s=60).handled():
        for _ in range(2):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except Interrupted:
                continue
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

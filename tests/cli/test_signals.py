"""The wish to stop: how signals become an end in order, and when patience ends. `test_backfill_process` has real ones."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from podero_async.cli import _signals
from podero_async.cli._runtime import Exit
from podero_async.cli._signals import ends_on_ctrl_c, wishes_to_stop


class _LeftError(Exception):
    pass


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the exit codes with which the process would end at once."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)

    monkeypatch.setattr(os, "_exit", leave)
    return codes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_first_signal_is_a_wish(left: list[int], number: signal.Signals, code: int) -> None:
    """The first Ctrl-C would tear the work down, or the exit code would name another signal."""
    before = signal.getsignal(number)
    with wishes_to_stop() as wish:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            await wish.event.wait()
        wish.take(signal.SIGTERM)
    assert (wish.exit, left) == (code, [])
    assert signal.getsignal(number) == before


async def test_a_second_ctrl_c_leaves(left: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """Who has no patience would have to look for the process's number."""
    with wishes_to_stop() as wish:
        wish.take(signal.SIGTERM)
        wish.take(signal.SIGINT)
    assert left == [Exit.INTERRUPTED]
    assert "stopped at once" in capsys.readouterr().err


async def test_patience_ends(
    left: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pod would be killed in the middle of its last words; or a timer would end a process that is done."""
    monkeypatch.setattr(_signals, "_MAX_S", 0.02)
    with wishes_to_stop() as wish:
        wish.take(signal.SIGTERM)
        await asyncio.sleep(0.05)
    assert left == [Exit.TERMINATED]
    assert "took too long" in capsys.readouterr().err
    with wishes_to_stop() as wish:
        wish.take(signal.SIGTERM)
    await asyncio.sleep(0.05)
    assert left == [Exit.TERMINATED]


async def test_the_cursor_comes_back(left: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal would be left without its cursor."""
    written: list[str] = []

    class _Terminal:
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            written.append(text)

    monkeypatch.setattr("sys.__stderr__", _Terminal())
    with wishes_to_stop() as wish:
        wish.take(signal.SIGINT)
        wish.take(signal.SIGINT)
    assert "\x1b[?25h" in "".join(written)
    assert left == [130]


async def test_signals_belong_to_the_main_thread() -> None:
    """A program that calls `main` in a thread would get an error instead of a backfill."""

    async def stopping() -> bool:
        with wishes_to_stop() as wish, ends_on_ctrl_c():
            return wish.event.is_set()

    assert await asyncio.to_thread(asyncio.run, stopping()) is False


async def test_one_ctrl_c_ends_a_read_that_blocks() -> None:
    """`--vehicles -` without input would only end at the second Ctrl-C."""
    before = signal.getsignal(signal.SIGINT)
    with ends_on_ctrl_c():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is before

"""The options of every command that opens a store: `--wait` and `--memory-limit`; and null times in a store."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from podero_async.backfill import SessionStore
from podero_async.testing import PoderoSimulator
from tests._support.commands import Call, end_of, start, whole_fleet


async def test_a_null_time_ends_no_command(call: Call, served: PoderoSimulator, path: Path) -> None:
    """A time that UTC does not have is kept as an unreadable row; every other command works."""
    vehicle = served.vehicles[0]
    served.update(vehicle, served.truth(vehicle)[3]["id"], charge_deadline="0001-01-01T00:00:00+01:00")
    assert (await call(*whole_fleet(served, path))).code == 1
    for argv in (["status"], ["status", "--json"], ["export", f"--output={path}.csv", "--format=csv"]):
        assert (await call(*argv, f"--store={path}")).code == 0


async def test_a_store_in_use_is_waited_for(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """With `--wait`, a command tries again until the store is free, and says once that it waits."""
    async with SessionStore(filled):
        refused = await call("status", f"--store={filled}")
        assert refused.code == 5
        timed_out = await call("status", f"--store={filled}", "--wait=0.02")
        assert timed_out.code == 5
        assert timed_out.err.splitlines()[0] == f"podero-async: {refused.complaint}; waiting for up to 0.02 s"
        assert timed_out.err.splitlines()[1] == f"podero-async: {refused.complaint}"
        waiting = asyncio.ensure_future(call("status", f"--store={filled}", "--wait=30"))
        await asyncio.sleep(0.03)
        assert not waiting.done()
    ended = await waiting
    assert (ended.code, len(ended.err.splitlines())) == (0, 1)


@pytest.mark.slow
async def test_a_signal_ends_the_wait(filled: Path) -> None:
    """A command that waits for a store ends at a signal, at once."""
    for argv in (["status"], ["export", "--output=x"]):
        async with SessionStore(filled):
            process = await start(*argv, f"--store={filled}", "--wait=60")
            assert process.stderr is not None
            async with asyncio.timeout(60):
                assert b"waiting for up to 60 s" in await process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            ended = await end_of(process)
        assert (ended.code, ended.complaint) == (143, "interrupted")


async def test_the_memory_limit_is_that_of_the_database(
    call: Call, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--memory-limit` reaches the store."""
    limits: list[int] = []
    init = SessionStore.__init__

    def recording(self: SessionStore, path: str, **options: Any) -> None:
        limits.append(options["memory_limit_mb"])
        init(self, path, **options)

    monkeypatch.setattr(SessionStore, "__init__", recording)
    assert (await call("status", f"--store={filled}", "--memory-limit=64")).code == 0
    assert (await call("status", f"--store={filled}")).code == 0
    assert limits == [64, 1024]
    assert (await call("status", f"--store={filled}", "--memory-limit=1")).code == 2

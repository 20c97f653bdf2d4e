"""A publisher or a server that is killed at any instant leaves the target as it was, or as the store is; a retry ends it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from podero_async.backfill import SessionStore
from podero_async.publish import publish
from tests._support import publish_process
from tests._support.clients import wire_row
from tests._support.postgres import Postgres, assert_published
from tests._support.written_store import Read
from tests.publish.conftest import StoreFile

_LAST_CALL = 26
"""The calls of the target for a store that was published before, without the commit."""
_VEHICLES, _SESSIONS = 4, 60


def change(store: StoreFile, number: int) -> None:
    """Change half of the sessions, move some of them to the next vehicle, and add one."""
    reads = []
    for vehicle in range(_VEHICLES):
        first = vehicle * _SESSIONS + number * 10 + 1
        rows = [wire_row(each, energy_charged_kwh=each % 2 * number) for each in range(first, first + _SESSIONS)]
        reads.append(Read(vehicle + 1, [*rows, wire_row(100_000 + number)] if vehicle == 0 else rows))
    store.write(*reads, listed={1: tuple(range(1, _VEHICLES + 1))}, model=f"model {number}")


class Killing:
    """Kills a publisher, or its server, while it publishes."""

    def __init__(self, store: StoreFile, server: Postgres, seed: int) -> None:
        self.store = store
        self.store_id = store.query("SELECT value FROM meta WHERE key = 'store_id'")[0][0]
        self.server = server
        self.random = Random(seed)
        self.calls = list[int]()
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["tests._support.publish_process", "adbc_driver_postgresql.dbapi"])

    def _next_call(self) -> int:
        """Draw a call of the target; each is drawn once before any is drawn again."""
        if not self.calls:
            self.calls = self.random.sample(range(1, _LAST_CALL + 1), _LAST_CALL)
        return self.calls.pop()

    async def once(self, number: int, *, kills_server: bool) -> str:
        """Change the store, kill, and publish again; return the call that was interrupted, and the target's state after it."""
        before = self.server.digests(self.store_id)
        change(self.store, number)
        reached = self.processes.Event()
        at = 0 if self.random.random() < 0.25 else self._next_call()
        process: Any = self.processes.Process(
            target=publish_process.main, args=[str(self.store.path), self.server.url, at, reached]
        )
        process.start()
        assert reached.wait(60)
        time.sleep(self.random.choice([0, self.random.uniform(0, 0.004), self.random.uniform(0, 0.02)]))
        if kills_server:
            self.server.kill()
            process.join()
            assert process.exitcode in {0, 4}, "the error is a `TargetError`"
            self.server.start()
        else:
            process.kill()
            process.join()
            while self.server.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = 'podero_async'"):
                time.sleep(0.005)
        after = self.server.digests(self.store_id)
        async with SessionStore(self.store.path, read_only=True) as store:
            published = await publish(store, self.server.url)
        assert_published(self.server, self.store.path)
        is_committed = self.server.digests(self.store_id) == after
        assert is_committed or after == before, "the target had a part of the changes"
        assert is_committed == (published.sessions == 0)
        return f"{'commit' if at == 0 else 'call'}, {'committed' if is_committed else 'rolled back'}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "server"),
    [
        pytest.param(4, 2, id="short"),
        pytest.param(100, 20, id="soak", marks=pytest.mark.soak),
    ],
)
async def test_kills_leave_the_target_exact(
    client: int, server: int, durable: Postgres, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """After each SIGKILL the target is as before or as the store, and the same call makes it equal, by MD5 of all rows."""
    durable.execute("DROP SCHEMA IF EXISTS podero CASCADE")
    store = StoreFile(tmp_path / "fleet.duckdb")
    change(store, 0)
    async with SessionStore(store.path, read_only=True) as opened:
        await publish(opened, durable.url)
    killing, ends = Killing(store, durable, seed=client), {"client": client, "server": server}
    counts: dict[str, int] = {}
    number = 0
    for victim, kills in ends.items():
        for _ in range(kills):
            number += 1
            end = f"{victim} at {await killing.once(number, kills_server=victim == 'server')}"
            counts[end] = counts.get(end, 0) + 1
    record_property("figure", f"kills of the {', '.join(f'{end}: {n}' for end, n in sorted(counts.items()))}")

"""`backfill --snapshot`: a consistent copy at the end of each run, which `status` and `runs` read like a store."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from podero_async import RetryPolicy
from podero_async.backfill import SessionStore
from podero_async.testing import Fault, PageRequest, PoderoSimulator
from tests._support.commands import Call, end_of, start, whole_fleet
from tests._support.expected_rows import held_by


@pytest.fixture
def copy(path: Path) -> Path:
    """Return the path of a snapshot that does not exist yet."""
    return path.with_name("readers.duckdb")


@pytest.mark.slow
async def test_a_snapshot_after_each_run(call: Call, served: PoderoSimulator, path: Path, copy: Path) -> None:
    """Each run replaces the snapshot, also while a reader has it open; commands read it like a store."""
    argv = [*whole_fleet(served, path), f"--snapshot={copy}", "--fresh-for=0", "--settle-days=36500"]
    assert (await call(*argv)).code == 0
    with duckdb.connect(str(copy), read_only=True) as reader:
        (before,) = reader.execute("SELECT count(*) FROM sessions").fetchall()
        vehicle = served.vehicles[0]
        moment = datetime.fromisoformat(served.truth(vehicle)[0]["plug_in_time"])
        row = served.insert(vehicle, plug_in_time=moment)
        assert (await call(*argv)).code == 0
        assert reader.execute("SELECT count(*) FROM sessions").fetchall() == [before]
    async with SessionStore(path, read_only=True) as store, SessionStore(copy, read_only=True) as snapshot:
        assert await held_by(store) == await held_by(snapshot)
        assert await snapshot.query("SELECT 1 AS one FROM sessions WHERE id = ?", [row["id"]]) == [{"one": 1}]
    for command in ("status", "runs"):
        ended = await call(command, f"--store={copy}", "--json")
        assert (ended.code, ended.err) == (0, "")
        assert len(json.loads(ended.out)["runs"]) == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text", "not a snapshot"),
        ("folder", "not a snapshot"),
        ("other.duckdb", "not a snapshot"),
        ("nowhere/copy.duckdb", "no such directory"),
        ("text/copy.duckdb", "no such directory"),
        ("fleet.duckdb", "replace the store itself"),
        ("fleet.duckdb.wal", "replace the store itself"),
        ("x" * 250, "File name too long"),
    ],
)
async def test_a_bad_place_for_a_snapshot_is_refused_before_the_run(
    call: Call, served: PoderoSimulator, path: Path, name: str, reason: str
) -> None:
    """If a snapshot cannot be written to its file, the command sends no request, and the file is unchanged."""
    store, place = path.with_name("fleet.duckdb"), path.parent / name
    path.with_name("text").write_text("mine")
    path.with_name("folder").mkdir()
    async with SessionStore(path.with_name("other.duckdb")):
        pass
    ended = await call(*whole_fleet(served, store), f"--snapshot={place}")
    assert (ended.code, ended.out) == (5, "")
    assert reason in ended.complaint
    assert served.counts.requests.total() == 0
    assert path.with_name("text").read_text() == "mine"
    assert not list(path.parent.rglob("*unfinished*"))


async def test_a_snapshot_that_cannot_be_written(call: Call, served: PoderoSimulator, path: Path, copy: Path) -> None:
    """If a file blocks the snapshot after the run has begun, the report is printed, and the exit code is the store's."""

    def spoil(asked: PageRequest) -> None:
        copy.write_text("mine")

    served.before_page = spoil
    ended = await call(*whole_fleet(served, path), f"--snapshot={copy}", "--json")
    assert (ended.code, json.loads(ended.out)["is_clean"]) == (5, True)
    assert ended.complaint == f"the file in the way of the snapshot is not a snapshot: {copy}"
    assert copy.read_text() == "mine"


async def test_a_snapshot_of_an_outage(call: Call, served: PoderoSimulator, path: Path, copy: Path) -> None:
    """If the API goes down, the snapshot has the batches that were committed before."""
    retry = RetryPolicy(backoff_initial=0.001, backoff_max=0.002, budget=1, max_elapsed=1.0)
    served.add_fault(Fault(kind="status", status=503, endpoint="sessions"))
    assert (await call(*whole_fleet(served, path), f"--snapshot={copy}", retry=retry)).code == 4
    async with SessionStore(copy, read_only=True) as snapshot:
        assert (await snapshot.status()).failures > 0


@pytest.mark.slow
async def test_a_snapshot_of_an_interrupted_run(served: PoderoSimulator, path: Path, copy: Path) -> None:
    """If a signal ends a run, the snapshot has the batches that were committed."""
    served.add_fault(Fault(kind="hang", seconds=60, nth=range(6, 100), endpoint="sessions"))
    process = await start(*whole_fleet(served, path), f"--snapshot={copy}")
    async with asyncio.timeout(60):
        while served.counts.faults["hang"] < len(served.vehicles) - 5:
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    ended = await end_of(process)
    assert ended.code == 143
    async with SessionStore(path, read_only=True) as store, SessionStore(copy, read_only=True) as snapshot:
        assert await held_by(store) == await held_by(snapshot) != {}

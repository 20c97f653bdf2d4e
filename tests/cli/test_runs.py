"""`podero-async runs`: the history of a store's backfills."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from podero_async.backfill import RunStatus
from podero_async.testing import Fault, PoderoSimulator
from tests._support.commands import Call, whole_fleet


@pytest.mark.slow
async def test_the_history_of_runs(call: Call, served: PoderoSimulator, path: Path) -> None:
    """Each run is printed with its counts and alarms, the newest first; `--limit` prints the newest ones."""
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", nth=1))
    assert (await call(*whole_fleet(served, path))).code == 1
    assert (await call(*whole_fleet(served, path))).code == 0
    asked = len(served.requests)
    ended = await call("runs", f"--store={path}")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert [line[:3] for line in lines if line.startswith("#")] == ["#2 ", "#1 "]
    assert "    1 windows read, 0 failed, 0 unproven" in ended.out
    assert "    9 windows read, 1 failed, 0 unproven" in ended.out
    assert "1 of 10 vehicles failed" in lines[-1]
    assert "#1 " not in (await call("runs", f"--store={path}", "--limit=1")).out
    assert len(served.requests) == asked


async def test_json(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """With `--json`, stdout has one object with the runs, each with all counts."""
    ended = await call("runs", f"--store={filled}", "--json")
    (run,) = json.loads(ended.out)["runs"]
    assert run.keys() == {field.name for field in attrs.fields(RunStatus)}
    assert (run["run_id"], run["done"], run["failed"], run["alarms"]) == (1, 10, 0, [])
    assert run["sessions_new"] == sum(len(served.truth(vehicle)) for vehicle in served.vehicles)
    assert run["finished_at"].endswith("Z")

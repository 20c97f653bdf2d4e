"""`backfill --only-failed`: a run over the vehicles that failed before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from podero_async.testing import Fault, PoderoSimulator
from tests._support.commands import Call, whole_fleet


@pytest.mark.slow
async def test_only_vehicles_that_failed_are_read(call: Call, served: PoderoSimulator, path: Path) -> None:
    """A run with `--only-failed` reads only the failed vehicle, and the next such run has nothing to read."""
    argv = [*whole_fleet(served, path), "--json"]
    served.add_fault(Fault(kind="status", status=404, nth=1, endpoint="sessions"))
    assert json.loads((await call(*argv)).out)["failed"] == 1
    planned = await call(*argv, "--only-failed", "--dry-run")
    assert json.loads(planned.out)["vehicles"] == 1
    before = served.counts.requests["users"]
    again = await call(*argv, "--only-failed")
    report = json.loads(again.out)
    assert (again.code, report["vehicles"], report["done"], report["failed"]) == (0, 1, 1, 0)
    assert served.counts.requests["users"] == before
    nothing = json.loads((await call(*argv, "--only-failed")).out)
    assert (nothing["vehicles"], nothing["requests"]) == (0, 0)


async def test_a_list_of_vehicles_excludes_failed_ones(call: Call, served: PoderoSimulator, path: Path) -> None:
    """`--only-failed` and `--vehicles` exclude each other."""
    ended = await call(*whole_fleet(served, path), "--only-failed", "--vehicles=x")
    assert ended.code == 2
    assert "exclude each other" in ended.complaint

"""`podero-async status`: coverage, freshness and failures, without a request."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podero_async.backfill import SessionStore
from podero_async.cli.commands import status as _status
from podero_async.testing import Fault, PoderoSimulator
from tests.cli.conftest import Call, whole_fleet


async def test_what_a_store_holds(
    call: Call, served: PoderoSimulator, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could tell whether last night's run did its work, without SQL or with credentials only."""
    asked = len(served.requests)
    for name in ("PODERO_ORG_ID", "PODERO_CLIENT_ID", "PODERO_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    before = filled.read_bytes()
    ended = await call("status", f"--store={filled}")
    assert (ended.code, ended.err) == (0, "")
    shown = sum(len(served.truth(vehicle)) for vehicle in served.vehicles)
    for said in (
        f"store     {filled}, schema version 1",
        "vehicles  10",
        f"sessions  {shown}, of which 0 hidden and 0 withdrawn",
        "UTC, 0 minutes ago",
        "10 verified, 0 repaired, 0 unproven",
        "0 failures, 0 sessions that could not be read",
        f"coverage  {served.first_day} to {served.last_day}: 10 vehicles",
        "runs      #1 ",
        f"10 vehicles, {served.first_day} to {served.last_day}, finished ",
    ):
        assert said in ended.out
    assert filled.read_bytes() == before
    assert len(served.requests) == asked


async def test_failures_and_what_is_left(call: Call, served: PoderoSimulator, path: Path) -> None:
    """A vehicle that fails every night would be found by its owner only."""
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", nth=1))
    assert (await call(*whole_fleet(served, path), "--include-hidden")).code == 1
    ended = await call("status", f"--store={path}")
    assert ended.code == 0
    assert "1 failures" in ended.out
    assert "hidden sessions too: 9 vehicles" in ended.out
    assert ended.complaint.startswith("vehicle ")
    assert "HTTP 404" in ended.complaint


async def test_status_for_programs(call: Call, filled: Path) -> None:
    """A monitor would have to read sentences, or times without a zone."""
    ended = await call("status", f"--store={filled}", "--json")
    (line,) = ended.out.splitlines()
    status = json.loads(line)
    assert (ended.code, ended.err, status["vehicles"], status["failures"]) == (0, "", 10, 0)
    assert datetime.fromisoformat(status["fetched_at"]).utcoffset() == timedelta(0)
    assert status["coverage"][0]["vehicles"] == 10
    assert status["runs"][0]["left"] == 0


async def test_an_empty_store(call: Call, path: Path) -> None:
    """A store of which the first run never came to anything would end in a traceback."""
    async with SessionStore(path):
        pass
    ended = await call("status", f"--store={path}")
    assert (ended.code, ended.err) == (0, "")
    assert "fetched   never" in ended.out
    assert "plug-ins" not in ended.out


async def test_a_store_that_is_not_there(call: Call, path: Path) -> None:
    """A typing error in the name would make an empty store, and call it fresh."""
    for argv in (["status"], ["export", f"--output={path.parent / 'out'}"]):
        ended = await call(*argv, f"--store={path}")
        assert (ended.code, ended.out, ended.complaint) == (5, "", f"no such store: {path}")
    assert not list(path.parent.iterdir())


def test_how_long_ago() -> None:
    """A store that nobody has refreshed for weeks would look fresh."""
    now = datetime(2026, 7, 2, 3, tzinfo=UTC)
    assert _status._ago(now - timedelta(minutes=5), now) == "2026-07-02 02:55 UTC, 5 minutes ago"
    assert _status._ago(now - timedelta(days=3), now) == "2026-06-29 03:00 UTC, 72 hours ago"

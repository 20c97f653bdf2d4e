"""`podero-async status`: the contents of a store, its age and its failures."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podero_async.backfill import SessionStore
from podero_async.cli.commands.status import age_text
from podero_async.testing import Fault, PoderoSimulator
from tests._support.commands import Call, whole_fleet

_STATUS_KEYS = (
    "path schema_version org_id origin vehicles sessions withdrawn hidden first_plug_in last_plug_in"
    " fetched_at receipts verified repaired unproven rejected failures failed_vehicles coverage runs"
)
_RUN_KEYS = "run_id from_date to_date include_hidden vehicles started_at finished_at left"


async def test_a_filled_store(
    call: Call, served: PoderoSimulator, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contents are printed without credentials, without a request, and without a change of the store."""
    asked = len(served.requests)
    for name in ("PODERO_ORG_ID", "PODERO_CLIENT_ID", "PODERO_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    before = filled.read_bytes()
    ended = await call("status", f"--store={filled}")
    assert (ended.code, ended.err) == (0, "")
    shown = sum(len(served.truth(vehicle)) for vehicle in served.vehicles)
    for said in (
        f"store     {filled}, schema version 2",
        "vehicles  10",
        f"sessions  {shown}, including 0 hidden and 0 withdrawn",
        "UTC, 0 minutes ago",
        "10 verified, 0 repaired, 0 unproven",
        "0 failures, 0 unreadable sessions",
        f"coverage  {served.first_day} to {served.last_day}: 10 vehicles",
        "runs      #1 ",
        f"10 vehicles, {served.first_day} to {served.last_day}, finished ",
    ):
        assert said in ended.out
    assert filled.read_bytes() == before
    assert len(served.requests) == asked


async def test_failures(call: Call, served: PoderoSimulator, path: Path) -> None:
    """A failed vehicle is counted, and is one line on stderr."""
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", nth=1))
    assert (await call(*whole_fleet(served, path), "--include-hidden")).code == 1
    ended = await call("status", f"--store={path}")
    assert ended.code == 0
    assert "1 failures" in ended.out
    assert "with hidden sessions: 9 vehicles" in ended.out
    assert ended.complaint.startswith("vehicle ")
    assert "HTTP 404" in ended.complaint


async def test_json(call: Call, filled: Path) -> None:
    """With `--json`, stdout has one object with fixed keys and times in UTC."""
    ended = await call("status", f"--store={filled}", "--json")
    (line,) = ended.out.splitlines()
    status = json.loads(line)
    assert status.keys() == set(_STATUS_KEYS.split())
    assert status["coverage"][0].keys() == {"from_date", "held_to", "include_hidden", "vehicles"}
    assert status["runs"][0].keys() == set(_RUN_KEYS.split())
    assert (ended.code, ended.err, status["vehicles"], status["failures"]) == (0, "", 10, 0)
    assert datetime.fromisoformat(status["fetched_at"]).utcoffset() == timedelta(0)
    assert status["coverage"][0]["vehicles"] == 10
    assert status["runs"][0]["left"] == 0


async def test_an_empty_store(call: Call, path: Path) -> None:
    """An empty store is printed as never fetched, without times of plug-ins."""
    async with SessionStore(path):
        pass
    ended = await call("status", f"--store={path}")
    assert (ended.code, ended.err) == (0, "")
    assert "fetched   never" in ended.out
    assert "plug-ins" not in ended.out


async def test_a_missing_store(call: Call, path: Path) -> None:
    """A path without a store is exit code 5, and no store is created."""
    for argv in (["status"], ["export", f"--output={path.parent / 'out'}"]):
        ended = await call(*argv, f"--store={path}")
        assert (ended.code, ended.out) == (5, "")
        assert str(path) in ended.complaint
    assert not list(path.parent.iterdir())


def test_the_age_of_a_store() -> None:
    """An age is given in minutes below two hours, and in hours above."""
    now = datetime(2026, 7, 2, 3, tzinfo=UTC)
    assert age_text(now - timedelta(minutes=5), now) == "2026-07-02 02:55 UTC, 5 minutes ago"
    assert age_text(now - timedelta(days=3), now) == "2026-06-29 03:00 UTC, 72 hours ago"

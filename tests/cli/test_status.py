"""`podero-async status`: the contents of a store, its age and its failures."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from podero_async.backfill import RunStatus, SessionStore
from podero_async.cli.commands.status import age_text
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import USER
from tests._support.commands import Call, whole_fleet

_STATUS_KEYS = (
    "path schema_version org_id origin kept_from vehicles gone unread settled provisional missing sessions withdrawn absent"
    " hidden first_plug_in last_plug_in fetched_at rejected failures failed_vehicles coverage runs"
)


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
        f"store     {filled}, schema version 3",
        "vehicles  10",
        f"sessions  {shown}, including 0 hidden and 0 withdrawn",
        " minutes ago",
        " settled, ",
        "0 vehicles, 0 unreadable sessions",
        f"coverage  {served.first_day} to ",
        "runs      #1 ",
        f"10 vehicles, {served.first_day} to {served.last_day}, finished ",
    ):
        assert said in ended.out
    assert filled.read_bytes() == before
    assert len(served.requests) == asked


async def test_age(call: Call, filled: Path, tmp_path: Path) -> None:
    """With `--max-age`, the exit code is 1 if the newest read is older than that, or if nothing was read."""
    assert (await call("status", f"--store={filled}", "--max-age=26")).code == 0
    old = await call("status", f"--store={filled}", "--max-age=0")
    assert old.code == 1
    assert old.complaint.endswith(" minutes ago; --max-age is 0 hours")
    async with SessionStore(tmp_path / "empty.duckdb"):
        pass
    never = await call("status", f"--store={tmp_path / 'empty.duckdb'}", "--max-age=26")
    assert (never.code, never.complaint) == (1, "the newest read: never; --max-age is 26 hours")


async def test_failures(call: Call, served: PoderoSimulator, path: Path) -> None:
    """A failed vehicle is counted, also as one that was never read, and is one line on stderr."""
    served.add_fault(Fault(kind="status", status=404, endpoint="sessions", nth=1))
    assert (await call(*whole_fleet(served, path), "--include-hidden")).code == 1
    ended = await call("status", f"--store={path}")
    assert ended.code == 0
    assert "failed    1 vehicles" in ended.out
    assert "vehicles  10, 1 never read" in ended.out
    assert " missing (days of vehicles), and all days of the 1 vehicles that were never read" in ended.out
    assert "settled, with hidden sessions: " in ended.out
    assert ended.complaint.startswith("vehicle ")
    assert "HTTP 404" in ended.complaint


async def test_json(call: Call, filled: Path) -> None:
    """With `--json`, stdout has one object with fixed keys and times in UTC."""
    ended = await call("status", f"--store={filled}", "--json")
    (line,) = ended.out.splitlines()
    status = json.loads(line)
    assert status.keys() == set(_STATUS_KEYS.split())
    assert status["coverage"][0].keys() == {"from_date", "to_date", "include_hidden", "is_settled", "vehicles"}
    assert status["runs"][0].keys() == {field.name for field in attrs.fields(RunStatus)}
    assert (ended.code, ended.err, status["vehicles"], status["failures"]) == (0, "", 10, 0)
    assert datetime.fromisoformat(status["fetched_at"]).utcoffset() == timedelta(0)
    assert status["runs"][0]["finished_at"]


@pytest.mark.slow
async def test_a_window_is_checked(call: Call, served: PoderoSimulator, path: Path) -> None:
    """With `--check`, the exit code is 0 if all days are settled, 6 if some are provisional, 1 if some are missing."""
    first, last = served.first_day, served.last_day
    check = ["status", f"--store={path}", f"--from={first}", f"--to={last}", "--check"]
    async with SessionStore(path):
        pass
    assert (await call(*check)).code == 1
    assert (await call(*whole_fleet(served, path), "--settle-days=36000")).code == 0
    provisional = await call(*check)
    assert (provisional.code, provisional.err) == (6, "")
    days = 10 * ((last - first).days + 1)
    assert f"window    {first} to {last}: 0 settled, {days:,} provisional, 0 missing" in provisional.out
    report = json.loads((await call(*check, "--json")).out)
    assert report["days"] == {"settled": 0, "provisional": days, "missing": 0}
    assert (await call(*check, f"--from={first - timedelta(days=1)}")).code == 1
    for vehicle in served.vehicles:
        for row in served.truth(vehicle, include_hidden=True):
            end = {"unplug_time": row["plug_in_time"], "session_outcome": "optimized"}
            served.update(vehicle, row["id"], **end)
        served.set_current(vehicle, None)
    assert (await call(*whole_fleet(served, path), "--fresh-for=0")).code == 0
    assert (await call(*check)).code == 0
    served.add_fault(Fault(kind="status", status=400, endpoint="vehicles", nth=1))
    await call(*whole_fleet(served, path))
    assert (await call(*check)).code == 1, "the vehicles of a user are unknown"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--check"], "--check needs --from and --to"),
        (["--from=2026-01-01"], "--from and --to go together"),
        (["--from=2026-01-02", "--to=2026-01-01"], "after"),
    ],
)
async def test_a_wrong_window_is_exit_code_2(call: Call, filled: Path, argv: list[str], complaint: str) -> None:
    """A window that is incomplete or reversed is a usage error."""
    ended = await call("status", f"--store={filled}", *argv)
    assert ended.code == 2
    assert complaint in ended.complaint


async def test_an_empty_store(call: Call, path: Path) -> None:
    """An empty store is printed as never fetched, without times of plug-ins."""
    async with SessionStore(path):
        pass
    ended = await call("status", f"--store={path}")
    assert (ended.code, ended.err) == (0, "")
    assert "fetched   never" in ended.out
    assert "plug-ins" not in ended.out


async def test_a_missing_store(call: Call, new_path: Path) -> None:
    """If the path has no store, the exit code is 5 and no store is created."""
    export = ["export", f"--output={new_path.parent / 'out'}"]
    for argv in (["status"], export, ["sql", "SELECT 1"], ["forget", f"--user={USER}"]):
        ended = await call(*argv, f"--store={new_path}")
        assert (ended.code, ended.out) == (5, "")
        assert str(new_path) in ended.complaint
    assert not list(new_path.parent.iterdir())


def test_the_age_of_a_store() -> None:
    """An age is given in minutes below two hours, and in hours above."""
    now = datetime(2026, 7, 2, 3, tzinfo=UTC)
    assert age_text(now - timedelta(minutes=5), now) == "2026-07-02 02:55 UTC, 5 minutes ago"
    assert age_text(now - timedelta(days=3), now) == "2026-06-29 03:00 UTC, 72 hours ago"

"""`podero-async merge`: one store of several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from podero_async.testing import PoderoSimulator
from tests._support.commands import Call, settings_of, whole_fleet
from tests._support.expected_rows import assert_equal, truth_of


@pytest.mark.slow
async def test_shards_become_one_store(call: Call, served: PoderoSimulator, new_path: Path, tmp_path: Path) -> None:
    """The shards' stores become one, with which a backfill of the fleet goes on; another merge needs `--overwrite`."""
    parts = [str(tmp_path / f"{number}.duckdb") for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert (await call(*whole_fleet(served, Path(part)), f"--shard={number}/2")).code == 0
    ended = await call("merge", f"--into={new_path}", *parts)
    sessions = len(truth_of(served))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{sessions:,} sessions of {len(served.vehicles)} vehicles written to {new_path}\n"
    again = await call("merge", f"--into={new_path}", *parts)
    assert (again.code, again.out) == (5, "")
    assert "in the way" in again.complaint
    shown = json.loads((await call("merge", f"--into={new_path}", "--overwrite", "--json", *parts)).out)
    assert shown == {"stores": 2, "vehicles": len(served.vehicles), "sessions": sessions, "doubled": 0}
    report = json.loads((await call(*whole_fleet(served, new_path), "--json")).out)
    assert (report["is_clean"], report["skipped"], report["new"]) == (True, len(served.vehicles), 0)
    await assert_equal(new_path, truth_of(served))


@pytest.mark.slow
async def test_five_shards_cost_no_more_than_one_run(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five shards send at most 1.05 times the requests of one run; with a list of vehicles, no more than the run."""
    async with PoderoSimulator(users=150, vehicles=150, sessions_per_vehicle=3, seed=1) as fleet:
        for name, value in settings_of(fleet).items():
            monkeypatch.setenv(name, value)

        async def cost(*argv: str) -> int:
            before = fleet.counts.total_requests - fleet.counts.requests["token"]
            assert (await call(*argv)).code == 0
            return fleet.counts.total_requests - fleet.counts.requests["token"] - before

        whole = await cost(*whole_fleet(fleet, tmp_path / "whole.duckdb"))
        parts = [await cost(*whole_fleet(fleet, tmp_path / f"{n}.duckdb"), f"--shard={n}/5") for n in range(1, 6)]
        assert sum(parts) <= 1.05 * whole
        listing = await cost("vehicles", f"--log-file={tmp_path / 'log'}")
        (tmp_path / "fleet.jsonl").write_text((await call("vehicles")).out)
        given = [
            await cost(
                *whole_fleet(fleet, tmp_path / f"given-{n}.duckdb"),
                f"--shard={n}/5",
                f"--vehicles={tmp_path / 'fleet.jsonl'}",
            )
            for n in range(1, 6)
        ]
        assert listing + sum(given) <= whole

"""`podero-async export`: files that other tools read."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path

import duckdb
import pytest

from podero_async.testing import PoderoSimulator
from tests.cli.conftest import Call, end_of, start_on_small_disk


def _ids(path: Path, kind: str) -> set[str]:
    if kind == "parquet":
        return {str(row[0]) for row in duckdb.read_parquet(str(path)).project("id").fetchall()}
    lines = path.read_text().splitlines()
    return {row["id"] for row in (csv.DictReader(lines) if kind == "csv" else map(json.loads, lines))}


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
async def test_a_file_of_each_kind(call: Call, served: PoderoSimulator, filled: Path, kind: str) -> None:
    """An analyst would get a file that lacks sessions, or that no tool opens."""
    target = filled.with_name(f"out.{kind}")
    before = filled.read_bytes()
    ended = await call("export", f"--store={filled}", f"--output={target}", f"--format={kind}")
    ids = {row["id"] for vehicle in served.vehicles for row in served.truth(vehicle)}
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{len(ids)} sessions written to {target}\n"
    assert await asyncio.to_thread(_ids, target, kind) == ids
    assert filled.read_bytes() == before


async def test_a_directory_by_month(call: Call, filled: Path) -> None:
    """A lake that is partitioned by month could not be fed."""
    target = filled.with_name("lake")
    argv = ["export", f"--store={filled}", f"--output={target}", "--partition-by=month"]
    ended = await call(*argv)
    assert (ended.code, ended.err) == (0, "")
    assert "2 files" in ended.out
    assert {part.name for part in target.iterdir()} == {"month=2026-05", "month=2026-06"}
    again = await call(*argv)
    assert (again.code, again.out) == (5, "")
    assert "in the way" in again.complaint


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--format=excel"], 2, "excel"),
        (["--partition-by=week"], 2, "week"),
        (["--output=/nowhere/out.parquet"], 5, "/nowhere/out.parquet"),
    ],
)
async def test_targets_that_cannot_be(call: Call, filled: Path, options: list[str], code: int, said: str) -> None:
    """A typing error would end in a traceback."""
    ended = await call("export", f"--store={filled}", f"--output={filled.with_name('out')}", *options)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.complaint


async def test_a_full_disk(filled: Path) -> None:
    """A file that was cut short by a full disk would pass for whole, or replace the one of yesterday."""
    target = filled.with_name("out.csv")
    target.write_text("yesterday's\n")
    argv = ["export", f"--store={filled}", f"--output={target}", "--format=csv"]
    ended = await end_of(await start_on_small_disk(8, *argv))
    assert (ended.code, ended.out) == (5, "")
    assert ended.complaint
    assert target.read_text() == "yesterday's\n"
    assert sorted(file.name for file in filled.parent.iterdir()) == ["fleet.duckdb", "out.csv"]

"""`podero-async export`: files that other tools read."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from podero_async.testing import PoderoSimulator
from tests.cli.conftest import Call, end_of, start, start_on_small_disk


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


async def test_times_are_utc_wherever_it_runs(
    served: PoderoSimulator, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine in New York would write other times, and put sessions into other months."""
    monkeypatch.setenv("TZ", "America/New_York")
    target = filled.with_name("lake")
    argv = ["export", f"--store={filled}", f"--output={target}", "--format=csv", "--partition-by=month"]
    assert (await end_of(await start(*argv))).code == 0
    times = {}
    for file in target.rglob("*.csv"):
        for row in csv.DictReader(file.read_text().splitlines()):
            assert file.parent.name == f"month={row['plug_in_time'][:7]}"
            times[row["id"]] = datetime.fromisoformat(row["plug_in_time"])
    truth = [row for vehicle in served.vehicles for row in served.truth(vehicle)]
    assert times == {row["id"]: datetime.fromisoformat(row["plug_in_time"]) for row in truth}


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


_LONG = "import podero_async.backfill.store.duckdb.export as e; e._SESSIONS = 'SELECT sessions.* FROM sessions, range(30000)'"


@pytest.mark.parametrize(
    ("number", "code", "option"), [(signal.SIGINT, 130, "--format=csv"), (signal.SIGTERM, 143, "--partition-by=month")]
)
async def test_a_signal_ends_an_export_and_leaves_nothing_behind(
    call: Call,
    filled: Path,
    record_property: Callable[[str, object], None],
    number: signal.Signals,
    code: int,
    option: str,
) -> None:
    """Ctrl-C or a pod's end would take as long as the export, or leave half of it where others look for the whole."""
    target = filled.with_name("out")
    if option == "--format=csv":
        target.write_text("yesterday's\n")
    argv = ["export", f"--store={filled}", f"--output={target}", option]
    before = sorted(file.name for file in filled.parent.iterdir())
    process = await start(*argv, code=_LONG)
    async with asyncio.timeout(20):
        while not target.with_name("out.podero_async-unfinished").exists():
            assert process.returncode is None, await end_of(process)
            await asyncio.sleep(0.01)
    since = time.monotonic()
    process.send_signal(number)
    ended = await end_of(process)
    record_property("figure", f"{time.monotonic() - since:.2f} s from {number.name} to the end of an export")
    assert time.monotonic() - since < 3
    assert (ended.code, ended.out, ended.complaint) == (code, "", "interrupted; nothing was written")
    assert sorted(file.name for file in filled.parent.iterdir()) == before
    again = await call(*argv)
    assert (again.code, again.err) == (0, "")
    assert f" sessions written to {target}" in again.out

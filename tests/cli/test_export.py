"""`podero-async export`: files for other tools, and an export that fails or is interrupted."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pytest

from podero_async.testing import PoderoSimulator
from tests._support.canaries import assert_no_canary
from tests._support.commands import Call, end_of, start, start_in_pipe, start_on_small_disk
from tests._support.s3_server import s3_server


def _ids(path: Path, kind: str) -> set[str]:
    if kind == "parquet":
        return {str(row[0]) for row in duckdb.read_parquet(str(path)).project("id").fetchall()}
    lines = path.read_text().splitlines()
    return {row["id"] for row in (csv.DictReader(lines) if kind == "csv" else map(json.loads, lines))}


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
async def test_a_file_of_each_kind(call: Call, served: PoderoSimulator, filled: Path, kind: str) -> None:
    """Each format has all sessions, and the store is not changed."""
    target = filled.with_name(f"out.{kind}")
    before = filled.read_bytes()
    ended = await call("export", f"--store={filled}", f"--output={target}", f"--format={kind}")
    ids = {row["id"] for vehicle in served.vehicles for row in served.truth(vehicle)}
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{len(ids)} sessions written to {target}\n"
    assert await asyncio.to_thread(_ids, target, kind) == ids
    assert filled.read_bytes() == before


async def test_a_directory_by_month(call: Call, filled: Path) -> None:
    """`--partition-by=month` writes one directory per month, into an empty directory only."""
    target = filled.with_name("lake")
    argv = ["export", f"--store={filled}", f"--output={target}", "--partition-by=month"]
    ended = await call(*argv)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith(f" sessions in {target}: 2 files, of which 2 were written\n")
    assert {part.name for part in target.glob("month=*")} == {"month=2026-05", "month=2026-06"}
    again = await call(*argv)
    assert (again.code, again.out) == (5, "")
    assert str(target) in again.complaint


@pytest.mark.slow
async def test_times_are_utc_in_each_time_zone(
    served: PoderoSimulator, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times and months are UTC, also on a machine in New York."""
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
async def test_bad_targets(call: Call, filled: Path, options: list[str], code: int, said: str) -> None:
    """The exit code is 2 for an unknown format or partition, and 5 for a target that cannot be written."""
    ended = await call("export", f"--store={filled}", f"--output={filled.with_name('out')}", *options)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.complaint


@pytest.mark.slow
async def test_a_full_disk(filled: Path) -> None:
    """If the disk is full, the existing file is kept, and no other is left."""
    target = filled.with_name("out.csv")
    target.write_text("yesterday's\n")
    argv = ["export", f"--store={filled}", f"--output={target}", "--format=csv"]
    ended = await end_of(await start_on_small_disk(8, *argv))
    assert (ended.code, ended.out) == (5, "")
    assert ended.complaint
    assert target.read_text() == "yesterday's\n"
    assert sorted(file.name for file in filled.parent.iterdir()) == ["fleet.duckdb", "out.csv"]


async def _grow(store: Path, times: int) -> None:
    """Copy the sessions of a store, so that its export takes a while."""

    def insert() -> None:
        with duckdb.connect(str(store)) as connection:
            connection.execute(f"INSERT INTO sessions SELECT sessions.* FROM sessions, range({times})")

    await asyncio.to_thread(insert)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "option"), [(signal.SIGINT, 130, "--format=csv"), (signal.SIGTERM, 143, "--partition-by=month")]
)
async def test_a_signal_ends_an_export(
    filled: Path,
    record_property: Callable[[str, object], None],
    number: signal.Signals,
    code: int,
    option: str,
) -> None:
    """When a signal arrives, the export ends, keeps the existing file, and leaves no other."""
    target = filled.with_name("out")
    if option == "--format=csv":
        target.write_text("yesterday's\n")
    await _grow(filled, 3_000)
    argv = ["export", f"--store={filled}", f"--output={target}", option]
    before = sorted(file.name for file in filled.parent.iterdir())
    process = await start(*argv)
    async with asyncio.timeout(60):
        while not any(filled.parent.glob("out.podero_async-unfinished-*")):
            assert process.returncode is None, await end_of(process)
            await asyncio.sleep(0.01)
    since = time.monotonic()
    process.send_signal(number)
    ended = await end_of(process)
    record_property("figure", f"{time.monotonic() - since:.2f} s from {number.name} to the end of an export")
    assert (ended.code, ended.out, ended.complaint) == (code, "", "interrupted; nothing was written")
    assert sorted(file.name for file in filled.parent.iterdir()) == before


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
async def test_stdout_gets_the_bytes_of_a_file(filled: Path, call: Call, kind: str) -> None:
    """`--output -` writes what a file would contain, and nothing else, to stdout."""
    target = filled.with_name("out")
    assert (await call("export", f"--store={filled}", f"--output={target}", f"--format={kind}")).code == 0
    ended = await call("export", f"--store={filled}", "--output=-", f"--format={kind}")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == target.read_text()
    assert sorted(file.name for file in filled.parent.iterdir()) == ["fleet.duckdb", "out"]


@pytest.mark.parametrize("options", [[], ["--format=csv", "--json"], ["--format=csv", "--partition-by=month"]])
async def test_what_stdout_cannot_take(filled: Path, call: Call, options: list[str]) -> None:
    """With `--output -`, Parquet, partitions and `--json` are refused, since the rows go to stdout."""
    ended = await call("export", f"--store={filled}", "--output=-", *options)
    assert ended.code == 2
    assert "--output - needs" in ended.complaint


def _wait_until_blocked(pid: int) -> None:
    """Wait until the main thread of a process waits for the reader of a pipe."""
    until = time.monotonic() + 60
    while "pipe_write" not in Path(f"/proc/{pid}/wchan").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("reader", "code"), [("head -2", 0), ("sleep 60", 143)])
async def test_a_reader_that_takes_only_a_part(filled: Path, reader: str, code: int) -> None:
    """If the reader of stdout goes away, the export ends with exit code 0; if it reads nothing, a signal ends the export."""
    await _grow(filled, 300)
    process = await start_in_pipe(reader, "export", f"--store={filled}", "--output=-", "--format=csv")
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            pid = int(await process.stderr.readline())
            if code:
                await asyncio.to_thread(_wait_until_blocked, pid)
                os.kill(pid, signal.SIGTERM)
                assert await process.stderr.readline() == b"podero-async: interrupted\n"
            assert int(await process.stderr.readline()) == code
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert sorted(file.name for file in filled.parent.iterdir()) == ["fleet.duckdb"]


async def test_an_object_about_the_files(filled: Path, call: Call) -> None:
    """With `--json`, an export prints the number of rows and the files, and an error is an object, too."""
    target = filled.with_name("out.csv")
    argv = ["export", f"--store={filled}", f"--output={target}", "--format=csv", "--json"]
    done = json.loads((await call(*argv)).out)
    assert done == {"rows": done["rows"], "files": [str(target)], "written": [str(target)]}
    failed = await call(*argv, "--partition-by=month")
    assert json.loads(failed.out) == {
        "error": {"kind": "StoreError", "message": f"a file is in the way of the export: {target}", "exit_code": 5}
    }
    assert failed.complaint == f"a file is in the way of the export: {target}"
    assert failed.code == 5


async def test_the_options_of_an_export(filled: Path, call: Call) -> None:
    """`--since` and `--no-withdrawn` choose the rows, and `--overwrite` repeats an export by month."""
    argv = ["export", f"--store={filled}", f"--output={filled.with_name('lake')}", "--partition-by=month", "--json"]
    rows = json.loads((await call(*argv)).out)["rows"]
    assert rows > 0
    assert json.loads((await call(*argv, "--overwrite", "--no-withdrawn")).out)["rows"] == rows
    printed = (await call("sql", f"--store={filled}", "--csv", "SELECT max(changed_at) AS newest FROM sessions")).out
    newest = datetime.fromisoformat(printed.split()[1])
    before = newest - timedelta(microseconds=1)
    for since, is_any in (
        ("yesterday", True),
        (printed.split()[1], False),
        (f"{before:%Y-%m-%d %H:%M:%S.%f}", True),
        (before.astimezone(timezone(timedelta(hours=1))).isoformat(), True),
    ):
        done = await call(*argv, "--overwrite", f"--since={since}")
        assert bool(json.loads(done.out)["rows"]) is is_any, since
    refused = await call(*argv, "--overwrite", "--since=noon")
    assert (refused.code, "YYYY-MM-DD, today or yesterday" in refused.err) == (2, True)


@pytest.mark.slow
async def test_an_export_to_an_object_store(call: Call, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--output s3://...` writes objects, a repetition none; a failure is one line, which has no secret, as has the log."""
    log = filled.with_name("log")
    options = [
        f"--store={filled}",
        "--partition-by=month",
        "--overwrite",
        "--output=s3://bucket/lake",
        f"--log-file={log}",
    ]
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for written in (2, 0):
            ended = await call("export", *options)
            assert (ended.code, ended.err) == (0, "")
            assert ended.out.endswith(f" sessions in s3://bucket/lake: 2 files, of which {written} were written\n")
        server.before_write = lambda _: False
        ended = await call("export", *options, "--no-withdrawn")
    assert (ended.code, ended.out) == (5, "")
    assert (
        ended.complaint == "the object store failed: CreateMultipartUpload ended with access_denied: s3://bucket/lake"
    )
    assert_no_canary(ended.err, log.read_text())

"""An export to an object store: moto's S3 server on loopback, with faults and kills at each request that writes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from podero_async import ConfigurationError
from podero_async.backfill import SessionStore, StoreError
from tests._support.canaries import assert_no_canary, exposed_by
from tests._support.commands import end_of, start
from tests._support.s3_server import S3Server, s3_server
from tests._support.sql_rows import execute, insert_sessions

AFTER = "changed_at = (SELECT max(changed_at) + INTERVAL 1 MICROSECOND FROM sessions)"
LAKE = "s3://bucket/lake"
MONTHS = [f"lake/month=2024-0{month}/data_0.parquet" for month in (1, 2, 3, 4)]
MANIFEST = "lake/_podero_async.json"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Serve an empty bucket, and point the environment to it."""
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    """Fill a store with 120 days: four months."""
    async with SessionStore(tmp_path / "fleet.duckdb") as opened:
        await insert_sessions(opened, 120, step_minutes=24 * 60)
        yield opened


def _written(s3: S3Server) -> set[str]:
    """Return the objects that were written since the last call."""
    keys = {request.split("?")[0].split(" /bucket/")[1] for request in s3.writes}
    s3.writes.clear()
    return keys


async def _assert_equal(s3: S3Server, store: SessionStore) -> None:
    """Check that the objects are those of the manifest, and their rows those of the store."""
    objects = await asyncio.to_thread(s3.objects)
    manifest = json.loads(objects.pop(MANIFEST))["files"]
    assert {f"lake/{name}" for name in manifest} == set(objects)
    assert None not in manifest.values()
    rows = [row for body in objects.values() for row in pq.read_table(io.BytesIO(body)).to_pylist()]
    table = await store.query("SELECT * EXCLUDE (absent_at) FROM sessions")
    assert {row["id"]: row["changed_at"].timestamp() for row in rows} == {
        row["id"]: row["changed_at"].timestamp() for row in table
    }
    assert len(rows) == len(table)


@pytest.mark.slow
async def test_a_repeated_export_writes_only_the_objects_that_changed(s3: S3Server, store: SessionStore) -> None:
    """Nothing is written if nothing changed; else the months that changed and the manifest; a month without rows goes."""
    first = await store.export(LAKE, partition_by="month")
    assert (first.rows, first.files) == (120, tuple(f"s3://bucket/{name}" for name in MONTHS))
    assert first.written == first.files
    await _assert_equal(s3, store)
    assert _written(s3) == {*MONTHS, MANIFEST}
    with pytest.raises(StoreError, match="not empty"):
        await store.export(LAKE, partition_by="month")
    assert (await store.export(LAKE, partition_by="month", overwrite=True)).written == ()
    assert _written(s3) == set()
    await execute(store, f"UPDATE sessions SET energy_charged_kwh = 1, {AFTER} WHERE plug_in_time = '2024-02-03'")
    await store.export(LAKE, partition_by="month", overwrite=True)
    assert _written(s3) == {MONTHS[1], MANIFEST}
    await execute(store, "DELETE FROM sessions WHERE plug_in_time >= '2024-04-01'")
    await store.export(f"{LAKE}/", partition_by="month", overwrite=True)
    assert {MONTHS[3], MANIFEST} <= _written(s3)
    await _assert_equal(s3, store)
    s3.files.delete_file(f"bucket/{MONTHS[0]}")
    await store.export(LAKE, partition_by="month", overwrite=True)
    await _assert_equal(s3, store)


@pytest.mark.slow
async def test_objects_of_others_are_never_touched(s3: S3Server, store: SessionStore) -> None:
    """An export to a prefix with an object of another writer is refused."""
    await store.export(LAKE, partition_by="month")
    for name in ("lake/mine.txt", "lake/month=2019-01/data_0.parquet"):
        with s3.files.open_output_stream(f"bucket/{name}") as stream:
            stream.write(b"mine")
        before = await asyncio.to_thread(s3.objects)
        with pytest.raises(StoreError, match="other files"):
            await store.export(LAKE, partition_by="month", overwrite=True)
        assert await asyncio.to_thread(s3.objects) == before
        s3.files.delete_file(f"bucket/{name}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
async def test_one_object_has_the_bytes_of_a_file(s3: S3Server, store: SessionStore, tmp_path: Path, kind: Any) -> None:
    """An address without partitions is one object, which is replaced by the next export."""
    for _ in range(2):
        await store.export(tmp_path / "out", kind)
        written = await store.export("s3://bucket/out", kind)
        assert (written.rows, written.files) == (120, ("s3://bucket/out",))
        assert (await asyncio.to_thread(s3.objects))["out"] == (tmp_path / "out").read_bytes()
        await execute(store, f"UPDATE sessions SET energy_charged_kwh = 1, {AFTER}")


@pytest.mark.slow
async def test_a_failed_upload_leaves_the_object_before(s3: S3Server, store: SessionStore) -> None:
    """If the second part of an object is refused, the object stays as it was, and the error has none of the server's words."""
    await store.export("s3://bucket/out", "jsonl")
    before = await asyncio.to_thread(s3.objects)
    await execute(store, "DELETE FROM sessions")
    await insert_sessions(store, 20_000)  # 20 MB of JSON lines, which are two parts
    for refused in ("uploads", "partNumber=1", "partNumber=2", "POST /bucket/out?uploadId"):
        s3.before_write = lambda request, refused=refused: refused not in request  # type: ignore[misc]
        with pytest.raises(StoreError, match="ended with access_denied: s3://bucket/out") as caught:
            await store.export("s3://bucket/out", "jsonl")
        assert_no_canary(*exposed_by(caught.value))
        assert await asyncio.to_thread(s3.objects) == before


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("s3://c4n4ry:c4n4ry@bucket/out", "takes no credentials"),
        ("s3://bucket/out?secret_key=c4n4ry", "takes no credentials"),
        ("abfss://:c4n4ry@account.blob.core.windows.net/out", "takes no credentials"),
        ("s3://", "no bucket"),
        ("s3://bucket", "no object"),
        ("s3://bucket/folder/", "no object"),
        ("s3://nowhere/out", "ended with no_such_bucket"),
    ],
)
async def test_an_address_that_is_refused(s3: S3Server, store: SessionStore, target: str, said: str) -> None:
    """An address with credentials is refused without a request, and no part of the credentials is repeated."""
    with pytest.raises(StoreError, match=said) as caught:
        await store.export(target, "csv")
    assert_no_canary(str(caught.value), repr(caught.value))
    assert s3.objects() == {}


async def test_plain_http_is_for_loopback_only(
    s3: S3Server, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that is plain http to another host is refused."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://example.com")
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL_S3 must be https"):
        await store.export("s3://bucket/out", "csv")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert (await store.export("s3://bucket/out", "csv")).rows == 120


@pytest.mark.slow
async def test_a_cancelled_export_leaves_whole_objects(s3: S3Server, store: SessionStore) -> None:
    """An export that is cancelled during an upload completes this object and begins no other; its repetition the rest."""
    exporting = asyncio.create_task(store.export(LAKE, partition_by="month"))
    loop, is_seen = asyncio.get_running_loop(), asyncio.Event()

    def cancel(request: str) -> bool:
        if MONTHS[1] in request:
            loop.call_soon_threadsafe(exporting.cancel)
            loop.call_soon_threadsafe(is_seen.set)
        return True

    s3.before_write = cancel
    with pytest.raises(asyncio.CancelledError):
        await exporting
    s3.before_write = lambda _: True
    assert set(await asyncio.to_thread(s3.objects)) in ({*MONTHS[:2], MANIFEST}, {*MONTHS[:3], MANIFEST})
    await store.export(LAKE, partition_by="month")
    await _assert_equal(s3, store)


@pytest.mark.parametrize("step", [pytest.param(4, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.soak)])
async def test_an_export_that_is_killed_at_any_request_is_completed_by_the_next(
    s3: S3Server, store: SessionStore, tmp_path: Path, step: int
) -> None:
    """The command is killed at each of its writing requests (in the short form at each fourth); the next export is right.

    The killed export adds a month, removes one and changes one. After every second kill, the earlier store is exported first,
    as if a backup had been restored.
    """
    earlier, later = tmp_path / "earlier.duckdb", tmp_path / "later.duckdb"
    await store.snapshot(earlier)
    await execute(store, f"UPDATE sessions SET energy_charged_kwh = 1, {AFTER} WHERE plug_in_time = '2024-02-03'")
    await execute(store, f"UPDATE sessions SET plug_in_time = '2024-05-01', {AFTER} WHERE plug_in_time >= '2024-04-01'")
    await store.snapshot(later)
    options = ["--partition-by=month", "--overwrite", f"--output={LAKE}"]
    kills = 0
    for number in range(0, 100, step):
        async with SessionStore(earlier, read_only=True) as before:
            await before.export(LAKE, partition_by="month", overwrite=True)
        _written(s3)
        process = await start("export", f"--store={later}", *options)

        def kill(_: str, process: asyncio.subprocess.Process = process, number: int = number) -> bool:
            if len(s3.writes) == number + 1:
                os.kill(process.pid, signal.SIGKILL)
            return True

        s3.before_write = kill
        ended = await end_of(process)
        s3.before_write = lambda _: True
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL
        kills += 1
        for path in (earlier, later) if kills % 2 else (later,):
            async with SessionStore(path, read_only=True) as repeated:
                await repeated.export(LAKE, partition_by="month", overwrite=True)
                await _assert_equal(s3, repeated)
    assert kills > 12 / step

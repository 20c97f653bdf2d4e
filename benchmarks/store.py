"""What the store costs, against the same fleet merely streamed and against other ways to write rows, in one run.

`python -m benchmarks.store [--vehicles 1000] [--sessions 100]`. The server runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import resource
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from typing import Any

import attrs
import duckdb

from podero_async import ClientCredentials, PoderoClient, VehicleRef, VehicleSessions
from podero_async._pages import Window
from podero_async.backfill import SessionStore, backfill
from podero_async.backfill._store_columns import Batch
from podero_async.backfill._store_schema import SESSION_COLUMNS
from podero_async.backfill._store_write import write_batch
from podero_async.backfill._task import Task
from podero_async.testing import PoderoSimulator

FIRST, LAST = date(2000, 1, 1), date(2026, 6, 30)
ROW_BY_ROW = 2_000  # rows are enough to measure what is slow


def serve(pipe: Connection, vehicles: int, sessions: int) -> None:
    """Be the server, until told to end."""

    async def run() -> None:
        simulator = PoderoSimulator(users=max(1, vehicles // 10), vehicles=vehicles, sessions_per_vehicle=sessions)
        for vehicle in simulator.vehicles:
            simulator.truth(vehicle)  # rows are made at the first look: not while it is measured
        async with simulator as sim:
            pipe.send((sim.base_url, sim.org_id, sim.client_id, sim.client_secret, sim.vehicles))
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


@asynccontextmanager
async def serving(vehicles: int, sessions: int) -> AsyncIterator[tuple[PoderoClient, list[VehicleRef]]]:
    """Start the server, and connect to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, vehicles, sessions), daemon=True)
    server.start()
    try:
        url, org_id, client_id, secret, refs = await asyncio.to_thread(ours.recv)
        async with PoderoClient(org_id, ClientCredentials(client_id, secret), base_url=url) as client:
            yield client, refs
    finally:
        ours.send("end")
        server.join()


class Meter:
    """Seconds of CPU and of the wall."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    @contextmanager
    def running(self) -> Any:
        usage, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        yield
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        self.wall = time.perf_counter() - began


@attrs.define
class Blocks:
    """The longest time that a callback held the event loop, and that the garbage collector did."""

    longest_s: float = 0.0
    collector_s: float = 0.0
    _collecting_since: float = 0.0
    _collected_s: float = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        plain = asyncio.Handle._run  # noqa: SLF001

        def timed(handle: asyncio.Handle) -> None:
            before, self._collected_s = time.perf_counter(), 0.0
            plain(handle)
            self.longest_s = max(self.longest_s, time.perf_counter() - before - self._collected_s)

        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]  # noqa: SLF001
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)
            asyncio.Handle._run = plain  # type: ignore[method-assign]  # noqa: SLF001

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collecting_since = now
        else:
            self._collected_s += now - self._collecting_since
            self.collector_s = max(self.collector_s, now - self._collecting_since)


async def streamed(client: PoderoClient, vehicles: list[VehicleRef]) -> tuple[Meter, int, Blocks]:
    meter, rows, blocks = Meter(), 0, Blocks()
    async with client.fetch_fleet(FIRST, LAST, vehicles, include_hidden=True) as fleet:
        with meter.running(), blocks.watched():
            async for outcome in fleet:
                if isinstance(outcome, VehicleSessions):
                    rows += len(outcome.sessions)
    return meter, rows, blocks


async def kept(client: PoderoClient, vehicles: list[VehicleRef]) -> list[VehicleSessions]:
    async with client.fetch_fleet(FIRST, LAST, vehicles, include_hidden=True) as fleet:
        return [outcome async for outcome in fleet if isinstance(outcome, VehicleSessions)]


async def stored(client: PoderoClient, vehicles: list[VehicleRef], path: Path) -> tuple[Meter, int, Blocks]:
    meter, blocks = Meter(), Blocks()
    async with SessionStore(path) as store:
        with meter.running(), blocks.watched():
            report = await backfill(client, store, FIRST, LAST, vehicles, include_hidden=True, refresh_days=7)
    return meter, report.new, blocks


# --- rows a second ----------------------------------------------------------------------------------------------------

_values = attrgetter(*SESSION_COLUMNS)
PLACES = ", ".join("?" for _ in range(len(SESSION_COLUMNS) + 2))


def by_batches(reads: list[VehicleSessions], store_path: Path) -> int:
    """Write with the library's own writer, into a store that has its tables."""
    rows = 0
    with duckdb.connect(str(store_path)) as con:
        con.execute("SET TimeZone = 'UTC'")
        batch = Batch(1, date(2026, 6, 29))
        for number, read in enumerate(reads, 1):
            window = _window(read)
            batch.add(Task(number, read.vehicle, window), read, [], read.sessions, datetime.now(UTC))
            if batch.is_full or number == len(reads):
                batch.seal()
                rows += write_batch(con, batch).new
                batch = Batch(1, date(2026, 6, 29))
    return rows


def _window(read: VehicleSessions) -> Window:
    return Window(read.from_date, read.to_date, include_hidden=True)


def by_row(reads: list[VehicleSessions], path: Path) -> int:
    """Write with one INSERT a row, in one transaction."""
    columns = ", ".join(f"{name} {kind}" for name, kind in SESSION_COLUMNS.items())
    rows = _rows(reads)[:ROW_BY_ROW]
    with duckdb.connect(str(path)) as con:
        con.execute(f"CREATE TABLE sessions (user_id UUID, vehicle_id UUID, {columns})")
        con.execute("BEGIN")
        for row in rows:
            con.execute(f"INSERT INTO sessions VALUES ({PLACES})", row)
        con.execute("COMMIT")
    return len(rows)


def by_sqlite(reads: list[VehicleSessions], path: Path) -> int:
    """Write with SQLite's `executemany`, upserting by id, in batches of as many rows as ours."""
    names = ["user_id", "vehicle_id", *SESSION_COLUMNS]
    con = sqlite3.connect(path)
    con.execute("PRAGMA journal_mode = WAL")
    con.execute(f"CREATE TABLE sessions ({', '.join(names)}, PRIMARY KEY (id))")
    rows = _rows(reads)
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name != "id")
    for start in range(0, len(rows), 16_384):
        piece = [tuple(map(_plain, row)) for row in rows[start : start + 16_384]]
        with con:
            con.executemany(f"INSERT INTO sessions VALUES ({PLACES}) ON CONFLICT (id) DO UPDATE SET {updates}", piece)
    con.close()
    return len(rows)


def _rows(reads: list[VehicleSessions]) -> list[tuple[Any, ...]]:
    return [(read.vehicle.user_id, read.vehicle.vehicle_id, *_values(row)) for read in reads for row in read.sessions]


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float) else str(value)


def rate(write: Callable[..., int], *arguments: Any) -> tuple[float, float]:
    """Return rows a second, by the wall and by CPU."""
    meter = Meter()
    with meter.running():
        rows = write(*arguments)
    return rows / meter.wall, rows / meter.cpu


def checkpoint_costs(reads: list[VehicleSessions], store_path: Path, rounds: int) -> list[float]:
    """Time the same batch of vehicles, read again, in a store that grows each time by all the others."""
    batch = Batch(1, date(2026, 6, 29))
    ordered = sorted(reads, key=lambda read: read.vehicle.vehicle_id)
    for number, read in enumerate(ordered[:100], 1):
        batch.add(Task(number, read.vehicle, _window(read)), read, [], read.sessions, datetime.now(UTC))
    batch.seal()
    costs = []
    with duckdb.connect(str(store_path)) as con:
        con.execute("SET TimeZone = 'UTC'")
        for number in range(rounds):
            # As many vehicles again, in the order of their ids, as a run would have written them.
            con.execute(
                "INSERT INTO sessions SELECT * REPLACE (md5(vehicle_id || $round)::UUID AS vehicle_id, uuid() AS id)"
                " FROM sessions ORDER BY vehicle_id",
                {"round": str(number)},
            )
            began = time.perf_counter()
            write_batch(con, batch)
            costs.append(time.perf_counter() - began)
    return costs


async def main(vehicles: int, sessions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        async with serving(vehicles, sessions) as (client, refs):
            await streamed(client, refs[: vehicles // 10])  # connections, token, imports
            await stored(client, refs[: vehicles // 10], room / "warm.duckdb")
            stream, rows, stream_blocks = await streamed(client, refs)
            store, _, store_blocks = await stored(client, refs, room / "fleet.duckdb")
            again, _, _ = await stored(client, refs, room / "fleet.duckdb")
            reads = await kept(client, refs)
        print(f"{vehicles} vehicles, {rows} sessions, {os.cpu_count()} cores\n")
        print(f"{'':34}{'CPU s/million':>14}{'rows/s':>12}{'longest callback':>18}{'collector':>12}")
        for name, meter, blocks in (("streamed", stream, stream_blocks), ("stored", store, store_blocks)):
            cpu = meter.cpu / rows * 1e6
            print(
                f"{name:34}{cpu:14.1f}{rows / meter.wall:12,.0f}{blocks.longest_s * 1e3:15.1f} ms{blocks.collector_s * 1e3:9.1f} ms"
            )
        print(f"{'stored / streamed':34}{store.cpu / stream.cpu:13.2f}x   (aim: at most 4)")
        print(f"the last days again: {again.cpu:.2f} s CPU for {vehicles} vehicles\n")

        async with SessionStore(room / "writer.duckdb"):
            pass
        print(f"{'rows into a table':34}{'rows/s':>14}{'per CPU s':>14}")
        for name, (wall, cpu) in {
            "the store's writer": rate(by_batches, reads, room / "writer.duckdb"),
            "DuckDB, row by row INSERT": rate(by_row, reads, room / "rows.duckdb"),
            "SQLite executemany (upsert by id)": rate(by_sqlite, reads, room / "rows.sqlite"),
        }.items():
            print(f"{name:34}{wall:14,.0f}{cpu:14,.0f}")

        costs = checkpoint_costs(reads, room / "writer.duckdb", 5)
        print("\n100 vehicles read again, in a store that doubles each time:")
        print(
            "  "
            + ", ".join(f"{rows * 2 ** (number + 1):,} rows {cost * 1e3:.0f} ms" for number, cost in enumerate(costs))
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vehicles", type=int, default=2000)
    parser.add_argument("--sessions", type=int, default=100)
    options = parser.parse_args()
    asyncio.run(main(options.vehicles, options.sessions))

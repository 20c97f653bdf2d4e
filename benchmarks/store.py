"""The store: its cost compared with streaming the same fleet, and with other ways to write rows."""

from __future__ import annotations

import asyncio
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

import duckdb

from benchmarks.measuring import Figure, LoopProbe
from podero_async import ClientCredentials, PoderoClient, VehicleRef, VehicleSessions
from podero_async._decode import encode_json, read_page
from podero_async._fleet.vehicle import FetchedSessions
from podero_async._paging.window import Window
from podero_async.backfill import SessionStore, backfill
from podero_async.backfill._values import Limits, WorkItem
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS
from podero_async.backfill.store.duckdb.upsert import write_batch
from podero_async.testing import PoderoSimulator

FIRST, LAST = date(2000, 1, 1), date(2026, 6, 30)
ROW_BY_ROW = 2_000  # rows are enough to measure the slow way


def serve(pipe: Connection, vehicles: int, sessions: int, core: int | None) -> None:
    """Run the server until the pipe receives something."""
    if core is not None:
        os.sched_setaffinity(0, {core})

    async def run() -> None:
        simulator = PoderoSimulator(users=max(1, vehicles // 10), vehicles=vehicles, sessions_per_vehicle=sessions)
        for vehicle in simulator.vehicles:
            simulator.truth(vehicle)  # rows are generated at the first access, which must not be measured
        async with simulator as sim:
            pipe.send((sim.base_url, sim.org_id, sim.client_id, sim.client_secret, sim.vehicles))
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


@asynccontextmanager
async def serving(
    vehicles: int, sessions: int, core: int | None
) -> AsyncIterator[tuple[PoderoClient, list[VehicleRef]]]:
    """Start the server in a process, and connect a client to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, vehicles, sessions, core), daemon=True)
    server.start()
    try:
        url, org_id, client_id, secret, refs = await asyncio.to_thread(ours.recv)
        async with PoderoClient(org_id, ClientCredentials(client_id, secret), base_url=url) as client:
            yield client, refs
    finally:
        ours.send("end")
        server.join()


class Meter:
    """Seconds of CPU time, of the process and of the event loop's thread, and of wall-clock time."""

    def __init__(self) -> None:
        self.cpu = self.loop_cpu = self.wall = 0.0

    @contextmanager
    def running(self) -> Any:
        usage, loop_began, began = resource.getrusage(resource.RUSAGE_SELF), time.thread_time(), time.perf_counter()
        yield
        self.loop_cpu = time.thread_time() - loop_began
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        self.wall = time.perf_counter() - began


async def streamed(client: PoderoClient, vehicles: list[VehicleRef]) -> tuple[Meter, int, LoopProbe]:
    meter, rows, loop = Meter(), 0, LoopProbe()
    async with client.fetch_fleet(FIRST, LAST, vehicles, include_hidden=True) as fleet:
        with meter.running(), loop.watched():
            async for outcome in fleet:
                if isinstance(outcome, VehicleSessions):
                    rows += len(outcome.sessions)
    return meter, rows, loop


async def kept(client: PoderoClient, vehicles: list[VehicleRef]) -> list[VehicleSessions]:
    async with client.fetch_fleet(FIRST, LAST, vehicles, include_hidden=True) as fleet:
        return [outcome async for outcome in fleet if isinstance(outcome, VehicleSessions)]


async def stored(client: PoderoClient, vehicles: list[VehicleRef], path: Path) -> tuple[Meter, int, LoopProbe]:
    meter, loop = Meter(), LoopProbe()
    async with SessionStore(path) as store:
        with meter.running(), loop.watched():
            report = await backfill(client, store, FIRST, LAST, vehicles=vehicles, include_hidden=True)
    return meter, report.new, loop


# --- rows per second --------------------------------------------------------------------------------------------------

_values = attrgetter(*SESSION_COLUMNS)
PLACES = ", ".join("?" for _ in range(len(SESSION_COLUMNS) + 2))


def fetched(reads: list[VehicleSessions]) -> list[FetchedSessions]:
    """Return the sessions as the store gets them: as bodies of pages."""
    outcomes = []
    for read in reads:
        body = b'{"total": %d, "items": %s}' % (len(read.sessions), encode_json(read.sessions))
        window = Window(read.from_date, read.to_date, include_hidden=True)
        page = read_page(body, keep_body=True)
        outcomes.append(FetchedSessions(read.vehicle, window, [page], read.completeness, page.total, 1, 0))
    return outcomes


def by_batches(reads: list[FetchedSessions], store_path: Path) -> int:
    """Write with the library's writer into an existing store."""
    rows = 0
    with duckdb.connect(str(store_path)) as con:
        con.execute("SET TimeZone = 'UTC'")
        batch, limits = Batch(1), Limits()
        for number, read in enumerate(reads, 1):
            _add(batch, number, read)
            is_full = batch.rows >= limits.max_batch_rows or batch.outcomes >= limits.max_batch_outcomes
            if is_full or number == len(reads):
                rows += write_batch(con, batch, datetime.now(UTC)).new
                batch = Batch(1)
    return rows


def _add(batch: Batch, number: int, read: FetchedSessions) -> None:
    batch.add(WorkItem(number, read.vehicle, read.window), read, "", datetime.now(UTC), None)


def by_row(reads: list[VehicleSessions], path: Path) -> int:
    """Write with one INSERT per row, in one transaction."""
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
    """Write with SQLite's `executemany`, upserting by id, in batches of the same size."""
    names = ["user_id", "vehicle_id", *SESSION_COLUMNS]
    con = sqlite3.connect(path)
    con.execute("PRAGMA journal_mode = WAL")
    con.execute(f"CREATE TABLE sessions ({', '.join(names)}, PRIMARY KEY (id))")
    rows = _rows(reads)
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name != "id")
    for start in range(0, len(rows), 16_384):
        part = [tuple(map(_plain, row)) for row in rows[start : start + 16_384]]
        with con:
            con.executemany(f"INSERT INTO sessions VALUES ({PLACES}) ON CONFLICT (id) DO UPDATE SET {updates}", part)
    con.close()
    return len(rows)


def _rows(reads: list[VehicleSessions]) -> list[tuple[Any, ...]]:
    return [(read.vehicle.user_id, read.vehicle.vehicle_id, *_values(row)) for read in reads for row in read.sessions]


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float) else str(value)


def rate(write: Callable[..., int], *arguments: Any) -> tuple[float, float]:
    """Return rows per second of wall-clock time and of CPU time."""
    meter = Meter()
    with meter.running():
        rows = write(*arguments)
    return rows / meter.wall, rows / meter.cpu


def checkpoint_costs(reads: list[FetchedSessions], store_path: Path, rounds: int) -> list[float]:
    """Time a batch of re-read vehicles, in a store that doubles before each round."""
    batch = Batch(1)
    ordered = sorted(reads, key=lambda read: read.vehicle.vehicle_id)
    for number, read in enumerate(ordered[:100], 1):
        _add(batch, number, read)
    costs = []
    with duckdb.connect(str(store_path)) as con:
        con.execute("SET TimeZone = 'UTC'")
        for number in range(rounds):
            # The same number of vehicles again, in the order of their ids, as a run would write them.
            con.execute(
                "INSERT INTO sessions SELECT * REPLACE (md5(vehicle_id || $round)::UUID AS vehicle_id, uuid() AS id)"
                " FROM sessions ORDER BY vehicle_id",
                {"round": str(number)},
            )
            began = time.perf_counter()
            write_batch(con, batch, datetime.now(UTC))
            costs.append(time.perf_counter() - began)
    return costs


async def measure(core: int | None, vehicles: int, sessions: int) -> AsyncIterator[Figure]:
    """Measure all figures in one run."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        async with serving(vehicles, sessions, core) as (client, refs):
            await streamed(client, refs[: vehicles // 10])  # connections, token, imports
            await stored(client, refs[: vehicles // 10], root / "warm.duckdb")
            stream, rows, _ = await streamed(client, refs)
            store, _, loop = await stored(client, refs, root / "fleet.duckdb")
            reads = await kept(client, refs)
        yield _cost(stream, store, rows)
        yield Figure(
            name="the same, by CPU time of the event loop's thread",
            value=f"{store.loop_cpu / stream.loop_cpu:.2f}",
            aim="at most 0.95",
            reached=store.loop_cpu <= 0.95 * stream.loop_cpu,
            note="the store also asks for the current session of each vehicle",
        )
        yield Figure(
            name="a fleet into the store: longest block of the event loop without the garbage collector",
            value=f"{loop.own_cpu_s * 1e3:.1f} ms of its thread's CPU time, {loop.own_s * 1e3:.1f} ms of wall-clock time",
            aim="under 10 ms",
            reached=loop.own_cpu_s < 0.01,  # the threads of the writer and of the store share the core
            note=f"longest garbage collection: {loop.collector_s * 1e3:.1f} ms",
        )
        async with SessionStore(root / "writer.duckdb"):
            pass
        yield _rates(
            rate(by_batches, fetched(reads), root / "writer.duckdb"),
            rate(by_row, reads, root / "rows.duckdb"),
            rate(by_sqlite, reads, root / "rows.sqlite"),
        )
        costs = checkpoint_costs(fetched(reads), root / "writer.duckdb", 5)
        yield Figure(
            name="a batch of 100 re-read vehicles, in a store that doubles four times",
            value=", ".join(
                f"{rows * 2 ** (number + 1):,} rows {cost * 1e3:.0f} ms" for number, cost in enumerate(costs)
            ),
        )


def _cost(stream: Meter, store: Meter, rows: int) -> Figure:
    ratio = store.cpu / stream.cpu
    a_million = [meter.cpu / rows * 1e6 for meter in (store, stream)]
    return Figure(
        name=f"a fleet of {rows:,} sessions into the store / streamed only, by CPU time",
        value=f"{ratio:.2f} ({a_million[0]:.1f} / {a_million[1]:.1f} s per million sessions)",
        aim="at most 1.8",
        reached=ratio <= 1.8,
    )


def _rates(own: tuple[float, float], by_row: tuple[float, float], sqlite: tuple[float, float]) -> Figure:
    return Figure(
        name="rows per second: the store's writer / row by row INSERT / SQLite executemany",
        value=f"{own[0]:,.0f} / {by_row[0]:,.0f} / {sqlite[0]:,.0f} (by CPU {own[1]:,.0f} / {by_row[1]:,.0f} / {sqlite[1]:,.0f})",
    )


def figures(core: int | None, vehicles: int, sessions: int = 150) -> Iterator[Figure]:
    """Yield all figures of the store."""

    async def collect() -> list[Figure]:
        return [figure async for figure in measure(core, vehicles, sessions)]

    yield from asyncio.run(collect())

"""The store: the cost of a fleet in it, compared with streaming the same fleet."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.measuring import Figure, LoopProbe
from podero_async import ClientCredentials, PoderoClient, VehicleRef
from podero_async.backfill import SessionStore, backfill
from podero_async.testing import PoderoSimulator

__all__ = ["figures"]

_FIRST, _LAST = date(2000, 1, 1), date(2026, 6, 30)


def _serve(pipe: Connection, vehicles: int, sessions: int, core: int | None) -> None:
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
async def _serving(
    vehicles: int, sessions: int, core: int | None
) -> AsyncIterator[tuple[PoderoClient, list[VehicleRef]]]:
    """Start the server in a process, and connect a client to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs, vehicles, sessions, core), daemon=True)
    server.start()
    try:
        url, org_id, client_id, secret, refs = await asyncio.to_thread(ours.recv)
        async with PoderoClient(org_id, ClientCredentials(client_id, secret), base_url=url) as client:
            yield client, refs
    finally:
        ours.send("end")
        server.join()


class _Meter:
    """CPU time of the process and of the event loop's thread, and the blocks of the event loop."""

    def __init__(self) -> None:
        self.cpu_s = self.loop_s = 0.0
        self.blocks = LoopProbe()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the block."""
        usage, thread_s = resource.getrusage(resource.RUSAGE_SELF), time.thread_time()
        with self.blocks.watched():
            yield
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        self.loop_s = time.thread_time() - thread_s


async def _streamed(client: PoderoClient, vehicles: list[VehicleRef]) -> _Meter:
    meter = _Meter()
    async with client.fetch_fleet(_FIRST, _LAST, vehicles, include_hidden=True) as fleet:
        with meter.running():
            async for _ in fleet:
                pass
    return meter


async def _stored(client: PoderoClient, vehicles: list[VehicleRef], path: Path) -> tuple[_Meter, int]:
    meter = _Meter()
    async with SessionStore(path) as store:
        with meter.running():
            report = await backfill(client, store, _FIRST, _LAST, vehicles=vehicles, include_hidden=True)
    return meter, report.new


async def _measured(core: int | None, vehicles: int, sessions: int) -> tuple[_Meter, _Meter, int]:
    """Stream and store the same fleet."""
    with tempfile.TemporaryDirectory() as folder:
        async with _serving(vehicles, sessions, core) as (client, refs):
            await _streamed(client, refs[: vehicles // 10])  # connections, token, imports
            await _stored(client, refs[: vehicles // 10], Path(folder) / "warm.duckdb")
            stream = await _streamed(client, refs)
            store, rows = await _stored(client, refs, Path(folder) / "fleet.duckdb")
    return stream, store, rows


def figures(core: int | None, vehicles: int, sessions: int = 150) -> Iterator[Figure]:
    """Yield all figures of the store."""
    stream, store, rows = asyncio.run(_measured(core, vehicles, sessions))
    yield _cost(
        f"a fleet of {rows:,} sessions into the store / streamed: CPU time", store.cpu_s, stream.cpu_s, rows, 1.8
    )
    yield _cost(
        "a fleet into the store / streamed: CPU time of the event loop's thread",
        store.loop_s,
        stream.loop_s,
        rows,
        0.95,
    )
    blocks = store.blocks
    yield Figure(
        name="a fleet into the store: longest block of the event loop without the garbage collector",
        value=f"{blocks.own_cpu_s * 1e3:.1f} ms of its thread's CPU time, {blocks.own_s * 1e3:.1f} ms of wall-clock time",
        aim="under 10 ms of CPU time",
        reached=blocks.own_cpu_s < 0.01,  # the threads of the writer and of the store share the core
        note=f"longest garbage collection: {blocks.collector_s * 1e3:.1f} ms",
    )


def _cost(name: str, own_s: float, other_s: float, rows: int, aim: float) -> Figure:
    ratio = own_s / other_s
    return Figure(
        name=name,
        value=f"{ratio:.2f} ({own_s / rows * 1e6:.1f} / {other_s / rows * 1e6:.1f} us a session)",
        aim=f"at most {aim}",
        reached=ratio <= aim,
    )

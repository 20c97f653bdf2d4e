"""The costs of a fetch apart from its duration: memory, import time, and blocks of the event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles
from benchmarks.measuring import Figure, LoopProbe, median
from benchmarks.server import Plan, serving
from podero_async import ClientCredentials, PoderoClient

__all__ = ["blocking", "imports", "memory"]

_MIB = 1 << 20
DISCOVERED = -1
"""In place of the number of sessions of a vehicle: the fleet is not given."""


def memory(core: int | None, scale: int) -> Iterator[Figure]:
    """Measure the peak memory of processes that stream large fleets; `scale` divides their sizes."""
    with serving(core=core) as server:
        large = _peak_mib(server.origin, 10_000 // scale, 100)
        many = _peak_mib(server.origin, 100_000 // scale, 10)
        long = _peak_mib(server.origin, 500 // scale, 2_000)
        million = _peak_mib(server.origin, 1_000_000 // scale, 1)
        slow = _peak_mib(server.origin, 1_000 // scale, 100, pause_s=0.01)
    with serving(Plan(users=100_000 // scale, sessions_of_user=1), core=core) as server:
        discovered = _peak_mib(server.origin, 100_000 // scale, DISCOVERED)
    yield _peak(f"{10_000 // scale:,} vehicles, {1_000_000 // scale:,} sessions streamed", large, "at most 64 MiB", 64)
    yield _peak(f"{100_000 // scale:,} vehicles of 10", many, "at most 8 MiB more", large + 8)
    yield _peak(f"{1_000_000 // scale:,} vehicles of 1", million, "at most 8 MiB more", large + 8)
    yield _peak(f"{100_000 // scale:,} vehicles, discovered from one list of users", discovered, "", None)
    yield _peak(f"{500 // scale:,} vehicles of 2,000 sessions", long, "", None)
    yield _peak(
        f"a consumer that needs 10 ms per outcome, {1_000 // scale:,} vehicles of 100", slow, "as flat", large + 8
    )


def _peak(name: str, peak: float, aim: str, maximum: float | None) -> Figure:
    return Figure(
        name=f"peak memory over the bare process: {name}",
        value=f"{peak:.1f} MiB",
        aim=aim,
        reached=None if maximum is None else peak <= maximum,
    )


def _peak_mib(origin: str, count: int, rows: int, pause_s: float = 0.0) -> float:
    return _in_a_process("memory", origin, count, rows, pause_s)[0] / _MIB


def _in_a_process(benchmark: str, origin: str, *figures: float) -> list[float]:
    """Measure in a new process, without the modules and objects of other benchmarks."""
    command = [sys.executable, "-m", "benchmarks.footprint", benchmark, origin, *map(str, figures)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(figure) for figure in ended.stdout.split()]


def _high_water() -> int:
    """Return the peak memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


async def _stream(origin: str, count: int, rows: int, pause_s: float) -> int:
    fleet_of = None if rows == DISCOVERED else vehicles([rows] * count)
    async with _client(origin) as client:
        await client.list_sessions(ORG, ORG, FIRST_DAY, LAST_DAY)
        bare = _high_water()
        async with client.fetch_fleet(FIRST_DAY, LAST_DAY, fleet_of) as fleet:
            async for _ in fleet:
                if pause_s:
                    await asyncio.sleep(pause_s)
            assert fleet.summary.vehicles == count, fleet.summary
    return _high_water() - bare


@asynccontextmanager
async def _client(origin: str) -> AsyncIterator[PoderoClient]:
    async with PoderoClient(ORG, ClientCredentials("id", "secret"), base_url=origin) as client:
        yield client


def imports(rounds: int) -> Iterator[Figure]:
    """Compare the times to start, each in new processes, in turn."""
    client = ["-c", "from podero_async import PoderoClient"]
    commands = {
        "aiohttp": ["-c", "import aiohttp"],
        "package": ["-c", "import podero_async"],
        "client": client,
        "help": ["-m", "podero_async", "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in (*commands, "sessions")}
    with tempfile.TemporaryDirectory() as cache:
        for number in range(rounds + 1):
            row = {name: _process_s(command, cache) for name, command in commands.items()}
            row["sessions"] = _first_connection_s(cache)
            if number:  # the first round compiles the modules
                for name, seconds in row.items():
                    taken[name].append(seconds)
    yield _start("import podero_async / import aiohttp", taken["package"], taken["aiohttp"], 1.15)
    yield _start("from podero_async import PoderoClient / import aiohttp", taken["client"], taken["aiohttp"], 1.15)
    yield _start("podero-async --help / import aiohttp", taken["help"], taken["aiohttp"], 0.56)
    later = median([one - other for one, other in zip(taken["sessions"], taken["client"], strict=True)]) * 1e3
    yield Figure(
        name="podero-async sessions until it connects, after the time to import PoderoClient",
        value=f"{later:+.0f} ms ({median(taken['sessions']) * 1e3:.0f} against {median(taken['client']) * 1e3:.0f})",
        aim="at most +50 ms",
        reached=later <= 50,
    )


def _start(name: str, own: list[float], theirs: list[float], aim: float) -> Figure:
    ratio = median([one / other for one, other in zip(own, theirs, strict=True)])
    return Figure(
        name=f"{name}, whole processes",
        value=f"{ratio:.2f} ({median(own) * 1e3:.0f} ms against {median(theirs) * 1e3:.0f} ms)",
        aim=f"at most {aim}",
        reached=ratio <= aim,
    )


def _start_process(command: list[str], cache: str, **settings: str) -> subprocess.Popen[bytes]:
    # The modules are compiled, even if this environment prevents interpreters from writing bytecode.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPYCACHEPREFIX": cache, **settings}
    return subprocess.Popen([sys.executable, *command], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _process_s(command: list[str], cache: str) -> float:
    began = time.perf_counter()
    assert _start_process(command, cache).wait() == 0
    return time.perf_counter() - began


def _first_connection_s(cache: str) -> float:
    """Return the time from the start of `podero-async sessions` to its first connection."""
    days = [f"--from={FIRST_DAY}", f"--to={LAST_DAY}"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        began = time.perf_counter()
        with _start_process(
            ["-m", "podero_async", "sessions", f"--user={ORG}", f"--vehicle={ORG}", *days],
            cache,
            PODERO_BASE_URL=url,
            PODERO_ORG_ID=str(ORG),
            PODERO_TOKEN="benchmark",
        ) as process:
            server.accept()[0].close()
            seconds = time.perf_counter() - began
            process.kill()
    return seconds


def blocking(core: int | None, scale: int) -> Iterator[Figure]:
    """Measure the longest block of the event loop over all kinds of fetches, each in a new process."""
    for is_frozen, suffix in ((False, ""), (True, ", after gc.freeze()")):
        longest, own, collector = _longest(core, scale, is_frozen)
        yield Figure(
            name=f"longest block of the event loop over these fetches and a list of 20,000 users{suffix}",
            value=f"{longest * 1e3:.1f} ms; without the garbage collector {own * 1e3:.1f} ms",
            aim="under 20 ms",
            reached=longest < 0.02,
            note=f"longest garbage collection: {collector * 1e3:.1f} ms",
        )


def _longest(core: int | None, scale: int, is_frozen: bool) -> tuple[float, ...]:
    found = []
    for plan, rows, count in (
        (Plan(), 200, 2000),
        (Plan(), 1900, 200),
        (Plan(), 10, 5000),
        (Plan(gzip=True), 200, 1000),
        (Plan(users=20_000), 0, 0),
    ):
        with serving(plan, core=core) as server:
            found.append(_in_a_process("blocking", server.origin, count // scale, rows, is_frozen))
    return tuple(map(max, zip(*found, strict=True)))


def _watch(origin: str, count: int, rows: int) -> LoopProbe:
    loop = LoopProbe()
    with loop.watched():
        asyncio.run(_drain(origin, count, rows) if count else _users(origin))
    return loop


async def _drain(origin: str, count: int, rows: int) -> None:
    async with _client(origin) as client, client.fetch_fleet(FIRST_DAY, LAST_DAY, vehicles([rows] * count)) as fleet:
        async for _ in fleet:
            pass


async def _users(origin: str) -> None:
    async with _client(origin) as client:
        assert len([user async for user in client.users()]) == 20_000


def _main(benchmark: str, origin: str, count: str, rows: str, option: str) -> None:
    if benchmark == "memory":
        print(asyncio.run(_stream(origin, int(count), int(rows), float(option))))
    else:
        if option == "True":
            gc.collect()
            gc.freeze()  # as a service does after its imports
        loop = _watch(origin, int(count), int(rows))
        print(loop.longest_s, loop.own_s, loop.collector_s)


if __name__ == "__main__":
    _main(*sys.argv[1:])

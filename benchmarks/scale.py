"""A fleet of internet scale on virtual time: `python -m benchmarks.scale [--quick]`, which takes some minutes.

The client is real, with its limiter, aiohttp and all proofs; the server answers within the process, and the event loop's clock
jumps over waits. The slices are fetched; a row that says "computed" multiplies them up to 10,000,000 vehicles.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG, vehicles, wire_rows
from podero_async import PoderoClient, StaticToken, ThrottlePolicy
from podero_async._http.response import MAX_USERS_BYTES
from podero_async.testing import PoderoSimulator

FLEET = 10_000_000
RATE = 1_000.0
_BURST = 50.0
_USERS_A_PAGE = 200
_USER_ID = "00000000-0000-4000-8000-%012x"
_THROTTLED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}"


class _Leaping(selectors.DefaultSelector):
    """Lets the time of a wait pass at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0 if timeout else timeout)
        if not events:
            self.now += timeout or 0.0
        return events


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


class _Server:
    """Serves users, each with a vehicle, and its one session, at most at the rate; further requests get 429."""

    def __init__(self, latency_s: float, users: int) -> None:
        self.latency_s = latency_s
        self.throttled = 0
        self.first_at = self.last_at = -1.0
        self._users = users
        self._page = _response(b'{"total": 1, "items": [%s]}' % wire_rows(1)[0])
        self._bucket, self._filled_at = _BURST, 0.0

    def respond(self, target: bytes) -> bytes:
        now = asyncio.get_running_loop().time()
        self._bucket = min(_BURST, self._bucket + (now - self._filled_at) * RATE)
        self._filled_at = now
        if self._bucket < 1:
            self.throttled += 1
            return _THROTTLED
        self._bucket -= 1
        self.first_at, self.last_at = self.first_at if self.first_at >= 0 else now, now
        path, _, query = target.partition(b"?")
        owner, is_list, vehicle = path.partition(b"/electric-vehicles")
        if not is_list:
            return self._list_users(query)
        if not vehicle:
            return _response(b'[{"id": "00000001-0000-4000-8000-%s"}]' % owner[-12:])
        return self._page

    def _list_users(self, query: bytes) -> bytes:
        found = re.search(rb"offset=(\d+)", query)
        first = int(found[1]) if found else 0
        listed = range(first, min(first + _USERS_A_PAGE, self._users))
        users = [{"id": _USER_ID % number, "num_electric_vehicles": 1} for number in listed]
        return _response(json.dumps({"total": self._users, "items": users}).encode())


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class _Wire(asyncio.Transport):
    """A connection to the server without a socket."""

    def __init__(self, server: _Server, protocol: ResponseHandler) -> None:
        super().__init__()
        self._server, self._protocol = server, protocol
        self._is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        target = bytes(data).split(b" ", 2)[1]
        response = self._server.respond(target)
        asyncio.get_running_loop().call_later(self._server.latency_s, self._protocol.data_received, response)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0


class _Connector(aiohttp.BaseConnector):
    def __init__(self, server: _Server) -> None:
        super().__init__(limit=0)
        self._server = server

    async def _create_connection(self, *_: Any) -> ResponseHandler:
        protocol: ResponseHandler = self._factory()
        protocol.connection_made(_Wire(self._server, protocol))
        return protocol


def _high_water() -> int:
    """Return the peak memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


async def _fetch(count: int, *, clients: int, latency_s: float, concurrency: int, is_discovered: bool) -> list[float]:
    """Return the virtual seconds, the bytes of memory above the warm client, the CPU seconds, the requests, the 429s, and the
    bytes of the whole process.
    """
    server = _Server(latency_s, count)
    policy = ThrottlePolicy(max_concurrency=concurrency, requests_per_second=RATE / clients)
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(clients):
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=_Connector(server)))
            client = PoderoClient(ORG, StaticToken("benchmark"), session=session, throttle=policy)
            opened.append(await stack.enter_async_context(client))
        await _drain(opened[0], 1_000)
        server.first_at, server.throttled = -1.0, 0
        before, cpu, sent = _high_water(), time.process_time(), opened[0].statistics().requests
        await asyncio.gather(*(_drain(client, None if is_discovered else count // clients) for client in opened))
        requests = sum(client.statistics().requests for client in opened) - sent
    return [
        server.last_at - server.first_at,
        _high_water() - before,
        time.process_time() - cpu,
        requests,
        server.throttled,
        _high_water(),
    ]


async def _drain(client: PoderoClient, count: int | None) -> None:
    given = None if count is None else vehicles(1 for _ in range(count))
    async with client.fetch_fleet(FIRST_DAY, LAST_DAY, given) as fleet:
        async for _ in fleet:
            pass
        assert fleet.summary.failures == 0, fleet.summary


def measured(options: dict[str, Any]) -> list[float]:
    """Fetch in a new process, on virtual time; the options and figures are those of `_fetch`."""
    command = [sys.executable, "-m", "benchmarks.scale", "--slice", json.dumps(options)]
    figures: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def _rows(scale: int) -> Iterator[tuple[str, str]]:
    one = {"clients": 1, "latency_s": 0.1, "concurrency": 200, "is_discovered": False}
    small, large = 20_000 // scale, 60_000 // scale
    few, many = measured({"count": small} | one), measured({"count": large} | one)
    for count, (seconds, grown, cpu, requests, throttled, whole) in ((small, few), (large, many)):
        yield (
            f"one process, {count:,} given vehicles, 0.1 s latency, max_concurrency=200",
            (
                f"{requests / seconds:,.0f} requests/s, {throttled:.0f} throttled, {grown / 2**20:.1f} MiB more memory of"
                f" {whole / 2**20:.0f}, {1e6 * cpu / requests:.0f} us of CPU a request (server included)"
            ),
        )
    yield "computed: 10,000,000 given vehicles", _hours(FLEET / (many[3] / many[0]) * (many[3] / large))
    ten = measured({"count": small} | one | {"clients": 10, "concurrency": 20})
    yield (
        f"ten clients with a tenth of the rate each, {small:,} vehicles",
        (f"{ten[3] / ten[0]:,.0f} requests/s, {ten[4]:.0f} throttled"),
    )
    for latency_s in (0.1, 0.6):
        default = measured({"count": small // 2} | one | {"concurrency": 64, "latency_s": latency_s})
        rate = default[3] / default[0]
        yield (
            f"one process with the default of 64 in flight, {latency_s} s latency",
            (f"{rate:,.0f} requests/s; computed for 10,000,000: {_hours(FLEET / rate)}"),
        )
    found = one | {"is_discovered": True}
    small, large = 10_000 // scale, 100_000 // scale
    few, many = measured({"count": small} | found), measured({"count": large} | found)
    per_user = (many[1] - few[1]) / (large - small)
    yield (
        f"one process, {large:,} users discovered in pages of {_USERS_A_PAGE}, a vehicle each",
        (
            f"{many[3] / large:.2f} requests a vehicle, {many[1] / 2**20:.1f} MiB more memory, {per_user:.0f} bytes a user"
        ),
    )
    yield (
        "computed: 10,000,000 discovered vehicles",
        (f"{_hours(FLEET * many[3] / large / RATE)}, {FLEET * per_user / 2**20:,.0f} MiB"),
    )
    with PoderoSimulator(users=1_000, vehicles=1_000, sessions_per_vehicle=0) as simulator:
        user_bytes = asyncio.run(_user_bytes(simulator))
    yield (
        "computed: users that one array can list",
        (
            f"{MAX_USERS_BYTES / user_bytes:,.0f} ({MAX_USERS_BYTES >> 20} MiB, {user_bytes:.0f} bytes a user of the simulator)"
        ),
    )


async def _user_bytes(simulator: PoderoSimulator) -> float:
    """Return the average size of a user in the list of all."""
    async with aiohttp.ClientSession(simulator.base_url) as session:
        login = {"grant_type": "password", "username": simulator.username, "password": simulator.password}
        async with session.post("/api/partners/v2.0/auth/token", json=login) as response:
            token = (await response.json())["access_token"]
        url = f"/api/partners/v2.0/org/{simulator.org_id}/users"
        async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as response:
            return len(await response.read()) / 1_000


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the slices")
    parser.add_argument("--slice", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.slice:
        factory: Callable[[], asyncio.AbstractEventLoop] = _VirtualLoop
        with asyncio.Runner(loop_factory=factory) as runner:
            print(json.dumps(runner.run(_fetch(options.slice.pop("count"), **options.slice))))
        return
    for name, figures in _rows(10 if options.quick else 1):
        print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()

"""`podero-async backfill --serve`: the page and the metrics of a run, who may read them, and that they cannot harm it."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import aiohttp
import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from podero_async import PoderoClient, ThrottlePolicy
from podero_async.backfill import Progress, SessionStore, backfill
from podero_async.cli._live.address import Address
from podero_async.cli._live.server import MAX_CONNECTIONS, serving
from podero_async.cli._live.watch import Watch
from podero_async.testing import Fault, PoderoSimulator
from tests._support.browser import OpenPage
from tests._support.clients import client_of
from tests._support.commands import Call, whole_fleet

LOOPBACK = Address("127.0.0.1", 0)


@attrs.define
class Followed:
    """A run with a live view."""

    url: str
    client: PoderoClient
    progress: Progress
    http: aiohttp.ClientSession

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.http.get(self.url + path, headers=headers) as response:
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
            return response.status, await response.text()


@asynccontextmanager
async def followed(
    simulator: PoderoSimulator, path: Path, begin: asyncio.Event | None = None
) -> AsyncIterator[Followed]:
    """Backfill ten vehicles, of which one is unknown to the server, and the last one never gets a response."""
    lost, last = simulator.vehicles[3], simulator.vehicles[7]
    simulator.add_fault(Fault(kind="status", status=404, vehicle=lost))
    simulator.add_fault(Fault(kind="hang", vehicle=last))
    progress, stop = Progress(), asyncio.Event()
    window = simulator.first_day, simulator.last_day

    async def run() -> None:
        if begin is not None:
            await begin.wait()
        await backfill(client, store, *window, stop=stop, progress=progress)

    async with (
        client_of(simulator, throttle=ThrottlePolicy(max_concurrency=8)) as client,
        SessionStore(path) as store,
        aiohttp.ClientSession() as http,
    ):
        watch = Watch(progress=progress, statistics=client.statistics, from_date=window[0], to_date=window[1])
        async with serving(LOOPBACK, watch) as url:
            running = asyncio.ensure_future(run())
            try:
                yield Followed(url, client, progress, http)
            finally:
                stop.set()
                await running


async def until_only_one_is_left(run: Followed) -> None:
    async with asyncio.timeout(60):
        while run.progress.received < 9:
            await asyncio.sleep(0.01)


async def test_the_page_and_the_metrics_are_those_of_the_run(simulator: PoderoSimulator, path: Path) -> None:
    """While a run lasts, its page and its metrics have its counts, no id and no secret; when it ends, so do they."""
    async with followed(simulator, path) as run:
        await until_only_one_is_left(run)
        (_, page), (_, fragment), (_, metrics) = [await run.get(name) for name in ("", "fragment", "metrics")]
        now = run.client.statistics()
        values = {
            (sample.name.removeprefix("podero_backfill_"), *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
        }
        assert values["phase", "fetching"] == 1
        assert (values["vehicles",], values["windows",]) == (10, 10)
        assert values["windows_read_total", "verified"] == 8
        assert values["failures_total", "NotFoundError"] == 1
        assert values["sessions_received_total",] == run.progress.received_sessions > 300
        assert values["sessions_committed_total", "new"] == run.progress.committed.new
        assert values["requests_total",] == now.requests > 10
        assert (values["requests_in_flight",], values["concurrency_limit",]) == (1, 8)
        for text in ("9 of 10 vehicles", "Not known to the API", "1</data> <small>of 8"):
            assert text in page
            assert text in fragment
        secrets = [simulator.client_id, simulator.client_secret, simulator.org_id, *simulator.external_ids.values()]
        ids = [each for ref in simulator.vehicles for each in (ref.user_id, ref.vehicle_id)]
        assert [each for each in map(str, (*secrets, *ids)) if each in page + metrics] == []
        url = run.url
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(url)


async def test_other_hosts_are_refused(simulator: PoderoSimulator, path: Path) -> None:
    """A request under a name that is not the server's gets nothing, so that no website can read the view by DNS rebinding."""
    async with followed(simulator, path) as run:
        for host in ("127.0.0.1", "127.0.0.1:9", "localhost", "LOCALHOST:8081", "[::1]:8081"):
            assert (await run.get("metrics", Host=host))[0] == 200
        for host in ("attacker.example", "attacker.example:8081", "127.0.0.1.attacker.example", "", "localhost:x"):
            assert (await run.get("metrics", Host=host))[0] == 421
        assert (await run.get("other"))[0] == 404
        async with run.http.post(run.url) as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


async def test_readers_cannot_harm_the_run(
    simulator: PoderoSimulator, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Idle connections are bounded; one that sends no HTTP leaves no line; and one that does not read delays no end."""
    async with followed(simulator, path) as run:
        port = int(run.url.rstrip("/").rpartition(":")[2])
        reader, slow = await asyncio.open_connection("127.0.0.1", port, limit=1)
        slow.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        _, odd = await asyncio.open_connection("127.0.0.1", port)
        odd.write(b"GET / HTTP/1.1\r\nno header\r\n\r\n")
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * MAX_CONNECTIONS)]
        async with asyncio.timeout(60):
            assert await idle[-1][0].read() == b""
        await until_only_one_is_left(run)
        loop = asyncio.get_running_loop()
        ends_at = loop.time()
    assert loop.time() - ends_at < 30
    assert [record for record in caplog.records if not record.name.startswith("podero_async")] == []
    for _, writer in ((reader, slow), (None, odd), *idle):
        writer.transport.abort()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--serve=0.0.0.0:8081"], "add --serve-publicly"),
        (["--serve=fleet.example:8081"], "add --serve-publicly"),
        (["--serve=[::]:8081"], "add --serve-publicly"),
        (["--serve=8081"], "write HOST:PORT"),
        (["--serve=127.0.0.1:65536"], "write HOST:PORT"),
        (["--serve=no.such.host.invalid:8081", "--serve-publicly"], "the host is not known"),
        (["--serve=127.0.0.1:8081", "--dry-run"], "exclude each other"),
    ],
)
async def test_an_address_that_cannot_be_used(
    call: Call, served: PoderoSimulator, new_path: Path, arguments: list[str], said: str
) -> None:
    """A host that others can reach needs a flag; such errors are one line and exit code 2, before anything is done."""
    ended = await call(*whole_fleet(served, new_path), *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.complaint
    assert (served.counts.requests.total(), list(new_path.parent.iterdir())) == (0, [])


async def test_a_port_that_is_in_use(call: Call, served: PoderoSimulator, new_path: Path) -> None:
    """The command ends at once, and names the address."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = await call(*whole_fleet(served, new_path), f"--serve={address}")
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint == f"cannot serve the live view at {address}: Address already in use"
    assert (served.counts.requests.total(), list(new_path.parent.iterdir())) == (0, [])


async def test_the_command_says_where_it_serves(call: Call, served: PoderoSimulator, path: Path) -> None:
    """One line on stderr has the URL; `--quiet` leaves it out."""
    ended = await call(*whole_fleet(served, path), "--serve=localhost:0")
    assert ended.code == 0
    assert re.fullmatch(r"the run can be followed at http://localhost:\d+/", ended.complaint)
    ended = await call(*whole_fleet(served, path), "--serve=0.0.0.0:0", "--serve-publicly", "--quiet")
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.slow
async def test_a_browser_follows_a_run(open_page: OpenPage, simulator: PoderoSimulator, path: Path) -> None:
    """The page follows a run without being loaded again, and says when it has ended; at three widths, light and dark, no
    text touches another or leaves the window, and axe-core finds nothing.
    """
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    begin = asyncio.Event()
    async with followed(simulator, path, begin) as run:
        windows = [await asyncio.to_thread(open_page, run.url, scheme) for scheme in schemes]
        assert "Vehicles found" in await asyncio.to_thread(windows[0].evaluate, "live.innerText")
        begin.set()
        await until_only_one_is_left(run)
        for shown in windows:
            await asyncio.to_thread(shown.wait_for, "live.innerText.includes('9 of 10 vehicles')")
            for width in (360, 768, 1440):
                measured = await asyncio.to_thread(shown.measure, width)
                assert measured["texts"] > 20
                assert measured["faults"] == []
            assert await asyncio.to_thread(shown.violations) == []
            assert shown.console == []
            assert set(shown.requests) == {run.url, f"{run.url}fragment"}
            assert shown.requests.count(run.url) == 1
    for shown in windows:
        await asyncio.to_thread(shown.wait_for, "!stale.hidden")
        await asyncio.to_thread(shown.close)

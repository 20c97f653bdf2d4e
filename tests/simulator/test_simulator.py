"""The lifetime of a simulator: counts, TLS, ports, event loops, and how it closes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp
import pytest
import trustme

from podero_async.testing import Fault, PoderoSimulator
from tests.simulator.conftest import Caller, Running


async def test_repr_shows_the_live_state(running: Running) -> None:
    """The repr shows the address, the size of the fleet and the number of requests, but no secret."""
    sim = PoderoSimulator(users=2, vehicles=3, sessions_per_vehicle=1000)
    assert repr(sim) == "<PoderoSimulator not started: 3 vehicles, 3,000 sessions, 0 requests served>"
    async with running(vehicles=1, sessions_per_vehicle=5) as call:
        address = call.sim.base_url
        assert repr(call.sim) == f"<PoderoSimulator {address}: 1 vehicles, 5 sessions, 1 requests served>"
        assert not any(secret in repr(call.sim) for secret in call.sim.secrets)


async def test_counts_and_records_of_requests(running: Running) -> None:
    """`counts` and `requests` show every request, with its endpoint, status and time."""
    async with running(vehicles=1, clock=lambda: 12.5) as call:
        await call.sessions(limit=3)
        await call.get(f"{call.org}/users")
        await call.get("/nowhere")
        counts = call.sim.counts
        assert counts.requests == {"token": 1, "sessions": 1, "users": 1, "other": 1}
        assert counts.responses == {200: 3, 404: 1}
        assert (counts.total_requests, counts.rows_served, counts.tokens_issued) == (4, 3, 1)
        assert (counts.concurrent, counts.peak_concurrent) == (0, 1)
        record = call.sim.requests[1]
        assert (record.method, record.endpoint, record.time, record.query["limit"]) == ("GET", "sessions", 12.5, "3")
        assert record.path.endswith("/sessions")
        assert call.sim.requests[-1].endpoint == "other"


async def test_peak_of_concurrent_requests(running: Running) -> None:
    """`peak_concurrent` is the largest number of requests that were in flight at once."""
    async with running(vehicles=1) as call:
        call.sim.latency_s = 3600
        requests = [asyncio.create_task(call.sessions()) for _ in range(7)]
        await call.until(lambda: call.sim.counts.concurrent == 7)
        for request in requests:
            request.cancel()
        await call.until(lambda: call.sim.counts.concurrent == 0)
        assert (call.sim.latency_s, call.sim.counts.peak_concurrent) == (3600, 7)


async def test_tls() -> None:
    """With `ssl_context`, the simulator serves HTTPS, faults included."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        PoderoSimulator(ssl_context=context, faults=[Fault(kind="reset", endpoint="sessions")]) as sim,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as http,
    ):
        assert sim.base_url.startswith("https://127.0.0.1:")
        call = Caller(sim, http)
        await call.log_in()
        assert (await call.get(f"{call.org}/users")).status == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await call.sessions()


async def test_port_can_be_chosen() -> None:
    """A chosen port is used; a taken one is an `OSError`, and a second start a `RuntimeError`."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            async with PoderoSimulator(port=port):
                pass
    async with PoderoSimulator(port=port) as sim:
        assert sim.base_url == f"http://127.0.0.1:{port}"
        with pytest.raises(RuntimeError, match="only once"):
            await sim.__aenter__()


@pytest.mark.parametrize(
    "fault",
    [
        None,
        Fault(kind="hang", endpoint="sessions"),
        Fault(kind="hang", endpoint="sessions", seconds=3600),
        Fault(kind="drip", endpoint="sessions", seconds=3600),
    ],
)
async def test_closing_ends_requests_that_sleep(fault: Fault | None) -> None:
    """Leaving the simulator ends requests that hang, drip or sleep for `latency_s`, and leaves no task."""
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as http:
        async with PoderoSimulator(vehicles=1, faults=[fault] if fault else []) as sim:
            call = Caller(sim, http)
            await call.log_in()
            sim.latency_s = 0 if fault else 3600
            request = asyncio.create_task(call.sessions())
            await call.until(lambda: sim.counts.concurrent == 1)
        with pytest.raises(aiohttp.ClientError):
            await request
        assert sim.counts.concurrent == 0
    assert asyncio.all_tasks() == before


async def test_connection_accepted_while_closing_is_closed() -> None:
    """A connection that the kernel accepts while the simulator closes is closed without a warning."""
    problems: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_debug(True)  # otherwise asyncio does not report it
    loop.set_exception_handler(lambda _, context: problems.append(context))
    async with PoderoSimulator() as sim:
        # This call blocks, so that the kernel accepts the connection before the event loop does.
        late = socket.create_connection(("127.0.0.1", int(sim.base_url.rpartition(":")[2])))
    late.close()
    assert problems == []


async def test_leaving_without_having_entered() -> None:
    """Leaving a simulator that was not started does nothing."""
    await PoderoSimulator().__aexit__(None, None, None)


def test_uvloop_plays_the_same_faults() -> None:
    """On uvloop, a `reset` fault sends a TCP RST, too."""
    uvloop = pytest.importorskip("uvloop")

    async def play() -> None:
        fault = Fault(kind="reset", endpoint="sessions")
        async with PoderoSimulator(vehicles=1, faults=[fault]) as sim, aiohttp.ClientSession() as http:
            call = Caller(sim, http)
            await call.log_in()
            with pytest.raises(ConnectionResetError):
                await call.bare(f"{call.vehicle(sim.vehicles[0])}/sessions")

    run: Callable[..., None] = uvloop.run
    run(play())


async def test_date_header_follows_the_clock(running: Running) -> None:
    """Every response has the time of the simulator's clock in its `Date` header."""
    async with running(clock=datetime(2026, 3, 29, 1, 30, tzinfo=UTC).timestamp) as call:
        for path in (f"{call.org}/users", "/unknown"):
            assert (await call.get(path)).headers["Date"] == "Sun, 29 Mar 2026 01:30:00 GMT"

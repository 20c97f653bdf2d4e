"""A simulator in a thread of its own: its lifetime, and calls from other threads."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from podero_async.testing import Fault, PageRequest, PoderoSimulator
from tests._support.clients import client_of
from tests.simulator.conftest import PREFIX, Caller


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def log_in(sim: PoderoSimulator) -> Any:
    """Request a token, without an event loop."""
    body = {"grant_type": "password", "username": sim.username, "password": sim.password}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{sim.base_url}{PREFIX}/auth/token", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_a_synchronous_program_is_served() -> None:
    """`with` serves a program without an event loop, and its end ends the thread and the port."""
    with PoderoSimulator() as sim:
        assert "access_token" in log_in(sim)
        assert sim.counts.requests == {"token": 1}
        assert "podero-simulator" in names()
    assert "podero-simulator" not in names()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(sim.base_url.rpartition(":")[2])))


def test_every_event_loop_is_served() -> None:
    """One simulator serves several event loops, one after the other."""

    async def count() -> int:
        async with client_of(sim) as client:
            return len([user async for user in client.users()])

    with PoderoSimulator(users=3) as sim:
        assert [asyncio.run(count()), asyncio.run(count())] == [3, 3]


async def test_a_running_event_loop_is_served() -> None:
    """A simulator in a thread serves the event loop that started it, and closing ends requests that hang."""
    async with aiohttp.ClientSession() as http:
        with PoderoSimulator(vehicles=1, faults=[Fault(kind="hang", endpoint="sessions")]) as sim:
            call = Caller(sim, http)
            await call.log_in()
            assert (await call.get(f"{call.org}/users")).status == 200
            request = asyncio.create_task(call.sessions())
            await call.until(lambda: sim.counts.concurrent == 1)
        with pytest.raises(aiohttp.ClientError):
            await request


def test_a_start_that_fails_leaves_no_thread() -> None:
    """A port in use is an `OSError`, and a second start a `RuntimeError`, in the thread of the caller."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            PoderoSimulator(port=taken.getsockname()[1]).__enter__()
    with PoderoSimulator() as sim:
        pass
    with pytest.raises(RuntimeError, match="only once"):
        sim.__enter__()
    assert "podero-simulator" not in names()


def test_a_simulator_that_is_not_left_warns() -> None:
    """A simulator that is dropped while it serves emits a `ResourceWarning`; one that never started does not."""
    sim = PoderoSimulator()
    del sim
    gc.collect()
    sim = PoderoSimulator()
    sim.__enter__()
    end = sim._listener.stop_thread  # of a simulator that is gone
    dropped = [sim]
    del sim
    with pytest.warns(ResourceWarning, match="not stopped"):
        dropped.clear()
    end()


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads switch as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
async def test_changes_of_other_threads_are_atomic() -> None:
    """While several threads move sessions in a list, every page shows each session once."""
    is_over, year = threading.Event(), {"from": "2026-01-01", "to": "2026-12-31"}

    def change(number: int) -> int:
        row = sim.truth(vehicle, include_hidden=True)[number]
        for step in range(1_000_000):
            if is_over.is_set():
                return step
            sim.update(vehicle, row, plug_in_time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=step % 4000))
        raise AssertionError("the test did not end")

    with PoderoSimulator(vehicles=1, sessions_per_vehicle=50) as sim, ThreadPoolExecutor(3) as pool:
        vehicle = sim.vehicles[0]
        try:
            changing = [pool.submit(change, number) for number in (3, 20, 40)]
            async with aiohttp.ClientSession() as http:
                call = Caller(sim, http)
                await call.log_in()
                for _ in range(25):
                    page = (await call.sessions(limit=200, include_hidden="true", **year)).json
                    assert (page["total"], len({row["id"] for row in page["items"]})) == (50, 50)
                    assert sim.counts.requests["sessions"] == len(sim.requests) - 1
        finally:
            is_over.set()
        assert all(changed.result(10) > 0 for changed in changing)


async def test_a_hook_may_wait_for_another_thread() -> None:
    """`before_page` may wait until another thread has changed the list; the page shows the change."""
    reached, changed = threading.Event(), threading.Event()

    def wait(_: PageRequest) -> None:
        reached.set()
        assert changed.wait(60)

    with PoderoSimulator(vehicles=1, sessions_per_vehicle=3, before_page=wait) as sim:
        async with aiohttp.ClientSession() as http:
            call = Caller(sim, http)
            await call.log_in()
            request = asyncio.create_task(call.sessions())
            assert await asyncio.to_thread(reached.wait, 60)
            added = sim.insert(sim.vehicles[0])
            changed.set()
            assert (await request).json["items"][0] == added


async def test_a_hook_may_remove_the_vehicle() -> None:
    """If `before_page` removes the vehicle, the response is 404."""
    with PoderoSimulator(vehicles=1, before_page=lambda page: sim.remove_vehicle(page.vehicle)) as sim:
        vehicle = sim.vehicles[0]
        async with aiohttp.ClientSession() as http:
            call = Caller(sim, http)
            await call.log_in()
            window = {"from": "2026-01-01", "to": "2026-06-30"}
            assert (await call.get(f"{call.vehicle(vehicle)}/sessions", **window)).status == 404

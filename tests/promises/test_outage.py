"""An outage: while it lasts the server is left in peace, once it is over all is quick again, and nothing is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from yarl import URL

from podero_async import PoderoClient, RetryPolicy, ThrottlePolicy, Timeouts, VehicleSessions
from podero_async._http.response import Response
from podero_async.backfill import SessionStore, backfill
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import around_sending, client_of
from tests._support.expected_rows import assert_equal, truth_of
from tests._support.tls_proxy import TlsProxy

pytestmark = pytest.mark.leaping

LASTS_S = 60.0
QUICK_AFTER_S = 10.0
HEALTHY_S = 4.0
LATENCY_S = 0.5
HANGS_S = 25.0  # until a request is given up: the minute is no multiple of it
PROBES = 6  # one in five seconds, each for so long
SHORT = 320  # vehicles

Record = Callable[[str, object], None]

KINDS: Mapping[str, Fault | None] = {
    "refused connections": None,
    "resets": Fault(kind="reset"),
    "503": Fault(kind="status", status=503),
    "429 without a time": Fault(kind="status", status=429),
    "429 with a time": Fault(kind="status", status=429, headers={"Retry-After": "1"}),
    "hangs": Fault(kind="hang"),
}


@attrs.define
class Outage:
    """Begins a while after the first page, ends a minute later, and knows what was asked and answered when."""

    kind: str
    places: int
    simulator: PoderoSimulator
    door: TlsProxy | None
    asked: list[float] = attrs.field(factory=list)
    answered: list[float] = attrs.field(factory=list)
    is_reading: asyncio.Event = attrs.field(factory=asyncio.Event)
    begins: float = 0.0
    ends: float = 0.0

    async def send(self, _: str, url: URL, send: Callable[[], Awaitable[Response]]) -> Response:
        clock = asyncio.get_running_loop().time
        if url.path.endswith("/sessions"):
            self.is_reading.set()
        self.asked.append(clock())
        answer = await send()
        if answer.status == 200:
            self.answered.append(clock())
        return answer

    async def happen(self) -> None:
        clock = asyncio.get_running_loop().time
        await self.is_reading.wait()
        await asyncio.sleep(HEALTHY_S)
        fault = KINDS[self.kind]
        if self.door is not None:
            await self.door.set_mode("shut")
        if fault is not None:
            self.simulator.add_fault(fault)
        self.begins = clock()
        await asyncio.sleep(LASTS_S)
        self.simulator.clear_faults()
        if self.door is not None:
            await self.door.set_mode("open")
        self.ends = clock()

    def rate(self, since: float) -> int:
        """Return how many good answers came within a second."""
        return sum(since <= moment < since + 1 for moment in self.answered)

    def prove(self) -> str:
        """Fail where the server was stormed, or left idle; return a figure to quote."""
        # The middle of several looks: this machine may stand still in one of them.
        healthy = sorted(self.rate(self.begins - 1.5 - back / 4) for back in range(5))[2]
        assert healthy >= 0.7 * self.places / LATENCY_S, "there was speed before"
        while_down = sum(self.begins < moment < self.ends for moment in self.asked)
        assert while_down <= 1.2 * healthy * LASTS_S
        assert while_down <= 4 * self.places + 20, "what the issue asks, and far less"
        waits = [wait / 4 for wait in range(200) if self.rate(self.ends + wait / 4) >= self._full() * healthy]
        assert waits, "it was never quick again"
        assert waits[0] + 1 <= QUICK_AFTER_S
        return f"{while_down} requests while down, {healthy}/s before, as quick {waits[0] + 1:.1f} s after"

    def _full(self) -> float:
        if self.kind == "hangs":
            return 0.9 - PROBES / self.places  # which keep their places until their time is over
        return 0.9


@asynccontextmanager
async def through_an_outage(kind: str, places: int, vehicles: int) -> AsyncIterator[tuple[Outage, PoderoClient]]:
    size: dict[str, Any] = {"users": 10, "vehicles": vehicles, "sessions_per_vehicle": 2}
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(PoderoSimulator(**size, latency_s=LATENCY_S))
        door = await stack.enter_async_context(TlsProxy(simulator.base_url)) if KINDS[kind] is None else None
        outage = Outage(kind, places, simulator, door)
        options: dict[str, Any] = {
            "retry": RetryPolicy(),
            "throttle": ThrottlePolicy(max_concurrency=places),
            "timeouts": Timeouts(read=HANGS_S),
        }
        if door is not None:
            options["base_url"] = door.origin
        client = await stack.enter_async_context(client_of(simulator, **options))
        around_sending(client, outage.send)
        happening = asyncio.create_task(outage.happen())
        yield outage, client
        await happening


async def fetch_through(kind: str, *, places: int, vehicles: int) -> str:
    async with through_an_outage(kind, places, vehicles) as (outage, client):
        async with client.fetch_fleet(outage.simulator.first_day, outage.simulator.last_day) as fleet:
            outcomes = [outcome async for outcome in fleet]
    assert all(isinstance(outcome, VehicleSessions) for outcome in outcomes)
    assert len(outcomes) == vehicles
    return outage.prove()


async def backfill_through(kind: str, path: Path, *, places: int, vehicles: int) -> str:
    async with through_an_outage(kind, places, vehicles) as (outage, client), SessionStore(path) as store:
        report = await backfill(client, store, outage.simulator.first_day, outage.simulator.last_day)
    assert report.is_clean
    await assert_equal(path, truth_of(outage.simulator))
    return outage.prove()


@pytest.mark.parametrize("kind", ["refused connections", "503", "429 without a time", "hangs"])
async def test_a_fleet_outlives_an_outage(kind: str, record_property: Record) -> None:
    """A server that restarts would be stormed, or cost a part of the fleet, or be left idle once it is back."""
    record_property("figure", await fetch_through(kind, places=16 if kind == "hangs" else 8, vehicles=SHORT))


@pytest.mark.usefixtures("store_without_thread")
async def test_a_backfill_outlives_an_outage(tmp_path: Path, record_property: Record) -> None:
    """A nightly job would end with a part of the fleet, or not at all."""
    path, kind = tmp_path / "fleet.duckdb", "429 without a time"
    record_property("figure", await backfill_through(kind, path, places=8, vehicles=SHORT))


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
async def test_a_larger_fleet_outlives_an_outage(kind: str, soak_scale: float, record_property: Record) -> None:
    """The same with 64 places."""
    record_property("figure", await fetch_through(kind, places=64, vehicles=round(3000 * max(1, soak_scale))))


@pytest.mark.soak
@pytest.mark.usefixtures("store_without_thread")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_larger_backfill_outlives_an_outage(
    kind: str, tmp_path: Path, soak_scale: float, record_property: Record
) -> None:
    """The same with 64 places, into a store."""
    vehicles = round(3000 * max(1, soak_scale))
    figure = await backfill_through(kind, tmp_path / "fleet.duckdb", places=64, vehicles=vehicles)
    record_property("figure", figure)

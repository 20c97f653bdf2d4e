"""An outage of a minute: few requests while it lasts, full speed soon after it, and no missing data."""

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
RECOVERY_S = 10.0  # from the end of the outage to full speed, at most
HEALTHY_S = 4.0  # from the first page to the outage
LATENCY_S = 0.5
READ_TIMEOUT_S = 25.0  # ends a request that hangs; not a divisor of the minute
HANGING_PROBES = 6  # at most: one in five seconds, each until its timeout

Record = Callable[[str, object], None]

KINDS: Mapping[str, Fault | None] = {
    "refused connections": None,
    "resets": Fault(kind="reset"),
    "503": Fault(kind="status", status=503),
    "429 without a time": Fault(kind="status", status=429),
    "429 with a time": Fault(kind="status", status=429, headers={"Retry-After": "1"}),
    "pages for people": Fault(kind="status", status=200, body="<html>maintenance</html>", content_type="text/html"),
    "hangs": Fault(kind="hang"),
}


FETCHED: list[Any] = [
    *(("refused connections", 8), ("503", 8), ("429 without a time", 8), ("pages for people", 8), ("hangs", 16)),
    *(pytest.param(kind, 64, marks=pytest.mark.soak) for kind in KINDS),
]
BACKFILLED: list[Any] = [
    pytest.param("429 without a time", 8, marks=pytest.mark.slow),
    *(pytest.param(kind, 64, marks=pytest.mark.soak) for kind in KINDS),
]


@attrs.define
class Outage:
    """Begins a while after the first page and ends a minute later. Records the times of requests and successes."""

    kind: str
    slots: int
    simulator: PoderoSimulator
    door: TlsProxy | None
    requests: list[float] = attrs.field(factory=list)
    successes: list[float] = attrs.field(factory=list)
    is_reading: asyncio.Event = attrs.field(factory=asyncio.Event)
    begins: float = 0.0
    ends: float = 0.0

    async def send(self, _: str, url: URL, send: Callable[[], Awaitable[Response]]) -> Response:
        clock = asyncio.get_running_loop().time
        if url.path.endswith("/sessions"):
            self.is_reading.set()
        self.requests.append(clock())
        response = await send()
        if response.status == 200 and "json" in response.headers["Content-Type"]:
            self.successes.append(clock())
        return response

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
        """Return the number of successes within a second."""
        return sum(since <= moment < since + 1 for moment in self.successes)

    def check(self) -> str:
        """Check the number of requests during the outage and the speed after it; return a figure for the summary."""
        before = self.rate(self.begins - 1.5)
        assert before >= 0.9 * self.slots / LATENCY_S
        during = sum(self.begins < moment < self.ends for moment in self.requests)
        assert during <= 4 * self.slots + 20
        # Probes that hang keep their slots until their timeout.
        full = (0.9 - HANGING_PROBES / self.slots if self.kind == "hangs" else 0.9) * before
        waits = [wait / 4 for wait in range(200) if self.rate(self.ends + wait / 4) >= full]
        assert waits, "the speed never recovered"
        assert waits[0] + 1 <= RECOVERY_S
        return f"{during} requests during the outage, {before}/s before it, full speed {waits[0] + 1:.1f} s after it"


@asynccontextmanager
async def through_an_outage(kind: str, slots: int, vehicles: int) -> AsyncIterator[tuple[Outage, PoderoClient]]:
    size: dict[str, Any] = {"users": 10, "vehicles": vehicles, "sessions_per_vehicle": 2}
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(PoderoSimulator(**size, latency_s=LATENCY_S))
        door = await stack.enter_async_context(TlsProxy(simulator.base_url)) if KINDS[kind] is None else None
        outage = Outage(kind, slots, simulator, door)
        options: dict[str, Any] = {
            "retry": RetryPolicy(),
            "throttle": ThrottlePolicy(max_concurrency=slots),
            "timeouts": Timeouts(read=READ_TIMEOUT_S),
        }
        if door is not None:
            options["base_url"] = door.origin
        client = await stack.enter_async_context(client_of(simulator, **options))
        around_sending(client, outage.send)
        happening = asyncio.create_task(outage.happen())
        yield outage, client
        await happening


def fleet_size(slots: int, soak_scale: float) -> int:
    """Return a number of vehicles that takes longer to read than the outage lasts."""
    return 320 if slots < 64 else round(3000 * max(1, soak_scale))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "slots"), FETCHED)
async def test_a_fleet_fetch_outlives_an_outage(
    kind: str, slots: int, soak_scale: float, record_property: Record
) -> None:
    """No vehicle fails in an outage, the server gets few requests, and full speed is back within ten seconds."""
    vehicles = fleet_size(slots, soak_scale)
    async with through_an_outage(kind, slots, vehicles) as (outage, client):
        async with client.fetch_fleet(outage.simulator.first_day, outage.simulator.last_day) as fleet:
            outcomes = [outcome async for outcome in fleet]
    assert all(isinstance(outcome, VehicleSessions) for outcome in outcomes)
    assert len(outcomes) == vehicles
    record_property("figure", outage.check())


@pytest.mark.parametrize(("kind", "slots"), BACKFILLED)
async def test_a_backfill_outlives_an_outage(
    kind: str, slots: int, tmp_path: Path, soak_scale: float, record_property: Record
) -> None:
    """The server gets few requests in an outage, full speed is back within ten seconds, and the store is complete."""
    path = tmp_path / "fleet.duckdb"
    async with through_an_outage(kind, slots, fleet_size(slots, soak_scale)) as (outage, client):
        async with SessionStore(path) as store:
            report = await backfill(client, store, outage.simulator.first_day, outage.simulator.last_day)
    assert report.is_clean
    await assert_equal(path, truth_of(outage.simulator))
    record_property("figure", outage.check())

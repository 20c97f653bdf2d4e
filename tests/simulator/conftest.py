"""A plain HTTP client for the simulator's tests, without the library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import attrs
import pytest

from podero_async.models import VehicleRef
from podero_async.testing import PoderoSimulator

PREFIX = "/api/partners/v2.0"


@attrs.define
class Reply:
    status: int
    json: Any
    headers: Any


@attrs.define
class Caller:
    """An HTTP client of one simulator."""

    sim: PoderoSimulator
    http: aiohttp.ClientSession
    token: str = ""

    @property
    def org(self) -> str:
        return f"{PREFIX}/org/{self.sim.org_id}"

    def vehicle(self, vehicle: VehicleRef) -> str:
        return f"{self.org}/users/{vehicle.user_id}/electric-vehicles/{vehicle.vehicle_id}"

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        headers = ({"Authorization": f"Bearer {self.token}"} if self.token else {}) | options.pop("headers", {})
        async with self.http.request(method, self.sim.base_url + path, headers=headers, **options) as response:
            return Reply(response.status, await response.json(), response.headers)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, for at most a minute."""
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.001)

    async def get(self, path: str, **query: str | int) -> Reply:
        return await self.request("GET", path, params=query)

    async def sessions(self, vehicle: VehicleRef | None = None, /, **query: str | int) -> Reply:
        """Request a page of a vehicle's sessions (default: of the first vehicle, and of all days)."""
        window = {"from": self.sim.first_day.isoformat(), "to": self.sim.last_day.isoformat()}
        return await self.get(f"{self.vehicle(vehicle or self.sim.vehicles[0])}/sessions", **(window | query))

    async def bare(self, path: str) -> bytes:
        """Send a request over a bare socket, since HTTP clients retry and treat an RST as an end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.sim.base_url.rpartition(":")[2]))
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.close()

    async def log_in(self) -> dict[str, Any]:
        body = {"grant_type": "password", "username": self.sim.username, "password": self.sim.password}
        reply = await self.request("POST", f"{PREFIX}/auth/token", json=body)
        self.token = reply.json["access_token"]
        return dict(reply.json)


Running = Callable[..., AbstractAsyncContextManager[Caller]]


@asynccontextmanager
async def _running(**options: Any) -> AsyncIterator[Caller]:
    async with PoderoSimulator(**options) as sim, aiohttp.ClientSession() as http:
        caller = Caller(sim, http)
        if "json" in options.get("token_styles", {"json"}):
            await caller.log_in()
        yield caller


@pytest.fixture
def running() -> Running:
    """Return a function that starts a simulator with the given options and logs in."""
    return _running

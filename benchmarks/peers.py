"""What people use instead: each fetches all sessions of some vehicles, and returns how many came.

(a) the client that openapi-python-client generates, (b) an aiohttp loop as code bases have it, (c) the floor: a bare
aiohttp loop that decodes into the same classes and checks nothing. And ours.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import attrs
import cattrs
import msgspec

from benchmarks.fleet import FIRST_DAY, LAST_DAY, ORG
from podero_async import ChargingSession, ClientCredentials, PoderoClient, ThrottlePolicy, VehicleRef, VehicleSessions

__all__ = ["PEERS", "Fetch", "bare_page", "floor", "generated", "handwritten", "has_generator", "ours"]

Fetch = Callable[[str, Iterable[VehicleRef], int], Awaitable[int]]
"""Fetch the vehicles from an origin, so many at a time."""

_DESCRIPTION = Path(__file__).parent.parent / "tests" / "simulator" / "description.yaml"
_ROWS = 200


async def ours(origin: str, vehicles: Iterable[VehicleRef], at_once: int) -> int:
    sessions = 0
    throttle = ThrottlePolicy(max_concurrency=at_once)
    async with (
        PoderoClient(ORG, ClientCredentials("id", "secret"), base_url=origin, throttle=throttle) as client,
        client.fetch_fleet(FIRST_DAY, LAST_DAY, vehicles) as fleet,
    ):
        async for outcome in fleet:
            assert isinstance(outcome, VehicleSessions), outcome
            sessions += len(outcome.sessions)
    return sessions


def _path(vehicle: VehicleRef) -> str:
    return f"/api/partners/v2.0/org/{ORG}/users/{vehicle.user_id}/electric-vehicles/{vehicle.vehicle_id}/sessions"


async def _by_workers(vehicles: Iterable[VehicleRef], at_once: int, fetch: Callable[[VehicleRef], Any]) -> int:
    source = iter(vehicles)

    async def work() -> int:
        return sum([len(await fetch(vehicle)) for vehicle in source])

    return sum(await asyncio.gather(*(work() for _ in range(at_once))))


# --- (c) the floor ----------------------------------------------------------------------------------------------------


class _Page(msgspec.Struct, gc=False):
    total: int
    items: list[ChargingSession]


_decoder = msgspec.json.Decoder(_Page)
_HEADERS = {"Authorization": "Bearer benchmark", "Accept-Encoding": "gzip"}
_DAYS = f"?from={FIRST_DAY}&to={LAST_DAY}"


@cache
def _zlib() -> Any:
    """The quickest there is."""
    return importlib.import_module("zlib_ng.zlib_ng") if find_spec("zlib_ng") else zlib


async def bare_page(http: aiohttp.ClientSession, url: str) -> _Page:
    async with http.get(url) as response:
        body = await response.read()
        if "Content-Encoding" in response.headers:
            body = _inflated(body)
        return _decoded(body)


def _inflated(body: bytes) -> Any:
    return _zlib().decompress(body, 31)


def _decoded(body: bytes) -> _Page:
    return _decoder.decode(body)


def bare_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers=_HEADERS,
        connector=aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(60),
    )


async def floor(origin: str, vehicles: Iterable[VehicleRef], at_once: int) -> int:
    async with bare_session() as http:

        async def fetch(vehicle: VehicleRef) -> list[ChargingSession]:
            url = f"{origin}{_path(vehicle)}{_DAYS}&limit={_ROWS}&offset="
            page = await bare_page(http, f"{url}0")
            sessions = page.items
            while len(sessions) < page.total:
                page = await bare_page(http, f"{url}{len(sessions)}")
                sessions += page.items
            return sessions

        return await _by_workers(vehicles, at_once, fetch)


# --- (b) as code bases have it ----------------------------------------------------------------------------------------


@attrs.frozen
class _CattrsPage:
    total: int
    items: list[ChargingSession]


_converter = cattrs.Converter()
_converter.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(value))
_converter.register_structure_hook(UUID, lambda value, _: UUID(value))


async def handwritten(origin: str, vehicles: Iterable[VehicleRef], at_once: int) -> int:
    semaphore = asyncio.Semaphore(at_once)
    async with aiohttp.ClientSession(origin, headers=_HEADERS) as http:

        async def fetch(vehicle: VehicleRef) -> list[ChargingSession]:
            sessions: list[ChargingSession] = []
            async with semaphore:
                while True:
                    query = {
                        "from": str(FIRST_DAY),
                        "to": str(LAST_DAY),
                        "limit": str(_ROWS),
                        "offset": str(len(sessions)),
                    }
                    async with http.get(_path(vehicle), params=query) as response:
                        response.raise_for_status()
                        page = _converter.structure(await response.json(), _CattrsPage)
                    sessions += page.items
                    if len(sessions) >= page.total:
                        return sessions

        return sum(len(sessions) for sessions in await asyncio.gather(*map(fetch, vehicles)))


# --- (a) generated ----------------------------------------------------------------------------------------------------


def has_generator() -> bool:
    return find_spec("openapi_python_client") is not None and find_spec("httpx") is not None


@cache
def _generated_modules() -> tuple[Any, Any]:
    """Generate the client into a folder of its own, and import it."""
    folder = Path(tempfile.mkdtemp(prefix="podero-generated-"))
    words = ["-m", "openapi_python_client", "generate", "--path", str(_DESCRIPTION), "--meta", "none"]
    subprocess.run(
        [sys.executable, *words, "--output-path", str(folder / "generated_peer")], check=True, capture_output=True
    )
    sys.path.insert(0, str(folder))
    return (
        importlib.import_module("generated_peer.client"),
        importlib.import_module("generated_peer.api.default.list_sessions"),
    )


async def generated(origin: str, vehicles: Iterable[VehicleRef], at_once: int) -> int:
    client_module, list_sessions = _generated_modules()
    semaphore = asyncio.Semaphore(at_once)
    async with client_module.AuthenticatedClient(base_url=origin, token="benchmark") as client:

        async def fetch(vehicle: VehicleRef) -> list[Any]:
            sessions: list[Any] = []
            async with semaphore:
                while True:
                    page = await list_sessions.asyncio(
                        ORG,
                        vehicle.user_id,
                        vehicle.vehicle_id,
                        client=client,
                        from_=FIRST_DAY,
                        to=LAST_DAY,
                        limit=_ROWS,
                        offset=len(sessions),
                    )
                    sessions += page.items
                    if len(sessions) >= page.total:
                        return sessions

        return sum(len(sessions) for sessions in await asyncio.gather(*map(fetch, vehicles)))


PEERS: dict[str, Fetch] = {"a": generated, "b": handwritten, "c": floor}

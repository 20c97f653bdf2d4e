"""The clients that are compared: each fetches all sessions of some vehicles, and returns their number.

(a) the client that openapi-python-client generates, (b) a hand-written aiohttp loop with cattrs, (c) the bare loop:
aiohttp and msgspec, decoding into the same classes without any check; and this library.
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

__all__ = ["PEERS", "Fetch", "bare_loop", "bare_page", "generated", "handwritten", "has_generator", "ours"]

Fetch = Callable[[str, Iterable[VehicleRef], int], Awaitable[int]]
"""Fetches vehicles from an origin with a maximum concurrency."""

_DESCRIPTION = Path(__file__).parent.parent / "tests" / "simulator" / "description.yaml"
_ROWS = 200


async def ours(origin: str, vehicles: Iterable[VehicleRef], concurrency: int) -> int:
    sessions = 0
    throttle = ThrottlePolicy(max_concurrency=concurrency)
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


async def _by_workers(vehicles: Iterable[VehicleRef], concurrency: int, fetch: Callable[[VehicleRef], Any]) -> int:
    source = iter(vehicles)

    async def work() -> int:
        return sum([len(await fetch(vehicle)) for vehicle in source])

    return sum(await asyncio.gather(*(work() for _ in range(concurrency))))


# --- (c) the bare loop ------------------------------------------------------------------------------------------------


class _Page(msgspec.Struct, gc=False):
    total: int
    items: list[ChargingSession]


_decoder = msgspec.json.Decoder(_Page)
_HEADERS = {"Authorization": "Bearer benchmark", "Accept-Encoding": "gzip"}
_DAYS = f"?from={FIRST_DAY}&to={LAST_DAY}"


@cache
def _zlib() -> Any:
    """Return the fastest gzip that is installed."""
    return importlib.import_module("zlib_ng.zlib_ng") if find_spec("zlib_ng") else zlib


async def bare_page(http: aiohttp.ClientSession, url: str) -> _Page:
    async with http.get(url) as response:
        body = await response.read()
        if "Content-Encoding" in response.headers:
            body = _zlib().decompress(body, 31)
        return _decoder.decode(body)


def bare_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers=_HEADERS,
        connector=aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(60),
    )


async def bare_loop(origin: str, vehicles: Iterable[VehicleRef], concurrency: int) -> int:
    async with bare_session() as http:

        async def fetch(vehicle: VehicleRef) -> list[ChargingSession]:
            url = f"{origin}{_path(vehicle)}{_DAYS}&limit={_ROWS}&offset="
            page = await bare_page(http, f"{url}0")
            sessions = page.items
            while len(sessions) < page.total:
                page = await bare_page(http, f"{url}{len(sessions)}")
                sessions += page.items
            return sessions

        return await _by_workers(vehicles, concurrency, fetch)


# --- (b) hand-written -------------------------------------------------------------------------------------------------


@attrs.frozen
class _CattrsPage:
    total: int
    items: list[ChargingSession]


_converter = cattrs.Converter()
_converter.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(value))
_converter.register_structure_hook(UUID, lambda value, _: UUID(value))


async def handwritten(origin: str, vehicles: Iterable[VehicleRef], concurrency: int) -> int:
    semaphore = asyncio.Semaphore(concurrency)
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
    """Generate the client into a temporary folder, and import it."""
    folder = Path(tempfile.mkdtemp(prefix="podero-generated-"))
    command = ["-m", "openapi_python_client", "generate", "--path", str(_DESCRIPTION), "--meta", "none"]
    subprocess.run(
        [sys.executable, *command, "--output-path", str(folder / "generated_peer")], check=True, capture_output=True
    )
    sys.path.insert(0, str(folder))
    return (
        importlib.import_module("generated_peer.client"),
        importlib.import_module("generated_peer.api.default.list_sessions"),
    )


async def generated(origin: str, vehicles: Iterable[VehicleRef], concurrency: int) -> int:
    client_module, list_sessions = _generated_modules()
    semaphore = asyncio.Semaphore(concurrency)
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


PEERS: dict[str, Fetch] = {"a": generated, "b": handwritten, "c": bare_loop}

"""Nothing holds up the event loop: not a large list, not decoding, not a token's renewal, not the store's writer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from podero_async.testing import PoderoSimulator
from tests._support.clients import ORG, USER, VEHICLE, page_body, serving, static_client, wire_row
from tests._support.loop_probe import Watch

ROOT = Path(__file__).parents[2]
MAX_MS = 20.0


@pytest.mark.parametrize(
    "odd", [{"joined_at": "2026-01-01T00:00:00"}, {"last_login": "soon", "email": 5}], ids=["naive", "wrong"]
)
@pytest.mark.parametrize("shape", [list, lambda rows: {"total": len(rows), "items": rows}], ids=["bare", "page"])
async def test_users_that_are_read_one_by_one_do_not_hold_it(
    odd: dict[str, Any], shape: Callable[[Any], Any], record_property: Callable[[str, object], None]
) -> None:
    """A server that one day writes its times another way would make every bot that asks for its users stutter."""
    people = {"organization_id": str(ORG), "role": "user", "email": "user@example.com", "note": "x" * 300}
    rows = [{"id": str(UUID(int=number)), **people, **odd} for number in range(1900)]
    body = json.dumps(shape(rows)).encode()
    assert len(body) < 1 << 20

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    watch = Watch()
    async with serving(answer) as origin, static_client(origin) as client:
        with watch.watching():
            assert len([user async for user in client.users()]) == 1900
    assert watch.longest_s * 1e3 < MAX_MS
    record_property("figure", f"{watch.longest_s * 1e3:.1f} ms the longest callback; {len(body):,} bytes of users")


@pytest.mark.parametrize("odd", [{"plug_in_time": "2026-01-01T00:00:00"}, {"id": 5}])
async def test_a_page_that_is_read_row_by_row_does_not_hold_it(odd: dict[str, Any]) -> None:
    """A field that the server one day renames would make every page of every vehicle stutter."""
    body = page_body(*(wire_row(number) | odd for number in range(200)))

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    watch = Watch()
    async with serving(answer) as origin, static_client(origin) as client:
        with watch.watching():
            whole = await client.vehicle_sessions(USER, VEHICLE, date(2026, 1, 1), date(2026, 1, 31))
    assert len(whole.sessions) + len(whole.rejected) == 200
    assert watch.longest_s * 1e3 < MAX_MS


async def longest(store: Path, *, users: int, vehicles: int, sessions: int, lifetime_s: float) -> str:
    """Measure in a fresh process, hold it to the bound, and return a figure to quote."""
    async with PoderoSimulator(
        users=users, vehicles=vehicles, sessions_per_vehicle=sessions, seed=7, token_lifetime_s=lifetime_s
    ) as sim:
        words = ["-m", "tests._support.loop_probe", store, sim.org_id, sim.base_url, sim.client_id, sim.client_secret]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *map(str, [*words, sim.first_day, sim.last_day]), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        tokens = sim.counts.requests["token"]
    assert process.returncode == 0
    callback_ms, collector_ms, *done = map(float, output.split())
    assert done == [users, vehicles, vehicles]
    assert tokens > 1, "tokens were renewed meanwhile"
    assert callback_ms < MAX_MS
    return (
        f"{callback_ms:.1f} ms the longest callback, {collector_ms:.1f} ms the collector's longest pause;"
        f" {users:,} users, {vehicles * sessions:,} sessions read twice, {tokens} tokens"
    )


async def test_no_callback_holds_the_loop_for_20_ms(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A bot that shares the loop would stutter whenever a fleet is read."""
    figure = await longest(tmp_path / "fleet.duckdb", users=20_000, vehicles=60, sessions=300, lifetime_s=0.5)
    record_property("figure", figure)


@pytest.mark.soak
async def test_no_callback_holds_the_loop_for_20_ms_in_the_long_run(
    tmp_path: Path, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The longer the lists, the longer the pauses might be."""
    vehicles = round(300 * soak_scale)
    figure = await longest(tmp_path / "fleet.duckdb", users=20_000, vehicles=vehicles, sessions=1900, lifetime_s=5.0)
    record_property("figure", figure)

"""No callback holds the event loop for long: no list, no decoding, no renewal of a token, no write to the store.

The bounds are multiples of the time in which the same process decodes one page of 200 sessions: 0.5 ms where these tests
were written, so that 40 pages are 20 ms. On the event loop, a megabyte of users whose fields are refused would take 42 pages
or more, and a list of 20,000 users 90. All are slow proofs, since coverage would slow down Python and not the page.
"""

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

from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import ORG, USER, VEHICLE, page_body, serving, static_client, wire_row
from tests._support.loop_probe import TRIES, watch_loop

ROOT = Path(__file__).parents[2]
Record = Callable[[str, object], None]


@pytest.mark.slow
@pytest.mark.parametrize(
    "odd", [{"joined_at": "2026-01-01T00:00:00"}, {"last_login": "soon", "email": 5}], ids=["naive", "wrong"]
)
@pytest.mark.parametrize("shape", [list, lambda rows: {"total": len(rows), "items": rows}], ids=["bare", "page"])
async def test_users_that_are_decoded_one_by_one_do_not_hold_the_loop(
    odd: dict[str, Any], shape: Callable[[Any], Any], record_property: Record
) -> None:
    """A megabyte of users whose fields the fast decoder refuses is decoded without a long callback."""
    person = {"organization_id": str(ORG), "role": "user", "email": "user@example.com", "note": "x" * 300}
    body = json.dumps(shape([{"id": str(UUID(int=number)), **person, **odd} for number in range(1900)])).encode()
    assert len(body) < 1 << 20

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(handler) as origin, static_client(origin) as client:

        async def read() -> None:
            assert len([user async for user in client.users()]) == 1900

        watch = await watch_loop(read, below_pages=20)
    assert watch.longest_pages < 20
    record_property("figure", f"longest callback {watch.longest_pages:.1f} pages; {len(body):,} bytes of users")


@pytest.mark.slow
@pytest.mark.parametrize("odd", [{"plug_in_time": "2026-01-01T00:00:00"}, {"id": 5}], ids=["naive", "wrong"])
async def test_a_page_that_is_decoded_row_by_row_does_not_hold_the_loop(
    odd: dict[str, Any], record_property: Record
) -> None:
    """If every row of a page is refused, it is still decoded in a short callback."""
    body = page_body(*(wire_row(number) | odd for number in range(199)))

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(handler) as origin, static_client(origin) as client:

        async def read() -> None:
            whole = await client.vehicle_sessions(USER, VEHICLE, date(2026, 1, 1), date(2026, 1, 31))
            assert len(whole.sessions) + len(whole.rejected) == 199

        watch = await watch_loop(read, below_pages=40)
    assert watch.longest_pages < 40
    record_property("figure", f"longest callback {watch.longest_pages:.1f} pages")


@pytest.mark.slow
async def test_the_loop_waits_for_no_disk(simulator: PoderoSimulator, tmp_path: Path) -> None:
    """A client whose token is in a file, and whose first responses are a fault and a refused page, imports nothing in the
    event loop's thread, and opens, locks and changes no file there.
    """
    vehicle = simulator.vehicles[0]
    simulator.add_fault(Fault(kind="status", status=503, nth=1, endpoint="sessions"))
    simulator.add_fault(Fault(kind="malformed_row", field="energy_charged_kwh", rate=1.0))
    arguments = [simulator.org_id, simulator.base_url, simulator.client_id, simulator.client_secret, tmp_path / "token"]
    arguments += [vehicle.user_id, vehicle.vehicle_id, simulator.first_day, simulator.last_day]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FIRST_CALL, *map(str, arguments), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    retries, rejected, works = json.loads(output)
    assert (retries, rejected) == (1, 1)
    assert [work for work in works if work[0] == "MainThread"] == []
    assert {tuple(work[1:]) for work in works} >= {
        ("import", "cattrs"),
        ("import", "filelock"),
        ("fcntl.flock", "-"),
        ("os.rename", "-"),
    }
    assert (tmp_path / "token").is_file()


FIRST_CALL = """
import asyncio, json, sys, threading
from datetime import date
from podero_async import ClientCredentials, FileTokenStore, PoderoClient

def report(event, arguments):
    # Listing a directory opens, locks and changes no file. It was seen once, without an import.
    blocking = ("import", "open", "os.", "fcntl.", "shutil.", "tempfile.", "time.", "socket.getaddrinfo")
    if event != "os.listdir" and event.startswith(blocking):
        name = str(arguments[0]) if event == "import" else "-"
        if watching: works.append((threading.current_thread().name, event, name))

async def main(org, url, client_id, secret, path, user, vehicle, first, last):
    global watching
    credentials, days = ClientCredentials(client_id, secret), (date.fromisoformat(first), date.fromisoformat(last))
    watching = True
    async with PoderoClient(org, credentials, base_url=url, token_store=FileTokenStore(path)) as client:
        whole = await client.vehicle_sessions(user, vehicle, *days)
        watching = False
    print(json.dumps([whole.retries, len(whole.rejected), works]))

watching, works = False, []
sys.addaudithook(report)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_nothing_blocks_under_blockbuster(simulator: PoderoSimulator, tmp_path: Path) -> None:
    """In a new process, every call, a fleet and a token store, with retries, a revoked token and a row that is refused, make
    no blocking call in the event loop, and import nothing there.
    """
    simulator.add_fault(Fault(kind="status", status=503, nth=2, endpoint="sessions"))
    simulator.add_fault(Fault(kind="malformed_row", field="energy_charged_kwh", nth=4))
    simulator.add_fault(Fault(kind="token_revoked", nth=9, endpoint="sessions"))
    arguments = [simulator.org_id, simulator.base_url, simulator.client_id, simulator.client_secret, tmp_path / "token"]
    arguments += [simulator.first_day, simulator.last_day]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ALL_CALLS, *map(str, arguments), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    found, vehicles, failures, retries, token_requests, imports, warnings = json.loads(output)
    assert found == ["time.sleep"]
    assert not [warning for warning in warnings if "token store" in warning]  # which drops the errors of its store
    assert (vehicles, failures, imports) == (10, 0, [])
    assert retries >= 1
    assert token_requests == 2
    assert (tmp_path / "token").is_file()


ALL_CALLS = """
import asyncio, json, logging, sys, threading, time
from contextlib import aclosing
from datetime import date
from blockbuster import BlockingError, blockbuster_ctx
from podero_async import ClientCredentials, FileTokenStore, PoderoClient, RetryPolicy
from podero_async.otel import OpenTelemetryObserver

found, imports, warnings = [], [], []

class Collect(logging.Handler):
    def emit(self, record):
        warnings.append(record.getMessage())

logging.getLogger("podero_async").addHandler(Collect(logging.WARNING))

def report(event, arguments):
    if event == "import" and is_watching and threading.current_thread() is threading.main_thread():
        imports.append(str(arguments[0]))

async def main(org, url, client_id, secret, path, first, last):
    global is_watching
    credentials, days = ClientCredentials(client_id, secret), (date.fromisoformat(first), date.fromisoformat(last))
    with blockbuster_ctx():
        try:
            time.sleep(0)
        except BlockingError as error:
            found.append(str(error).split()[-1])
        is_watching = True
        options = {"token_store": FileTokenStore(path), "observer": OpenTelemetryObserver()}
        async with PoderoClient(org, credentials, base_url=url, **options) as client:
            async with client.fetch_fleet(*days) as fleet:
                vehicles = [outcome.vehicle async for outcome in fleet]
            of = vehicles[0]
            user, vehicle = of.user_id, of.vehicle_id
            await client.list_sessions(user, vehicle, *days)
            await client.vehicle_sessions(user, vehicle, *days)
            await client.current_session(user, vehicle)
            await client.latest_session(user, vehicle)
            await client.user_sessions(user, *days)
            await client.electric_vehicles(user)
            await client.with_options(retry=RetryPolicy(max_attempts=2)).user_by_external_id("customer_1")
            for stream in (client.users(), client.discover_vehicles(), client.sessions(user, vehicle, *days)):
                async with aclosing(stream):
                    async for _ in stream:
                        pass
            statistics, summary = client.statistics(), fleet.summary
        is_watching = False
    counts = summary.vehicles, summary.failures, statistics.retries, statistics.token_requests
    print(json.dumps([found, *counts, imports, warnings]))

is_watching = False
sys.addaudithook(report)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("vehicles", "sessions"),
    [pytest.param(60, 300, marks=pytest.mark.slow), pytest.param(300, 1900, marks=pytest.mark.soak)],
)
async def test_reading_and_storing_a_fleet_does_not_hold_the_loop(
    vehicles: int, sessions: int, tmp_path: Path, soak_scale: float, record_property: Record
) -> None:
    """20,000 users, a fleet and its backfill are read in a process without a long callback, while tokens are renewed."""
    vehicles = round(vehicles * soak_scale)
    async with PoderoSimulator(users=20_000, vehicles=vehicles, sessions_per_vehicle=sessions, seed=7) as sim:
        for number in range(TRIES):
            sim.add_fault(Fault(kind="token_revoked", endpoint="sessions", nth={40, 120, 200}))
            store, before = tmp_path / f"{number}.duckdb", sim.counts.requests["token"]
            arguments = [store, sim.org_id, sim.base_url, sim.client_id, sim.client_secret, sim.first_day, sim.last_day]
            command = [sys.executable, "-m", "tests._support.loop_probe", *map(str, arguments)]
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
            output, _ = await process.communicate()
            tokens = sim.counts.requests["token"] - before
            assert process.returncode == 0
            callback_ms, callback_pages, collector_ms, *counts = json.loads(output)
            assert counts == [20_000, vehicles, vehicles]
            assert tokens == 4
            if callback_pages < 40:
                break
    assert callback_pages < 40
    record_property(
        "figure",
        f"longest callback {callback_ms:.1f} ms ({callback_pages:.0f} pages), collector's longest pause"
        f" {collector_ms:.1f} ms; {vehicles * sessions:,} sessions read twice, {tokens} tokens",
    )

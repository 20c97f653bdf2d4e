"""Each kind of fault, as a plain HTTP client meets it."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from typing import Any, Literal

import aiohttp
import pytest

from podero_async.testing import Fault
from tests.simulator.conftest import Caller, Running

INVALID_FAULTS: list[dict[str, Any]] = [
    {"kind": "earthquake"},
    {"kind": "status", "endpoint": "nowhere"},
    {"kind": "token_expiring", "seconds": 1, "endpoint": "sessions"},
    {"kind": "reset", "status": 503},
    {"kind": "clamped_limit"},
    {"kind": "reset", "rate": 0.5, "nth": 1},
    {"kind": "reset", "rate": 5},
    {"kind": "reset", "nth": 0},
    {"kind": "reset", "nth": []},
    {"kind": "reset", "page": "last"},
    {"kind": "malformed_row", "damage": "small"},
]


async def raw_page(call: Caller) -> bytes:
    """Read the body of a page without decompressing it."""
    vehicle = call.vehicle(call.sim.vehicles[0])
    window = {"from": call.sim.first_day.isoformat(), "to": call.sim.last_day.isoformat(), "limit": "200"}
    headers = {"Authorization": f"Bearer {call.token}"}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        http.get(f"{call.sim.base_url}{vehicle}/sessions", params=window, headers=headers) as response,
    ):
        return await response.read()


@pytest.mark.parametrize("options", INVALID_FAULTS)
def test_invalid_fault_is_refused(options: dict[str, Any]) -> None:
    """A fault with an unknown kind, or with options that do not fit it, raises a `ValueError`."""
    with pytest.raises(ValueError):
        Fault(**options)


async def test_status_replaces_the_response(running: Running) -> None:
    """A `status` fault replaces the response; a body without a content type is HTML, like the error page of a proxy."""
    throttled = Fault(kind="status", status=429, headers={"Retry-After": "1"}, body=b"{}", content_type="text/x", nth=3)
    html = Fault(kind="status", status=502, body="<html>Bad Gateway</html>", nth=4)
    async with running(faults=[Fault(kind="status", endpoint="sessions"), throttled, html]) as call:
        assert (await call.sessions()).json == {"detail": "Simulated 503"}
        async with call.http.get(f"{call.sim.base_url}{call.org}/users") as response:
            assert (response.status, response.content_type, await response.text()) == (429, "text/x", "{}")
            assert response.headers["Retry-After"] == "1"
        async with call.http.get(f"{call.sim.base_url}{call.org}/users") as response:
            assert (response.status, response.content_type) == (502, "text/html")
        assert call.sim.counts.responses == {200: 1, 503: 1, 429: 1, 502: 1}


async def test_reset_drops_the_connection_before_the_response(running: Running) -> None:
    """A `reset` fault drops the connection without a response; later requests succeed."""
    async with running(faults=[Fault(kind="reset", endpoint="current", times=2)]) as call:
        path = f"{call.vehicle(call.sim.vehicles[0])}/sessions/current"
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await call.bare(path)
        assert (await call.get(path)).status == 200
        assert call.sim.counts.faults["reset"] == 2
        assert call.sim.counts.responses.total() == 2


@pytest.mark.parametrize("kind", ["reset", "truncated"])
@pytest.mark.parametrize("after_bytes", [0, 100, 10**9])
async def test_body_is_broken_off(running: Running, kind: Literal["reset", "truncated"], after_bytes: int) -> None:
    """A body that is reset or truncated at any byte is a client error, and later requests succeed."""
    async with running(faults=[Fault(kind=kind, after_bytes=after_bytes, endpoint="sessions")]) as call:
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
            await raw_page(call)
        assert (await call.get(f"{call.org}/users")).status == 200


async def test_reset_sends_rst_and_truncated_closes_the_connection(running: Running) -> None:
    """A `reset` fault sends a TCP RST; `truncated` sends half of an uncompressed body and closes the connection."""
    faults = [Fault(kind="reset", after_bytes=5, endpoint="users"), Fault(kind="truncated", endpoint="vehicles")]
    async with running(faults=faults) as call:
        with pytest.raises(ConnectionResetError):
            await call.bare(f"{call.org}/users")
        path = call.vehicle(call.sim.vehicles[0]).rpartition("/")[0]
        head, _, body = (await call.bare(path)).partition(b"\r\n\r\n")
        promised = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert len(body) == promised // 2


async def test_hang_with_seconds_delays_the_response(running: Running) -> None:
    """A `hang` fault with `seconds` delays the normal response by that time."""
    async with running(faults=[Fault(kind="hang", seconds=0.03, endpoint="sessions")]) as call:
        started = asyncio.get_running_loop().time()
        assert (await call.sessions()).status == 200
        assert asyncio.get_running_loop().time() - started >= 0.029


async def test_hang_ends_when_the_client_disconnects(running: Running) -> None:
    """A request that hangs ends when its client disconnects."""
    async with running(faults=[Fault(kind="hang", endpoint="sessions")]) as call:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await call.sessions()
        await call.until(lambda: not call.sim.counts.concurrent)


@pytest.mark.parametrize("options", [{}, {"seconds": 0.002, "chunk_bytes": 2000}])
async def test_drip_sends_the_whole_body_in_chunks(running: Running, options: dict[str, Any]) -> None:
    """A `drip` fault sends the whole body, in chunks, with and without options."""
    async with running(sessions_per_vehicle=50, faults=[Fault(kind="drip", endpoint="sessions", **options)]) as call:
        page = json.loads(gzip.decompress(await raw_page(call)))
        assert page["items"] == call.sim.truth(call.sim.vehicles[0])


async def test_malformed_row_damages_one_row(running: Running) -> None:
    """A `malformed_row` fault damages one row of each page, and is not counted for an empty page."""
    faults = [
        Fault(kind="malformed_row", field="plug_in_time", damage="missing", nth=1),
        Fault(kind="malformed_row", field="is_at_home", damage="wrong_type", nth=2),
        Fault(kind="malformed_row", nth=range(3, 30)),
    ]
    async with running(faults=faults) as call:
        truth = call.sim.truth(call.sim.vehicles[0])
        pages = [(await call.sessions(limit=200)).json["items"] for _ in range(20)]
        assert all(sum(row not in truth for row in page) == 1 for page in pages)
        assert sum("plug_in_time" not in row for row in pages[0]) == 1
        assert sum(row["is_at_home"] not in (True, False) for row in pages[1]) == 1
        await call.sessions(offset=10_000)
        assert call.sim.counts.faults["malformed_row"] == 20


async def test_malformed_json_is_a_complete_body(running: Running) -> None:
    """A `malformed_json` fault sends half of a JSON document as a complete body."""
    async with running(faults=[Fault(kind="malformed_json", endpoint="users")]) as call:
        async with call.http.get(f"{call.sim.base_url}{call.org}/users") as response:
            body = await response.read()
            assert len(body) > 2
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


async def test_empty_is_200_without_a_body(running: Running) -> None:
    """An `empty` fault sends status 200 without a body."""
    async with (
        running(faults=[Fault(kind="empty", endpoint="users")]) as call,
        call.http.get(f"{call.sim.base_url}{call.org}/users") as response,
    ):
        assert (response.status, await response.read()) == (200, b"")


async def test_token_revoked_revokes_the_token_of_the_request(running: Running) -> None:
    """A `token_revoked` fault revokes the token of the request, and no other."""
    async with running(faults=[Fault(kind="token_revoked", nth=1)]) as call:
        other = Caller(call.sim, call.http)
        await other.log_in()
        assert (await call.sessions()).status == 401
        assert (await call.sessions()).status == 401
        assert (await other.sessions()).status == 200


async def test_token_expiring_shortens_the_lifetime(running: Running) -> None:
    """A `token_expiring` fault shortens the stated and the actual lifetime of the token."""
    now = 0.0
    async with running(faults=[Fault(kind="token_expiring", seconds=5, nth=2)], clock=lambda: now) as call:
        assert (await call.log_in())["expires_in"] == 5
        now = 5.0
        assert (await call.sessions()).status == 401
        assert call.sim.counts.faults["token_expiring"] == 1


async def test_empty_list_shows_no_items(running: Running) -> None:
    """An `empty_list` fault shows lists of sessions, users and vehicles without items, and leaves the data unchanged."""
    async with running(faults=[Fault(kind="empty_list")]) as call:
        vehicle = call.sim.vehicles[0]
        assert (await call.sessions(vehicle)).json == {"total": 0, "items": []}
        assert (await call.get(f"{call.org}/users")).json == []
        assert (await call.get(f"{call.org}/users/{vehicle.user_id}/electric-vehicles")).json == []
        assert call.sim.counts.faults == {"empty_list": 3}
        call.sim.clear_faults()
        assert (await call.sessions(vehicle)).json["items"] == call.sim.truth(vehicle)[:50]


async def test_clamped_limit_bounds_the_page(running: Running) -> None:
    """A `clamped_limit` fault bounds the rows of a page, and leaves smaller pages unchanged."""
    async with running(faults=[Fault(kind="clamped_limit", limit=10)]) as call:
        truth = call.sim.truth(call.sim.vehicles[0])
        page = await call.sessions(limit=200, offset=5)
        assert page.json == {"total": len(truth), "items": truth[5:15]}
        assert len((await call.sessions(limit=4)).json["items"]) == 4
        assert call.sim.counts.faults["clamped_limit"] == 1


async def test_unstable_order_shuffles_each_page(running: Running) -> None:
    """An `unstable_order` fault shuffles the list anew for each request, and leaves `truth()` in order."""
    async with running(faults=[Fault(kind="unstable_order")]) as call:
        truth = [row["id"] for row in call.sim.truth(call.sim.vehicles[0])]
        pages = [[row["id"] for row in (await call.sessions(limit=200)).json["items"]] for _ in range(2)]
        assert pages[0] != pages[1]
        assert sorted(pages[0]) == sorted(pages[1]) == sorted(truth)
        assert [row["id"] for row in call.sim.truth(call.sim.vehicles[0])] == truth


async def test_wrong_total_changes_the_total(running: Running) -> None:
    """A `wrong_total` fault adds `delta` to the total, or replaces the total if `delta` is a function."""
    faults = [
        Fault(kind="wrong_total", nth=1),
        Fault(kind="wrong_total", delta=-1000, nth=2),
        Fault(kind="wrong_total", delta=lambda total: total * 2, nth=3),
    ]
    async with running(faults=faults) as call:
        count = len(call.sim.truth(call.sim.vehicles[0]))
        assert [(await call.sessions()).json["total"] for _ in range(4)] == [count + 1, 0, 2 * count, count]


async def test_fault_is_restricted_to_pages_and_vehicles(running: Running) -> None:
    """A fault affects only the vehicle and the pages that it names, until `clear_faults`."""
    async with running(vehicles=2) as call:
        first, second = call.sim.vehicles
        call.sim.add_fault(Fault(kind="status", status=500, vehicle=first, page="later"))
        call.sim.add_fault(Fault(kind="status", status=403, vehicle=second, page="first"))
        statuses = [
            (await call.sessions(vehicle, offset=offset)).status for vehicle in (first, second) for offset in (0, 1)
        ]
        assert statuses == [200, 500, 403, 200]
        call.sim.clear_faults()
        assert (await call.sessions(second)).status == 200


async def test_first_fault_that_replaces_the_response_wins(running: Running) -> None:
    """If two faults replace the response of a request, the first one wins, and only it is counted."""
    async with running(faults=[Fault(kind="status", status=418), Fault(kind="reset")], token_styles={"basic"}) as call:
        assert (await call.get(f"{call.org}/users")).status == 418
        assert call.sim.counts.faults == {"status": 1}


async def test_seed_determines_the_requests_of_a_rate(running: Running) -> None:
    """The seed determines which requests a fault with a `rate` affects."""

    async def statuses(seed: int) -> list[int]:
        fault = Fault(kind="status", rate=0.3, endpoint="sessions")
        async with running(seed=seed, vehicles=1, faults=[fault]) as call:
            return [(await call.sessions(limit=1)).status for _ in range(60)]

    first = await statuses(1)
    assert first == await statuses(1)
    assert first != await statuses(2)
    assert 5 < first.count(503) < 35


async def test_malformed_vehicle_id_matches_no_fault_of_a_vehicle(running: Running) -> None:
    """A malformed vehicle id matches no fault that is restricted to a vehicle, and gets 422."""
    async with running(vehicles=1) as call:
        call.sim.add_fault(Fault(kind="status", vehicle=call.sim.vehicles[0]))
        reply = await call.get(f"{call.org}/users/none/electric-vehicles/{uuid.UUID(int=0)}/sessions/current")
        assert reply.status == 422

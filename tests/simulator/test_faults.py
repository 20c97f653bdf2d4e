"""Each fault, as it looks from the other end of the wire."""

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

WRONG_FAULTS: list[dict[str, Any]] = [
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


async def raw(call: Caller) -> bytes:
    """Read a page's body as it comes over the wire, compressed or not."""
    vehicle = call.vehicle(call.sim.vehicles[0])
    window = {"from": call.sim.first_day.isoformat(), "to": call.sim.last_day.isoformat(), "limit": "200"}
    headers = {"Authorization": f"Bearer {call.token}"}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        http.get(f"{call.sim.base_url}{vehicle}/sessions", params=window, headers=headers) as answer,
    ):
        return await answer.read()


@pytest.mark.parametrize("options", WRONG_FAULTS)
def test_fault_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    """A script with a slip would play nothing, and prove nothing."""
    with pytest.raises(ValueError):
        Fault(**options)


async def test_status_with_headers_and_a_proxy_s_page(running: Running) -> None:
    """A client's way with 503, Retry-After and HTML could not be tested."""
    html = Fault(kind="status", status=502, body="<html>Bad Gateway</html>", nth=2)
    page = Fault(kind="status", status=429, headers={"Retry-After": "1"}, body=b"{}", content_type="text/x", nth=3)
    async with running(faults=[Fault(kind="status", nth=1, endpoint="sessions"), html, page]) as call:
        assert (await call.sessions()).json == {"detail": "Simulated 503"}
        async with call.http.get(call.sim.base_url + call.org + "/users") as answer:
            assert (answer.status, answer.content_type, await answer.text()) == (429, "text/x", "{}")
            assert answer.headers["Retry-After"] == "1"


async def test_html_by_default_where_a_body_is_given(running: Running) -> None:
    """A proxy's error page would come labelled as JSON."""
    async with running(faults=[Fault(kind="status", status=502, body="<html>", endpoint="users")]) as call:
        async with call.http.get(f"{call.sim.base_url}{call.org}/users") as answer:
            assert (answer.status, answer.content_type) == (502, "text/html")
        assert call.sim.counts.responses[502] == 1


async def test_reset_before_the_answer_and_keep_alive_after_it(running: Running) -> None:
    """A connection that the server drops would end a test, or take other requests with it."""
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
async def test_break_inside_the_body(running: Running, kind: Literal["reset", "truncated"], after_bytes: int) -> None:
    """A page cut short would be read as a whole one."""
    async with running(faults=[Fault(kind=kind, after_bytes=after_bytes, endpoint="sessions")]) as call:
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
            await raw(call)
        assert (await call.get(f"{call.org}/users")).status == 200


async def test_break_inside_the_body_is_an_rst_or_an_end(running: Running) -> None:
    """The two ways in which a connection breaks would be one and the same."""
    faults = [Fault(kind="reset", after_bytes=5, endpoint="users"), Fault(kind="truncated", endpoint="vehicles")]
    async with running(faults=faults) as call:
        with pytest.raises(ConnectionResetError):
            await call.bare(f"{call.org}/users")
        path = call.vehicle(call.sim.vehicles[0]).rpartition("/")[0]
        head, _, body = (await call.bare(path)).partition(b"\r\n\r\n")
        promised = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert len(body) == promised // 2


async def test_truncated_by_half_of_a_plain_body(running: Running) -> None:
    """A short, uncompressed answer could not be cut."""
    async with running(faults=[Fault(kind="truncated", endpoint="current")]) as call:
        with pytest.raises(aiohttp.ClientPayloadError):
            await call.get(f"{call.vehicle(call.sim.vehicles[0])}/sessions/current")


async def test_hang_for_a_while_answers_late(running: Running) -> None:
    """A slow server could not be told from a dead one."""
    async with running(faults=[Fault(kind="hang", seconds=0.03, endpoint="sessions")]) as call:
        started = asyncio.get_running_loop().time()
        assert (await call.sessions()).status == 200
        assert asyncio.get_running_loop().time() - started >= 0.029


async def test_hang_ends_when_the_client_goes(running: Running) -> None:
    """Requests that hang would stay for good, and count as concurrent."""
    async with running(faults=[Fault(kind="hang", endpoint="sessions")]) as call:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await call.sessions()
        await call.until(lambda: not call.sim.counts.concurrent)


async def test_drip_sends_all_of_it_slowly(running: Running) -> None:
    """A body that trickles could not be tested against a read timeout."""
    async with running(faults=[Fault(kind="drip", seconds=0.002, chunk_bytes=2000, endpoint="sessions")]) as call:
        page = json.loads(gzip.decompress(await raw(call)))
        assert page["items"] == call.sim.truth(call.sim.vehicles[0])


async def test_drip_by_default(running: Running) -> None:
    """A fault without details would not be played."""
    async with running(faults=[Fault(kind="drip", endpoint="current")]) as call:
        assert (await call.get(f"{call.vehicle(call.sim.vehicles[0])}/sessions/current")).status == 200


async def test_malformed_row_is_one_row(running: Running) -> None:
    """One bad row would sink its page in a client that is never tried with one."""
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


async def test_malformed_json_is_a_whole_body_of_half_a_document(running: Running) -> None:
    """A body that ends mid-JSON without a transport error would never be tried."""
    async with running(faults=[Fault(kind="malformed_json", endpoint="users")]) as call:
        async with call.http.get(f"{call.sim.base_url}{call.org}/users") as answer:
            body = await answer.read()
            assert len(body) > 2
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


async def test_empty_body(running: Running) -> None:
    """A 200 with nothing in it would be read as an empty list."""
    async with (
        running(faults=[Fault(kind="empty", endpoint="users")]) as call,
        call.http.get(f"{call.sim.base_url}{call.org}/users") as answer,
    ):
        assert (answer.status, await answer.read()) == (200, b"")


async def test_token_revoked_kills_the_token_that_asked(running: Running) -> None:
    """A client that replays with the same token would be let in."""
    async with running(faults=[Fault(kind="token_revoked", nth=1)]) as call:
        other = Caller(call.sim, call.http)
        await other.log_in()
        assert (await call.sessions()).status == 401
        assert (await call.sessions()).status == 401
        assert (await other.sessions()).status == 200


async def test_token_expiring_is_true(running: Running) -> None:
    """A token's early end would be told, but not happen."""
    now = 0.0
    async with running(faults=[Fault(kind="token_expiring", seconds=5, nth=2)], clock=lambda: now) as call:
        assert (await call.log_in())["expires_in"] == 5
        now = 5.0
        assert (await call.sessions()).status == 401
        assert call.sim.counts.faults["token_expiring"] == 1


async def test_clamped_limit(running: Running) -> None:
    """A client that steps by the limit it asked for would lose rows unseen."""
    async with running(faults=[Fault(kind="clamped_limit", limit=10)]) as call:
        truth = call.sim.truth(call.sim.vehicles[0])
        page = await call.sessions(limit=200, offset=5)
        assert page.json == {"total": len(truth), "items": truth[5:15]}
        assert len((await call.sessions(limit=4)).json["items"]) == 4
        assert call.sim.counts.faults["clamped_limit"] == 1


async def test_unstable_order_is_new_at_each_request(running: Running) -> None:
    """A list without an order would be served in one."""
    async with running(faults=[Fault(kind="unstable_order")]) as call:
        truth = [row["id"] for row in call.sim.truth(call.sim.vehicles[0])]
        pages = [[row["id"] for row in (await call.sessions(limit=200)).json["items"]] for _ in range(2)]
        assert pages[0] != pages[1]
        assert sorted(pages[0]) == sorted(pages[1]) == sorted(truth)
        assert [row["id"] for row in call.sim.truth(call.sim.vehicles[0])] == truth


async def test_wrong_total(running: Running) -> None:
    """A client that trusts the total would not be found out."""
    faults = [
        Fault(kind="wrong_total", nth=1),
        Fault(kind="wrong_total", delta=-1000, nth=2),
        Fault(kind="wrong_total", delta=lambda total: total * 2, nth=3),
    ]
    async with running(faults=faults) as call:
        count = len(call.sim.truth(call.sim.vehicles[0]))
        assert [(await call.sessions()).json["total"] for _ in range(4)] == [count + 1, 0, 2 * count, count]


async def test_fault_of_one_page_or_vehicle(running: Running) -> None:
    """A fault could not be aimed, and a failing vehicle not be told from a failing server."""
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


async def test_first_fault_that_breaks_wins_and_others_are_kept_back(running: Running) -> None:
    """Two faults at once would break each other."""
    async with running(
        faults=[Fault(kind="status", status=418), Fault(kind="reset")], token_endpoints={"basic"}
    ) as call:
        assert (await call.get(f"{call.org}/users")).status == 418
        assert call.sim.counts.faults == {"status": 1}


async def test_rate_is_drawn_by_the_seed(running: Running) -> None:
    """A failure found once could not be played again."""

    async def statuses(seed: int) -> list[int]:
        fault = Fault(kind="status", rate=0.3, endpoint="sessions")
        async with running(seed=seed, vehicles=1, faults=[fault]) as call:
            return [(await call.sessions(limit=1)).status for _ in range(60)]

    first = await statuses(1)
    assert first == await statuses(1)
    assert first != await statuses(2)
    assert 5 < first.count(503) < 35


async def test_a_vehicle_s_id_that_is_none_matches_no_fault_of_a_vehicle(running: Running) -> None:
    """A malformed id would break the fault script instead of being refused."""
    async with running(vehicles=1) as call:
        call.sim.add_fault(Fault(kind="status", vehicle=call.sim.vehicles[0]))
        reply = await call.get(f"{call.org}/users/none/electric-vehicles/{uuid.UUID(int=0)}/sessions/current")
        assert reply.status == 422

"""The responses of each endpoint, as a plain HTTP client receives them."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from podero_async.testing import PageRequest
from tests.simulator.conftest import PREFIX, Running

UNKNOWN_ID = uuid.UUID(int=1)


async def test_page_has_the_rows_of_the_vehicle_newest_first(running: Running) -> None:
    """A page has exactly the rows of its vehicle, newest first, with their number as `total`."""
    async with running(vehicles=3) as call:
        vehicle = call.sim.vehicles[1]
        truth = call.sim.truth(vehicle)
        page = await call.sessions(vehicle, limit=200)
        assert page.status == 200
        assert page.json == {"total": len(truth), "items": truth}
        assert [row["plug_in_time"] for row in truth] == sorted((row["plug_in_time"] for row in truth), reverse=True)


async def test_pages_join_to_the_whole_list(running: Running) -> None:
    """The pages of an unchanged list make up the list, and state the same total."""
    async with running() as call:
        truth = call.sim.truth(call.sim.vehicles[0])
        read = []
        for offset in range(0, len(truth), 7):
            page = await call.sessions(limit=7, offset=offset)
            assert page.json["total"] == len(truth)
            read += page.json["items"]
        assert read == truth


async def test_default_limit_is_the_contract_s(running: Running) -> None:
    """A page has 50 rows if the request names no limit."""
    async with running(sessions_per_vehicle=80) as call:
        assert len((await call.sessions(include_hidden="true")).json["items"]) == 50


async def test_pages_outside_the_list_are_empty(running: Running) -> None:
    """A page beyond the end is empty and states the total; a window whose last day precedes its first has no sessions."""
    async with running() as call:
        page = await call.sessions(offset=10_000)
        assert page.status == 200
        assert page.json == {"total": len(call.sim.truth(call.sim.vehicles[0])), "items": []}
        page = await call.sessions(**{"from": call.sim.last_day.isoformat(), "to": call.sim.first_day.isoformat()})
        assert page.json == {"total": 0, "items": []}


async def test_window_includes_both_utc_days_completely(running: Running) -> None:
    """A window includes the sessions plugged in on its first and on its last UTC day, to the microsecond."""
    async with running(rows={}) as call:
        sim = call.sim
        times = ["2026-01-04T23:59:59Z", "2026-01-05T00:00:00Z", "2026-01-05T23:59:59.999999Z", "2026-01-06T00:00:00Z"]
        rows = [{"id": str(uuid.UUID(int=number)), "plug_in_time": time} for number, time in enumerate(times)]
        vehicle = sim.add_vehicle(rows=rows)
        page = await call.sessions(vehicle, **{"from": "2026-01-05", "to": "2026-01-05"})
        assert [row["plug_in_time"] for row in page.json["items"]] == [times[2], times[1]]
        assert page.json["total"] == 2


async def test_window_compares_times_in_utc(running: Running) -> None:
    """A time with a UTC offset is on the day that it has in UTC."""
    async with running(rows={}) as call:
        rows = [{"id": "a", "plug_in_time": "2026-01-06T00:30:00+01:00"}]
        vehicle = call.sim.add_vehicle(rows=rows)
        assert (await call.sessions(vehicle, **{"from": "2026-01-05", "to": "2026-01-05"})).json["total"] == 1
        assert (await call.sessions(vehicle, **{"from": "2026-01-06", "to": "2026-01-06"})).json["total"] == 0


async def test_hidden_sessions_are_listed_only_on_request(running: Running) -> None:
    """Hidden sessions are listed only with `include_hidden`."""
    async with running() as call:
        vehicle = call.sim.vehicles[0]
        hidden = [row for row in call.sim.truth(vehicle, include_hidden=True) if row["is_hidden"]]
        assert hidden
        visible = await call.sessions(limit=200)
        every = await call.sessions(limit=200, include_hidden="true")
        assert every.json["total"] == visible.json["total"] + len(hidden)
        assert not any(row["is_hidden"] for row in visible.json["items"])


async def test_current_session_is_null_or_a_row(running: Running) -> None:
    """The current session is null, or a session in progress, and `set_current` changes it."""
    async with running(vehicles=40) as call:
        responses = [
            (await call.get(f"{call.vehicle(vehicle)}/sessions/current")).json for vehicle in call.sim.vehicles
        ]
        active = [response["session"] for response in responses if response["session"] is not None]
        assert 0 < len(active) < 40
        assert all(row["session_outcome"] == "in_progress" and row["unplug_time"] is None for row in active)
        call.sim.set_current(call.sim.vehicles[0], active[0])
        assert (await call.get(f"{call.vehicle(call.sim.vehicles[0])}/sessions/current")).json == {"session": active[0]}
        call.sim.set_current(call.sim.vehicles[0], None)
        assert (await call.get(f"{call.vehicle(call.sim.vehicles[0])}/sessions/current")).json == {"session": None}


async def test_users_are_an_array(running: Running) -> None:
    """Users are listed as an array, with the number of their vehicles and addresses of example.com."""
    async with running(users=5, vehicles=3) as call:
        users = (await call.get(f"{call.org}/users")).json
        assert [user["num_electric_vehicles"] for user in users] == [1, 1, 1, 0, 0]
        assert {user["organization_id"] for user in users} == {str(call.sim.org_id)}
        assert all(user["email"].endswith("@example.com") for user in users)


async def test_users_are_pages_if_configured(running: Running) -> None:
    """With `users_as_pages`, users are listed in pages with a total, and limits are validated."""
    async with running(users=5, users_as_pages=True) as call:
        page = (await call.get(f"{call.org}/users", limit=2, offset=4)).json
        assert page["total"] == 5
        assert [user["last_name"] for user in page["items"]] == ["5"]
        assert (await call.get(f"{call.org}/users", limit=0)).status == 422


async def test_user_by_external_id(running: Running) -> None:
    """A user is found by external id; an unknown one is 404."""
    async with running() as call:
        user = await call.get(f"{call.org}/users/by-ext-id/customer_3")
        assert user.json["external_user_id"] == "customer_3"
        assert (await call.get(f"{call.org}/users/by-ext-id/nobody")).status == 404


async def test_deleted_users_are_listed_only_on_request(running: Running) -> None:
    """A deleted user is found only with `include_deleted`."""
    async with running(users=2) as call:
        user_id = call.sim.vehicles[0].user_id
        call.sim.delete_user(user_id)
        assert str(user_id) not in {user["id"] for user in (await call.get(f"{call.org}/users")).json}
        assert len((await call.get(f"{call.org}/users", include_deleted="true")).json) == 2
        assert (await call.get(f"{call.org}/users/by-ext-id/customer_1")).status == 404
        assert (await call.get(f"{call.org}/users/by-ext-id/customer_1", include_deleted="true")).status == 200


async def test_vehicles_of_a_user(running: Running) -> None:
    """A user's vehicles are listed in the order in which they were added."""
    async with running(users=2, vehicles=5) as call:
        user_id = call.sim.vehicles[0].user_id
        rows = (await call.get(f"{call.org}/users/{user_id}/electric-vehicles")).json
        assert [row["id"] for row in rows] == [str(ref.vehicle_id) for ref in call.sim.vehicles[::2]]
        assert {row["owner"]["id"] for row in rows} == {str(user_id)}


@pytest.mark.parametrize("token", ["", "unknown"])
async def test_requests_without_a_valid_token_are_401(running: Running, token: str) -> None:
    """A request without a token, or with an unknown one, gets 401."""
    async with running() as call:
        call.token = token
        reply = await call.sessions()
        assert (reply.status, reply.json) == (401, {"detail": "Unauthorized"})


async def test_unknown_ids_and_paths_are_404(running: Running) -> None:
    """An unknown path, organization or user, and a vehicle of another user, are 404."""
    async with running(users=2, vehicles=2) as call:
        mine, other = call.sim.vehicles
        paths = [
            f"{call.org}/users/{mine.user_id}/electric-vehicles/{other.vehicle_id}/sessions/current",
            f"{call.org}/users/{UNKNOWN_ID}/electric-vehicles",
            f"{PREFIX}/org/{UNKNOWN_ID}/users",
            f"{PREFIX}/org/{UNKNOWN_ID}/users/{mine.user_id}/electric-vehicles/{mine.vehicle_id}/sessions/current",
            "/nowhere",
        ]
        window = {"from": "2026-01-05", "to": "2026-01-05"}
        for path in (*paths, paths[0].removesuffix("/current"), paths[3].removesuffix("/current")):
            reply = await call.get(path, **window)
            assert (reply.status, reply.json) == (404, {"detail": "Not Found"}), path


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("from", "2026-02-30", "date_from_datetime_parsing"),
        ("from", "20260105", "date_from_datetime_parsing"),
        ("to", "yesterday", "date_from_datetime_parsing"),
        ("limit", "0", "greater_than_equal"),
        ("limit", "201", "less_than_equal"),
        ("limit", "many", "int_parsing"),
        ("offset", "-1", "greater_than_equal"),
        ("include_hidden", "perhaps", "bool_parsing"),
    ],
)
async def test_invalid_parameter_is_422_and_named(running: Running, name: str, value: str, kind: str) -> None:
    """An invalid parameter gets 422 with its name and the type of the error."""
    async with running() as call:
        reply = await call.sessions(**{name: value})
        assert reply.status == 422
        assert [(error["type"], error["loc"]) for error in reply.json["detail"]] == [(kind, ["query", name])]


async def test_all_invalid_parameters_are_named_together(running: Running) -> None:
    """One 422 names all missing and malformed parameters of a request."""
    async with running() as call:
        reply = await call.get(f"{PREFIX}/org/none/users/none/electric-vehicles/{UNKNOWN_ID}/sessions")
        assert reply.status == 422
        assert [error["loc"] for error in reply.json["detail"]] == [
            ["path", "org_id"],
            ["path", "user_id"],
            ["query", "from"],
            ["query", "to"],
        ]


async def test_wrong_method_is_405_with_allow(running: Running) -> None:
    """An unsupported method gets 405 with the `Allow` header."""
    async with running() as call:
        reply = await call.request("POST", f"{call.org}/users")
        assert reply.status == 405
        assert reply.headers["Allow"] == "GET"
        assert "detail" in reply.json
        assert (await call.get(f"{PREFIX}/auth/token")).headers["Allow"] == "POST"


async def test_unknown_parameters_are_ignored_and_responses_have_a_request_id(running: Running) -> None:
    """Unknown parameters are ignored, and every response has its own request id and a date."""
    async with running() as call:
        first, second = await call.sessions(surprise="yes"), await call.get("/nowhere")
        assert first.status == 200
        assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
        assert "Date" in second.headers


async def test_large_responses_are_compressed_if_the_client_accepts_gzip(running: Running) -> None:
    """Large responses are compressed if the client accepts gzip; small ones never are."""
    async with running() as call:
        packed = await call.sessions(limit=200)
        assert packed.headers["Content-Encoding"] == "gzip"
        path = f"{call.vehicle(call.sim.vehicles[0])}/sessions"
        window = {"from": call.sim.first_day.isoformat(), "to": call.sim.last_day.isoformat(), "limit": 200}
        plain = await call.request("GET", path, params=window, headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        assert plain.json == packed.json
        assert "Content-Encoding" not in (await call.sessions(limit=1)).headers


async def test_before_page_can_change_each_page(running: Running) -> None:
    """`before_page` receives each request for a page, and its changes show in that page."""
    async with running(sessions_per_vehicle=20) as call:
        vehicle = call.sim.vehicles[0]
        seen: list[PageRequest] = []

        def drop_newest(request: PageRequest) -> None:
            seen.append(request)
            call.sim.remove(vehicle, call.sim.truth(vehicle)[0]["id"])

        before = call.sim.truth(vehicle)
        call.sim.before_page = drop_newest
        page = await call.sessions(vehicle, limit=3)
        assert page.json == {"total": len(before) - 1, "items": before[1:4]}
        await call.sessions(vehicle, limit=3, offset=3, include_hidden="true")
        assert call.sim.before_page is drop_newest
        assert [(request.number, request.offset, request.include_hidden) for request in seen] == [
            (1, 0, False),
            (2, 3, True),
        ]
        assert seen[0].vehicle == vehicle
        assert seen[0].to_date - seen[0].from_date >= timedelta(days=10)

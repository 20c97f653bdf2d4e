"""Discovery: users and vehicles from lists that page, change, or state a wrong total."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import re
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import date
from uuid import UUID

import pytest
from aiohttp import web

from podero_async import (
    CompletenessError,
    DecodeError,
    PermissionDeniedError,
    VehicleFailure,
    VehicleSessions,
)
from tests._support.clients import page_body, serving, static_client
from tests._support.directory import Directory

DAYS = date(2026, 1, 1), date(2026, 1, 31)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("number_of_users", [1, 49, 50, 51, 100, 250, 450])
@pytest.mark.parametrize("off_by", [-1, 0, 1, 30])
async def test_every_listed_user_arrives_whatever_the_total(
    number_of_users: int, off_by: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A total that is too small or too large loses no user; one warning has both numbers,
    and too few users are an error.
    """
    directory = Directory(list(range(1, number_of_users + 1)), total_is_off_by=off_by)
    users, error = [], None
    async with directory.client() as client:
        try:
            async for user in client.users():
                users.append(user.id.int)  # noqa: PERF401
        except CompletenessError as caught:
            error = caught
    assert users == directory.users
    total = number_of_users + off_by
    assert not error or error.path.endswith("/users")
    assert [error.delivered, error.total] == [number_of_users, total] if error else off_by <= 0
    expected = f"the list of users has {number_of_users} users, but the server counts {total}"
    assert warnings_of(caplog) == [expected] * (off_by != 0)


@pytest.mark.parametrize(
    ("number_of_users", "serves_pages", "requests"),
    [(120, True, 4), (50, True, 2), (9, False, 1), (10, False, 3), (51, False, 3), (1999, False, 1)],
)
async def test_an_array_without_a_total_may_be_a_page(number_of_users: int, serves_pages: bool, requests: int) -> None:
    """An array as long as a page is followed by a request for more, which a server without pages may refuse, also without limit."""
    offsets = []

    async def handler(request: web.Request) -> web.Response:
        users = [{"id": str(UUID(int=number))} for number in range(number_of_users)]
        offset = int(request.query.get("offset", 0))
        offsets.append(offset)
        if offset and not serves_pages:
            return web.json_response({"detail": "unknown parameter"}, status=422)
        return web.json_response(users[offset:][: int(request.query.get("limit", 50))] if serves_pages else users)

    async with serving(handler) as origin, static_client(origin) as client:
        assert [user.id.int async for user in client.users()] == list(range(number_of_users))
    assert len(offsets) == requests


@pytest.mark.parametrize("page_size", [12, 64, 99, 128, 250, 1000, 1280])
async def test_an_array_that_is_a_page_is_read_on(page_size: int) -> None:
    """A server that pages an array without a total, in pages of any size, lists all of its 1,500 users."""

    async def handler(request: web.Request) -> web.Response:
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", page_size))
        end = min(1500, offset + min(limit, page_size))
        return web.json_response([{"id": str(UUID(int=number))} for number in range(offset, end)])

    async with serving(handler) as origin, static_client(origin) as client:
        assert [user.id.int async for user in client.users()] == list(range(1500))


def pages(size: int, begins_at: str, number: int, offset: int, limit: int | None) -> list[dict[str, str]]:
    """Cut a page of a server that takes an offset, or computes a page's number from it; its pages may have one size only."""
    count = size if limit is None or begins_at == "a page of one size" else min(limit, size)
    begin = offset if begins_at == "the offset" else offset // count * count
    return [{"id": str(UUID(int=each))} for each in range(1, number + 1)[begin : begin + count]]


@pytest.mark.parametrize("begins_at", ["the offset", "a page", "a page of one size"])
@pytest.mark.parametrize("size", [15, 24, 100])
@pytest.mark.parametrize("is_array", [True, False])
async def test_a_page_begins_where_the_server_begins_it(size: int, begins_at: str, is_array: bool) -> None:
    """Users and vehicles beyond the first page arrive if the server computes the page from `offset // limit`, too."""
    number = 0

    async def handler(request: web.Request) -> web.Response:
        query = {name: int(value) for name, value in request.query.items() if name in ("offset", "limit")}
        page = pages(size, begins_at, number, query.get("offset", 0), query.get("limit"))
        is_of_users = request.path.endswith("/users")
        return web.json_response(page if is_array or not is_of_users else {"total": number, "items": page})

    async with serving(handler) as origin, static_client(origin) as client:
        for number in (10, size - 1, size, size + 1, 2 * size, 2 * size + 1, 345):
            every = set(range(1, number + 1))
            assert {user.id.int for user in [user async for user in client.users()]} == every
            assert {vehicle.id.int for vehicle in await client.electric_vehicles(UUID(int=1))} == every


@pytest.mark.parametrize("size", [5, 15, 24, 45])
async def test_vehicles_that_a_user_counts_are_looked_for_on_a_next_page(size: int) -> None:
    """If a user lists fewer vehicles than it counts, more are requested, however long the list is."""
    requests = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal requests
        if request.path.endswith("/users"):
            return web.json_response([{"id": str(UUID(int=1)), "num_electric_vehicles": 45}])
        requests += 1
        return web.json_response(pages(size, "the offset", 45, int(request.query.get("offset", 0)), None))

    async with serving(handler) as origin, static_client(origin) as client:
        assert {vehicle.vehicle_id.int async for vehicle in client.discover_vehicles()} == set(range(1, 46))
    assert requests == 1 or size < 45


async def test_users_that_join_in_front_of_the_first_page_end_no_array() -> None:
    """If users join until the second page lists the users of the first one, all others still arrive."""
    users = list(range(40))

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        if offset and len(users) == 40:
            users[:0] = range(100, 100 + offset)
        return web.json_response([{"id": str(UUID(int=number))} for number in users[offset : offset + 10]])

    async with serving(handler) as origin, static_client(origin) as client:
        assert {user.id.int for user in [user async for user in client.users()]} >= set(range(40))


@pytest.mark.parametrize("number", [57, 60, 100, 1200])
async def test_a_server_that_ignores_only_the_offset_has_pages(number: int) -> None:
    """A list that it cuts at the limit is whole, unless it has as many users as a server allows on a page."""

    async def handler(request: web.Request) -> web.Response:
        rows = range(number)[: min(100, int(request.query.get("limit", 30)))]
        return web.json_response([{"id": str(UUID(int=each))} for each in rows])

    users, is_whole = [], True
    async with serving(handler) as origin, static_client(origin) as client:
        try:
            async for user in client.users():
                users.append(user)  # noqa: PERF401
        except CompletenessError:
            is_whole = False
    assert (len(users), is_whole) == (min(100, number), number < 100)


class MovingVehicle:
    """A server of two users. The second user's only vehicle moves to the first user, whose vehicles were just listed."""

    def __init__(self, *, first: int = 1, second: int = 1) -> None:
        self.counts = {1: first, 2: second}
        self.vehicles = {1: [10], 2: [20]}
        self.requests: Counter[str] = Counter()

    async def respond(self, request: web.Request) -> web.Response:
        kind = request.path.split("/")[-1]
        self.requests[kind] += 1
        if kind == "users":
            rows = [{"id": str(UUID(int=user)), "num_electric_vehicles": count} for user, count in self.counts.items()]
            return web.json_response(rows)
        user = UUID(request.path.split("/")[-2]).int
        if user == 2:
            while not self.requests["first user"]:
                await asyncio.sleep(0)
        listed = list(self.vehicles[user])
        if user == 1 and not self.requests["first user"]:
            self.requests["first user"] += 1
            self.vehicles, self.counts = {1: [10, 20], 2: []}, {1: self.counts[1] + 1, 2: self.counts[2] - 1}
        return web.json_response([{"id": str(UUID(int=number))} for number in listed])


async def test_a_vehicle_that_changes_its_user_during_discovery_is_found(caplog: pytest.LogCaptureFixture) -> None:
    """The users are listed once more if one lists too few vehicles, and each vehicle is found once."""
    server = MovingVehicle()
    async with serving(server.respond) as origin, static_client(origin) as client:
        found = [(ref.user_id.int, ref.vehicle_id.int) async for ref in client.discover_vehicles()]
    assert sorted(found) == [(1, 10), (1, 20)]
    assert (server.requests["users"], server.requests["electric-vehicles"]) == (2, 3)
    assert warnings_of(caplog) == []


async def test_a_user_without_vehicles_that_gets_one_during_discovery_is_listed() -> None:
    """A vehicle is found although its new user counted none when the users were listed."""
    vehicles, is_moved = {1: [], 2: [20]}, False

    async def handler(request: web.Request) -> web.Response:
        nonlocal is_moved
        if request.path.endswith("/users"):
            rows = [
                {"id": str(UUID(int=user)), "num_electric_vehicles": len(listed)} for user, listed in vehicles.items()
            ]
            return web.json_response(rows)
        if not is_moved:
            is_moved = True
            vehicles.update({1: [20], 2: []})
        user = UUID(request.path.split("/")[-2]).int
        return web.json_response([{"id": str(UUID(int=number))} for number in vehicles[user]])

    async with serving(handler) as origin, static_client(origin) as client:
        found = [(ref.user_id.int, ref.vehicle_id.int) async for ref in client.discover_vehicles()]
    assert found == [(1, 20)]


def second_array(status: int, text: str = "unknown parameter") -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a server of an array of 100 users, which responds to every request for a page with this status."""

    async def handler(request: web.Request) -> web.Response:
        if "offset" not in request.query:
            return web.json_response([{"id": str(UUID(int=number))} for number in range(100)])
        return web.json_response({"detail": text}, status=status)

    return handler


@pytest.mark.parametrize("status", [400, 404, 416, 422])
async def test_a_server_that_refuses_the_parameters_of_a_page_has_listed_all_users(status: int) -> None:
    """If the first response was an array, and the request for a next page is refused, the array was the whole list."""
    async with serving(second_array(status)) as origin, static_client(origin) as client:
        assert len([user async for user in client.users()]) == 100


@pytest.mark.parametrize("status", [200, 204, 302, 403, 410])
async def test_a_response_that_refuses_no_parameter_does_not_end_the_list(status: int) -> None:
    """If the second response is an object, empty, a redirect or a denial, users may be missing, and an error says so."""
    async with serving(second_array(status)) as origin, static_client(origin) as client:
        with pytest.raises(
            CompletenessError, match=r"may go on, but its page at offset 95 failed: .*: 100 rows delivered \("
        ):
            _ = [user async for user in client.users()]


@pytest.mark.parametrize("is_array", [False, True])
async def test_a_server_that_refuses_the_limit_chooses_its_own(is_array: bool) -> None:
    """If the server refuses a page of 200 users, the list is read in pages of the server's size, and no user is lost."""
    directory = Directory(list(range(450)), is_array=is_array, default_page_size=100, refuses_limit_above=100)
    async with directory.client() as client:
        assert [user.id.int async for user in client.users()] == directory.users


@pytest.mark.parametrize(("size", "page_size"), [(120, 50), (450, 100), (450, 200)])
@pytest.mark.parametrize("removed", [1, 5, 6, 49, 60])
async def test_an_array_that_becomes_shorter_is_read_to_its_new_end(size: int, page_size: int, removed: int) -> None:
    """If the last users of an array are removed between two of its pages, the read ends well, and lists all others."""
    for after in (1, page_size + 1, page_size * 2):
        directory = Directory(list(range(size)), is_array=True, default_page_size=page_size, max_page_size=page_size)
        users = []
        async with directory.client() as client:
            async for user in client.users():
                users.append(user.id.int)
                if len(users) == after:
                    del directory.users[-removed:]
        assert set(directory.users) <= set(users)
        assert len(directory.offsets) <= size // page_size + 8


async def test_short_pages_do_not_end_an_array() -> None:
    """If a server that lists users in arrays leaves some out of a page, or sends one empty page, no other user is lost."""
    dropped = {1, 120, 121, 390, 391}

    def cut(offset: int, page: list[int]) -> list[int]:
        return [] if len(directory.offsets) == 3 else [user for user in page if user not in dropped]

    directory = Directory(list(range(450)), is_array=True, default_page_size=100, max_page_size=100, cut=cut)
    async with directory.client() as client:
        users = [user.id.int async for user in client.users()]
    assert users == [user for user in directory.users if user not in dropped]
    assert directory.offsets[2] == directory.offsets[3]


@pytest.mark.parametrize(
    "cut",
    [
        lambda offset, page: list(range(200, 300)) if offset > 200 else page,
        lambda offset, page: [] if offset > 200 else page,
        lambda offset, page: list(range(200)) if offset else page,
        lambda offset, page: list(range(150)) if offset else page,
        lambda offset, page: [5] * 100 if offset else page,
    ],
    ids=[
        "clamped offsets",
        "empty pages",
        "offsets that are ignored",
        "ignored offsets of a smaller page",
        "a user with hundreds of rows",
    ],
)
async def test_an_array_that_never_shows_its_end_is_not_called_whole(
    cut: Callable[[int, list[int]], list[int]],
) -> None:
    """If the pages of a server of arrays lead no further, an error says that the list may go on, and each user comes once."""
    directory = Directory(list(range(450)), is_array=True, default_page_size=100, max_page_size=100, cut=cut)
    users = []
    async with directory.client() as client:
        with pytest.raises(CompletenessError, match=r"may go on: .* shows neither new users nor the end of the list"):
            async for user in client.users():
                users.append(user.id.int)  # noqa: PERF401
    assert len(users) == len(set(users)) < 450


async def test_a_refused_page_that_must_exist_makes_the_list_incomplete() -> None:
    """If a server of arrays refuses an offset beyond its second page,
    the rest of the list is missing, and an error says so.
    """

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        if offset > 500:
            return web.json_response({"detail": "offset too large"}, status=400)
        return web.json_response([{"id": str(UUID(int=number))} for number in range(offset, offset + 200)])

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(CompletenessError, match="offset too large"):
            assert [user.id.int async for user in client.users()] == []


@pytest.mark.parametrize("status", [302, 403, 404])
async def test_the_page_of_a_gateway_does_not_end_the_list_of_users(status: int) -> None:
    """If a gateway responds to the request for a next page with a page of its own, the list may go on, and an error says so."""

    async def handler(request: web.Request) -> web.Response:
        if "offset" in request.query:
            return web.Response(status=status, text="<html>back soon</html>", content_type="text/html")
        return web.json_response([{"id": str(UUID(int=number))} for number in range(100)])

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(CompletenessError, match="may go on"):
            assert [user async for user in client.users()] == []


async def test_an_array_that_repeats_a_user_is_whole() -> None:
    """An array that lists a user twice causes no error, and each user arrives once."""

    async def handler(_: web.Request) -> web.Response:
        return web.json_response([{"id": str(UUID(int=number))} for number in (1, 2, 1)])

    async with serving(handler) as origin, static_client(origin) as client:
        assert [user.id.int async for user in client.users()] == [1, 2]


@pytest.mark.parametrize("is_array", [False, True])
async def test_a_list_that_changes_too_often_is_not_called_whole(is_array: bool) -> None:
    """If users are removed before each page, and as many added at the end, a `CompletenessError` follows the last one."""
    users = list(range(3000))

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        page = [{"id": str(UUID(int=number))} for number in users[offset : offset + 100]]
        response = web.json_response(page if is_array else {"total": len(users), "items": page})
        if not is_array:
            users.extend(range(users[-1] + 1, users[-1] + 7))
        del users[:6]
        return response

    arrived = set()
    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(CompletenessError, match="users may be missing"):
            async for user in client.users():
                arrived.add(user.id.int)
    assert not arrived >= set(users)


@pytest.mark.parametrize("is_removed", [range(8), range(44, 52)])
async def test_a_list_that_is_shorter_than_the_next_offset_is_read_again(is_removed: range) -> None:
    """If users are removed until the second page is empty, the others still arrive."""

    async def remove(offset: int) -> None:
        if offset and len(directory.users) == 52:
            directory.users = [user for user in directory.users if user not in is_removed]

    directory = Directory(list(range(52)), before_users=remove)
    async with directory.client() as client:
        assert {user.id.int for user in [user async for user in client.users()]} >= set(directory.users)


async def test_a_first_array_that_is_longer_than_the_others_ends_no_list() -> None:
    """If a server cuts arrays at 50 users when a limit is requested, and at 100 otherwise, a gap in its list loses no user."""
    users = list(range(600))

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        if offset > 200 and len(users) == 600:
            del users[10:16]
        page = users[offset : offset + (50 if "limit" in request.query else 100)]
        return web.json_response([{"id": str(UUID(int=number))} for number in page])

    async with serving(handler) as origin, static_client(origin) as client:
        assert {user.id.int for user in [user async for user in client.users()]} >= set(users)


@pytest.mark.parametrize("changed", [[*range(50), *range(51, 101)], list(range(99))])
async def test_a_server_without_pages_may_change_its_array(changed: list[int]) -> None:
    """If a server that ignores the parameters of pages lists another user, or its last one no more, the list is whole."""
    requests = 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return web.json_response(
            [{"id": str(UUID(int=number))} for number in (range(100) if requests == 1 else changed)]
        )

    async with serving(handler) as origin, static_client(origin) as client:
        assert {user.id.int for user in [user async for user in client.users()]} == {*range(100), *changed}


@pytest.mark.parametrize("fails_at", [95, 190])
async def test_a_page_that_may_exist_and_fails_makes_the_list_incomplete(fails_at: int) -> None:
    """If the page after an array fails, all vehicles are read,
    and then a `CompletenessError` names the page and the fault.
    """

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        if request.path.endswith("/electric-vehicles"):
            return web.json_response([{"id": request.path.split("/")[-2]}])
        if request.path.endswith("/sessions"):
            return web.Response(body=page_body())
        if offset == fails_at:
            return web.json_response({"detail": "no such column"}, status=500 if fails_at == 95 else 403)
        return web.json_response([{"id": str(UUID(int=number))} for number in range(offset, offset + 100)])

    message = rf"may go on, but its page at offset {fails_at} failed: .*no such column.*: {fails_at + 5} rows delivered"
    outcomes = []
    async with serving(handler) as origin, static_client(origin) as client, client.fetch_fleet(*DAYS) as fleet:
        with pytest.raises(CompletenessError, match=message):
            async for outcome in fleet:
                outcomes.append(outcome)  # noqa: PERF401
    assert len(outcomes) == fails_at + 5


@pytest.mark.parametrize("page_size", [50, 60, 200])
async def test_a_correct_list_costs_one_request_per_page(page_size: int) -> None:
    """Each page repeats five users, and only a full last page is followed by another, since the total may be too small."""
    for number_of_users, extra in ((page_size + 7, 0), (2 * page_size - 11, 0), (2 * page_size - 10, 1)):
        directory = Directory(list(range(number_of_users)), default_page_size=page_size, max_page_size=page_size)
        async with directory.client() as client:
            assert len([user async for user in client.users()]) == number_of_users
        assert len(directory.offsets) == 2 + extra


async def test_a_page_without_new_users_before_the_end_does_not_end_the_list(caplog: pytest.LogCaptureFixture) -> None:
    """If a page has no new user once, such as from a replica that lags, no user is lost and nothing is logged."""
    directory = Directory(list(range(450)))
    held_back: list[int] = []

    async def lag_once(offset: int) -> None:
        if offset == 45 and not held_back:
            held_back.extend(directory.users[50:])
            directory.users = directory.users[:50]
            directory.total_is_off_by = 400
        elif held_back and len(directory.users) == 50:
            directory.users = directory.users + held_back
            directory.total_is_off_by = 0

    directory.before_users = lag_once
    async with directory.client() as client:
        assert len([user async for user in client.users()]) == 450
    assert directory.offsets == [0, 45, 50, 200, 394]
    assert warnings_of(caplog) == []


async def test_a_total_that_was_stale_once_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """If a later page states the right total, the list is complete."""
    directory = Directory(list(range(60)), total_is_off_by=1)

    async def correct(offset: int) -> None:
        if len(directory.offsets) == 3:
            directory.total_is_off_by = 0

    directory.before_users = correct
    async with directory.client() as client:
        assert len([user async for user in client.users()]) == 60
    assert warnings_of(caplog) == []


async def test_a_user_is_freed_when_the_consumer_drops_it() -> None:
    """A user of a response of 2,000 is freed when the consumer drops it, although the stream goes on."""

    async def handler(_: web.Request) -> web.Response:
        return web.json_response([{"id": str(UUID(int=number))} for number in range(2000)])

    dropped: list[weakref.ref[UUID]] = []
    async with serving(handler) as origin, static_client(origin) as client, aclosing(client.users()) as users:
        for _ in range(1000):
            dropped.append(weakref.ref((await anext(users)).id))  # noqa: PERF401
        assert sum(ref() is not None for ref in dropped) <= 1


@pytest.mark.parametrize("page_size", [20, 50, 200])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("is_array", [False, True])
async def test_users_that_exist_throughout_arrive_while_others_come_and_go(
    page_size: int, seed: int, is_array: bool
) -> None:
    """Between any two requests up to 9 users are removed or added anywhere in the list, and no other user is lost."""
    rng = random.Random(seed)
    directory = Directory(list(range(600)), is_array=is_array, default_page_size=page_size, max_page_size=page_size)
    throughout = set(directory.users)
    added = itertools.count(1000)

    async def move(offset: int) -> None:
        if not 0 < offset < 500 or len(directory.offsets) > 10:
            return
        for _ in range(rng.randrange(10)):
            if rng.random() < 0.7:
                throughout.discard(directory.users.pop(rng.randrange(len(directory.users))))
            else:
                directory.users.insert(rng.randrange(len(directory.users)), next(added))

    directory.before_users = move
    users = []
    async with directory.client() as client:
        with suppress(CompletenessError):  # a user that was added to pages already read may be missing
            async for user in client.users():
                users.append(user.id.int)  # noqa: PERF401
    assert len(users) == len(set(users))
    assert throughout <= set(users)


async def test_a_gap_that_hides_no_user_does_not_end_the_list() -> None:
    """If rows of the first page vanish and the second begins after a gap, all users of a bare array arrive."""

    async def remove(offset: int) -> None:
        if offset > 150 and len(directory.users) == 600:
            del directory.users[10:16]

    directory = Directory(
        list(range(600)), is_array=True, default_page_size=100, max_page_size=100, before_users=remove
    )
    async with directory.client() as client:
        assert {user.id.int for user in [user async for user in client.users()]} >= set(directory.users)


@pytest.mark.parametrize(("number_of_users", "owners"), [(100, 60), (250, 250)])
async def test_a_fleet_with_an_incomplete_list_of_users_yields_every_listed_vehicle_first(
    number_of_users: int, owners: int
) -> None:
    """If the total is one too large, all outcomes arrive, and then every consumer gets the `CompletenessError`."""
    directory = Directory(list(range(number_of_users)), owners=set(range(owners)), total_is_off_by=1)
    async with directory.client() as client:
        async with client.fetch_fleet(*DAYS) as fleet:
            outcomes = []
            for _ in range(2):
                with pytest.raises(CompletenessError, match=f"{number_of_users} rows delivered") as caught:
                    async for outcome in fleet:
                        outcomes.append(outcome)  # noqa: PERF401
                assert (caught.value.delivered, caught.value.total) == (number_of_users, number_of_users + 1)
        assert {type(outcome) for outcome in outcomes} == {VehicleSessions}
        assert len({outcome.vehicle for outcome in outcomes}) == len(outcomes) == fleet.summary.vehicles == owners
        vehicles = []
        with pytest.raises(CompletenessError):
            async for vehicle in client.discover_vehicles():
                vehicles.append(vehicle)  # noqa: PERF401
        assert len(vehicles) == owners


@pytest.mark.slow
@pytest.mark.parametrize(("number_of_users", "page_size"), [(30, 200), (120, 50)])
async def test_a_user_without_a_readable_id_fails_no_other(number_of_users: int, page_size: int) -> None:
    """All vehicles of the other users are read, wherever the user stands in its page,
    and then a `CompletenessError` says so.
    """
    for unreadable in ({0}, {number_of_users // 2, 45}, {number_of_users - 1}):
        directory = Directory(list(range(number_of_users)), without_id=unreadable, max_page_size=page_size)
        readable = set(directory.users) - unreadable
        async with directory.client() as client:
            users, outcomes = [], []
            with pytest.raises(CompletenessError, match=r"a user cannot be read: expected a uuid.* at \$\.items\["):
                async for user in client.users():
                    users.append(user.id.int)  # noqa: PERF401
            with pytest.raises(CompletenessError, match="a user cannot be read"):
                async with client.fetch_fleet(*DAYS) as fleet:
                    async for outcome in fleet:
                        outcomes.append(outcome)  # noqa: PERF401
        assert set(users) == readable
        assert {outcome.vehicle.vehicle_id.int for outcome in outcomes if outcome.vehicle} == readable


async def test_a_vehicle_without_a_readable_id_fails_no_other_of_its_user() -> None:
    """The user's other vehicle is read, and a failure of the user has the path, and no value, of the odd one."""
    directory = Directory(list(range(1, 4)), with_odd_vehicle={2})
    async with directory.client() as client, client.fetch_fleet(*DAYS) as fleet:
        outcomes = [outcome async for outcome in fleet]
        with pytest.raises(DecodeError, match=r"at \$\[0\]\.id .*/electric-vehicles"):
            await client.electric_vehicles(UUID(int=2))
    failed = [outcome for outcome in outcomes if isinstance(outcome, VehicleFailure)]
    assert [(failure.user_id.int, failure.vehicle) for failure in failed] == [(2, None)]
    assert re.search(r"expected a uuid, got another string - at \$\[0\]\.id .*/electric-vehicles", str(failed[0].error))
    assert {outcome.vehicle.vehicle_id.int for outcome in outcomes if outcome.vehicle} == {1, 2, 3}
    assert (fleet.summary.vehicles, fleet.summary.failures, fleet.summary.requests) == (3, 1, 7)


@pytest.mark.parametrize("owners", [1, 63, 64])
async def test_the_first_outcome_comes_before_the_list_of_users_ends(owners: int) -> None:
    """The first outcome arrives although the second page of users is held back until then,
    however few users own a vehicle.
    """
    came = asyncio.Event()

    async def hold_back(offset: int) -> None:
        if offset:
            await came.wait()

    directory = Directory(list(range(400)), owners=set(range(owners)), default_page_size=200, before_users=hold_back)
    async with directory.client() as client, asyncio.timeout(60), client.fetch_fleet(*DAYS) as fleet:
        await anext(fleet)
        came.set()
        assert len([outcome async for outcome in fleet]) == owners - 1


async def test_an_error_of_the_list_of_users_comes_after_the_outcomes_of_the_users_before_it() -> None:
    """If the second page of users is refused, all vehicles of the first page are still read, and discovered."""

    async def refuse(offset: int) -> None:
        if offset:
            raise web.HTTPForbidden(text='{"detail": "not yours"}')

    async def wait() -> None:
        await asyncio.sleep(0.02)  # the second page is refused before any vehicle is listed

    directory = Directory(list(range(400)), default_page_size=200, before_users=refuse, before_vehicles=wait)
    outcomes: Counter[type] = Counter()
    ends = 0

    async with directory.client() as client, client.fetch_fleet(*DAYS) as fleet:

        async def consume() -> None:
            nonlocal ends
            try:
                async for outcome in fleet:
                    outcomes[type(outcome)] += 1
            except PermissionDeniedError:
                ends += 1

        await asyncio.gather(consume(), consume())
        await consume()
        found = []
        with pytest.raises(PermissionDeniedError):
            async for vehicle in client.discover_vehicles():
                found.append(vehicle)  # noqa: PERF401
    assert ends == 3
    assert outcomes == {VehicleSessions: 200}
    assert len(found) == 200


@pytest.mark.parametrize(("count", "requests"), [(300, 5), (250, 4), (100, 2), (99, 2)])
async def test_a_users_vehicles_that_are_cut_at_a_round_number_are_read_on(count: int, requests: int) -> None:
    """If a server cuts a user's list at 100 vehicles, all are found, and a list that is known to be whole costs one request."""
    offsets = []

    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith("/users"):
            return web.json_response({"total": 1, "items": [{"id": str(UUID(int=1)), "num_electric_vehicles": count}]})
        offsets.append(offset := int(request.query.get("offset", 0)))
        vehicles = range(1, count + 1)[offset : offset + 100]
        return web.json_response([{"id": str(UUID(int=number))} for number in vehicles])

    async with serving(handler) as origin, static_client(origin) as client:
        found = [vehicle.vehicle_id.int async for vehicle in client.discover_vehicles()]
        assert found == list(range(1, count + 1))
        assert 1 + len(offsets) == requests
        assert [vehicle.id.int for vehicle in await client.electric_vehicles(UUID(int=1))] == found


async def test_a_list_that_is_repeated_with_an_odd_vehicle_ends() -> None:
    """If a server ignores the offset, and one of ten vehicles has no readable id, the others are found with three requests."""
    requests = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        rows = [{"id": "unknown"}, *({"id": str(UUID(int=number))} for number in range(1, 10))]
        return web.json_response(rows if request.path.endswith("/electric-vehicles") else [{"id": str(UUID(int=1))}])

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(DecodeError):
            await client.electric_vehicles(UUID(int=1))
    assert requests == 3


@pytest.mark.parametrize("removed", [0, 1, 4])
async def test_a_list_of_vehicles_that_changes_is_read_on(removed: int) -> None:
    """If a vehicle is added, or a few are removed, before the second page of a user's list, all others are found."""
    vehicles = list(range(1, 251))

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        if 0 < offset <= 100:
            vehicles[:removed] = [] if removed else [1000]
        return web.json_response([{"id": str(UUID(int=number))} for number in vehicles[offset : offset + 100]])

    async with serving(handler) as origin, static_client(origin) as client:
        found = [vehicle.id.int for vehicle in await client.electric_vehicles(UUID(int=1))]
    assert found == list(range(1, 251))


async def test_a_list_of_vehicles_with_a_gap_is_not_called_whole() -> None:
    """If vehicles are removed until each page repeats none of the one before, the call fails."""
    vehicles = list(range(1, 251))

    async def handler(request: web.Request) -> web.Response:
        offset = int(request.query.get("offset", 0))
        if offset:
            del vehicles[:20]
        return web.json_response([{"id": str(UUID(int=number))} for number in vehicles[offset : offset + 100]])

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(
            CompletenessError, match=r"vehicles may go on: .* rows delivered \(GET .*/electric-vehicles\)"
        ):
            await client.electric_vehicles(UUID(int=1))


async def test_the_page_of_a_gateway_does_not_end_a_list_of_vehicles() -> None:
    """If a gateway responds to the request for a second page of vehicles, the call fails, since there may be more."""

    async def handler(request: web.Request) -> web.Response:
        if "offset" in request.query:
            return web.Response(status=404, text="404 page not found")
        return web.json_response([{"id": str(UUID(int=number))} for number in range(100)])

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(CompletenessError, match="may go on, but its page at offset 95 failed: HTTP 404"):
            await client.electric_vehicles(UUID(int=1))


@pytest.mark.parametrize("status", [200, 404, 422, 403])
async def test_a_server_without_pages_of_vehicles_has_listed_all(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """If a second page is refused or repeats the first, the list was whole, and a warning names the users who have more.

    After another failure, the listed vehicles are found, and the user is a failure.
    """

    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith("/users"):
            users = [{"id": str(UUID(int=number)), "num_electric_vehicles": number + 9} for number in (1, 2, 3)]
            return web.json_response({"total": 3, "items": users})
        if request.path.endswith("/sessions"):
            return web.Response(body=page_body())
        if "offset" in request.query and status != 200:
            return web.json_response({"detail": "unknown parameter"}, status=status)
        user = UUID(request.path.split("/")[-2]).int
        return web.json_response([{"id": str(UUID(int=100 * user + number))} for number in range(10)])

    async with serving(handler) as origin, static_client(origin) as client, client.fetch_fleet(*DAYS) as fleet:
        outcomes = [outcome async for outcome in fleet]
    vehicles = {outcome.vehicle.vehicle_id for outcome in outcomes if outcome.vehicle}
    failed = {
        outcome.user_id.int for outcome in outcomes if isinstance(outcome, VehicleFailure) and not outcome.vehicle
    }
    assert (len(vehicles), failed) == (30, {2, 3} if status == 403 else set())
    names = f"{UUID(int=2)}, {UUID(int=3)}"
    expected = [f"2 users list fewer vehicles than their num_electric_vehicles: {names}"] * (status != 403)
    assert warnings_of(caplog) == expected

"""A user's sessions over all vehicles, and a vehicle's latest session."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from podero_async import (
    AuthenticationError,
    ClientCredentials,
    Completeness,
    CompletenessError,
    DecodeError,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    ThrottlePolicy,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import USER, VEHICLE, client_of, page_body, serving, static_client, wire_row

NOW = datetime.now(UTC).replace(microsecond=0)


def _ago(days: float) -> str:
    return (NOW - timedelta(days=days)).isoformat()


async def test_a_users_sessions_are_those_of_all_vehicles() -> None:
    """Each vehicle of the user has one outcome, in the order of the list of vehicles, with all its sessions, VERIFIED."""
    async with PoderoSimulator(users=1, vehicles=5, sessions_per_vehicle=30) as simulator:
        large = simulator.add_vehicle(simulator.vehicles[0].user_id, sessions=450)
        async with client_of(simulator) as client:
            user = large.user_id
            outcomes = await client.user_sessions(user, simulator.first_day, simulator.last_day)
            vehicles = await client.electric_vehicles(user)
        assert [outcome.vehicle and outcome.vehicle.vehicle_id for outcome in outcomes] == [
            each.id for each in vehicles
        ]
        for outcome in outcomes:
            assert isinstance(outcome, VehicleSessions)
            assert outcome.completeness is Completeness.VERIFIED
            truth = {UUID(row["id"]) for row in simulator.truth(outcome.vehicle)}
            assert {session.id for session in outcome.sessions} == truth
            assert len(outcome.sessions) == len(truth)


async def test_a_user_may_have_many_pages() -> None:
    """The pages of lists that were read make room for those of the next ones: 24 lists of three pages are all read."""
    clamped = Fault(kind="clamped_limit", limit=20)
    async with PoderoSimulator(users=1, vehicles=24, sessions_per_vehicle=45, faults=(clamped,)) as simulator:
        async with client_of(simulator) as client, asyncio.timeout(60):
            days = simulator.first_day, simulator.last_day
            outcomes = await client.user_sessions(simulator.vehicles[0].user_id, *days, include_hidden=True)
    assert [len(outcome.sessions) for outcome in outcomes if isinstance(outcome, VehicleSessions)] == [45] * 24


@pytest.mark.leaping
async def test_a_call_does_not_queue_behind_itself_under_a_low_rate() -> None:
    """At one request per second, six vehicles and a list of five pages are read although each wait ends after 2.5 s."""
    policies = {"throttle": ThrottlePolicy(requests_per_second=1), "retry": RetryPolicy(max_elapsed=2.5)}
    async with PoderoSimulator(users=1, vehicles=6, sessions_per_vehicle=1) as simulator:
        days = simulator.first_day, simulator.last_day
        user = simulator.vehicles[0].user_id
        async with client_of(simulator, **policies) as client:
            outcomes = await client.user_sessions(user, *days, include_hidden=True)
            assert [len(outcome.sessions) for outcome in outcomes if isinstance(outcome, VehicleSessions)] == [1] * 6
            large = simulator.add_vehicle(user, sessions=900)
            days = simulator.first_day, simulator.last_day
            whole = await client.vehicle_sessions(user, large.vehicle_id, *days, include_hidden=True)
            assert len(whole.sessions) == 900


async def test_a_vehicle_without_a_readable_id_fails_alone_and_one_listed_twice_is_read_once() -> None:
    """A vehicle without an id is a failure beside the user's other vehicles, each read once; alone, its error is raised."""
    listed = [{"id": str(VEHICLE)}, {"id": None}, {"id": str(VEHICLE)}]

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/sessions"):
            return web.Response(body=page_body(wire_row(1)), content_type="application/json")
        return web.json_response(listed)

    async with serving(answer) as origin, static_client(origin) as client:
        read, failure = await client.user_sessions(USER, NOW.date(), NOW.date())
        assert isinstance(read, VehicleSessions)
        assert isinstance(failure, VehicleFailure)
        assert (failure.vehicle, type(failure.error)) == (None, DecodeError)
        listed[:] = [{"id": None}]
        with pytest.raises(DecodeError):
            await client.user_sessions(USER, NOW.date(), NOW.date())


async def test_a_users_failing_vehicle_does_not_fail_the_others() -> None:
    """One vehicle's error is a failure with its requests, and the other vehicles' sessions arrive."""
    async with PoderoSimulator(users=1, vehicles=3, sessions_per_vehicle=5) as simulator:
        broken = simulator.vehicles[1]
        simulator.add_fault(Fault(kind="status", status=500, rate=1.0, vehicle=broken))
        async with client_of(simulator) as client:
            outcomes = await client.user_sessions(broken.user_id, simulator.first_day, simulator.last_day)
    (failure,) = (outcome for outcome in outcomes if isinstance(outcome, VehicleFailure))
    assert failure.vehicle == broken
    assert isinstance(failure.error, ServerError)
    assert failure.requests == failure.retries + 1 > 1
    assert sum(isinstance(outcome, VehicleSessions) for outcome in outcomes) == 2


@pytest.mark.leaping
@pytest.mark.parametrize(("pauses", "read"), [(False, 2), (True, 1)])
async def test_a_vehicle_that_gets_no_slot_in_time_does_not_fail_the_others(pauses: bool, read: int) -> None:
    """If the queue or a pause is too long for a vehicle, that is its failure, and the vehicles read before it arrive."""
    vehicles = [str(UUID(int=number)) for number in range(11, 15)]

    async def answer(request: web.Request) -> web.Response:
        if not request.path.endswith("/sessions"):
            return web.json_response([{"id": vehicle} for vehicle in vehicles])
        await asyncio.sleep(0.4)
        if pauses and vehicles[1] in request.path:
            return web.json_response({}, status=429, headers={"Retry-After": "6"})
        return web.Response(body=page_body(wire_row(1)), content_type="application/json")

    policies = {"throttle": ThrottlePolicy(max_concurrency=1), "retry": RetryPolicy(max_elapsed=1)}
    async with serving(answer) as origin, static_client(origin, **policies) as client:
        outcomes = await client.user_sessions(USER, NOW.date(), NOW.date())
    failures = outcomes[read:]
    assert [type(outcome) for outcome in outcomes] == [VehicleSessions] * read + [VehicleFailure] * len(failures)
    error = failures[-1].error  # type: ignore[union-attr]  # a failure
    assert isinstance(error, RateLimitError)
    assert error.attempts == 0


async def test_a_users_shared_error_is_raised(simulator: PoderoSimulator) -> None:
    """An unknown user is a `NotFoundError`, and refused credentials are an `AuthenticationError`, without any outcome."""
    days = simulator.first_day, simulator.last_day
    async with client_of(simulator) as client:
        with pytest.raises(NotFoundError):
            await client.user_sessions(UUID(int=1), *days)
    credentials = ClientCredentials(simulator.client_id, "wrong")
    async with client_of(simulator, credentials=credentials) as client:
        with pytest.raises(AuthenticationError):
            await client.user_sessions(simulator.vehicles[0].user_id, *days)


async def test_a_user_without_vehicles_has_no_outcome(simulator: PoderoSimulator) -> None:
    """The outcomes of a user without vehicles are an empty list."""
    async with client_of(simulator) as client:
        user = simulator.add_vehicle().user_id
        simulator.remove_vehicle(next(each for each in simulator.vehicles if each.user_id == user))
        assert await client.user_sessions(user, simulator.first_day, simulator.last_day) == []


def _rows(*days: float) -> list[dict[str, Any]]:
    return [
        wire_row(number, plug_in_time=_ago(day), unplug_time=_ago(day - 0.01)) for number, day in enumerate(days, 1)
    ]


@pytest.mark.parametrize(
    ("days", "latest", "requests"),
    [
        ((20, 3, 29), 2, 1),  # in any order of the list
        ((0.001,), 1, 1),
        ((200, 90), 2, 2),
        ((400,), None, 2),
        ((), None, 2),
    ],
)
async def test_the_latest_session_is_the_last_one_plugged_in(
    days: tuple[float, ...], latest: int | None, requests: int
) -> None:
    """The session with the latest plug-in comes back after one request if the last month has one, otherwise after two."""
    vehicle = VehicleRef(user_id=USER, vehicle_id=VEHICLE)
    async with PoderoSimulator(rows={vehicle: _rows(*days)}) as simulator, client_of(simulator) as client:
        session = await client.latest_session(USER, VEHICLE)
        assert (session and session.id.int) == latest
        assert simulator.counts.requests["sessions"] == requests


async def test_the_latest_session_of_few_days_takes_one_request() -> None:
    """`days` is the number of UTC days that are looked at, today included."""
    vehicle = VehicleRef(user_id=USER, vehicle_id=VEHICLE)
    async with PoderoSimulator(rows={vehicle: _rows(7.0)}) as simulator, client_of(simulator) as client:
        assert await client.latest_session(USER, VEHICLE, days=7) is None
        assert await client.latest_session(USER, VEHICLE, days=8) is not None
        assert simulator.counts.requests["sessions"] == 2
        for days in (0, 3651, 7.0, True):
            with pytest.raises(ValueError, match="days must be"):
                await client.latest_session(USER, VEHICLE, days=days)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (page_body(*_rows(3.0), total=2), CompletenessError),
        (page_body(*_rows(3.0), {**_rows(4.0, 2.0)[1], "is_at_home": "yes"}), DecodeError),
    ],
    ids=["unproven", "unreadable"],
)
async def test_a_latest_session_that_may_not_be_the_latest_is_an_error(body: bytes, error: type[Exception]) -> None:
    """If the list cannot be proven complete, or has an unreadable row, an error is raised instead of an older session."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async with serving(answer) as origin, static_client(origin) as client:
        with pytest.raises(error):
            await client.latest_session(USER, VEHICLE)

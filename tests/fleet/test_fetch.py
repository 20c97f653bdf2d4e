"""The client over real sockets: whole fleets, single vehicles and the other endpoints, with and without faults."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import re
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from podero_async import (
    AuthenticationError,
    ChargingSession,
    ClientCredentials,
    Completeness,
    CompletenessError,
    DecodeError,
    NotFoundError,
    PasswordCredentials,
    PermissionDeniedError,
    PoderoClient,
    ServerError,
    ThrottlePolicy,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)
from podero_async._decode import decode_page
from podero_async.testing import Fault, PageRequest, PoderoSimulator
from tests._support.clients import ORG, QUICK, client_of, page_body, serving, static_client, wire_row

Outcome = VehicleSessions | VehicleFailure
DAYS = date(2026, 1, 1), date(2026, 1, 31)


def all_days(simulator: PoderoSimulator, **options: Any) -> dict[str, Any]:
    return {"from_date": simulator.first_day, "to_date": simulator.last_day, **options}


async def outcomes_of(simulator: PoderoSimulator, client: PoderoClient, **options: Any) -> list[Outcome]:
    async with client.fetch_fleet(**all_days(simulator, **options)) as fleet:
        return [outcome async for outcome in fleet]


def assert_complete(simulator: PoderoSimulator, outcomes: list[Outcome], *, include_hidden: bool = False) -> None:
    """Check that every vehicle has an outcome with all its sessions, each once and field by field."""
    assert {outcome.vehicle for outcome in outcomes} == set(simulator.vehicles)
    for outcome in outcomes:
        assert isinstance(outcome, VehicleSessions)
        truth = decode_page(page_body(*simulator.truth(outcome.vehicle, include_hidden=include_hidden)))
        assert sorted(outcome.sessions, key=by_id) == sorted(truth.items, key=by_id)
        assert outcome.completeness is not Completeness.UNPROVEN


def by_id(session: ChargingSession) -> UUID:
    return session.id


# --- the fleet --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("include_hidden", [False, True])
async def test_a_fleet_is_fetched_whole_and_counted(include_hidden: bool) -> None:
    """Every session arrives once and unchanged, and the summary counts the sessions and all requests but the token's."""
    async with PoderoSimulator(users=12, vehicles=9, sessions_per_vehicle=(0, 450), seed=3) as simulator:
        async with client_of(simulator) as client:
            async with client.fetch_fleet(**all_days(simulator, include_hidden=include_hidden)) as fleet:
                outcomes = [outcome async for outcome in fleet]
                assert [outcome async for outcome in fleet] == []
            summary = fleet.summary
    assert_complete(simulator, outcomes, include_hidden=include_hidden)
    assert (summary.vehicles, summary.verified, summary.failures) == (9, 9, 0)
    assert summary.sessions == sum(
        len(outcome.sessions) for outcome in outcomes if isinstance(outcome, VehicleSessions)
    )
    assert summary.requests == simulator.counts.total_requests - 1
    assert (summary.retries, summary.pauses, summary.rejected) == (0, 0, 0)
    assert summary.seconds > 0


async def test_users_without_vehicles_cost_no_request() -> None:
    """Only users with vehicles cost a request for their vehicles."""
    async with PoderoSimulator(users=30, vehicles=4, sessions_per_vehicle=5) as simulator:
        async with client_of(simulator) as client:
            assert_complete(simulator, await outcomes_of(simulator, client))
        assert simulator.counts.requests["vehicles"] == len({vehicle.user_id for vehicle in simulator.vehicles})


@pytest.mark.parametrize("kind", ["list", "iterator", "async iterator"])
async def test_vehicles_come_from_any_kind_of_iterable(simulator: PoderoSimulator, kind: str) -> None:
    """If vehicles are given, as a list, an iterator or an async iterator, nothing is discovered."""
    some = simulator.vehicles[:4]

    def iterator() -> Iterator[VehicleRef]:
        yield from some

    async def async_iterator() -> AsyncIterator[VehicleRef]:
        for vehicle in some:
            await asyncio.sleep(0)
            yield vehicle

    vehicles = {"list": some, "iterator": iterator(), "async iterator": async_iterator()}[kind]
    async with client_of(simulator) as client:
        outcomes = await outcomes_of(simulator, client, vehicles=vehicles)
    assert {outcome.vehicle for outcome in outcomes} == set(some)
    assert simulator.counts.requests["users"] == 0


async def test_an_error_of_the_callers_iterable_is_raised(simulator: PoderoSimulator) -> None:
    """If the caller's own iterable raises an error, the iteration raises it."""

    def broken() -> Iterator[VehicleRef]:
        yield simulator.vehicles[0]
        raise KeyError("the caller's own")

    async with client_of(simulator) as client:
        with pytest.raises(KeyError, match="own"):
            await outcomes_of(simulator, client, vehicles=broken())


@pytest.mark.parametrize("kind", ["generator", "iterable"])
async def test_an_async_generator_of_vehicles_is_closed_when_the_fetch_is_left(
    simulator: PoderoSimulator, kind: str
) -> None:
    """If a fetch is left early, what its source of vehicles has started has ended, although the caller keeps the source."""
    ended = False

    async def endless() -> AsyncIterator[VehicleRef]:
        nonlocal ended
        try:
            while True:
                yield simulator.vehicles[0]
        finally:
            await asyncio.sleep(0)
            ended = True

    class Endless:
        def __aiter__(self) -> AsyncIterator[VehicleRef]:
            return endless()

    vehicles = endless() if kind == "generator" else Endless()
    async with client_of(simulator) as client:
        async with client.fetch_fleet(**all_days(simulator, vehicles=vehicles)) as fleet:
            await anext(fleet)
        assert ended


async def test_faults_of_all_kinds_lose_nothing() -> None:
    """A fleet is complete after failed, throttled, broken, truncated and unauthorized responses."""
    faults = [
        Fault(kind="status", status=503, nth=(2, 13, 31)),
        Fault(kind="status", status=429, headers={"Retry-After": "0"}, nth=(5, 27)),
        Fault(kind="reset", nth=(7, 19, 38)),
        Fault(kind="reset", after_bytes=500, nth=(3, 12), endpoint="sessions"),
        Fault(kind="truncated", nth=(5, 9, 16), endpoint="sessions"),
        Fault(kind="malformed_json", nth=(9, 22)),
        Fault(kind="empty", nth=(11, 24)),
        Fault(kind="token_revoked", nth=(16, 36)),
    ]
    async with PoderoSimulator(
        users=15, vehicles=20, sessions_per_vehicle=(0, 300), seed=5, faults=faults
    ) as simulator:
        async with client_of(simulator) as client:
            async with client.fetch_fleet(**all_days(simulator)) as fleet:
                outcomes = [outcome async for outcome in fleet]
            assert_complete(simulator, outcomes)
            assert fleet.summary.retries > 10
            assert set(simulator.counts.faults) == {fault.kind for fault in faults}


@pytest.mark.slow
async def test_lists_that_change_while_they_are_read_lose_nothing() -> None:
    """Every session that exists throughout the read arrives once, while rows are inserted and removed between pages."""
    rng = random.Random(1)

    def move(request: PageRequest) -> None:
        if rng.random() < 0.5:
            simulator.insert(request.vehicle)
        if rng.random() < 0.5:
            gone = rng.choice(simulator.truth(request.vehicle))["id"]
            simulator.remove(request.vehicle, gone)
            throughout[request.vehicle].discard(gone)

    async with PoderoSimulator(users=2, vehicles=2, sessions_per_vehicle=1200, seed=5) as simulator:
        throughout = {vehicle: {row["id"] for row in simulator.truth(vehicle)} for vehicle in simulator.vehicles}
        simulator.before_page = move
        async with client_of(simulator) as client:
            outcomes = await outcomes_of(simulator, client)
    for outcome in outcomes:
        assert isinstance(outcome, VehicleSessions)
        ids = [str(session.id) for session in outcome.sessions]
        assert outcome.vehicle is not None
        assert throughout[outcome.vehicle] <= set(ids)
        assert len(ids) == len(set(ids))
        assert outcome.completeness is not Completeness.UNPROVEN


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (Fault(kind="unstable_order", rate=1.0), Completeness.REPAIRED),
        (Fault(kind="clamped_limit", limit=60, rate=1.0), Completeness.VERIFIED),
    ],
    ids=["unordered", "short pages"],
)
async def test_unusual_lists_are_complete(fault: Fault, verdict: Completeness) -> None:
    """A list that has another order at each request is REPAIRED, and one with pages shorter than requested is VERIFIED."""
    async with PoderoSimulator(users=1, vehicles=2, sessions_per_vehicle=900, faults=[fault]) as simulator:
        async with client_of(simulator) as client:
            outcomes = await outcomes_of(simulator, client)
    assert_complete(simulator, outcomes)
    assert {outcome.completeness for outcome in outcomes if isinstance(outcome, VehicleSessions)} == {verdict}


async def test_unreadable_rows_are_kept_on_rejected() -> None:
    """If rows cannot be read, each is a rejected item with the path of its error, and no row is missing."""
    faults = [Fault(kind="malformed_row", field="energy_charged_kwh", rate=1.0)]
    async with PoderoSimulator(users=1, vehicles=3, sessions_per_vehicle=(30, 450), seed=2, faults=faults) as simulator:
        async with client_of(simulator) as client:
            async with client.fetch_fleet(**all_days(simulator)) as fleet:
                outcomes = [outcome async for outcome in fleet]
            assert fleet.summary.rejected >= 3
            for outcome in outcomes:
                assert isinstance(outcome, VehicleSessions)
                delivered = {str(session.id) for session in outcome.sessions} | {
                    item.raw["id"] for item in outcome.rejected
                }
                assert delivered == {row["id"] for row in simulator.truth(outcome.vehicle)}
                assert all(item.path == "$.energy_charged_kwh" for item in outcome.rejected)


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_one_vehicles_failure_is_a_value(simulator: PoderoSimulator) -> None:
    """If two vehicles fail, they are two failures in the stream, and the other nine arrive."""
    stranger = VehicleRef(user_id=simulator.vehicles[0].user_id, vehicle_id=UUID(int=1))
    simulator.add_fault(Fault(kind="status", status=500, rate=1.0, vehicle=simulator.vehicles[3]))
    async with client_of(simulator) as client:
        async with client.fetch_fleet(**all_days(simulator, vehicles=[stranger, *simulator.vehicles])) as fleet:
            outcomes = [outcome async for outcome in fleet]
    failures = {outcome.vehicle: outcome for outcome in outcomes if isinstance(outcome, VehicleFailure)}
    assert {type(failure.error) for failure in failures.values()} == {NotFoundError, ServerError}
    assert failures[stranger].requests == 1
    assert failures[simulator.vehicles[3]].retries == QUICK.max_attempts - 1
    summary = fleet.summary
    assert (summary.vehicles, summary.failures) == (9, 2)
    assert (summary.requests, summary.retries) == (simulator.counts.total_requests - 1, QUICK.max_attempts - 1)


async def test_a_user_with_an_unreadable_list_of_vehicles_is_a_failure() -> None:
    """If a user's vehicles cannot be listed, the fetch yields a failure with the external id, and discovery raises the error."""
    fault = Fault(kind="status", status=403, nth=1, endpoint="vehicles")
    async with PoderoSimulator(users=5, vehicles=10, sessions_per_vehicle=5) as simulator:
        async with client_of(simulator) as client:
            simulator.add_fault(fault)
            async with client.fetch_fleet(**all_days(simulator)) as fleet:
                outcomes = [outcome async for outcome in fleet]
            (failure,) = (outcome for outcome in outcomes if isinstance(outcome, VehicleFailure))
            assert failure.vehicle is None
            user = await client.user_by_external_id(str(failure.external_user_id))
            assert user.id == failure.user_id
            others = {vehicle for vehicle in simulator.vehicles if vehicle.user_id != failure.user_id}
            assert {outcome.vehicle for outcome in outcomes if isinstance(outcome, VehicleSessions)} == others
            assert (fleet.summary.failures, fleet.summary.vehicles) == (1, len(others))
            assert fleet.summary.requests == simulator.counts.total_requests - 2
            simulator.clear_faults()
            simulator.add_fault(fault)
            with pytest.raises(PermissionDeniedError):
                _ = [vehicle async for vehicle in client.discover_vehicles()]


async def test_refused_credentials_end_the_fetch_at_once(simulator: PoderoSimulator) -> None:
    """If the secret is wrong, an `AuthenticationError` with the OAuth error code is raised before any vehicle is read."""
    wrong = ClientCredentials(simulator.client_id, "wrong")
    async with client_of(simulator, credentials=wrong) as client:
        for vehicles in (None, simulator.vehicles):
            with pytest.raises(AuthenticationError, match="invalid_client"):
                await outcomes_of(simulator, client, vehicles=vehicles)
    assert simulator.counts.requests["sessions"] == 0


async def test_a_list_of_users_that_cannot_be_read_ends_the_fetch(simulator: PoderoSimulator) -> None:
    """An error of the list of users is raised, since the fleet is not known without it."""
    simulator.add_fault(Fault(kind="status", status=404, rate=1.0, endpoint="users"))
    async with client_of(simulator) as client:
        with pytest.raises(NotFoundError):
            await outcomes_of(simulator, client)


@pytest.mark.leaping
async def test_a_token_that_only_one_endpoint_refuses_fails_its_calls(simulator: PoderoSimulator) -> None:
    """If the server refuses to list vehicles, but accepts the token elsewhere, each user is a failure."""
    simulator.add_fault(Fault(kind="status", status=401, rate=1.0, endpoint="vehicles"))
    async with client_of(simulator) as client:
        outcomes = await outcomes_of(simulator, client)
    assert {type(outcome.error) for outcome in outcomes if isinstance(outcome, VehicleFailure)} == {AuthenticationError}
    assert len(outcomes) == len({vehicle.user_id for vehicle in simulator.vehicles})
    assert simulator.counts.tokens_issued == 1


@pytest.mark.leaping
async def test_a_token_that_every_endpoint_refuses_ends_the_fetch(simulator: PoderoSimulator) -> None:
    """If the server refuses the token, and a new one, for a request that it accepted before, the fetch ends."""
    simulator.add_fault(Fault(kind="status", status=401, rate=1.0, endpoint="vehicles"))
    simulator.add_fault(Fault(kind="status", status=401, nth=set(range(2, 100)), endpoint="users"))
    async with client_of(simulator) as client:
        with pytest.raises(AuthenticationError):
            await outcomes_of(simulator, client)
    assert simulator.counts.tokens_issued == 2


# --- the context ------------------------------------------------------------------------------------------------------


async def test_a_fetch_is_entered_once_and_iterated_inside(simulator: PoderoSimulator) -> None:
    """Iterating before the context and entering it twice raise a `RuntimeError`; after the context nothing comes."""
    async with client_of(simulator) as client:
        fleet = client.fetch_fleet(**all_days(simulator))
        assert fleet.summary.seconds == 0
        with pytest.raises(RuntimeError, match="async with"):
            await anext(fleet)
        async with fleet:
            with pytest.raises(RuntimeError, match="once"):
                async with fleet:
                    pass
        with pytest.raises(StopAsyncIteration):
            await anext(fleet)


async def test_the_repr_shows_the_live_state(simulator: PoderoSimulator) -> None:
    """The repr has the outcomes so far, the client's requests in flight, and whether the fetch has finished."""
    stranger = VehicleRef(user_id=simulator.vehicles[0].user_id, vehicle_id=UUID(int=1))
    async with client_of(simulator, throttle=ThrottlePolicy(max_concurrency=1)) as client:
        fleet = client.fetch_fleet(**all_days(simulator, vehicles=[stranger, *simulator.vehicles]))
        assert repr(fleet) == "<FleetFetch not entered: vehicles=0, failures=0, in_flight=0>"
        async with fleet:
            await anext(fleet)
            assert re.fullmatch(r"<FleetFetch running: vehicles=0, failures=1, in_flight=[01]>", repr(fleet))
            assert len([outcome async for outcome in fleet]) == 10
            assert repr(fleet) == "<FleetFetch finished: vehicles=10, failures=1, in_flight=0>"


async def test_a_fetch_runs_on_a_loop_whose_clock_is_at_zero(
    simulator: PoderoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch that is entered when the loop's clock shows 0.0 is running, and is entered once."""
    async with client_of(simulator) as client:
        fleet = client.fetch_fleet(**all_days(simulator))
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "time", lambda: 0.0)
            await fleet.__aenter__()
        assert "running" in repr(fleet)
        with pytest.raises(RuntimeError, match="once"):
            await fleet.__aenter__()
        assert len([outcome async for outcome in fleet]) == 10
        assert fleet.summary.seconds > 0
        await fleet.__aexit__(None, None, None)


async def test_a_fetch_that_is_never_left_warns(simulator: PoderoSimulator) -> None:
    """When a fetch was entered by hand and is dropped without being left, it emits a `ResourceWarning`."""
    async with client_of(simulator) as client:
        fleet = await client.fetch_fleet(**all_days(simulator)).__aenter__()
        assert len([outcome async for outcome in fleet]) == 10
        with pytest.warns(ResourceWarning, match="never left"):  # noqa: PT031  # a collection may come at any time
            del fleet
            gc.collect()


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_slow_consumer_slows_the_fetch() -> None:
    """While the consumer takes nothing, the fetch stops pulling vehicles and sending requests."""
    pulled = 0

    def endless() -> Iterator[VehicleRef]:
        nonlocal pulled
        for vehicle in itertools.cycle(simulator.vehicles):
            pulled += 1
            yield vehicle

    async with PoderoSimulator(users=1, vehicles=100, sessions_per_vehicle=1) as simulator:
        async with client_of(simulator, throttle=ThrottlePolicy(max_concurrency=4)) as client:
            async with client.fetch_fleet(**all_days(simulator, vehicles=endless())) as fleet:
                await anext(fleet)
                await asyncio.sleep(0.05)
                assert simulator.counts.requests["sessions"] <= pulled < 40
                for _ in range(200):
                    await anext(fleet)


async def test_discovery_and_fetching_overlap() -> None:
    """The first outcome arrives before the vehicles of most users have been requested."""
    async with PoderoSimulator(users=300, vehicles=300, sessions_per_vehicle=1) as simulator:
        async with client_of(simulator, throttle=ThrottlePolicy(max_concurrency=4)) as client:
            async with client.fetch_fleet(**all_days(simulator)) as fleet:
                await anext(fleet)
                assert simulator.counts.requests["vehicles"] < 100


async def test_a_list_that_hangs_does_not_stop_the_others() -> None:
    """While one list hangs and another fills the memory budget, the other lists of several pages are read."""
    hangs = asyncio.Event()
    vehicles = [VehicleRef(user_id=ORG, vehicle_id=UUID(int=number)) for number in range(1, 9)]

    async def handler(request: web.Request) -> web.Response:
        number, offset = UUID(request.path.split("/")[-2]).int, int(request.query["offset"])
        if number == 1 and offset:
            await hangs.wait()
        rows = [wire_row(row) for row in range(offset, min({2: 3400}.get(number, 450), offset + 200))]
        return web.Response(body=page_body(*rows, total={2: 3400}.get(number, 450)))

    async with serving(handler) as origin, static_client(origin, throttle=ThrottlePolicy(max_concurrency=8)) as client:
        async with asyncio.timeout(60), client.fetch_fleet(*DAYS, vehicles) as fleet:
            outcomes = [await anext(fleet) for _ in vehicles[1:]]
            assert {outcome.vehicle for outcome in outcomes} == set(vehicles[1:])
            hangs.set()
            assert (await anext(fleet)).vehicle == vehicles[0]


@pytest.mark.parametrize("rows", [10, 230])
async def test_a_total_that_is_far_too_high_takes_no_large_share_of_the_memory(rows: int) -> None:
    """If the server counts 50,000 sessions for each vehicle, several are read at once, although one of them hangs."""
    hangs = asyncio.Event()
    requests = dict.fromkeys(range(1, 5), 0)
    vehicles = [VehicleRef(user_id=ORG, vehicle_id=UUID(int=number)) for number in requests]

    async def handler(request: web.Request) -> web.Response:
        number, offset = UUID(request.path.split("/")[-2]).int, int(request.query["offset"])
        requests[number] += 1
        if number == 1 and requests[1] == 3:  # more would take all slots
            await hangs.wait()
        shown = [wire_row(row) for row in range(offset, min(rows, offset + 200))] if offset < rows else []
        return web.Response(body=page_body(*shown, total=50_000))

    async with serving(handler) as origin, static_client(origin, throttle=ThrottlePolicy(max_concurrency=8)) as client:
        async with asyncio.timeout(60), client.fetch_fleet(*DAYS, vehicles) as fleet:
            outcomes = [await anext(fleet) for _ in vehicles[1:]]
            assert {outcome.vehicle for outcome in outcomes} == set(vehicles[1:])
            hangs.set()
            await anext(fleet)
    assert all(len(outcome.sessions) == rows for outcome in outcomes if isinstance(outcome, VehicleSessions))
    assert fleet.summary.unproven == len(vehicles)


# --- one vehicle ------------------------------------------------------------------------------------------------------


async def test_one_vehicle_is_the_same_whole_and_as_a_stream() -> None:
    """`vehicle_sessions` and `sessions` give the same sessions, in the server's order, from as many pages as needed."""
    async with PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=1000) as simulator:
        (vehicle,) = simulator.vehicles
        ids = (vehicle.user_id, str(vehicle.vehicle_id))
        async with client_of(simulator) as client:
            got = await client.vehicle_sessions(*ids, **all_days(simulator))
            assert_complete(simulator, [got])
            streamed = [session async for session in client.sessions(*ids, **all_days(simulator))]
            assert streamed == got.sessions
            times = [session.plug_in_time for session in streamed]
            assert times == sorted(times, reverse=True)
            assert got.total == len(streamed)
            assert got.requests == 5 + (len(streamed) > 975)


async def test_an_unproven_stream_raises_after_its_last_row() -> None:
    """A stream that could not be proven complete delivers every row it read and then raises `CompletenessError`."""
    rows = [wire_row(number) for number in range(1, 401)]
    for row in rows:
        row["plug_in_time"] = f"2026-01-01T{int(row['id'][-3:], 16) % 24:02}:00:00Z"
    simulator_rows = {VehicleRef(user_id=UUID(int=5), vehicle_id=UUID(int=6)): rows}
    faults = [Fault(kind="unstable_order", rate=1.0)]
    async with PoderoSimulator(rows=simulator_rows, faults=faults) as simulator, client_of(simulator) as client:
        delivered = []
        with pytest.raises(CompletenessError) as caught:
            async for session in client.sessions(UUID(int=5), UUID(int=6), **all_days(simulator)):
                delivered.append(session.id)  # noqa: PERF401
        assert len(delivered) == len(set(delivered)) == caught.value.delivered
        assert caught.value.total == 400
        got = await client.vehicle_sessions(UUID(int=5), UUID(int=6), **all_days(simulator))
        assert got.completeness is Completeness.UNPROVEN


async def test_an_unreadable_row_raises_unless_the_caller_takes_it() -> None:
    """`keep_rejected` and `on_rejected` take unreadable rows; without them a call raises `DecodeError` with the path."""

    async def handler(_: Any) -> Any:
        return web.Response(body=page_body(wire_row(1), wire_row(2, is_at_home=5), wire_row(3)))

    async with serving(handler) as origin, static_client(origin) as client:
        arguments = (ORG, ORG, *DAYS)
        with pytest.raises(DecodeError) as caught:
            await client.list_sessions(*arguments)
        assert (caught.value.json_path, caught.value.index) == ("$.items[1].is_at_home", 1)
        page = await client.list_sessions(*arguments, keep_rejected=True)
        assert (len(page.items), page.rejected[0].index) == (2, 1)
        with pytest.raises(DecodeError):
            _ = [session async for session in client.sessions(*arguments)]
        rejected: list[Any] = []
        assert len([session async for session in client.sessions(*arguments, on_rejected=rejected.append)]) == 2
        assert [item.index for item in rejected] == [1]


# --- the other endpoints ----------------------------------------------------------------------------------------------


async def test_one_page_of_a_list(simulator: PoderoSimulator) -> None:
    """`list_sessions` returns the page at an offset; by default it asks for 50 rows without the hidden ones."""
    vehicle = simulator.vehicles[0]
    async with client_of(simulator) as client:
        truth = simulator.truth(vehicle, include_hidden=True)
        page = await client.list_sessions(
            vehicle.user_id, vehicle.vehicle_id, **all_days(simulator), limit=7, offset=5, include_hidden=True
        )
        assert page.total == len(truth)
        assert {str(session.id) for session in page.items} <= {row["id"] for row in truth}
        assert len(page.items) == 7
        default = await client.list_sessions(vehicle.user_id, vehicle.vehicle_id, **all_days(simulator))
        assert not any(session.is_hidden for session in default.items)
        assert simulator.requests[-1].query["limit"] == "50"


async def test_users_vehicles_and_the_current_session(simulator: PoderoSimulator) -> None:
    """Users, a user by external id, vehicles and the current session equal the server's; no current session is None."""
    async with client_of(simulator) as client:
        users = [user async for user in client.users()]
        assert len(users) == 8
        user = next(user for user in users if user.external_user_id and user.num_electric_vehicles)
        assert await client.user_by_external_id(user.external_user_id or "") == user
        vehicles = await client.electric_vehicles(user.id)
        assert len(vehicles) == user.num_electric_vehicles
        with pytest.raises(NotFoundError) as caught:
            await client.user_by_external_id("nobody/../x@example.com")
        assert "nobody" not in str(caught.value)
        assert {vehicle async for vehicle in client.discover_vehicles()} == set(simulator.vehicles)
        ref = simulator.vehicles[0]
        simulator.set_current(ref, wire_row())
        live = await client.current_session(ref.user_id, ref.vehicle_id)
        assert live is not None
        assert live.id.int == 1
        simulator.set_current(ref, None)
        assert await client.current_session(ref.user_id, ref.vehicle_id) is None


async def test_deleted_users_are_read_on_request(simulator: PoderoSimulator) -> None:
    """A deleted user is listed, and found by external id, only with `include_deleted`."""
    async with client_of(simulator) as client:
        users = [user async for user in client.users()]
        deleted = next(user for user in users if user.external_user_id)
        simulator.delete_user(deleted.id)
        assert deleted.id not in {user.id async for user in client.users()}
        assert deleted.id in {user.id async for user in client.users(include_deleted=True)}
        with pytest.raises(NotFoundError):
            await client.user_by_external_id(deleted.external_user_id or "")
        found = await client.user_by_external_id(deleted.external_user_id or "", include_deleted=True)
        assert found.id == deleted.id


async def test_a_list_of_users_without_progress_is_an_error() -> None:
    """If the server ignores the offset, the stream ends with `CompletenessError`."""

    async def handler(_: Any) -> Any:
        return web.json_response({"total": 9, "items": [{"id": str(UUID(int=1))}]})

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(CompletenessError, match="before its total"):
            _ = [user async for user in client.users()]


async def test_a_password_client_reads_a_fleet(simulator: PoderoSimulator) -> None:
    """A fleet is fetched with a user name and a password."""
    credentials = PasswordCredentials(simulator.username, simulator.password)
    async with client_of(simulator, credentials=credentials) as client:
        assert_complete(simulator, await outcomes_of(simulator, client))


@pytest.mark.parametrize("style", ["json", "basic", "form"])
@pytest.mark.parametrize("unsupported_status", [400, 404, 405, 415, 422])
async def test_every_token_endpoint_style_is_found(style: Any, unsupported_status: Any) -> None:
    """One token is issued by a server with only one of the three styles, however it refuses the others."""
    async with PoderoSimulator(
        users=1, vehicles=1, sessions_per_vehicle=1, token_styles={style}, unsupported_status=unsupported_status
    ) as simulator:
        async with client_of(simulator) as client:
            assert_complete(simulator, await outcomes_of(simulator, client))
    assert simulator.counts.tokens_issued == 1


@pytest.mark.leaping
async def test_no_call_meets_an_expired_token() -> None:
    """Under load, tokens that live for 20 s are renewed in time: no response is a 401."""
    clock = asyncio.get_running_loop().time
    faults = [Fault(kind="token_expiring", seconds=20, rate=1.0)]
    served = PoderoSimulator(users=20, vehicles=150, sessions_per_vehicle=2, faults=faults, latency_s=1.0, clock=clock)
    async with served as simulator:
        async with client_of(simulator, throttle=ThrottlePolicy(max_concurrency=4)) as client:
            # By default, tokens expire by the wall clock, which does not leap as the loop's clock does
            client._transport.tokens._now = clock
            for _ in range(2):
                assert_complete(simulator, await outcomes_of(simulator, client, vehicles=simulator.vehicles))
    assert simulator.counts.tokens_issued > 3
    assert simulator.counts.responses[401] == 0

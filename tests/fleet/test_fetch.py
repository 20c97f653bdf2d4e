"""The whole path, over real sockets: a fleet's sessions, typed and complete, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import random
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
    TransportError,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)
from podero_async._decode import decode_page
from podero_async.testing import Fault, PageRequest, PoderoSimulator
from tests._support.clients import ORG, QUICK, client_of, page_body, serving, static_client, wire_row

Outcome = VehicleSessions | VehicleFailure


def whole(simulator: PoderoSimulator, **options: Any) -> dict[str, Any]:
    return {"from_date": simulator.first_day, "to_date": simulator.last_day, **options}


async def outcomes_of(simulator: PoderoSimulator, client: PoderoClient, **options: Any) -> list[Outcome]:
    async with client.fetch_fleet(**whole(simulator, **options)) as fleet:
        return [outcome async for outcome in fleet]


def hold(simulator: PoderoSimulator, outcomes: list[Outcome], *, include_hidden: bool = False) -> None:
    """Check that every vehicle's sessions are there once, field by field."""
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
async def test_a_whole_fleet_arrives(include_hidden: bool) -> None:
    """Sessions would be missing, doubled or changed on the way."""
    async with PoderoSimulator(users=12, vehicles=9, sessions_per_vehicle=(0, 450), seed=3) as simulator:
        async with client_of(simulator) as client:
            async with client.fetch_fleet(**whole(simulator, include_hidden=include_hidden)) as fleet:
                outcomes = [outcome async for outcome in fleet]
                assert [outcome async for outcome in fleet] == []
            summary = fleet.summary
    hold(simulator, outcomes, include_hidden=include_hidden)
    assert (summary.vehicles, summary.verified, summary.failures) == (9, 9, 0)
    assert summary.sessions == sum(
        len(outcome.sessions) for outcome in outcomes if isinstance(outcome, VehicleSessions)
    )
    assert summary.requests == simulator.counts.total_requests - 1, "all but the token"
    assert (summary.retries, summary.pauses, summary.rejected) == (0, 0, 0)
    assert summary.seconds > 0


async def test_users_without_vehicles_cost_no_request() -> None:
    """An organization of many app users would be asked about each."""
    async with PoderoSimulator(users=30, vehicles=4, sessions_per_vehicle=5) as simulator:
        async with client_of(simulator) as client:
            hold(simulator, await outcomes_of(simulator, client))
        assert simulator.counts.requests["vehicles"] == len({vehicle.user_id for vehicle in simulator.vehicles})


@pytest.mark.parametrize("kind", ["list", "iterator", "async iterator"])
async def test_vehicles_may_come_from_anywhere(simulator: PoderoSimulator, kind: str) -> None:
    """A caller with a list of vehicles would have to discover them."""
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


async def test_an_error_of_the_callers_own_iterable_comes_out(simulator: PoderoSimulator) -> None:
    """A bug of the caller would look like the end of the fleet."""

    def broken() -> Iterator[VehicleRef]:
        yield simulator.vehicles[0]
        raise KeyError("the caller's own")

    async with client_of(simulator) as client:
        with pytest.raises(KeyError, match="own"):
            await outcomes_of(simulator, client, vehicles=broken())


async def test_faults_of_all_kinds_lose_nothing() -> None:
    """One bad hour of the network would leave holes in the data."""
    faults = [
        Fault(kind="status", status=503, rate=0.05),
        Fault(kind="status", status=429, headers={"Retry-After": "0"}, rate=0.02),
        Fault(kind="reset", rate=0.03),
        Fault(kind="reset", after_bytes=500, rate=0.02, endpoint="sessions"),
        Fault(kind="truncated", rate=0.05, endpoint="sessions"),
        Fault(kind="malformed_json", rate=0.02),
        Fault(kind="empty", rate=0.02),
        Fault(kind="token_revoked", rate=0.02),
    ]
    async with PoderoSimulator(
        users=30, vehicles=40, sessions_per_vehicle=(0, 300), seed=5, faults=faults
    ) as simulator:
        async with client_of(simulator) as client:
            async with client.fetch_fleet(**whole(simulator)) as fleet:
                outcomes = [outcome async for outcome in fleet]
            hold(simulator, outcomes)
            assert fleet.summary.retries > 10
            assert set(simulator.counts.faults) == {fault.kind for fault in faults}


async def test_a_fleet_that_moves_while_it_is_read_loses_nothing() -> None:
    """Sessions would slip from one page to another and be lost, as with any other client."""
    rng = random.Random(1)

    def move(request: PageRequest) -> None:
        if rng.random() < 0.5:
            simulator.insert(request.vehicle)
        if rng.random() < 0.5:
            gone = rng.choice(simulator.truth(request.vehicle))["id"]
            simulator.remove(request.vehicle, gone)
            throughout[request.vehicle].discard(gone)

    async with PoderoSimulator(users=3, vehicles=4, sessions_per_vehicle=1200, seed=5) as simulator:
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


async def test_an_unstable_order_is_proven_by_days() -> None:
    """A server that forgot to sort would tear every list, unnoticed."""
    faults = [Fault(kind="unstable_order", rate=1.0)]
    async with PoderoSimulator(users=1, vehicles=2, sessions_per_vehicle=900, faults=faults) as simulator:
        async with client_of(simulator) as client:
            outcomes = await outcomes_of(simulator, client)
    hold(simulator, outcomes)
    assert {outcome.completeness for outcome in outcomes if isinstance(outcome, VehicleSessions)} == {
        Completeness.REPAIRED
    }


async def test_a_clamped_limit_loses_nothing() -> None:
    """A server that gives half of what is asked for would cost the other half."""
    faults = [Fault(kind="clamped_limit", limit=60, rate=1.0)]
    async with PoderoSimulator(users=1, vehicles=2, sessions_per_vehicle=500, faults=faults) as simulator:
        async with client_of(simulator) as client:
            hold(simulator, await outcomes_of(simulator, client))


async def test_bad_rows_are_kept_beside_the_good_ones() -> None:
    """One bad row would cost its page, its vehicle, or go unnoticed."""
    faults = [Fault(kind="malformed_row", field="energy_charged_kwh", rate=1.0)]
    async with PoderoSimulator(users=1, vehicles=3, sessions_per_vehicle=(30, 450), seed=2, faults=faults) as simulator:
        async with client_of(simulator) as client:
            async with client.fetch_fleet(**whole(simulator)) as fleet:
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
    """One deleted vehicle would end a fleet's night."""
    stranger = VehicleRef(user_id=simulator.vehicles[0].user_id, vehicle_id=UUID(int=1))
    simulator.add_fault(Fault(kind="status", status=500, rate=1.0, vehicle=simulator.vehicles[3]))
    async with client_of(simulator) as client:
        async with client.fetch_fleet(**whole(simulator, vehicles=[stranger, *simulator.vehicles])) as fleet:
            outcomes = [outcome async for outcome in fleet]
    failures = {outcome.vehicle: outcome for outcome in outcomes if isinstance(outcome, VehicleFailure)}
    assert {type(failure.error) for failure in failures.values()} == {NotFoundError, ServerError}
    assert failures[stranger].requests == 1
    assert failures[simulator.vehicles[3]].retries == QUICK.max_attempts - 1
    assert (fleet.summary.vehicles, fleet.summary.failures) == (9, 2)


async def test_a_user_whose_vehicles_cannot_be_listed_is_a_failure() -> None:
    """The vehicles of one user would be missing, and nobody would know."""
    async with PoderoSimulator(users=5, vehicles=10, sessions_per_vehicle=5) as simulator:
        gone = simulator.vehicles[0].user_id

        async with client_of(simulator) as client:
            users = [user async for user in client.users()]
            simulator.add_fault(Fault(kind="status", status=403, nth=1, endpoint="vehicles"))
            async with client.fetch_fleet(**whole(simulator)) as fleet:
                outcomes = [outcome async for outcome in fleet]
            (failure,) = (outcome for outcome in outcomes if isinstance(outcome, VehicleFailure))
            assert failure.vehicle is None
            assert failure.user_id in {user.id for user in users}
            assert gone in {user.id for user in users}
            assert fleet.summary.failures == 1
            assert fleet.summary.vehicles == len({v for v in simulator.vehicles if v.user_id != failure.user_id})
            simulator.clear_faults()
            simulator.add_fault(Fault(kind="status", status=403, nth=1, endpoint="vehicles"))
            with pytest.raises(PermissionDeniedError):
                _ = [vehicle async for vehicle in client.discover_vehicles()]


async def test_refused_credentials_end_the_run_at_once(simulator: PoderoSimulator) -> None:
    """Ten thousand vehicles would fail one by one for one wrong secret."""
    wrong = ClientCredentials(simulator.client_id, "wrong")
    async with client_of(simulator, credentials=wrong) as client:
        for vehicles in (None, simulator.vehicles):
            with pytest.raises(AuthenticationError):
                await outcomes_of(simulator, client, vehicles=vehicles)
    assert simulator.counts.requests["sessions"] == 0


async def test_credentials_refused_midway_end_the_run(simulator: PoderoSimulator) -> None:
    """A revoked client would go on asking."""
    simulator.add_fault(Fault(kind="status", status=401, rate=1.0, endpoint="vehicles"))
    async with client_of(simulator) as client:
        with pytest.raises(AuthenticationError):
            await outcomes_of(simulator, client)


async def test_a_failed_list_of_users_is_an_error(simulator: PoderoSimulator) -> None:
    """A fleet that could not be discovered would look like an empty one."""
    simulator.add_fault(Fault(kind="status", status=404, rate=1.0, endpoint="users"))
    async with client_of(simulator) as client:
        with pytest.raises(NotFoundError):
            await outcomes_of(simulator, client)


async def test_a_dead_token_endpoint_is_asked_as_often_as_the_policy_says(simulator: PoderoSimulator) -> None:
    """Retries of the call and of its token request would multiply: 64 requests instead of 8."""
    simulator.add_fault(Fault(kind="status", status=500, rate=1.0, endpoint="token"))
    async with client_of(simulator) as client:
        with pytest.raises(ServerError) as caught:
            await client.electric_vehicles(simulator.vehicles[0].user_id)
    assert simulator.counts.requests["token"] == caught.value.attempts == QUICK.max_attempts


async def test_the_stream_is_entered_once_and_not_iterated_outside(simulator: PoderoSimulator) -> None:
    """A misuse would hang instead of saying so."""
    async with client_of(simulator) as client:
        fleet = client.fetch_fleet(**whole(simulator))
        assert fleet.summary.seconds == 0
        with pytest.raises(RuntimeError, match="async with"):
            await anext(fleet)
        async with fleet:
            with pytest.raises(RuntimeError, match="once"):
                async with fleet:
                    pass
        with pytest.raises(StopAsyncIteration):
            await anext(fleet)


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_slow_consumer_slows_the_fetch() -> None:
    """Outcomes would pile up in memory while the consumer writes to its database."""
    async with PoderoSimulator(users=1, vehicles=100, sessions_per_vehicle=1) as simulator:
        async with client_of(simulator, throttle=ThrottlePolicy(max_concurrency=4)) as client:
            async with client.fetch_fleet(**whole(simulator, vehicles=simulator.vehicles)) as fleet:
                await anext(fleet)
                for _ in range(200):
                    await asyncio.sleep(0)
                await asyncio.sleep(0.05)
                assert simulator.counts.requests["sessions"] < 40
                assert len([outcome async for outcome in fleet]) == 99


async def test_work_is_pulled() -> None:
    """A million vehicles would be queued before the first is read."""
    taken = 0

    def endless() -> Iterator[VehicleRef]:
        nonlocal taken
        while True:
            taken += 1
            yield VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=taken))

    async with (
        PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=1) as simulator,
        client_of(simulator) as client,
    ):
        async with client.fetch_fleet(**whole(simulator, vehicles=endless())) as fleet:
            for _ in range(50):
                await anext(fleet)
    assert taken < 300


async def test_discovery_and_fetching_overlap() -> None:
    """Nothing would be read before the last user has been asked about."""
    async with PoderoSimulator(users=300, vehicles=300, sessions_per_vehicle=1) as simulator:
        async with client_of(simulator, throttle=ThrottlePolicy(max_concurrency=4)) as client:
            async with client.fetch_fleet(**whole(simulator)) as fleet:
                await anext(fleet)
                assert simulator.counts.requests["vehicles"] < 100


# --- one vehicle ------------------------------------------------------------------------------------------------------


async def test_one_vehicles_sessions_whole_and_as_a_stream() -> None:
    """The two ways to read a vehicle would disagree."""
    async with PoderoSimulator(users=1, vehicles=1, sessions_per_vehicle=1000) as simulator:
        (vehicle,) = simulator.vehicles
        ids = (vehicle.user_id, str(vehicle.vehicle_id))
        async with client_of(simulator) as client:
            got = await client.vehicle_sessions(*ids, **whole(simulator))
            hold(simulator, [got])
            streamed = [session async for session in client.sessions(*ids, **whole(simulator))]
            assert streamed == got.sessions
            times = [session.plug_in_time for session in streamed]
            assert times == sorted(times, reverse=True), "the server's order"
            assert got.total == len(streamed)
            assert got.requests == 5 + (len(streamed) > 975)


async def test_a_stream_that_cannot_be_proven_says_so_after_its_last_row() -> None:
    """A caller of the simple stream would never learn of the doubt."""
    rows = [wire_row(number) for number in range(1, 401)]
    for row in rows:
        row["plug_in_time"] = f"2026-01-01T{int(row['id'][-3:], 16) % 24:02}:00:00Z"
    simulator_rows = {VehicleRef(user_id=UUID(int=5), vehicle_id=UUID(int=6)): rows}
    faults = [Fault(kind="unstable_order", rate=1.0)]
    async with PoderoSimulator(rows=simulator_rows, faults=faults) as simulator, client_of(simulator) as client:
        delivered = []
        with pytest.raises(CompletenessError) as caught:
            async for session in client.sessions(UUID(int=5), UUID(int=6), **whole(simulator)):
                delivered.append(session.id)  # noqa: PERF401
        assert len(delivered) == len(set(delivered)) == caught.value.delivered
        assert caught.value.total == 400
        got = await client.vehicle_sessions(UUID(int=5), UUID(int=6), **whole(simulator))
        assert got.completeness is Completeness.UNPROVEN


async def test_bad_rows_raise_unless_they_are_asked_for() -> None:
    """A caller would overlook a bad row, or could not go on past it."""

    async def handler(_: Any) -> Any:
        return web.Response(body=page_body(wire_row(1), wire_row(2, is_at_home=5), wire_row(3)))

    async with serving(handler) as origin, static_client(origin) as client:
        place = (ORG, ORG, *_days())
        with pytest.raises(DecodeError) as caught:
            await client.list_sessions(*place)
        assert (caught.value.json_path, caught.value.index) == ("$.items[1].is_at_home", 1)
        page = await client.list_sessions(*place, keep_rejected=True)
        assert (len(page.items), page.rejected[0].index) == (2, 1)
        with pytest.raises(DecodeError):
            _ = [session async for session in client.sessions(*place)]
        rejected: list[Any] = []
        assert len([session async for session in client.sessions(*place, on_rejected=rejected.append)]) == 2
        assert [item.index for item in rejected] == [1]


def _days() -> tuple[Any, Any]:
    return date(2026, 1, 1), date(2026, 1, 31)


# --- the other endpoints ----------------------------------------------------------------------------------------------


async def test_one_page_as_the_server_has_it(simulator: PoderoSimulator) -> None:
    """A caller who pages by hand could not."""
    vehicle = simulator.vehicles[0]
    async with client_of(simulator) as client:
        truth = simulator.truth(vehicle, include_hidden=True)
        page = await client.list_sessions(
            vehicle.user_id, vehicle.vehicle_id, **whole(simulator), limit=7, offset=5, include_hidden=True
        )
        assert page.total == len(truth)
        assert {str(session.id) for session in page.items} <= {row["id"] for row in truth}
        assert len(page.items) == 7
        default = await client.list_sessions(vehicle.user_id, vehicle.vehicle_id, **whole(simulator))
        assert not any(session.is_hidden for session in default.items)
        assert simulator.requests[-1].query["limit"] == "50"


async def test_users_vehicles_and_the_current_session(simulator: PoderoSimulator) -> None:
    """A bot could not answer who is charging."""
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


async def test_users_in_pages_are_read_to_the_end() -> None:
    """An organization of more users than a page would lose vehicles."""
    async with PoderoSimulator(users=450, vehicles=5, sessions_per_vehicle=1, users_as_pages=True) as simulator:
        async with client_of(simulator) as client:
            assert len({user.id async for user in client.users()}) == 450
            assert len([user async for user in client.users(include_deleted=True)]) == 450


async def test_users_that_make_no_progress_are_an_error() -> None:
    """A server that ignores the offset would be asked for ever."""

    async def handler(_: Any) -> Any:
        return web.json_response({"total": 9, "items": [{"id": str(UUID(int=1))}]})

    async with serving(handler) as origin, static_client(origin) as client:
        with pytest.raises(CompletenessError, match="no progress"):
            _ = [user async for user in client.users()]


async def test_a_password_client_reads_a_fleet(simulator: PoderoSimulator) -> None:
    """Half of the partners sign in with a password."""
    credentials = PasswordCredentials(simulator.username, simulator.password)
    async with client_of(simulator, credentials=credentials) as client:
        hold(simulator, await outcomes_of(simulator, client))


@pytest.mark.parametrize("way", ["json", "basic", "form"])
@pytest.mark.parametrize("refuse_with", [400, 404, 405, 415, 422])
async def test_every_documented_way_to_a_token_works(way: Any, refuse_with: Any) -> None:
    """A server that speaks only one of them could not be used."""
    async with PoderoSimulator(
        users=1, vehicles=1, sessions_per_vehicle=1, token_styles={way}, unsupported_status=refuse_with
    ) as simulator:
        async with client_of(simulator) as client:
            hold(simulator, await outcomes_of(simulator, client))
    assert simulator.counts.tokens_issued == 1


@pytest.mark.leaping
async def test_tokens_that_expire_under_load_fail_no_call() -> None:
    """Once an hour, a burst of calls would fail with 401."""
    clock = asyncio.get_running_loop().time
    faults = [Fault(kind="token_expiring", seconds=20, rate=1.0)]
    fleet = {
        "users": 20,
        "vehicles": 150,
        "sessions_per_vehicle": 2,
        "faults": faults,
        "latency_s": 1.0,
        "clock": clock,
    }
    async with PoderoSimulator(**fleet) as simulator:  # type: ignore[arg-type]
        async with client_of(simulator, throttle=ThrottlePolicy(max_concurrency=4)) as client:
            client._transport.tokens._now = clock
            for _ in range(2):
                hold(simulator, await outcomes_of(simulator, client, vehicles=simulator.vehicles))
    assert simulator.counts.tokens_issued > 3
    assert simulator.counts.responses[401] == 0


async def test_an_unreachable_server_fails_vehicles_not_the_process() -> None:
    """A fleet against a dead server would raise something that nobody expects."""
    vehicle = VehicleRef(user_id=UUID(int=1), vehicle_id=UUID(int=2))
    async with static_client("http://127.0.0.1:1") as client, client.fetch_fleet(*_days(), vehicles=[vehicle]) as fleet:
        (outcome,) = [outcome async for outcome in fleet]
    assert isinstance(outcome, VehicleFailure)
    assert isinstance(outcome.error, TransportError)

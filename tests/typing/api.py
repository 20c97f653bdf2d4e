"""The types that callers see. Only type checkers read this module: `mypy` and `pyright tests/typing`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta
from typing import Any, assert_never, assert_type
from uuid import UUID

from dask.dataframe import DataFrame

from podero_async import (
    ApiError,
    ChargingSession,
    ClientCredentials,
    ClientStatistics,
    Completeness,
    Credentials,
    ElectricVehicle,
    FileTokenStore,
    FleetFetch,
    FleetSummary,
    HiddenReason,
    Observer,
    PasswordCredentials,
    PoderoClient,
    PoderoError,
    RejectedItem,
    RetryPolicy,
    SessionOutcome,
    SessionsPage,
    StaticToken,
    ThrottlePolicy,
    Timeouts,
    User,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
    http_status_of,
    summarize,
)
from podero_async.backfill import (
    BackfillPlan,
    BackfillReport,
    Bounds,
    DayCounts,
    Exported,
    Merged,
    SessionStore,
    VerifyReport,
    backfill,
    merge_stores,
    plan_backfill,
    verify,
)
from podero_async.dask import read_outcomes, read_sessions
from podero_async.otel import OpenTelemetryObserver
from podero_async.publish import Published, publish
from podero_async.report import Report, build_report
from podero_async.testing import Fault, PoderoSimulator

FIRST, LAST = date(2026, 1, 1), date(2026, 6, 30)


async def calls(client: PoderoClient, user_id: UUID, vehicle_id: str) -> None:
    """Each call returns what its documentation names; ids may be uuids or text."""
    assert_type(await client.list_sessions(user_id, vehicle_id, FIRST, LAST, limit=200, offset=0), SessionsPage)
    assert_type(client.sessions(user_id, vehicle_id, FIRST, LAST), AsyncGenerator[ChargingSession, None])
    assert_type(await client.vehicle_sessions(user_id, vehicle_id, FIRST, LAST), VehicleSessions)
    assert_type(await client.latest_session(user_id, vehicle_id, days=30), ChargingSession | None)
    outcomes = await client.user_sessions(user_id, FIRST, LAST)
    assert_type(outcomes, list[VehicleSessions | VehicleFailure])
    assert_type(summarize(outcomes, ("month", "session_outcome"))[FIRST, "optimized"].actual_savings_eur, float | None)
    assert_type(await client.current_session(user_id, vehicle_id), ChargingSession | None)
    assert_type(await client.user_by_external_id("customer_12345"), User)
    assert_type(await client.electric_vehicles(user_id), list[ElectricVehicle])
    async for user in client.users():
        assert_type(user, User)
    async for vehicle in client.discover_vehicles():
        assert_type(vehicle, VehicleRef)
        assert_type(vehicle.external_user_id, str | None)
        assert_type(vehicle.year, int | None)
    assert_type(client.with_options(retry=RetryPolicy(max_elapsed=1.0), timeouts=Timeouts(total=5.0)), PoderoClient)
    assert_type(client.statistics(), ClientStatistics)
    assert_type(client.statistics().paused_for_s, float)


async def fleet(client: PoderoClient) -> None:
    """A `match` over the two kinds of outcome is exhaustive."""
    async with client.fetch_fleet(FIRST, LAST, include_hidden=True) as fetch:
        assert_type(fetch, FleetFetch)
        async for outcome in fetch:
            match outcome:
                case VehicleSessions(sessions=sessions, completeness=completeness, rejected=rejected):
                    assert_type(sessions, list[ChargingSession])
                    assert_type(completeness, Completeness)
                    assert_type(rejected, list[RejectedItem])
                case VehicleFailure(vehicle=vehicle, error=error):
                    assert_type(vehicle, VehicleRef | None)
                    assert_type(error, PoderoError)
                case _:
                    assert_never(outcome)
        assert_type(fetch.summary, FleetSummary)


def later_values(reason: HiddenReason) -> str:
    """An enum may gain values, so a `match` needs a case for them."""
    match reason:
        case HiddenReason.SHORT_DURATION:
            return "short"
        case _:
            assert_never(reason)  # type: ignore[arg-type]


def models(session: ChargingSession, error: ApiError) -> None:
    """Fields have the types of the API's description."""
    assert_type(session.id, UUID)
    assert_type(session.plug_in_time, datetime)
    assert_type(session.unplug_time, datetime | None)
    assert_type(session.energy_charged_kwh, float | None)
    assert_type(session.session_outcome, SessionOutcome)
    assert_type(session.session_outcome.name, str | None)
    assert_type(session.session_outcome.value, str)
    assert_type(session.hidden_reason, HiddenReason | None)
    assert_type(session.reachable_soc_pct, int | None)
    assert_type(error.status, int)
    assert_type(error.detail, str)
    assert_type(error.retry_after, float | None)


def statuses(error: Exception) -> None:
    """A service maps any exception to a status."""
    assert_type(http_status_of(error), int)


def simulators(session: ChargingSession, vehicle: ElectricVehicle, user: User) -> None:
    """A simulator takes the models, ids and rows in its calls."""
    with PoderoSimulator(faults=["status:503@5%", Fault(kind="hang", vehicle=vehicle)]) as simulator:
        assert_type(simulator, PoderoSimulator)
        assert_type(simulator.vehicles, list[VehicleRef])
        assert_type(simulator.external_ids, dict[UUID, str])
        assert_type(simulator.insert(vehicle, session), dict[str, Any])
        assert_type(simulator.plug_in(vehicle.id, datetime.now(UTC), target_soc_pct=80), dict[str, Any])
        simulator.remove(str(vehicle.id), session)
        assert_type(simulator.move_vehicle(vehicle, user), VehicleRef)
        assert_type(simulator.counts.requests, Counter[str])


def clients(org_id: UUID) -> None:
    """Every kind of credentials and every policy is accepted."""
    kinds: list[Credentials] = [
        ClientCredentials("id", "secret"),
        PasswordCredentials("name", "password"),
        StaticToken("token"),
    ]
    for credentials in kinds:
        client = PoderoClient(
            org_id,
            credentials,
            base_url="https://sandbox-app.podero.com",
            retry=RetryPolicy(max_attempts=3),
            throttle=ThrottlePolicy(requests_per_second=20),
            timeouts=Timeouts(total=30),
            token_store=FileTokenStore("token.json"),
            observer=OpenTelemetryObserver(),
        )
        assert_type(client, PoderoClient)
    assert_type(PoderoClient.from_env(observer=Observer()), PoderoClient)


async def stores(client: PoderoClient, store: SessionStore, simulator: PoderoSimulator) -> None:
    """A backfill, its plan and its verification return their reports."""
    half_a_day, bounds = timedelta(hours=12), Bounds(max_failed=0.1)
    report = await backfill(client, store, FIRST, LAST, settle_days=30, fresh_for=half_a_day, bounds=bounds)
    assert_type(report, BackfillReport)
    assert_type(await store.days(FIRST, LAST), DayCounts)
    assert_type(await plan_backfill(client, store, FIRST, LAST, vehicles=simulator.vehicles), BackfillPlan)
    assert_type(await verify(client, store, sample=100), VerifyReport)
    exported = await store.export("sessions", partition_by="month", since=datetime.now(UTC), overwrite=True)
    assert_type(exported, Exported)
    await store.check_snapshot("readers.duckdb")
    assert_type(await store.snapshot("readers.duckdb"), int)
    assert_type(await merge_stores("fleet.duckdb", ["1.duckdb", "2.duckdb"]), Merged)
    assert_type(await publish(store, "postgresql://", full=True, drop_others=True), Published)
    figures = await build_report(store, date(2026, 1, 1), time_zone="Europe/Vienna", by="price-zone")
    assert_type(figures, Report)
    assert_type(figures.to_html(), str)
    async for names, rows in store.stream("FROM live_sessions"):
        assert_type(names, list[str])
        assert_type(rows, list[tuple[Any, ...]])
    assert_type(await store.forget("7f0a3a5e-0000-4000-8000-000000000000"), int)
    assert_type(await store.forget_before(date(2026, 1, 1)), int)


def dask_frames(vehicles: list[VehicleRef]) -> None:
    """Both frames are Dask's."""
    assert_type(read_sessions(vehicles, FIRST, LAST, partitions=2, requests_per_second=10), DataFrame)
    assert_type(read_outcomes(vehicles, FIRST, LAST, partitions=2, include_hidden=True), DataFrame)

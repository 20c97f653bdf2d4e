"""The arguments of the simulator: the library's own models and ids, times without an offset, and values out of bounds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from podero_async import PermissionDeniedError, PoderoClient
from podero_async.models import ChargingSession, HiddenReason, SessionOutcome, VehicleRef
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import client_of


@pytest.fixture
def tokyo() -> Iterator[None]:
    """Let the local time be that of Tokyo."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


async def sessions_of(sim: PoderoSimulator, vehicle: VehicleRef) -> list[ChargingSession]:
    async with client_of(sim) as client:
        ids = (vehicle.user_id, vehicle.vehicle_id)
        read = await client.vehicle_sessions(*ids, date(2020, 1, 1), date(2026, 12, 31), include_hidden=True)
        return read.sessions


async def test_the_models_of_the_client_are_accepted() -> None:
    """Every call takes the sessions, vehicles and users that a client returns."""
    async with PoderoSimulator(users=2, vehicles=1, sessions_per_vehicle=5) as sim, client_of(sim) as client:
        (ref,) = sim.vehicles
        user = await client.user_by_external_id(sim.external_ids[ref.user_id])
        (vehicle,) = await client.electric_vehicles(user.id)
        read = await sessions_of(sim, ref)
        sim.remove(vehicle, read[0])
        sim.hide(vehicle, read[1])
        sim.update(vehicle, read[2], energy_charged_kwh=1.5)
        assert sim.insert(vehicle, read[0])["id"] == str(read[0].id)
        other = sim.add_vehicle(user, rows=[read[3]])
        sim.move_session(vehicle, read[4], other)
        assert [row["id"] for row in sim.truth(other)] == [str(read[3].id), str(read[4].id)]
        again = {session.id: session for session in await sessions_of(sim, ref)}
        assert again[read[0].id] == read[0], "a session that is inserted is the one that was read"
        assert (again[read[1].id].hidden_reason, again[read[2].id].energy_charged_kwh) == (
            HiddenReason.SHORT_DURATION,
            1.5,
        )
        sim.set_current(vehicle, read[0])
        assert await client.current_session(user.id, vehicle.id) == read[0]
        someone = next(user_id for user_id in sim.external_ids if user_id != user.id)
        moved = sim.move_vehicle(vehicle, someone)
        sim.remove_vehicle((await client.electric_vehicles(someone))[0])
        assert moved not in sim.vehicles
        sim.delete_user(user)
        assert user.id not in {listed.id async for listed in client.users()}


def test_ids_are_uuids_or_text() -> None:
    """Vehicles, users and sessions can be given by their ids; an id that is unknown is a `KeyError`."""
    sim = PoderoSimulator(users=2, vehicles=1, sessions_per_vehicle=5)
    (ref,) = sim.vehicles
    for vehicle in (ref.vehicle_id, str(ref.vehicle_id)):
        row = sim.truth(vehicle)[0]
        sim.hide(vehicle, UUID(row["id"]))
        assert row["id"] not in {shown["id"] for shown in sim.truth(vehicle)}
        sim.remove(vehicle, row["id"])
        sim.insert(vehicle, row)
        sim.remove(vehicle, row)
    sim.delete_user(str(ref.user_id))
    assert sim.add_vehicle(str(ref.user_id)).user_id == ref.user_id
    for unknown in (UUID(int=1), VehicleRef(user_id=ref.user_id, vehicle_id=UUID(int=1))):
        with pytest.raises(KeyError, match="unknown vehicle"):
            sim.plug_in(unknown)
    with pytest.raises(KeyError):
        sim.remove(ref, UUID(int=1))
    with pytest.raises(ValueError, match="vehicle must be"):
        sim.truth("tesla")
    with pytest.raises(ValueError, match="user must be"):
        sim.delete_user("me")


def test_a_shared_vehicle_needs_its_user() -> None:
    """The id of a vehicle that two users list is refused, since either could be meant."""
    sim = PoderoSimulator(vehicles=1)
    shared = sim.share_vehicle(sim.vehicles[0])
    with pytest.raises(ValueError, match="pass a VehicleRef"):
        sim.remove_vehicle(shared.vehicle_id)
    sim.remove_vehicle(shared)
    assert sim.truth(shared.vehicle_id) == sim.truth(sim.vehicles[0])


@pytest.mark.usefixtures("tokyo")
def test_a_time_without_an_offset_is_utc() -> None:
    """Times without an offset are UTC in every call, and not in the local time zone."""
    sim = PoderoSimulator(vehicles=1, sessions_per_vehicle=0)
    vehicle, noon, text = sim.vehicles[0], datetime(2026, 7, 1, 12), "2026-07-01T12:00:00Z"  # noqa: DTZ001
    sim.set_current(vehicle, None)
    assert sim.plug_in(vehicle, noon)["plug_in_time"] == text
    assert sim.complete_current(vehicle, unplug_time=noon + timedelta(hours=1))["unplug_time"] == "2026-07-01T13:00:00Z"
    assert sim.insert(vehicle, plug_in_time=noon)["plug_in_time"] == text
    row = sim.insert(vehicle, {"id": UUID(int=1), "plug_in_time": noon, "session_outcome": SessionOutcome.OPTIMIZED})
    assert row == {"id": str(UUID(int=1)), "plug_in_time": text, "session_outcome": "optimized"}
    moved = sim.update(vehicle, row, plug_in_time=noon.replace(tzinfo=timezone(timedelta(hours=2))))
    assert moved["plug_in_time"] == "2026-07-01T10:00:00Z"
    assert [row["plug_in_time"] for row in sim.truth(vehicle)] == [text, text, "2026-07-01T10:00:00Z"]


def test_sessions_begin_and_complete() -> None:
    """A vehicle is plugged in, once at a time, after its newest session; completed, the session is listed."""
    sim = PoderoSimulator(vehicles=1, sessions_per_vehicle=1)
    vehicle = sim.vehicles[0]
    sim.set_current(vehicle, None)
    assert sim.current(vehicle) is None
    begun = sim.plug_in(vehicle, target_soc_pct=70)
    newest = sim.truth(vehicle, include_hidden=True)[0]
    ended = newest["unplug_time"] or newest["inferred_session_end"]
    assert datetime.fromisoformat(begun["plug_in_time"]) == datetime.fromisoformat(ended) + timedelta(hours=1)
    assert (begun["unplug_time"], begun["session_outcome"], begun["target_soc_pct"]) == (None, "in_progress", 70)
    assert sim.current(vehicle) == begun
    with pytest.raises(ValueError, match="already has a current session"):
        sim.plug_in(vehicle)
    completed = sim.complete_current(vehicle)
    assert (completed["id"], sim.current(vehicle)) == (begun["id"], None)
    assert sim.truth(vehicle)[0] == completed
    assert sim.plug_in(vehicle, datetime(2027, 1, 1, tzinfo=UTC))["plug_in_time"] == "2027-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": -1}, "users must be"),
        ({"vehicles": -1}, "vehicles must be"),
        ({"vehicles": True}, "vehicles must be"),
        ({"users": 0}, "at least one user"),
        ({"sessions_per_vehicle": -5}, "sessions_per_vehicle must be"),
        ({"sessions_per_vehicle": (5, 2)}, "sessions_per_vehicle must be .* from 5"),
        ({"sessions_per_vehicle": 10_000_000}, "sessions_per_vehicle must be .* to 100000"),
        ({"latency_s": -1}, "latency_s must be"),
        ({"latency_s": float("nan")}, "latency_s must be"),
        ({"token_lifetime_s": float("inf")}, "token_lifetime_s must be"),
        ({"token_styles": "json"}, "token_styles must be"),
        ({"token_styles": ["jsn"]}, "token_styles must be"),
        ({"json_grants": ["implicit"]}, "json_grants must be"),
        ({"unsupported_status": 500}, "unsupported_status must be"),
        ({"port": 70000}, "port must be"),
        ({"seed": "one"}, "seed must be"),
        ({"faults": ["status:503@200%"]}, "rate is between"),
        ({"faults": ["statsu"]}, "unknown kind"),
        ({"rows": {UUID(int=1): []}}, "rows must have a VehicleRef"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    """A wrong option of the simulator is a `ValueError` that names it."""
    with pytest.raises(ValueError, match=message):
        PoderoSimulator(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "hang", "seconds": -1.0},
        {"kind": "status", "status": 42},
        {"kind": "reset", "after_bytes": -1},
        {"kind": "drip", "chunk_bytes": 0},
        {"kind": "clamped_limit", "limit": 0},
        {"kind": "empty", "times": 0},
    ],
)
def test_a_wrong_number_of_a_fault_is_named(options: dict[str, Any]) -> None:
    """A fault with a number out of bounds is a `ValueError` that names the option."""
    with pytest.raises(ValueError, match=f"{list(options)[-1]} must be"):
        Fault(**options)


def test_wrong_arguments_of_calls_are_refused() -> None:
    """A datetime in place of a day, a negative latency or number of sessions, and an early `base_url` are refused."""
    sim = PoderoSimulator(vehicles=1)
    with pytest.raises(ValueError, match="from_date must be"):
        sim.truth(sim.vehicles[0], datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="sessions must be"):
        sim.add_vehicle(sessions=-1)
    with pytest.raises(ValueError, match="latency_s"):
        sim.latency_s = -1
    with pytest.raises(ValueError, match="token_lifetime_s"):
        sim.token_lifetime_s = -1
    with pytest.raises(RuntimeError, match="has not started"):
        _ = sim.base_url


async def test_a_fault_affects_one_vehicle() -> None:
    """The vehicle of a fault is a `VehicleRef`, the model of a client, or an id."""
    async with PoderoSimulator(users=1, vehicles=2) as sim, client_of(sim) as client:
        ref, other = sim.vehicles
        (vehicle, _) = await client.electric_vehicles(ref.user_id)
        for same in (ref, vehicle, vehicle.id, str(vehicle.id)):
            sim.clear_faults()
            sim.add_fault(Fault(kind="status", status=403, endpoint="current", vehicle=same))
            with pytest.raises(PermissionDeniedError):
                await client.current_session(ref.user_id, ref.vehicle_id)
            await client.current_session(other.user_id, other.vehicle_id)


async def test_a_fault_can_be_given_as_text() -> None:
    """Faults may be texts, in the constructor and in `add_fault`."""
    async with PoderoSimulator(faults=["users/status:503@#1"]) as sim, client_of(sim) as client:
        sim.add_fault("users/status:502@#2")
        assert len([user async for user in client.users()]) == 10
        assert sim.counts.responses[503] == sim.counts.responses[502] == 1


async def test_the_environment_is_that_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """`environment` has the variables that `PoderoClient.from_env` reads, and `external_ids` has all users."""

    async with PoderoSimulator(users=3) as sim:
        for name in ("PODERO_USERNAME", "PODERO_PASSWORD", "PODERO_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in sim.environment.items():
            monkeypatch.setenv(name, value)
        async with PoderoClient.from_env() as client:
            assert {user.id: user.external_user_id async for user in client.users()} == sim.external_ids
        assert list(sim.external_ids.values()) == ["customer_1", "customer_2", "customer_3"]

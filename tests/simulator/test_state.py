"""Generated fleets, changes to them, and fleets of given rows."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from podero_async.models import ChargingSession, HiddenReason, SessionOutcome, VehicleRef
from podero_async.testing import PoderoSimulator, rows_from_jsonl
from tests.simulator.conftest import Running

USER = "00000000-0000-4000-8000-000000000001"
VEHICLE = "00000000-0000-4000-8000-000000000002"
REF = VehicleRef(user_id=USER, vehicle_id=VEHICLE)


def every_row(sim: PoderoSimulator) -> list[dict[str, Any]]:
    return [row for vehicle in sim.vehicles for row in sim.truth(vehicle, include_hidden=True)]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_seed_determines_the_fleet() -> None:
    """Equal seeds give equal fleets and credentials, in whichever order the rows are generated."""
    first, second, other = PoderoSimulator(seed=7), PoderoSimulator(seed=7), PoderoSimulator(seed=8)
    # Generated in the opposite order.
    backwards = {vehicle: second.truth(vehicle) for vehicle in reversed(second.vehicles)}
    assert {vehicle: first.truth(vehicle) for vehicle in first.vehicles} == backwards
    assert (first.org_id, first.client_id, first.client_secret, first.username, first.password) == (
        second.org_id,
        second.client_id,
        second.client_secret,
        second.username,
        second.password,
    )
    assert not set(first.vehicles) & set(other.vehicles)


def test_default_fleet_has_every_outcome_and_null() -> None:
    """The default fleet has every outcome of a completed session, hidden sessions, and both values and nulls in each nullable field."""
    rows = every_row(PoderoSimulator())
    assert {row["session_outcome"] for row in rows} == {outcome.value for outcome in SessionOutcome} - {"in_progress"}
    hidden = [row for row in rows if row["is_hidden"]]
    assert 0.02 < len(hidden) / len(rows) < 0.1
    assert {row["hidden_reason"] for row in hidden} == {reason.value for reason in HiddenReason}
    fields = [name for name in rows[0] if not name.startswith(("id", "is_", "plug_in", "session_outcome"))]
    for name in fields:
        assert any(row[name] is None for row in rows), name
        assert any(row[name] is not None for row in rows), name


def test_rows_are_plausible() -> None:
    """Generated rows have all fields, with values in plausible ranges."""
    for row in every_row(PoderoSimulator(vehicles=3)):
        assert set(row) == {field.name for field in ChargingSession.__attrs_attrs__}
        ended = moment(row["unplug_time"] or row["inferred_session_end"])
        lasted = ended - moment(row["plug_in_time"])
        assert row["is_hidden"] == (lasted < timedelta(minutes=5))
        assert all(row[name] is None or 0 <= row[name] <= 100 for name in row if name.endswith("_pct"))
        assert row["energy_charged_kwh"] is None or 0 <= row["energy_charged_kwh"] < 100
        assert row["plug_in_time"].endswith("Z")
        assert len(row["plug_in_time"]) == len("2026-01-05T18:03:11Z")


def test_sessions_of_a_vehicle_neither_tie_nor_overlap() -> None:
    """The generated sessions of a vehicle are strictly ordered and do not overlap."""
    sim = PoderoSimulator(vehicles=2, sessions_per_vehicle=300)
    for vehicle in sim.vehicles:
        rows = sim.truth(vehicle, include_hidden=True)
        for later, earlier in itertools.pairwise(rows):
            ended = earlier["unplug_time"] or earlier["inferred_session_end"]
            assert moment(later["plug_in_time"]) > moment(ended)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_first_and_last_day_include_all_sessions(count: int) -> None:
    """All sessions lie between `first_day` and `last_day`, which do not change when rows are generated."""
    sim = PoderoSimulator(vehicles=2, sessions_per_vehicle=count)
    before = (sim.first_day, sim.last_day)
    assert sim.total_sessions() == 2 * count
    assert len(every_row(sim)) == 2 * count
    for vehicle in sim.vehicles:
        rows = sim.truth(vehicle, include_hidden=True)
        assert sim.truth(vehicle, *before, include_hidden=True) == rows
    assert (sim.first_day, sim.last_day) == before
    assert sim.total_sessions() == 2 * count


def test_sessions_per_vehicle_can_be_a_range() -> None:
    """`sessions_per_vehicle` as a range gives vehicles with different numbers of sessions within it."""
    sim = PoderoSimulator(vehicles=20, sessions_per_vehicle=(3, 9))
    sizes = {len(sim.truth(vehicle, include_hidden=True)) for vehicle in sim.vehicles}
    assert min(sizes) >= 3
    assert max(sizes) <= 9
    assert len(sizes) > 2


def test_empty_organization() -> None:
    """An organization can be empty; vehicles without users are refused."""
    sim = PoderoSimulator(users=0, vehicles=0)
    assert (sim.vehicles, sim.total_sessions(), sim.first_day) == ([], 0, sim.last_day)
    with pytest.raises(ValueError, match="user"):
        PoderoSimulator(users=0, vehicles=1)


async def test_changes_show_in_the_next_response(running: Running) -> None:
    """Inserted, removed and hidden sessions show in the next response."""
    async with running(vehicles=1, sessions_per_vehicle=10) as call:
        sim, vehicle = call.sim, call.sim.vehicles[0]
        added = sim.insert(vehicle)
        assert (await call.sessions()).json["items"][0] == added
        assert not added["is_hidden"]
        sim.remove(vehicle, added["id"])
        assert added not in (await call.sessions()).json["items"]
        victim = sim.truth(vehicle)[3]
        sim.hide(vehicle, victim["id"])
        assert victim["id"] not in {row["id"] for row in (await call.sessions()).json["items"]}
        shown = (await call.sessions(include_hidden="true")).json["items"]
        assert victim | {"is_hidden": True, "hidden_reason": "short_duration"} in shown
        sim.remove(vehicle, victim["id"])
        assert sim.total_sessions() == 9


def test_update_changes_and_moves_a_session() -> None:
    """`update` changes fields and moves the session in the list; an invalid update changes nothing."""
    sim = PoderoSimulator(vehicles=1, sessions_per_vehicle=10)
    vehicle = sim.vehicles[0]
    oldest = sim.truth(vehicle)[-1]
    newest = sim.truth(vehicle)[0]
    changed = sim.update(vehicle, oldest["id"], plug_in_time="2026-06-30T23:00:00Z", actual_savings_eur=1.5)
    assert (
        sim.truth(vehicle)[0]
        == changed
        == oldest
        | {
            "plug_in_time": "2026-06-30T23:00:00Z",
            "actual_savings_eur": 1.5,
        }
    )
    with pytest.raises(ValueError, match="already"):
        sim.update(vehicle, oldest["id"], id=newest["id"])
    with pytest.raises(ValueError, match="soon"):
        sim.update(vehicle, oldest["id"], plug_in_time="soon")
    assert sim.truth(vehicle)[0] == changed


def test_insert_takes_a_time_or_a_row() -> None:
    """`insert` adds a session at a given time, or a given row, also to an empty list; invalid rows are refused."""
    sim = PoderoSimulator(vehicles=1, sessions_per_vehicle=2)
    vehicle = sim.vehicles[0]
    at = datetime(2020, 1, 1, 6, tzinfo=UTC)
    assert sim.insert(vehicle, plug_in_time=at)["plug_in_time"] == "2020-01-01T06:00:00Z"
    assert sim.first_day == at.date()
    row = {"id": "mine", "plug_in_time": "2019-01-01T00:00:00Z", "session_outcome": "brand_new"}
    assert sim.insert(vehicle, row) == row
    moved = sim.insert(vehicle, row | {"id": "other"}, plug_in_time=at - timedelta(microseconds=1))
    assert moved["plug_in_time"] == "2020-01-01T05:59:59.999999Z"
    assert sim.truth(vehicle)[-2:] == [moved, row]
    elsewhere = sim.insert(vehicle, plug_in_time=at.astimezone(timezone(timedelta(hours=2))) + timedelta(hours=1))
    assert elsewhere["plug_in_time"] == "2020-01-01T07:00:00Z"
    with pytest.raises(ValueError, match="already"):
        sim.insert(vehicle, row)
    for bad in ({}, {"id": "x"}, {"id": "x", "plug_in_time": 5}):
        with pytest.raises(ValueError):
            sim.insert(vehicle, bad)
    with pytest.raises(KeyError):
        sim.remove(vehicle, "unknown")
    empty = sim.add_vehicle()
    assert sim.truth(empty) == []
    assert [sim.insert(empty)] == sim.truth(empty)


async def test_a_current_session_that_completes_is_listed(running: Running) -> None:
    """`complete_current` moves the current session into the list, with an end; without one it raises."""
    async with running(vehicles=1, sessions_per_vehicle=0) as call:
        sim, vehicle = call.sim, call.sim.vehicles[0]
        row = {"id": "x", "plug_in_time": "2026-01-05T20:00:00Z", "unplug_time": None, "session_outcome": "in_progress"}
        sim.set_current(vehicle, row)
        ended = sim.complete_current(vehicle, energy_charged_kwh=3.5)
        assert ended["unplug_time"] == "2026-01-06T04:00:00Z"
        assert (ended["session_outcome"], ended["energy_charged_kwh"]) == ("optimized", 3.5)
        assert sim.truth(vehicle) == [ended]
        assert (await call.get(f"{call.vehicle(vehicle)}/sessions/current")).json == {"session": None}
        with pytest.raises(KeyError, match="no current session"):
            sim.complete_current(vehicle)


def test_a_session_moves_to_another_vehicle() -> None:
    """`move_session` moves a session from one list to another; if the other has its id, nothing changes."""
    sim = PoderoSimulator(vehicles=2, sessions_per_vehicle=3)
    one, other = sim.vehicles
    row = sim.truth(one, include_hidden=True)[0]
    sim.move_session(one, row["id"], other)
    assert row not in sim.truth(one, include_hidden=True)
    assert row in sim.truth(other, include_hidden=True)
    sim.insert(one, row)
    with pytest.raises(ValueError, match="already"):
        sim.move_session(one, row["id"], other)
    assert row in sim.truth(one, include_hidden=True)


async def test_vehicles_are_shared_moved_and_removed(running: Running) -> None:
    """Two users can share a vehicle and its sessions; a vehicle that moved or was removed is unknown at its old user."""
    async with running(users=2, vehicles=1, sessions_per_vehicle=3) as call:
        sim, first = call.sim, call.sim.vehicles[0]
        shared = sim.share_vehicle(first)
        assert (shared.vehicle_id, sim.total_sessions()) == (first.vehicle_id, 3)
        assert sim.insert(first) in (await call.sessions(shared)).json["items"]
        with pytest.raises(ValueError, match="already"):
            sim.share_vehicle(first, shared.user_id)
        moved = sim.move_vehicle(first)
        assert sim.vehicles == [shared, moved]
        assert sim.truth(moved) == sim.truth(shared)
        assert (await call.get(f"{call.vehicle(first)}/sessions/current")).status == 404
        sim.remove_vehicle(moved)
        assert (await call.get(f"{call.org}/users/{moved.user_id}/electric-vehicles")).json == []


def test_ties_are_listed_by_id() -> None:
    """Sessions with equal plug-in times are listed by id."""
    rows = [{"id": name, "plug_in_time": "2026-01-05T00:00:00Z"} for name in "bac"]
    sim = PoderoSimulator(rows={REF: rows})
    assert [row["id"] for row in sim.truth(REF)] == ["a", "b", "c"]


async def test_added_vehicles_and_users_are_listed(running: Running) -> None:
    """Added vehicles, and the users that are added for them, are listed."""
    async with running(users=1, vehicles=1) as call:
        user_id = call.sim.vehicles[0].user_id
        added = call.sim.add_vehicle(user_id, sessions=4)
        assert (await call.sessions(added, include_hidden="true")).json["total"] == 4
        assert len((await call.get(f"{call.org}/users/{user_id}/electric-vehicles")).json) == 2
        call.sim.add_vehicle()
        assert len((await call.get(f"{call.org}/users")).json) == 2


async def test_given_rows_are_served_unchanged(running: Running) -> None:
    """Given rows are served unchanged, newest first."""
    rows = [
        {"id": "one", "plug_in_time": "2018-12-21T10:20:00Z", "energy_charged_kwh": 0.3, "note": "æøå"},
        {"id": "two", "plug_in_time": "2020-01-31T22:00:00", "is_hidden": True},
    ]
    async with running(rows={REF: rows}) as call:
        assert call.sim.vehicles == [REF]
        assert (call.sim.first_day.isoformat(), call.sim.last_day.isoformat()) == ("2018-12-21", "2020-01-31")
        assert (await call.sessions(include_hidden="true")).json == {"total": 2, "items": rows[::-1]}
        assert (await call.sessions()).json["total"] == 1
        assert (await call.get(f"{call.vehicle(REF)}/sessions/current")).json == {"session": None}


def test_given_rows_with_an_id_twice_are_refused() -> None:
    """Given rows with a duplicate id are refused."""
    row = {"id": "one", "plug_in_time": "2018-12-21T10:20:00Z"}
    with pytest.raises(ValueError, match="twice"):
        PoderoSimulator(rows={REF: [row, row]})


def line(**fields: object) -> str:
    row = {"user_id": USER, "vehicle_id": VEHICLE, "id": "one", "plug_in_time": "2026-01-05T18:03:11Z"}
    return json.dumps(row | fields)


def test_rows_from_jsonl(tmp_path: Path) -> None:
    """`rows_from_jsonl` reads lines, or a file of lines, into rows by vehicle."""
    lines = [line(), "\n", line(id="two", is_hidden=True)]
    expected: dict[VehicleRef, list[dict[str, Any]]] = {
        REF: [
            {"id": "one", "plug_in_time": "2026-01-05T18:03:11Z"},
            {"id": "two", "plug_in_time": "2026-01-05T18:03:11Z", "is_hidden": True},
        ]
    }
    assert rows_from_jsonl(lines) == expected
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert rows_from_jsonl(path) == rows_from_jsonl(str(path)) == expected
    assert PoderoSimulator(rows=expected).total_sessions() == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 2: .*Expecting"),
        ("[]", "line 2: not a JSON object"),
        (line(user_id=None), "line 2: user_id missing"),
        (line(vehicle_id="none"), "line 2: vehicle_id must be a uuid"),
        (line(id=5), "line 2: id missing"),
        (line(plug_in_time="soon"), "line 2: "),
        (line(), "line 2: session one occurs twice"),
    ],
)
def test_invalid_line_is_named_by_its_number(bad: str, message: str) -> None:
    """An invalid line raises a `ValueError` with the number of the line and the mistake."""
    with pytest.raises(ValueError, match=message):
        rows_from_jsonl([line(), bad])

"""`podero-async users`, `vehicles` and `current`, and the ways to name a user and a vehicle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from podero_async import PoderoClient
from podero_async.backfill import read_vehicle_refs
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.commands import Call, whole_fleet
from tests._support.directory import Directory

NAMES = {"user_id", "external_user_id", "role", "num_electric_vehicles"}


def _rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def _external_id(served: PoderoSimulator, number: int) -> str:
    """Return the external id of a vehicle's user: users have numbers in the order of their first vehicles."""
    users = list(dict.fromkeys(vehicle.user_id for vehicle in served.vehicles))
    return f"customer_{users.index(served.vehicles[number].user_id) + 1}"


async def test_users_as_lines(call: Call, served: PoderoSimulator) -> None:
    """Each line has a user's id, external id, role and number of vehicles, and nothing that is personal."""
    ended = await call("users")
    assert (ended.code, ended.err) == (0, "")
    rows = _rows(ended.out)
    assert {row["user_id"] for row in rows} >= {str(vehicle.user_id) for vehicle in served.vehicles}
    assert all(row.keys() == NAMES for row in rows)
    assert sum(row["num_electric_vehicles"] for row in rows) == len(served.vehicles)
    assert {row["external_user_id"] for row in rows} == {f"customer_{number + 1}" for number in range(len(rows))}
    served.delete_user(served.vehicles[0].user_id)
    assert len(_rows((await call("users")).out)) == len(rows) - 1
    assert len(_rows((await call("users", "--include-deleted")).out)) == len(rows)


async def test_vehicles_feed_a_backfill(call: Call, served: PoderoSimulator, path: Path, tmp_path: Path) -> None:
    """The lines of `vehicles` are a file of `--vehicles`, from which the store gets external ids and models."""
    ended = await call("vehicles")
    assert (ended.code, ended.err) == (0, "")
    (tmp_path / "fleet.jsonl").write_text(ended.out)
    refs = list(read_vehicle_refs(ended.out.splitlines()))
    async with client_of(served) as client:
        found = {vehicle: vehicle async for vehicle in client.discover_vehicles()}
    assert set(refs) == set(served.vehicles)
    assert all(attrs.asdict(ref) == attrs.asdict(found[ref]) for ref in refs)
    listed = served.counts.requests["users"]
    assert (await call(*whole_fleet(served, path), f"--vehicles={tmp_path / 'fleet.jsonl'}")).code == 0
    assert served.counts.requests["users"] == listed
    shown = await call("sql", f"--store={path}", "--json", "SELECT DISTINCT external_user_id, model FROM live_sessions")
    assert {(row["external_user_id"], row["model"]) for row in _rows(shown.out)} == {
        (ref.external_user_id, ref.model) for ref in refs if served.truth(ref)
    }


@pytest.mark.parametrize("by", ["--user", "--external-id"])
async def test_the_vehicles_of_one_user(call: Call, served: PoderoSimulator, by: str) -> None:
    """With a user, only the user's vehicles are listed, with their external id."""
    user = served.vehicles[1].user_id
    ended = await call("vehicles", f"{by}={user if by == '--user' else _external_id(served, 1)}")
    rows = _rows(ended.out)
    assert {row["vehicle_id"] for row in rows} == {
        str(each.vehicle_id) for each in served.vehicles if each.user_id == user
    }
    assert {row["external_user_id"] for row in rows} == {_external_id(served, 1)}


async def test_tables_on_a_terminal(on_terminal: Call, served: PoderoSimulator) -> None:
    """A terminal gets tables, unless `--json` is given."""
    users, vehicles = await on_terminal("users"), await on_terminal("vehicles")
    assert "External id" in users.out
    assert "customer_1" in users.out
    assert "Make" in vehicles.out
    assert len(_rows((await on_terminal("vehicles", "--json")).out)) == len(served.vehicles)


@pytest.mark.parametrize("command", ["users", "vehicles"])
async def test_a_list_of_users_that_is_too_short_is_exit_code_1(
    call: Call, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """If the API counts more users than it lists, one line says so after the rows."""
    directory = Directory(list(range(60)), total_is_off_by=1)
    monkeypatch.setattr(PoderoClient, "from_env", lambda **_: directory.client())
    ended = await call(command)
    assert (ended.code, len(ended.out.splitlines())) == (1, 60)
    assert "may be missing" in ended.complaint


async def test_the_current_session(call: Call, served: PoderoSimulator) -> None:
    """The active session is printed as the API sends it; without one, `null` is printed."""
    vehicle = served.vehicles[0]
    row = served.truth(vehicle)[0] | {"unplug_time": None, "session_outcome": "in_progress"}
    names = [f"--user={vehicle.user_id}", f"--vehicle={vehicle.vehicle_id}"]
    for current in (row, None):
        served.set_current(vehicle, current)
        ended = await call("current", *names)
        assert (ended.code, json.loads(ended.out)) == (0, {"session": current})


async def test_the_current_session_on_a_terminal(on_terminal: Call, served: PoderoSimulator) -> None:
    """A terminal gets the known fields of the active session; without one, it gets one line."""
    vehicle = served.vehicles[0]
    row = served.truth(vehicle)[0] | {"unplug_time": None, "session_outcome": "in_progress"}
    names = [f"--user={vehicle.user_id}", f"--vehicle={vehicle.vehicle_id}"]
    served.set_current(vehicle, row)
    shown = await on_terminal("current", *names)
    assert re.search(r"^session_outcome +in_progress$", shown.out, re.MULTILINE)
    assert "unplug_time" not in shown.out
    assert json.loads((await on_terminal("current", *names, "--json")).out) == {"session": row}
    served.set_current(vehicle, None)
    assert (await on_terminal("current", *names)).out == "no active session\n"


@pytest.mark.slow
async def test_an_external_id_takes_the_place_of_a_user(call: Call, served: PoderoSimulator, filled: Path) -> None:
    """`sessions` and `current` ask the API for the user, and `forget` looks the external id up in the store."""
    vehicle, days = served.vehicles[1], (f"--from={served.first_day}", f"--to={served.last_day}")
    names = [f"--external-id={_external_id(served, 1)}", f"--vehicle={vehicle.vehicle_id}"]
    assert _rows((await call("sessions", *names, *days)).out) == served.truth(vehicle)
    assert (await call("current", *names)).code == 0
    ended = await call("forget", f"--store={filled}", names[0], "--json")
    assert json.loads(ended.out)["sessions"] > 0
    again = await call("forget", f"--store={filled}", names[0])
    assert again.code == 2
    assert again.complaint.startswith(
        "no user of the store has this external id: it is mistyped, or the user was erased"
    )
    repeated = await call("forget", f"--store={filled}", f"--user={vehicle.user_id}")
    assert (repeated.code, repeated.out) == (0, "0 sessions erased; later runs leave the user out\n")


async def test_a_user_with_one_vehicle_needs_no_vehicle(call: Call, served: PoderoSimulator) -> None:
    """`--vehicle` may be left out if the user has one; otherwise one line lists the vehicles to choose from."""
    days = (f"--from={served.first_day}", f"--to={served.last_day}")
    one = served.add_vehicle(sessions=3)
    assert _rows((await call("sessions", f"--user={one.user_id}", *days)).out) == served.truth(one)
    other = served.add_vehicle(one.user_id)
    ended = await call("sessions", f"--user={one.user_id}", *days)
    assert (ended.code, ended.out) == (2, "")
    assert "2 vehicles" in ended.complaint
    assert f"{other.vehicle_id} (" in ended.complaint
    for each in (one, other):
        served.remove_vehicle(each)
    ended = await call("current", f"--user={one.user_id}")
    assert (ended.code, ended.complaint) == (2, "the user has no vehicle")


@pytest.mark.parametrize("value", ["", ".."])
async def test_an_external_id_that_no_path_can_have_is_refused(call: Call, value: str) -> None:
    """An empty external id is refused before anything is sent."""
    ended = await call("current", f"--external-id={value}")
    assert ended.code == 2
    assert "--external-id: must be a string other than" in ended.complaint


async def test_an_unknown_external_id_is_not_repeated(call: Call, served: PoderoSimulator) -> None:
    """The error about an unknown external id does not show it, since it may identify a person."""
    ended = await call("current", "--external-id=jane-doe")
    assert ended.code == 2
    assert "jane" not in ended.complaint

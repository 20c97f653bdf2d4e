"""`podero-async sessions`: what a pipe gets, what a terminal gets, and what is said where rows are missing."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import date, timedelta
from typing import Any

import pytest

from podero_async.models import VehicleRef
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import USER, VEHICLE, wire_row
from tests.cli.conftest import Call, one_vehicle, run_on_pty, settings, start

_REF = VehicleRef(user_id=USER, vehicle_id=VEHICLE)


def _rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


async def test_lines_of_json_are_the_wires_rows(call: Call, served: PoderoSimulator) -> None:
    """What reads the lines would miss rows, or meet other names and texts than in the API's description."""
    ended = await call(*one_vehicle(served))
    assert (ended.code, ended.err) == (0, "")
    assert _rows(ended.out) == served.truth(served.vehicles[0])


async def test_hidden_sessions_on_request(call: Call, served: PoderoSimulator) -> None:
    """The blips could not be had, or came unasked."""
    vehicle = served.vehicles[0]
    served.hide(vehicle, served.truth(vehicle)[3]["id"])
    shown, every = await call(*one_vehicle(served)), await call(*one_vehicle(served), "--include-hidden")
    assert _rows(shown.out) == served.truth(vehicle)
    assert _rows(every.out) == served.truth(vehicle, include_hidden=True) != _rows(shown.out)


async def test_days_bound_what_is_printed(call: Call, served: PoderoSimulator) -> None:
    """A week would be another week, or "today" would be no day."""
    vehicle, last = served.vehicles[0], served.last_day
    names = [f"--user={vehicle.user_id}", f"--vehicle={vehicle.vehicle_id}"]
    week = await call("sessions", *names, f"--from={last - timedelta(6)}", f"--to={last}", "--json")
    assert _rows(week.out) == served.truth(vehicle, last - timedelta(6), last)
    served.insert(vehicle, wire_row(1))
    until_now = await call("sessions", *names, "--from=2026-01-01", "--to=today")
    assert until_now.code == 0
    assert str(date(2026, 1, 1)) in _rows(until_now.out)[-1]["plug_in_time"]


async def test_table_on_a_terminal(on_terminal: Call, served: PoderoSimulator) -> None:
    """A person would get JSON to read, or a table without sums, or one that a server's text can colour."""
    vehicle = served.vehicles[0]
    served.hide(vehicle, served.truth(vehicle)[3]["id"])
    strange = {"plug_in_time": "2026-01-01T02:01:00+02:00", "session_outcome": "[red]new\x1b[0m", "unplug_time": None}
    served.insert(vehicle, wire_row(1, **strange))
    ended = await on_terminal(*one_vehicle(served), "--include-hidden", "--from=2026-01-01")
    assert (ended.code, ended.err) == (0, "")
    rows = served.truth(vehicle, include_hidden=True)
    assert f"{len(rows)} sessions" in ended.out
    assert "Plug-in (UTC)" in ended.out
    assert "(hidden)" in ended.out
    assert "2026-01-01 00:01" in ended.out
    assert "[red]new [0m" in ended.out
    assert f"{sum(row['energy_charged_kwh'] or 0 for row in rows):,.1f}" in ended.out


async def test_table_on_a_real_terminal(served: PoderoSimulator) -> None:
    """Only the tests' own terminal would ever have shown the table."""
    ended = await run_on_pty(*one_vehicle(served))
    assert (ended.code, ended.err) == (0, "")
    assert f"{len(served.truth(served.vehicles[0]))} sessions" in ended.out
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", ended.out).splitlines())) <= 80


async def test_json_on_a_terminal(on_terminal: Call, served: PoderoSimulator) -> None:
    """`--json` would do nothing where one looks at it."""
    ended = await on_terminal(*one_vehicle(served), "--json")
    assert _rows(ended.out) == served.truth(served.vehicles[0])


async def test_a_pipe_that_closes_early(served: PoderoSimulator) -> None:
    """`podero-async sessions ... | head -1` would end in a traceback."""
    for _ in range(300):  # more than a pipe holds
        served.insert(served.vehicles[0])
    process = await start(*one_vehicle(served))
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(20):
        first = await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        assert await process.stderr.read() == b""
        assert await process.wait() == 0
    assert json.loads(first) == served.truth(served.vehicles[0])[0]


async def test_rows_that_cannot_be_read(call: Call, served: PoderoSimulator) -> None:
    """One bad row would cost all the others, or would be missing without a word."""
    served.add_fault(Fault(kind="malformed_row", field="plug_in_time", damage="missing"))
    ended = await call(*one_vehicle(served))
    assert ended.code == 1
    assert len(_rows(ended.out)) == len(served.truth(served.vehicles[0])) - 1
    assert "cannot be read" in ended.complaint
    assert "$.plug_in_time" in ended.complaint


@pytest.mark.parametrize("kind", ["lines", "table"])
async def test_unproven_rows_are_printed_and_said(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A list that may lack rows would pass for whole, or none of it would be shown."""
    rows = {_REF: [wire_row(number) for number in range(450)]}  # one day, more than two pages
    async with PoderoSimulator(rows=rows, faults=[Fault(kind="unstable_order")]) as simulator:
        for name, value in settings(simulator).items():
            monkeypatch.setenv(name, value)
        run: Call = request.getfixturevalue("call" if kind == "lines" else "on_terminal")
        ended = await run(*one_vehicle(simulator))
    assert ended.code == 1
    assert ended.complaint.startswith("not proven complete: ")
    assert len(ended.out.splitlines()) > 200


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, 3), (404, 4), (422, 4), (503, 4)],
)
async def test_the_apis_refusals(call: Call, served: PoderoSimulator, status: int, code: int) -> None:
    """A script could not tell what to do next: ask for access, correct the id, or come back later."""
    served.add_fault(Fault(kind="status", status=status, endpoint="sessions"))
    ended = await call(*one_vehicle(served))
    assert (ended.code, ended.out) == (code, "")
    assert f"HTTP {status}" in ended.complaint


async def test_a_vehicle_that_is_not_there(call: Call, served: PoderoSimulator) -> None:
    """A wrong id would look like a vehicle that never charged."""
    ended = await call(*one_vehicle(served), f"--vehicle={USER}")
    assert (ended.code, ended.out) == (4, "")
    assert "404" in ended.complaint


async def test_contradicting_credentials(call: Call, served: PoderoSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that contradict each other would be chosen among in silence."""
    monkeypatch.setenv("PODERO_TOKEN", "token-that-nobody-may-see")
    ended = await call(*one_vehicle(served))
    assert ended.code == 2
    assert "contradict" in ended.complaint
    assert not served.requests

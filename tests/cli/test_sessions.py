"""`podero-async sessions`: JSON lines, the table on a terminal, and the reasons why sessions may be missing."""

from __future__ import annotations

import asyncio
import json
import os
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from podero_async.models import VehicleRef
from podero_async.testing import Fault, PoderoSimulator
from tests._support.clients import USER, VEHICLE, wire_row
from tests._support.commands import Call, end_of, one_vehicle, run_on_pty, settings_of, start

_REF = VehicleRef(user_id=USER, vehicle_id=VEHICLE)


def _rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


async def test_json_lines(call: Call, served: PoderoSimulator) -> None:
    """Each line is a session as the API sends it."""
    ended = await call(*one_vehicle(served))
    assert (ended.code, ended.err) == (0, "")
    assert _rows(ended.out) == served.truth(served.vehicles[0])


async def test_hidden_sessions_on_request(call: Call, served: PoderoSimulator) -> None:
    """Hidden sessions are printed with `--include-hidden` only."""
    vehicle = served.vehicles[0]
    served.hide(vehicle, served.truth(vehicle)[3]["id"])
    shown, every = await call(*one_vehicle(served)), await call(*one_vehicle(served), "--include-hidden")
    assert _rows(shown.out) == served.truth(vehicle)
    assert _rows(every.out) == served.truth(vehicle, include_hidden=True) != _rows(shown.out)


async def test_days(call: Call, served: PoderoSimulator) -> None:
    """`--from` and `--to` are inclusive, and may be `today` or `yesterday`."""
    vehicle, last = served.vehicles[0], served.last_day
    names = [f"--user={vehicle.user_id}", f"--vehicle={vehicle.vehicle_id}"]
    week = await call("sessions", *names, f"--from={last - timedelta(6)}", f"--to={last}", "--json")
    assert _rows(week.out) == served.truth(vehicle, last - timedelta(6), last)
    served.insert(vehicle, wire_row(1))
    until_now = await call("sessions", *names, "--from=2026-01-01", "--to=today")
    assert until_now.code == 0
    assert str(date(2026, 1, 1)) in _rows(until_now.out)[-1]["plug_in_time"]
    today = datetime.now(UTC).replace(hour=0)
    late = [served.insert(vehicle, plug_in_time=today - timedelta(days))["id"] for days in range(3)]
    yesterday = await call("sessions", *names, "--from=yesterday", "--to=yesterday", "--json")
    assert [row["id"] for row in _rows(yesterday.out)] == [late[1]]


async def test_table_on_a_terminal(on_terminal: Call, served: PoderoSimulator) -> None:
    """A terminal gets a table with sums. Markup and control characters in texts of the server have no effect."""
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


@pytest.mark.slow
async def test_table_on_a_real_terminal(served: PoderoSimulator) -> None:
    """The table fits a terminal of 80 columns."""
    ended = await run_on_pty(*one_vehicle(served))
    assert (ended.code, ended.err) == (0, "")
    assert f"{len(served.truth(served.vehicles[0]))} sessions" in ended.out
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", ended.out).splitlines())) <= 80


async def test_json_on_a_terminal(on_terminal: Call, served: PoderoSimulator) -> None:
    """With `--json`, a terminal gets JSON lines, too."""
    ended = await on_terminal(*one_vehicle(served), "--json")
    assert _rows(ended.out) == served.truth(served.vehicles[0])


@pytest.mark.slow
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
async def test_a_time_that_utc_does_not_have(call: Call, on_terminal: Call, served: PoderoSimulator, time: str) -> None:
    """A time outside the range of UTC, which some servers send for null, is printed as sent, like the other sessions."""
    vehicle = served.vehicles[0]
    row = served.truth(vehicle)[3]
    served.update(vehicle, row["id"], unplug_time=time, charge_deadline=time)
    ended = await call(*one_vehicle(served))
    assert (ended.code, ended.err) == (0, "")
    assert _rows(ended.out) == served.truth(vehicle)
    assert (await on_terminal(*one_vehicle(served))).code == 0


@pytest.mark.slow
async def test_a_pipe_that_closes_early(served: PoderoSimulator) -> None:
    """`podero-async sessions ... | head -1` ends with exit code 0 and without an error."""
    for _ in range(300):  # more than a pipe holds
        served.insert(served.vehicles[0])
    reading, writing = os.pipe()
    process = await start(*one_vehicle(served), stdout=writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        first = await asyncio.to_thread(lines.readline)
    ended = await end_of(process)
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(first) == served.truth(served.vehicles[0])[0]


async def test_unreadable_rows(call: Call, served: PoderoSimulator) -> None:
    """If a row is unreadable, it is one line on stderr, the others are printed, and the exit code is 1."""
    served.add_fault(Fault(kind="malformed_row", field="plug_in_time", damage="missing"))
    ended = await call(*one_vehicle(served))
    assert ended.code == 1
    assert len(_rows(ended.out)) == len(served.truth(served.vehicles[0])) - 1
    assert "cannot be read" in ended.complaint
    assert "$.plug_in_time" in ended.complaint


@pytest.mark.parametrize("kind", ["lines", "table"])
async def test_unproven_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A list without a proof of completeness is printed, and the exit code is 1."""
    rows = {_REF: [wire_row(number) for number in range(450)]}  # one day, more than two pages
    async with PoderoSimulator(rows=rows, faults=[Fault(kind="unstable_order")]) as simulator:
        for name, value in settings_of(simulator).items():
            monkeypatch.setenv(name, value)
        run: Call = request.getfixturevalue("call" if kind == "lines" else "on_terminal")
        ended = await run(*one_vehicle(simulator))
    assert ended.code == 1
    assert ended.complaint.startswith("not proven complete: ")
    assert len(ended.out.splitlines()) > 200


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, 3), (404, 2), (422, 2), (503, 4)],
)
async def test_errors_of_the_api(call: Call, served: PoderoSimulator, status: int, code: int) -> None:
    """The exit code tells unknown ids, missing permissions and an outage apart."""
    served.add_fault(Fault(kind="status", status=status, endpoint="sessions"))
    ended = await call(*one_vehicle(served))
    assert (ended.code, ended.out) == (code, "")
    assert f"HTTP {status}" in ended.complaint


async def test_an_unknown_vehicle(call: Call, served: PoderoSimulator) -> None:
    """An unknown id is an error with advice, and not an empty list."""
    ended = await call(*one_vehicle(served), f"--vehicle={USER}")
    assert (ended.code, ended.out) == (2, "")
    assert "404" in ended.complaint
    assert ended.complaint.endswith("; check PODERO_ORG_ID, and the ids of user and vehicle")
    ended = await call("vehicles", "--external-id=nobody")
    assert ended.code == 2
    assert ended.complaint.endswith("; check PODERO_ORG_ID, and the external id")

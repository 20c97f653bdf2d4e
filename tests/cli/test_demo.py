"""`podero-async demo`: it succeeds on a fleet that fails and changes, and it would notice if something were missing."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable
from random import Random

import attrs
import pytest

from podero_async import FleetFetch, FleetSummary, VehicleFailure, VehicleSessions
from podero_async.cli import _demo_fleet, _plain
from podero_async.cli._demo_fleet import Drift, Witness, demo_simulator
from podero_async.testing import Fault
from tests.cli.conftest import Call, end_of, run_on_pty, start

Outcome = VehicleSessions | VehicleFailure
Deliver = Callable[[FleetFetch], Awaitable[Outcome]]
_CLEAN = "0 lost, 0 doubled, 0 altered, 0 foreign: all of it is there, once"


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no fault stand in the way of a test that is about something else."""
    monkeypatch.setattr(_demo_fleet, "_FAULTS", ())


async def test_with_all_that_goes_wrong() -> None:
    """The first thing that anybody tries would fail, or leave out what it promises to show."""
    ended = await end_of(await start("demo", "--vehicles", "30", "--seed", "2"))
    assert (ended.code, ended.err) == (0, "")
    said = dict(re.findall(r"^(\w+) +(.+)$", ended.out, re.MULTILINE))
    assert said["truth"] == _CLEAN
    assert said["vehicles"] == "30 fetched, 0 failed"
    labels = ["sessions", "energy", "cost", "savings", "outcomes", "requests", "lists", "speed", "faults", "changes"]
    assert [label for label in labels if label not in said] == []
    assert "status" in said["faults"]
    assert "token_revoked" in said["faults"]
    assert re.search(r"[1-9]\d* pauses", said["requests"])
    assert re.search(r"^ +\d+\.\d s  \d+ of 30 vehicles", ended.out, re.MULTILINE)


async def test_on_a_real_terminal() -> None:
    """The bar would never move, or would tear the summary apart."""
    ended = await run_on_pty("demo", "--vehicles", "5")
    assert (ended.code, ended.err) == (0, "")
    assert "5 of 5 vehicles" in ended.out
    assert "\x1b[" in ended.out
    assert _CLEAN in ended.out


@pytest.mark.usefixtures("calm")
async def test_bar_and_lines_on_a_terminal(on_terminal: Call) -> None:
    """`--plain` would do nothing, or would need rich."""
    bar, lines = await on_terminal("demo", "--vehicles=5"), await on_terminal("demo", "--vehicles=5", "--plain")
    assert (bar.code, lines.code) == (0, 0)
    assert "5 of 5 vehicles" in bar.out
    assert "\x1b[" not in lines.out
    assert _CLEAN in bar.out
    assert _CLEAN in lines.out


@pytest.mark.usefixtures("calm")
async def test_lists_that_change_all_the_time(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo would call a fleet torn because it was alive."""
    monkeypatch.setattr(_demo_fleet, "_CHANGING", 1.0)
    ended = await call("demo", "--vehicles=20")
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"[1-9]\d* sessions inserted, [1-9]\d* removed", ended.out)
    assert _CLEAN in ended.out


@pytest.mark.usefixtures("calm")
async def test_the_seed_says_what_comes(call: Call) -> None:
    """Two runs that should be the same would be about different fleets."""
    first, again = await call("demo", "--vehicles=3", "--seed=4"), await call("demo", "--vehicles=3", "--seed=4")
    other = await call("demo", "--vehicles=3", "--seed=5")
    assert first.out.splitlines()[0] == again.out.splitlines()[0] != other.out.splitlines()[0]


def test_the_fleet_of_the_demo() -> None:
    """The demo would be about less than it says: no second page, no user without vehicles, no hidden session."""
    simulator = demo_simulator(500, seed=0)
    assert len(simulator.vehicles) == 500
    assert 55_000 < simulator.total_sessions() < 65_000
    owners = [vehicle.user_id for vehicle in simulator.vehicles]
    assert 0 < len(set(owners)) < 500  # some have two
    assert len(simulator.truth(simulator.vehicles[-1])) > 200
    assert any(row["is_hidden"] for row in simulator.truth(simulator.vehicles[-1], include_hidden=True))


def _drop(outcome: VehicleSessions) -> VehicleSessions:
    return attrs.evolve(outcome, sessions=outcome.sessions[1:])


def _double(outcome: VehicleSessions) -> VehicleSessions:
    return attrs.evolve(outcome, sessions=[*outcome.sessions, outcome.sessions[0]])


def _alter(outcome: VehicleSessions) -> VehicleSessions:
    last = outcome.sessions[-1]
    return attrs.evolve(outcome, sessions=[*outcome.sessions[:-1], attrs.evolve(last, is_at_home=not last.is_at_home)])


def _invent(outcome: VehicleSessions) -> VehicleSessions:
    stranger = attrs.evolve(outcome.sessions[0], id=outcome.vehicle.vehicle_id)
    return attrs.evolve(outcome, sessions=[*outcome.sessions, stranger])


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [(_drop, "1 lost"), (_double, "1 doubled"), (_alter, "1 altered"), (_invent, "1 foreign")],
)
async def test_a_spoilt_vehicle_is_noticed(
    call: Call, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[VehicleSessions], VehicleSessions], said: str
) -> None:
    """The demo would say that all is there whatever the library does."""
    monkeypatch.setattr(_demo_fleet, "_CHANGING", 0.0)
    deliver = FleetFetch.__anext__
    spoilt: list[Outcome] = []

    async def spoilt_once(fleet: FleetFetch) -> Outcome:
        outcome = await deliver(fleet)
        if spoilt:
            return outcome
        spoilt.append(outcome)
        assert isinstance(outcome, VehicleSessions)
        return spoil(outcome)

    monkeypatch.setattr(FleetFetch, "__anext__", spoilt_once)
    ended = await call("demo", "--vehicles=3")
    assert ended.code == 1
    assert said in ended.out
    assert "NOT what the server has" in ended.out


def _without_the_first(deliver: Deliver) -> Deliver:
    swallowed: list[Outcome] = []

    async def next_outcome(fleet: FleetFetch) -> Outcome:
        if not swallowed:
            swallowed.append(await deliver(fleet))
        return await deliver(fleet)

    return next_outcome


def _with_the_first_twice(deliver: Deliver) -> Deliver:
    delivered: list[Outcome] = []

    async def next_outcome(fleet: FleetFetch) -> Outcome:
        delivered.append(delivered[0] if len(delivered) == 1 else await deliver(fleet))
        return delivered[-1]

    return next_outcome


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(("spoil", "said"), [(_without_the_first, "lost"), (_with_the_first_twice, "doubled")])
async def test_a_whole_vehicle_is_noticed(
    call: Call, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Deliver], Deliver], said: str
) -> None:
    """A vehicle that is never delivered, or twice, would not be missed."""
    monkeypatch.setattr(FleetFetch, "__anext__", spoil(FleetFetch.__anext__))
    ended = await call("demo", "--vehicles=3")
    assert ended.code == 1
    assert re.search(rf"[1-9]\d* {said}", ended.out)


async def test_failed_vehicles_are_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet with a failed vehicle would count as whole, or nobody would learn why it failed."""
    monkeypatch.setattr(
        _demo_fleet, "_FAULTS", (Fault(kind="status", status=404, endpoint="sessions", nth=range(1, 8)),)
    )
    ended = await call("demo", "--vehicles=9")
    assert ended.code == 1
    assert "2 fetched, 7 failed" in ended.out
    assert len(ended.err.splitlines()) == 5
    assert "HTTP 404" in ended.err


def test_a_line_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    """A log would fill with a line for each vehicle, or stay silent until the end."""
    with _plain.progress(9) as show:
        for tenth in range(31):
            show(FleetSummary(vehicles=tenth, seconds=tenth / 10))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" s  ")[0].strip() for line in lines] == ["1.0", "2.0", "3.0"]


async def test_a_removed_session_is_not_awaited() -> None:
    """A session that was removed while the fleet was read would be called lost."""
    simulator = demo_simulator(1, seed=0)
    witness = Witness(simulator, Drift(simulator, Random(0)))
    await witness.look()
    vehicle = simulator.vehicles[0]
    simulator.remove(vehicle, simulator.truth(vehicle)[0]["id"])
    witness.conclude()
    assert witness.found == {"lost": simulator.total_sessions()}  # nothing was delivered at all


async def test_ctrl_c_while_the_fleet_is_made() -> None:
    """Ctrl-C would be ignored for the first seconds, or end in a traceback."""
    process = await start("demo", "--vehicles=5000")
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert b"5,000 vehicles" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        ended = await end_of(process)
    assert (ended.code, ended.complaint) == (130, "interrupted")

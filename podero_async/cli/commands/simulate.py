"""`podero-async simulate`: serves a simulated fleet, so that a client can be tried without the API."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import attrs

from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._runtime import Exit, UsageError
from podero_async.testing import Fault, PoderoSimulator, parse_fault, rows_from_jsonl

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Serve a simulated fleet on loopback until Ctrl-C.

The output sets the environment of a client; a shell can evaluate it. A signal
is the way to end the server, so it ends with exit code 0, not 129, 130 or 143.
"""
_VEHICLES = 10
_SESSIONS = 120
_PLUGGED_IN = timedelta(hours=8)


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


@attrs.frozen(kw_only=True)
class Options:
    port: int
    latency: float
    token_lifetime: float
    faults: list[Fault]
    complete_every: float | None
    move_every: float | None
    vehicles: int | None
    users: int | None
    sessions: int | None
    seed: int
    rows: Path | None


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("server").add_argument
    port = "0 takes a free port (default: %(default)s)"
    add("--port", type=shared.whole_number(0, 65535), default=8080, metavar="N", help=port)
    latency = "delay of each response (default: none)"
    add("--latency", type=shared.seconds, default=0.0, metavar="SECONDS", help=latency)
    lifetime = "lifetime of a token (default: %(default)g)"
    add("--token-lifetime", type=shared.seconds, default=36000.0, metavar="SECONDS", help=lifetime)
    faults = "faults, such as status:503@5%% reset@2%% sessions/status:429:retry-after=1@#10,20 hang:2.5@1%%"
    faults += "; hang@100%%x2 affects the first 2 requests (x needs an @)"
    faults += "; the endpoints are current, sessions, token, user, users and vehicles"
    add("--faults", type=_fault, nargs="+", action="extend", default=[], metavar="SPEC", help=faults)
    add = parser.add_argument_group("changes").add_argument
    complete = "let a session complete now, and its vehicle be plugged in again, at this interval"
    add("--complete-every", type=shared.positive_number, metavar="SECONDS", help=complete)
    move = "let a vehicle move to another user at this interval"
    add("--move-every", type=shared.positive_number, metavar="SECONDS", help=move)
    add = parser.add_argument_group("fleet").add_argument
    count = shared.whole_number(1, 1_000_000)
    add("--vehicles", type=count, metavar="N", help=f"number of vehicles (default: {_VEHICLES})")
    add("--users", type=count, metavar="N", help="number of users (default: as many as vehicles)")
    sessions = f"sessions of each vehicle (default: {_SESSIONS})"
    add("--sessions", type=shared.whole_number(0, 100_000), metavar="N", help=sessions)
    add("--seed", type=int, default=0, metavar="N", help="seed of the generated data (default: %(default)s)")
    rows = "serve the rows of this file instead: JSON lines with user_id, vehicle_id and the fields of a session"
    shared.completes_files(add("--rows", type=Path, metavar="FILE", help=rows))


async def run(options: Options, invocation: Invocation) -> Exit:
    """Serve until a signal arrives."""
    simulator = _simulator(options)
    with invocation.signals.gracefully() as stop:
        async with AsyncExitStack() as running:
            try:
                await running.enter_async_context(simulator)
            except OSError as error:
                raise UsageError(f"cannot listen on port {options.port}: {error.strerror}") from error
            _print_settings(simulator)
            async with asyncio.TaskGroup() as group:
                changes = [group.create_task(change) for change in _changes(simulator, options)]
                await stop.event.wait()
                for change in changes:
                    change.cancel()
    return Exit.DONE


def _changes(simulator: PoderoSimulator, options: Options) -> Iterator[Coroutine[Any, Any, None]]:
    rng = Random(options.seed)
    for change, interval_s in ((_complete, options.complete_every), (_move, options.move_every)):
        if interval_s is not None and simulator.vehicles:
            yield _repeat(change, interval_s, simulator, rng)


async def _repeat(
    change: Callable[[PoderoSimulator, Random], None], interval_s: float, simulator: PoderoSimulator, rng: Random
) -> None:
    while True:
        await asyncio.sleep(interval_s)
        change(simulator, rng)


def _complete(simulator: PoderoSimulator, rng: Random) -> None:
    vehicle = rng.choice(simulator.vehicles)
    plugged_in = datetime.now(UTC) - _PLUGGED_IN  # the session ends now, on a day that a backfill reads again
    if simulator.current(vehicle) is None:
        simulator.plug_in(vehicle, plugged_in)
    simulator.complete_current(vehicle)
    simulator.plug_in(vehicle, plugged_in)


def _move(simulator: PoderoSimulator, rng: Random) -> None:
    vehicle = rng.choice(simulator.vehicles)
    others = [user_id for user_id in simulator.external_ids if user_id != vehicle.user_id]
    simulator.move_vehicle(vehicle, rng.choice(others) if others else None)


def _simulator(options: Options) -> PoderoSimulator:
    serving: dict[str, Any] = {
        "seed": options.seed,
        "faults": options.faults,
        "port": options.port,
        "latency_s": options.latency,
        "token_lifetime_s": options.token_lifetime,
    }
    if options.rows is None:
        vehicles = options.vehicles or _VEHICLES
        sessions = _SESSIONS if options.sessions is None else options.sessions
        users = options.users or vehicles
        return PoderoSimulator(vehicles=vehicles, users=users, sessions_per_vehicle=sessions, **serving)
    if any(size is not None for size in (options.vehicles, options.users, options.sessions)):
        raise UsageError("--rows brings its own fleet: leave out --vehicles, --users and --sessions")
    try:
        return PoderoSimulator(rows=rows_from_jsonl(options.rows), **serving)
    except OSError as error:
        raise UsageError(f"cannot read {options.rows}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read {options.rows}: {error}") from error


def _print_settings(simulator: PoderoSimulator) -> None:
    for name, value in simulator.environment.items():
        print(f"export {name}={value}")
    print(f"# {len(simulator.vehicles):,} vehicles, {simulator.total_sessions():,} sessions", end="")
    if external_ids := list(simulator.external_ids.values()):
        print(f", users {external_ids[0]} to {external_ids[-1]}", end="")
    for vehicle in simulator.vehicles[:1]:
        print(
            f"; one of them:\n# podero-async sessions --user {vehicle.user_id} --vehicle {vehicle.vehicle_id}"
            f" --from {simulator.first_day} --to {simulator.last_day}",
            end="",
        )
    print(flush=True)


COMMAND = Command("simulate", _DESCRIPTION, Options, add_arguments, run)

"""`podero-async simulate`: the simulator as a server of its own, to try a client on."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from podero_async.cli._options import whole_number
from podero_async.cli._runtime import Exit, UsageError
from podero_async.testing import Fault, PoderoSimulator, parse_fault, rows_from_jsonl

__all__ = ["add_to", "run"]

_ABOUT = """\
Serve a simulated fleet on loopback until SIGINT or SIGTERM, which is its normal end: exit code 0.
What it prints first can be evaluated by a shell, and sets the environment of a client.
"""
_VEHICLES = 10
_SESSIONS = 120
_MANY = 1_000_000
_FAULTS = "what goes wrong, as in: status:503@5%% reset@2%% sessions/status:429:retry-after=1@#10,20 hang:2.5@1%%"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    about = "serve a simulated fleet on loopback, until Ctrl-C"
    parser = commands.add_parser("simulate", help=about, description=_ABOUT, allow_abbrev=False)
    add = parser.add_argument
    add("--port", type=whole_number(0, 65535), default=8080, help="0 takes a free one (default: 8080)")
    add("--vehicles", type=whole_number(1, _MANY), metavar="N", help=f"how many (default: {_VEHICLES})")
    add("--users", type=whole_number(1, _MANY), metavar="N", help="how many (default: as many as vehicles)")
    add("--sessions", type=whole_number(0, 100_000), metavar="N", help=f"of each vehicle (default: {_SESSIONS})")
    add("--seed", type=int, default=0, metavar="N", help="of all that is generated (default: 0)")
    add("--rows", type=Path, metavar="FILE.jsonl", help="serve these instead: wire rows with user_id and vehicle_id")
    add("--faults", type=_fault, nargs="+", action="extend", default=[], metavar="SPEC", help=_FAULTS)
    return parser


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def run(arguments: argparse.Namespace) -> Exit:
    """Serve until a signal says that it is enough."""
    simulator, enough = _simulator(arguments), asyncio.Event()
    async with AsyncExitStack() as running:
        try:
            await running.enter_async_context(simulator)
        except OSError as error:
            raise UsageError(f"cannot listen on port {arguments.port}: {error.strerror}") from error
        with suppress(NotImplementedError):  # Windows: Ctrl-C interrupts, instead
            for name in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(name, enough.set)
        _introduce(simulator)
        await enough.wait()
    return Exit.DONE


def _simulator(arguments: argparse.Namespace) -> PoderoSimulator:
    sizes = (arguments.vehicles, arguments.users, arguments.sessions)
    options = {"seed": arguments.seed, "faults": arguments.faults, "port": arguments.port}
    if arguments.rows is None:
        vehicles = arguments.vehicles or _VEHICLES
        return PoderoSimulator(
            vehicles=vehicles,
            users=arguments.users or vehicles,
            sessions_per_vehicle=_SESSIONS if arguments.sessions is None else arguments.sessions,
            **options,
        )
    if any(size is not None for size in sizes):
        raise UsageError("--rows brings its own fleet: leave out --vehicles, --users and --sessions")
    try:
        return PoderoSimulator(rows=rows_from_jsonl(arguments.rows), **options)
    except OSError as error:
        raise UsageError(f"cannot read {arguments.rows}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read {arguments.rows}: {error}") from error


def _introduce(simulator: PoderoSimulator) -> None:
    settings = {
        "PODERO_BASE_URL": simulator.base_url,
        "PODERO_ORG_ID": simulator.org_id,
        "PODERO_CLIENT_ID": simulator.client_id,
        "PODERO_CLIENT_SECRET": simulator.client_secret,
    }
    for name, value in settings.items():
        print(f"export {name}={value}")
    print(f"# {len(simulator.vehicles):,} vehicles, {simulator.total_sessions():,} sessions", end="")
    for vehicle in simulator.vehicles[:1]:
        print(
            f"; one of them:\n# podero-async sessions --user {vehicle.user_id} --vehicle {vehicle.vehicle_id}"
            f" --from {simulator.first_day} --to {simulator.last_day}",
            end="",
        )
    print(flush=True)

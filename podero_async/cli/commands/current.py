"""`podero-async current`: prints the active charging session of a vehicle."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from uuid import UUID

import attrs

from podero_async import PoderoClient, RetryPolicy
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import session_row
from podero_async.cli._output.rows import is_table
from podero_async.cli._output.text import print_pairs
from podero_async.cli._runtime import Exit, in_one_line
from podero_async.cli._selection import UserOptions, add_user, add_vehicle, vehicle_of

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Print the active charging session of a vehicle.

The user is given by --user, or by your own id for the user, --external-id.
Prints one JSON object unless stdout is a terminal; its "session" is null if the
vehicle has no active session.
"""
_RETRY = RetryPolicy(max_attempts=5)  # gives up after a few seconds, since a user waits


@attrs.frozen(kw_only=True)
class Options(UserOptions):
    vehicle: UUID | None
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("what to read")
    add_user(group, "owner of the vehicle")
    add_vehicle(group.add_argument)
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print one JSON object, also on a terminal")


async def run(options: Options, invocation: Invocation) -> Exit:
    """Print the session."""
    async with PoderoClient.from_env(retry=invocation.retry or _RETRY) as client:
        vehicle = await vehicle_of(options, options.vehicle, client)
        session = await client.current_session(vehicle.user_id, vehicle.vehicle_id)
    row = None if session is None else session_row(session)
    if not is_table(json=options.json):
        print(json.dumps({"session": row}))
    elif row is None:
        print("no active session")
    else:
        width = max(map(len, row)) + 2
        print_pairs((f"{name:<{width}}", in_one_line(value)) for name, value in row.items() if value is not None)
    return Exit.DONE


COMMAND = Command("current", _DESCRIPTION, Options, add_arguments, run, uses_api=True)

"""`podero-async vehicles`: prints the vehicles of the organization, or of one user."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import attrs

from podero_async import CompletenessError, PoderoClient, VehicleRef
from podero_async._fleet.discovery import ref_of
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.rows import print_rows
from podero_async.cli._runtime import Exit, say
from podero_async.cli._selection import UserOptions, add_user, user_of
from podero_async.models import User

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Print the vehicles of the organization, or those of one user.

Prints a table on a terminal, otherwise one JSON object per line. These lines
are input for `backfill --vehicles`, so that several backfills of shards list
the fleet once. The exit code is 1 if the API counts more users than it lists.
"""
_HEADINGS = {
    "user_id": "User",
    "vehicle_id": "Vehicle",
    "external_user_id": "External id",
    "manufacturer": "Make",
    "model": "Model",
}


@attrs.frozen(kw_only=True)
class Options(UserOptions):
    max_concurrency: int
    requests_per_second: float | None
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("what to read")
    add_user(group, "only the vehicles of this user (default: of all users)", required=False)
    shared.add_speed(parser)
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print one JSON object per line, also on a terminal")


async def run(options: Options, invocation: Invocation) -> Exit:
    """Print the vehicles that arrive."""
    missing: list[str] = []

    async def rows(client: PoderoClient) -> AsyncIterator[dict[str, Any]]:
        is_of_fleet = options.user is None and options.external_id is None
        async with aclosing(client.discover_vehicles() if is_of_fleet else _of_user(options, client)) as vehicles:
            try:
                async for vehicle in vehicles:
                    yield attrs.asdict(vehicle)
            except CompletenessError as error:
                missing.append(f"some vehicles may be missing: {error}")

    async with shared.client_at_speed(options.max_concurrency, options.requests_per_second, invocation.retry) as client:
        await print_rows(rows(client), _HEADINGS, json=options.json)
    for reason in missing:
        say(reason)
    return Exit.INCOMPLETE if missing else Exit.DONE


async def _of_user(options: Options, client: PoderoClient) -> AsyncGenerator[VehicleRef, None]:
    user = User(id=await user_of(options, client), external_user_id=options.external_id)
    for vehicle in await client.electric_vehicles(user.id):
        yield ref_of(user, vehicle)


COMMAND = Command("vehicles", _DESCRIPTION, Options, add_arguments, run, uses_api=True)

"""`podero-async users`: prints the users of the organization."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import attrs

from podero_async import CompletenessError, PoderoClient, RetryPolicy
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.rows import print_rows
from podero_async.cli._runtime import Exit, say

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Print the users of the organization, with your own ids for them.

Prints a table on a terminal, otherwise one JSON object per line, without names
and addresses. The exit code is 1 if the API counts more users than it lists.
"""
_RETRY = RetryPolicy(max_attempts=5)  # gives up after a few seconds, since a user waits
_HEADINGS = {
    "user_id": "User",
    "external_user_id": "External id",
    "role": "Role",
    "num_electric_vehicles": "Vehicles",
}


@attrs.frozen(kw_only=True)
class Options:
    include_deleted: bool
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("what to read").add_argument
    add("--include-deleted", action="store_true", help="include deleted users")
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print one JSON object per line, also on a terminal")


async def run(options: Options, invocation: Invocation) -> Exit:
    """Print the users that arrive."""
    missing: list[str] = []

    async def rows(client: PoderoClient) -> AsyncIterator[dict[str, Any]]:
        async with aclosing(client.users(include_deleted=options.include_deleted)) as users:
            try:
                async for user in users:
                    yield {
                        "user_id": user.id,
                        "external_user_id": user.external_user_id,
                        "role": user.role,
                        "num_electric_vehicles": user.num_electric_vehicles,
                    }
            except CompletenessError as error:
                missing.append(f"some users may be missing: {error}")

    async with PoderoClient.from_env(retry=invocation.retry or _RETRY) as client:
        await print_rows(rows(client), _HEADINGS, json=options.json)
    for reason in missing:
        say(reason)
    return Exit.INCOMPLETE if missing else Exit.DONE


COMMAND = Command("users", _DESCRIPTION, Options, add_arguments, run, uses_api=True)

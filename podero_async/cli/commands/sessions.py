"""`podero-async sessions`: prints the sessions of one vehicle, as a table or as JSON lines."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import date, timedelta
from math import fsum
from uuid import UUID

import attrs

from podero_async import ChargingSession, CompletenessError, PoderoClient, RejectedItem, RetryPolicy
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import session_row
from podero_async.cli._output.rows import is_table
from podero_async.cli._output.text import in_utc
from podero_async.cli._runtime import Exit, in_one_line, say
from podero_async.cli._selection import UserOptions, add_user, add_vehicle, vehicle_of

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Print the completed charging sessions of a vehicle.

The user is given by --user, or by your own id for the user, --external-id.
Prints a table on a terminal, otherwise one JSON object per line. The exit code
is 1 if a row could not be read, or if the list could not be verified as
complete.
"""
_RETRY = RetryPolicy(max_attempts=5)  # gives up after a few seconds, since a user waits
_HOUR = timedelta(hours=1)


@attrs.frozen(kw_only=True)
class Options(UserOptions):
    vehicle: UUID | None
    from_date: date
    to_date: date
    include_hidden: bool
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("what to read")
    add_user(group, "owner of the vehicle")
    add_vehicle(group.add_argument)
    shared.add_days(group.add_argument)
    shared.add_include_hidden(group.add_argument)
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print one JSON object per line, also on a terminal")


async def run(options: Options, invocation: Invocation) -> Exit:
    """Print the sessions that arrive, then each reason why some may be missing."""
    reasons: list[str] = []

    def note_rejected(item: RejectedItem) -> None:
        reasons.append(f"row {item.index} cannot be read: {item.reason} - at {item.path}")

    async with PoderoClient.from_env(retry=invocation.retry or _RETRY) as client:
        vehicle = await vehicle_of(options, options.vehicle, client)
        stream = client.sessions(
            vehicle.user_id,
            vehicle.vehicle_id,
            options.from_date,
            options.to_date,
            include_hidden=options.include_hidden,
            on_rejected=note_rejected,
        )
        async with aclosing(stream):
            print_all = _print_table if is_table(json=options.json) else _print_lines
            await print_all(_until_unproven(stream, reasons))
    for reason in reasons:
        say(reason)
    return Exit.INCOMPLETE if reasons else Exit.DONE


async def _until_unproven(stream: AsyncIterator[ChargingSession], reasons: list[str]) -> AsyncIterator[ChargingSession]:
    """Yield all sessions of a stream; if it ends without a proof of completeness, note the reason."""
    try:
        async for session in stream:
            yield session
    except CompletenessError as error:
        reasons.append(f"not proven complete: {error}")


async def _print_lines(sessions: AsyncIterator[ChargingSession]) -> None:
    async for session in sessions:
        print(json.dumps(session_row(session)))


async def _print_table(stream: AsyncIterator[ChargingSession]) -> None:
    from podero_async.cli._output.rich import print_table  # noqa: PLC0415 - rich is an extra

    sessions = [session async for session in stream]
    columns = {
        "Plug-in (UTC)": f"{len(sessions):,} sessions",
        "Hours": "",
        "kWh": f"{fsum(session.energy_charged_kwh or 0 for session in sessions):,.1f}",
        "EUR": f"{fsum(session.actual_cost_eur or 0 for session in sessions):,.2f}",
        "Saved": f"{fsum(session.actual_savings_eur or 0 for session in sessions):,.2f}",
        "SoC %": "",
        "Outcome": "",
    }
    print_table(columns, map(_cells, sessions), numbers={"Hours", "kWh", "EUR", "Saved"})


def _cells(session: ChargingSession) -> tuple[str, ...]:
    end = session.unplug_time or session.inferred_session_end
    outcome = in_one_line(session.session_outcome.value)
    return (
        f"{in_utc(session.plug_in_time):%Y-%m-%d %H:%M}",
        _number((end - session.plug_in_time) / _HOUR if end else None, 1),
        _number(session.energy_charged_kwh, 1),
        _number(session.actual_cost_eur, 2),
        _number(session.actual_savings_eur, 2),
        f"{_number(session.initial_soc_pct, 0)} > {_number(session.final_soc_pct, 0)}",
        f"{outcome} (hidden)" if session.is_hidden else outcome,
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


COMMAND = Command("sessions", _DESCRIPTION, Options, add_arguments, run, uses_api=True)

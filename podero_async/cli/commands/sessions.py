"""`podero-async sessions`: one vehicle's sessions, as a table to read or as lines of JSON to pipe."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, timedelta

import attrs

from podero_async import ChargingSession, CompletenessError, PoderoClient, RejectedItem, RetryPolicy
from podero_async.cli import _options as types
from podero_async.cli._figures import Figures
from podero_async.cli._output.json import as_row
from podero_async.cli._runtime import Exit, UsageError, in_one_line, say

__all__ = ["add_to", "run"]

_ABOUT = """\
Print a vehicle's completed charging sessions: a table on a terminal, else one JSON object a line.
Exit code 1 if a row could not be read, or if nothing proves that the rows are all.
"""
_RETRY = RetryPolicy(max_attempts=5)  # somebody waits: some seconds, where there is no server
_HOUR = timedelta(hours=1)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    about = "print a vehicle's completed charging sessions"
    parser = commands.add_parser(
        "sessions", help=about, description=_ABOUT, epilog=types.ENVIRONMENT, allow_abbrev=False
    )
    parser.add_argument("--user", type=types.uuid, required=True, metavar="UUID", help="whose vehicle")
    parser.add_argument("--vehicle", type=types.uuid, required=True, metavar="UUID", help="which vehicle")
    types.add_days(parser)
    parser.add_argument("--include-hidden", action="store_true", help="with the blips that the server's classifier hid")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, as always into a pipe or a file")
    return parser


async def run(arguments: argparse.Namespace) -> Exit:
    """Print the sessions; those that arrived are printed even where more may exist."""
    if arguments.first > arguments.last:
        raise UsageError("--from must not be after --to")
    doubts = _Doubts()
    async with PoderoClient.from_env(retry=_RETRY) as client:
        stream = client.sessions(
            arguments.user,
            arguments.vehicle,
            arguments.first,
            arguments.last,
            include_hidden=arguments.include_hidden,
            on_rejected=doubts.rejected,
        )
        async with aclosing(stream):
            print_all = _print_lines if arguments.json or not sys.stdout.isatty() else _print_table
            await print_all(doubts.without(stream))
    for doubt in doubts.found:
        say(doubt)
    return Exit.INCOMPLETE if doubts.found else Exit.DONE


@attrs.define
class _Doubts:
    """What stands in the way of "these are all"."""

    found: list[str] = attrs.field(factory=list)

    def rejected(self, item: RejectedItem) -> None:
        self.found.append(f"row {item.index} cannot be read: {item.reason} - at {item.path}")

    async def without(self, sessions: AsyncIterator[ChargingSession]) -> AsyncIterator[ChargingSession]:
        try:
            async for session in sessions:
                yield session
        except CompletenessError as error:
            self.found.append(f"not proven complete: {error}")


async def _print_lines(sessions: AsyncIterator[ChargingSession]) -> None:
    async for session in sessions:
        print(json.dumps(as_row(session)))


async def _print_table(sessions: AsyncIterator[ChargingSession]) -> None:
    from podero_async.cli._output import rich as _terminal  # noqa: PLC0415 - it needs rich, which is an extra

    rows = [session async for session in sessions]
    figures = Figures()
    figures.add(rows)
    columns = {
        "Plug-in (UTC)": f"{figures.sessions:,} sessions",
        "Hours": "",
        "kWh": f"{figures.energy_kwh:,.1f}",
        "EUR": f"{figures.cost_eur:,.2f}",
        "Saved": f"{figures.savings_eur:,.2f}",
        "SoC %": "",
        "Outcome": "",
    }
    _terminal.print_table(columns, map(_cells, rows), numbers={"Hours", "kWh", "EUR", "Saved"})


def _cells(session: ChargingSession) -> tuple[str, ...]:
    end = session.unplug_time or session.inferred_session_end
    outcome = in_one_line(session.session_outcome.value)
    return (
        f"{session.plug_in_time.astimezone(UTC):%Y-%m-%d %H:%M}",
        _number((end - session.plug_in_time) / _HOUR if end else None, 1),
        _number(session.energy_charged_kwh, 1),
        _number(session.actual_cost_eur, 2),
        _number(session.actual_savings_eur, 2),
        f"{_number(session.initial_soc_pct, 0)} > {_number(session.final_soc_pct, 0)}",
        f"{outcome} (hidden)" if session.is_hidden else outcome,
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"

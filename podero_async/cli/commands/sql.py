"""`podero-async sql`: runs a query over a store."""

from __future__ import annotations

import csv
import io
import json
import sys
from argparse import ArgumentParser
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Any, Literal

import attrs

from podero_async.backfill import QueryError
from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import json_value
from podero_async.cli._runtime import Exit, UsageError, in_one_line, say

__all__ = ["COMMAND"]

_DESCRIPTION = """\
Run an SQL query over a store.

Prints a table on a terminal, otherwise CSV. The views are live_sessions,
monthly_savings and vehicle_coverage; SHOW TABLES lists all tables, and DESCRIBE
live_sessions its columns. Sends no request, needs no credentials, and opens the
store for reading only.
"""
_ROWS = 1_000
"""Rows that are read at a time, and the most rows of a table."""
_Batches = AsyncGenerator[tuple[list[str], list[tuple[Any, ...]]], None]


@attrs.frozen(kw_only=True)
class Options(shared.StoreOptions):
    query: str
    format: Literal["csv", "json"] | None


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("what to read").add_argument
    add("query", metavar="QUERY", help='the query, such as "FROM monthly_savings"')
    shared.add_store(parser)
    group = parser.add_argument_group("output").add_mutually_exclusive_group()
    as_json = "print one JSON object per line, also on a terminal"
    group.add_argument("--json", action="store_const", const="json", dest="format", help=as_json)
    as_csv = "print CSV, also on a terminal"
    group.add_argument("--csv", action="store_const", const="csv", dest="format", help=as_csv)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Run the query, and print the rows that arrive."""
    show = {"csv": _print_csv, "json": _print_lines, None: _print_table if sys.stdout.isatty() else _print_csv}
    async with (
        shared.opened(options, invocation.signals.event, read_only=True) as store,
        aclosing(store.stream(options.query, max_rows=_ROWS)) as batches,
    ):
        try:
            await show[options.format](batches)
        except QueryError as error:
            raise UsageError(error.reason) from error
    return Exit.DONE


async def _print_lines(batches: _Batches) -> None:
    async for names, rows in batches:
        for row in rows:
            print(json.dumps(dict(zip(names, map(json_value, row), strict=True))))


async def _print_csv(batches: _Batches) -> None:
    is_first = True
    async for names, rows in batches:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if is_first:
            writer.writerow(names)
        is_first = False
        writer.writerows([_cell(value) for value in row] for row in rows)
        print(text.getvalue(), end="")


async def _print_table(batches: _Batches) -> None:
    from podero_async.cli._output.rich import print_table  # noqa: PLC0415 - rich is an extra

    names, rows = await anext(batches)
    kinds = zip(*rows, strict=True) if rows else [()] * len(names)
    # A heading of a table is a key, so a second column of the same name gets spaces.
    headings = [f"{name}{' ' * number}" for number, name in enumerate(names)]
    numbers = {heading for heading, values in zip(headings, kinds, strict=True) if _are_numbers(values)}
    footers = [f"{len(rows):,} rows", *[""] * (len(names) - 1)]
    print_table(
        dict(zip(headings, footers, strict=True)),
        ([in_one_line(_cell(value)) for value in row] for row in rows),
        numbers=numbers,
    )
    if rows and (await anext(batches))[1]:
        say(f"the first {_ROWS:,} rows; --csv and --json print all of them")


def _are_numbers(values: Sequence[Any]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, int | float | Decimal) for value in present)


def _cell(value: Any) -> str:
    plain = json_value(value)
    if isinstance(plain, bool | dict | list):
        return json.dumps(plain)
    return "" if plain is None else str(plain)


COMMAND = Command("sql", _DESCRIPTION, Options, add_arguments, run)

"""Rows that arrive one by one: a table on a terminal, and JSON lines everywhere else."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from podero_async.cli._output.json import json_value
from podero_async.cli._runtime import in_one_line

__all__ = ["is_table", "print_rows"]


def is_table(*, json: bool) -> bool:
    """Return whether rows are printed as a table."""
    return not json and sys.stdout.isatty()


async def print_rows(rows: AsyncIterator[Mapping[str, Any]], headings: Mapping[str, str], *, json: bool) -> None:
    """Print rows as a table on a terminal, otherwise one JSON object a line, as soon as it arrives.

    Args:
        rows: The rows, by the names of their fields.
        headings: The headings of the table, by the names of the fields that it shows.
        json: Whether to print JSON lines on a terminal, too.
    """
    if is_table(json=json):
        await _print_table(rows, headings)
    else:
        await _print_lines(rows)


async def _print_lines(rows: AsyncIterator[Mapping[str, Any]]) -> None:
    async for row in rows:
        print(json.dumps({name: json_value(value) for name, value in row.items()}))


async def _print_table(rows: AsyncIterator[Mapping[str, Any]], headings: Mapping[str, str]) -> None:
    from podero_async.cli._output.rich import print_table  # noqa: PLC0415 - rich is an extra

    cells = [tuple(_cell(row[name]) for name in headings) async for row in rows]
    footers = [f"{len(cells):,}", *[""] * (len(headings) - 1)]
    print_table(dict(zip(headings.values(), footers, strict=True)), cells, numbers=())


def _cell(value: Any) -> str:
    return "" if value is None else in_one_line(json_value(value))

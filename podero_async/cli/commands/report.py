"""`podero-async report`: the figures of a store, as a page or on the terminal."""

from __future__ import annotations

import asyncio
import os
from argparse import ArgumentParser
from datetime import date
from itertools import zip_longest
from pathlib import Path

import attrs

from podero_async.cli import _options as shared
from podero_async.cli._command import Command, Invocation
from podero_async.cli._output.json import print_json
from podero_async.cli._output.text import Pair, print_pairs
from podero_async.cli._runtime import Exit, UsageError, in_one_line
from podero_async.report import Report, build_report
from podero_async.report._figures import By, page_maker
from podero_async.report._sections import sections_of
from podero_async.report._tiles import tiles_of
from podero_async.report._words import period

__all__ = ["COMMAND", "write_page"]

_DESCRIPTION = """\
Print the figures of a store, or write them as a page in one HTML file.

Shows energy, cost and savings by month, sessions by week, when cars are plugged
in and for how long, the outcomes of sessions, who saves most, which reads
failed, and which days are settled, provisional or missing. Sends no request and
needs no credentials. The page loads nothing, and has the names of customers.
"""
_MEMORY_MB = 256
_BAR, _SHORT_BAR = 16, 5
_MAX_ROWS = 26
"""Of a table of months, weeks or days, the last rows are printed."""


@attrs.frozen(kw_only=True)
class Options(shared.StoreOptions):
    from_date: date | None
    to_date: date | None
    time_zone: str
    by: By
    html: Path | None
    json: bool


def add_arguments(parser: ArgumentParser) -> None:
    shared.add_store(parser)
    parser.set_defaults(memory_limit=_MEMORY_MB)
    add = parser.add_argument_group("what to show").add_argument
    shared.add_days(add, required=False, kind="day of plug-ins")
    zone = "time zone of days and hours, such as Europe/Vienna (default: %(default)s)"
    add("--time-zone", default="UTC", metavar="NAME", help=zone)
    by = "what to list by savings and by trouble (default: %(default)s)"
    add("--by", choices=("customer", "vehicle", "price-zone"), default="customer", help=by)
    group = parser.add_argument_group("output").add_mutually_exclusive_group()
    html = "write a page to this file, and replace an older one"
    shared.completes_files(group.add_argument("--html", type=Path, metavar="FILE", help=html))
    shared.add_json(group.add_argument)


async def run(options: Options, invocation: Invocation) -> Exit:
    """Query the store; print the report, or write the page."""
    if options.html is not None:
        page_maker()  # a missing extra ends the command before it reads the store
    async with shared.opened(options, invocation.signals.event, read_only=True) as store:
        try:
            report = await build_report(
                store, options.from_date, options.to_date, time_zone=options.time_zone, by=options.by
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
    if options.html is not None:
        print_pairs([await write_page(report, options.html)])
    elif options.json:
        print_json(report)
    else:
        _print(report)
    return Exit.DONE


async def write_page(report: Report, target: Path) -> Pair:
    """Write the page of a report to a file, which is replaced when the new one is complete; return a line that says so.

    Raises:
        ConfigurationError: The extra `report` is not installed.
        OSError: The file cannot be written.
    """

    def write() -> int:
        content = report.to_html().encode()
        try:
            _replace(target, content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error
        return len(content)

    size = await asyncio.to_thread(write)
    return "page", f"{target}, {size / 1000:,.0f} kB"


def _replace(target: Path, content: bytes) -> None:
    if target.exists() and not target.is_file():  # such as /dev/stdout
        target.write_bytes(content)
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _print(report: Report) -> None:
    from podero_async.cli._output.rich import bars, print_section, shades  # noqa: PLC0415 - rich is an extra

    _print_tiles(report)
    for section in sections_of(report).values():
        if section.id == "arrivals":
            texts = shades(report.arrivals)
            rows = [(row[0], text) for row, text in zip(section.rows, texts, strict=True)]
            headings: tuple[str, ...] = ("", "".join(f"{hour:<6}" for hour in range(0, 24, 3)))
            print_section(section.title, section.finding, headings, rows if report.totals.sessions else [])
            continue
        # A line of 80 characters has space for an id and short bars.
        drawn = bars(section.values, _SHORT_BAR if any(section.ids) else _BAR)
        names = [_name(row[0], each) for row, each in zip_longest(section.rows, section.ids, fillvalue="")]
        table = [(name, *row[1:], bar) for name, row, bar in zip(names, section.rows, drawn, strict=True)]
        shown, left = (table[-_MAX_ROWS:], len(table) - _MAX_ROWS) if section.dates else (table, 0)
        finding = section.finding + (f" The last {_MAX_ROWS} of {len(table):,} rows:" if left > 0 else "")
        print_section(section.title, finding, (*section.headings, ""), shown)


def _name(name: str, row_id: str) -> str:
    return f"{in_one_line(name)}\n{row_id}" if row_id else in_one_line(name)


def _print_tiles(report: Report) -> None:
    print(f"{'period':<17}{period(report.from_date, report.to_date)} ({report.time_zone})")
    for tile in tiles_of(report):
        label, figure = tile.label.lower(), f"{tile.text} {tile.unit}".strip()
        for note in tile.notes or ("",):
            print(f"{label:<17}{figure:<17}{note}".rstrip())
            label = figure = ""


COMMAND = Command("report", _DESCRIPTION, Options, add_arguments, run)

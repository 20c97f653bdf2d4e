"""The report: a table of the figures, with the machine and the versions that they were measured with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.measuring import Figure

__all__ = ["HEADER", "render", "row"]

_PACKAGES = (
    "podero_async",
    "aiohttp",
    "duckdb",
    "pyarrow",
    "msgspec",
    "cattrs",
    "attrs",
    "tenacity",
    "zlib-ng",
    "uvloop",
    "httpx",
)
_METHOD = (
    "The server runs in its own process, pinned to the second core; the client is pinned to the first. Ratios are medians"
    " over pairs of runs in turn; the range in brackets is their interquartile range. The peers are (a) the client that"
    " openapi-python-client generates, (b) a hand-written aiohttp loop with cattrs, and (c) the bare loop: aiohttp and"
    " msgspec without any check, retry or proof."
)
_BOUNDS = {
    "full pages": (
        "by callgrind a page takes 1.07 times the bare loop's instructions; the rest is memory: pages are decoded one at a time,"
        " and their consumer runs in between, while the bare loop's objects die in the CPU's cache"
    ),
    "full pages, vehicles of 1,900": (
        "each page is decoded twice, on arrival for its ids and times and at the end for its rows, and pages overlap by 5"
        " rows of 200"
    ),
    "small pages": (
        "token, limiter, timeouts, retries, proof and hand-over take 131,000 instructions a request beside 662,000 of aiohttp and"
        " msgspec. A path over aiohttp's connector took 0.81 of the bare loop's CPU time, and was not taken: it rests on names"
        " that aiohttp does not document"
    ),
    "one awaited list_sessions": (
        "checks, slot, timeouts and retries take 106,000 instructions beside 1,455,000 of aiohttp and msgspec; the time of"
        " the bare loop shows how slow the core was in this run"
    ),
    "from podero_async import": (
        "attrs compiles some 40 classes of the client, each in 0.4 ms; msgspec and its decoders take 4 ms; tenacity and cattrs"
        " are imported in a thread when a client is made"
    ),
    "podero-async sessions": "the import of argparse, uvloop and the command, and the import of cattrs before the first fault",
    "longest block of the event loop": (
        "CPython's garbage collector: a full collection scans all objects of the process, regardless of which code"
        " triggers it; the figure without the collector is the library's own part"
    ),
    "100 ms a request": (
        "the figure of (c) is the share of the server's timer, the sockets and the core; the rest is the concurrency"
        " limit, which starts at 32, and the end, when fewer pages are left than there are slots"
    ),
    "a fleet": (
        "a first backfill asks for each vehicle's current session too, so it sends two requests a vehicle where the stream sends"
        " one; Arrow parses a session in 4 to 5.5 us, the INSERT and the COMMIT take about 3, the search for known ids, coverage,"
        " absence and receipts about 2, the digest 1.5"
    ),
    "1,000 requests a second": "the CPU time of small pages, whose row compares it with the bare loop's",
    "60 vehicles": (
        "the fast vehicles alone need 3,200 requests a second through 64 slots, and the concurrency limit starts at 32"
    ),
    "hidden 200 requests a second": (
        "exceeding the rate costs a pause of a second, so the client stays below its estimate and raises it slowly"
    ),
}

_LEFT_OUT = (
    "One `with_path` for the path and the query: 2,000 instructions a request fewer, but the path of the URL would contain a `?`.",
    (
        "A queue of our own in place of `asyncio.Queue`: an estimated 6,000 to 8,000 instructions a vehicle fewer, for a second"
        " handling of cancellation."
    ),
    "A request class of our own: aiohttp documents the parameter, but not the methods that the class would override.",
    "Decoding when the consumer asks for an outcome: a body that is not JSON must be requested again within the call.",
    (
        "Columns made of records instead of the bodies by Arrow: about as fast, but it holds the interpreter lock, and the garbage"
        " collector ran eleven times as often."
    ),
    "One thread for DuckDB: a batch was written in 5.8 instead of 6.6 us a session, but exports would use one core.",
)

HEADER = ("| figure | measured | aim | |", "|---|---|---|---|")


def row(figure: Figure) -> str:
    """Format a figure as a row of the table."""
    return f"| {figure.name} | {figure.value} | {figure.aim} | {_verdict(figure)} |"


def render(figures: Iterable[Figure]) -> str:
    """Format the report as Markdown."""
    known = list(figures)
    lines = [
        "# Results",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d} by `python -m benchmarks`, in one run: {_machine()}.",
        f"{_versions()}.",
        "",
        _METHOD,
        "",
        *HEADER,
        *map(row, known),
        "",
        *(f"- {each.name}: {each.note}." for each in known if each.note),
        "",
        "## Limits behind the missed aims",
        "",
        *(f"- {each.name}: {_bound(each)}." for each in known if each.reached is False),
        "",
        "## Steps that were tried or considered, and left out",
        "",
        *(f"- {step}" for step in _LEFT_OUT),
    ]
    return "\n".join(lines) + "\n"


def _verdict(figure: Figure) -> str:
    return "" if figure.reached is None else "reached" if figure.reached else "**missed**"


def _bound(figure: Figure) -> str:
    fitting = [name for name in _BOUNDS if figure.name.startswith(name)]
    return _BOUNDS[max(fitting, key=len)] if fitting else "unknown"


def _machine() -> str:
    return f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}, CPython {platform.python_version()}"


def _versions() -> str:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)

"""The report: a table of the figures, with the machine and the versions that they were measured with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.measuring import Figure

__all__ = ["line", "render"]

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
    "full pages": "the path of a page through token, limiter, retries and proof, and its wait for the event loop",
    "full pages, vehicles of 1,900": (
        "each page is decoded twice, on arrival for its ids and times and at the end for its rows, and pages overlap by 5"
        " rows of 200"
    ),
    "small pages": "the layers between the call and the socket",
    "one awaited list_sessions": (
        "the layers between the call and the socket; the time of the bare loop shows how slow the core was in this run"
    ),
    "longest block of the event loop": (
        "CPython's garbage collector: a full collection scans all objects of the process, regardless of which code"
        " triggers it; the figure without the collector is the library's own part"
    ),
    "100 ms a request": (
        "the figure of (c) is the share of the server's timer, the sockets and the core; the rest is the concurrency"
        " limit, which starts at 32, and the end, when fewer pages are left than there are slots"
    ),
    "60 vehicles": (
        "the fast vehicles alone need 3,200 requests a second through 64 slots, and the concurrency limit starts at 32"
    ),
    "hidden 200 requests a second": (
        "exceeding the rate costs a pause of a second, so the client stays below its estimate and raises it slowly"
    ),
}


def line(figure: Figure) -> str:
    """Format a figure for a terminal."""
    verdict = "" if figure.reached is None else "reached" if figure.reached else "MISSED"
    return f"{figure.name}: {figure.value}" + (f" [{figure.aim}: {verdict}]" if figure.aim else "")


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
        "| figure | measured | aim | |",
        "|---|---|---|---|",
        *(f"| {each.name} | {each.value} | {each.aim} | {_verdict(each)} |" for each in known),
        "",
        *(f"- {each.name}: {each.note}." for each in known if each.note),
        "",
        "## Limits behind the missed aims",
        "",
        *(f"- {each.name}: {_bound(each)}." for each in known if each.reached is False),
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

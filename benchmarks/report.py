"""The report: figures to a table, beside the machine and the versions they were measured with."""

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
    "The server runs in a process of its own, pinned to the second core; the client is pinned to the first. Ratios are"
    " medians over pairs that were run in turn; in brackets the middle half of the pairs."
)
_BOUNDS = {
    "full pages": (
        "what lies between the floor and us is a page's way through token, throttle, retries and verdict, and the turn that"
        " it waits for; the profile below says how much each takes"
    ),
    "full pages, vehicles of 1,900": (
        "each page is parsed twice, for its ids and times on arrival and for its rows when the list is whole, and pages"
        " overlap by 5 rows of 200: see `decoding` in the profile below"
    ),
    "small pages": "the layers between the call and the socket, by the profile below",
    "one awaited list_sessions": (
        "the layers between the call and the socket: the profile of small pages shows them; the floor's own call says how"
        " slow the core was in this run"
    ),
    "event loop held up": (
        "CPython's collector: a full pass over everything that is loaded and held, whoever triggers it; the figure with the"
        " collector apart is what the fetch itself takes at a time"
    ),
    "100 ms a request": (
        "the figure of (c) beside it is what the server's timer, the sockets and the core take; the rest is the limit, which"
        " begins at 32, and the end, where the last lists have fewer pages than there are places"
    ),
    "60 vehicles": "the quick ones alone need 3,200 requests a second through 64 places; and the limit begins at 32",
    "hidden 200 requests a second": (
        "a step over the rate costs a pause of a second, so the pace stays below it and is left slowly"
    ),
}


def line(figure: Figure) -> str:
    """Show a figure on a terminal."""
    verdict = "" if figure.reached is None else "reached" if figure.reached else "MISSED"
    return f"{figure.name}: {figure.value}" + (f" [{figure.aim}: {verdict}]" if figure.aim else "")


def render(figures: Iterable[Figure], paper: Iterable[str]) -> str:
    """Write the whole report as Markdown."""
    known = list(figures)
    lines = [
        "# Results",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d} by `python -m benchmarks`, all in one run: {_machine()}.",
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
        "## What bounds the aims that were missed",
        "",
        *(f"- {each.name}: {_bound(each)}." for each in known if each.reached is False),
        "",
        "## Where the time of a request goes",
        "",
        "Sampled a thousand times a second of CPU, beside the measurements; the sampling itself slows both sides a little.",
        "",
        *(
            line
            for each in known
            if each.profile
            for line in (f"{each.name.partition(':')[0]}:", "", *each.profile, "")
        ),
        "## A million vehicles, on paper",
        "",
        *paper,
        "",
        "## Pictures",
        "",
        "![The adaptive limit](limit.svg)",
        "",
        "![The pager's schedule](pager.svg)",
    ]
    return "\n".join(lines) + "\n"


def _verdict(figure: Figure) -> str:
    return "" if figure.reached is None else "reached" if figure.reached else "**missed**"


def _bound(figure: Figure) -> str:
    fitting = [name for name in _BOUNDS if figure.name.startswith(name)]
    return _BOUNDS[max(fitting, key=len)] if fitting else "not known yet"


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

"""The report: figures to a table, beside the machine and the versions they were measured with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.measuring import Figure

__all__ = ["line", "render"]

_PACKAGES = ("podero_async", "aiohttp", "msgspec", "cattrs", "attrs", "tenacity", "zlib-ng", "uvloop", "httpx")
_METHOD = (
    "The server runs in a process of its own, pinned to the second core; the client is pinned to the first. Ratios are"
    " medians over pairs that were run in turn; in brackets the middle half of the pairs."
)
_BOUNDS = {
    "full pages": (
        "what is decoded and waits for its consumer is walked over by the collector, and is out of the processor's cache"
        " when it is looked at, while the floor throws its rows away at once; and a page's way through token, throttle,"
        " retries and verdict costs what the small pages show"
    ),
    "full pages, vehicles of 1,900": (
        "each page but the first is parsed twice, for its ids and times on arrival and for its rows when the list is"
        " whole: a third of a parse more; and pages overlap by 5 rows of 200"
    ),
    "small pages": "the layers between the call and the socket: token, throttle, retries, verdict, and two queues",
    "one awaited list_sessions": "the layers between the call and the socket; the floor's own call says how slow the core is",
    "import podero_async": (
        "msgspec, and cattrs and tenacity, which are needed at the first odd row and the first retry: loading them only"
        " then would hold the event loop up"
    ),
    "event loop held up": (
        "CPython's collector, whose full pass over the modules that are loaded costs this much here, whoever triggers it"
    ),
    "100 ms a request": (
        "answers come in waves of 64, and a place stands empty while the answers before it are read and the requests"
        " before it are sent, some 0.3 ms of CPU each on this machine; and the limit begins at 16"
    ),
    "60 vehicles": (
        "the quick ones alone need 3,200 requests a second through 64 places, more than one core of this machine sends;"
        " and the limit begins at 16"
    ),
    "hidden 200 requests a second": (
        "a step over the rate in a fixed window costs a pause of up to a second, so the pace stays below it"
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

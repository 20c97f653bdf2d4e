"""`python -m benchmarks` measures everything, prints a table of the figures with their aims, and writes it to RESULTS.md.

With names it runs only those benchmarks, with `--quick` short forms, and with `--client MODULE:FUNCTION` it compares this
library with another client; it then writes nothing. The function is a coroutine function that takes an origin, a list of
`VehicleRef` and the highest number of requests in flight, and returns the number of sessions that it has fetched.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from benchmarks import footprint, scheduling, throughput
from benchmarks.measuring import Figure
from benchmarks.peers import Fetch
from benchmarks.report import HEADER, render, row

_RESULTS = Path(__file__).with_name("RESULTS.md")


def _cores() -> int | None:
    """Pin this process to the first core; return the second one for the server, if there are two."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, {cores[0]})
    return cores[1]


def _benchmarks(core: int | None, *, quick: bool, client: Fetch | None) -> dict[str, Callable[[], Iterator[Figure]]]:
    pages = {"pages": lambda: throughput.pages(core, 2 if quick else 11, 5 if quick else 1, client)}
    if client is not None:
        return pages
    return {
        # First, since the garbage collector would also scan the modules that the peers import.
        "latency": lambda: scheduling.latency(core, 100 if quick else 1000),
        "limit": lambda: scheduling.hidden_limit(core, 8.0 if quick else 60.0),
        "rate": lambda: scheduling.hidden_rate(core, 5.0 if quick else 40.0),
        "slow": lambda: scheduling.slow_vehicles(core, 200 if quick else 2000, 6 if quick else 60),
        "requests": lambda: scheduling.requests(core, 50 if quick else 300),
        **pages,
        "call": lambda: throughput.list_sessions(core, 5 if quick else 40),
        "share": lambda: throughput.loop_share(core, 1.0 if quick else 10.0),
        "memory": lambda: footprint.memory(core, 200 if quick else 1),
        "import": lambda: footprint.imports(1 if quick else 15),
        "blocking": lambda: footprint.blocking(core, 20 if quick else 1),
        "store": lambda: _store(core, 20 if quick else 1000),
        "frames": lambda: _frames(20 if quick else 500, 2 if quick else 11),
    }


def _store(core: int | None, vehicles: int) -> Iterator[Figure]:
    from benchmarks import store  # noqa: PLC0415  # the garbage collector scans DuckDB and Arrow once they are imported

    return store.figures(core, vehicles)


def _frames(vehicles: int, pairs: int) -> Iterator[Figure]:
    from benchmarks import frames  # noqa: PLC0415  # as above

    return frames.figures(vehicles, pairs)


def _function(text: str) -> Fetch:
    """Import a function, `MODULE:FUNCTION`, also from the current directory."""
    module, _, name = text.partition(":")
    function: Fetch = getattr(import_module(module), name)
    return function


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="short forms, which take about a minute")
    parser.add_argument("--client", type=_function, metavar="MODULE:FUNCTION", help="another client to compare")
    options = parser.parse_args()
    core = _cores()
    benchmarks = _benchmarks(core, quick=options.quick, client=options.client)
    if unknown := set(options.names) - benchmarks.keys():
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}; choose from {', '.join(benchmarks)}")
    began = time.perf_counter()
    figures = []
    print(*HEADER, sep="\n")
    for name in options.names or benchmarks:
        for figure in benchmarks[name]():
            figures.append(figure)
            print(row(figure), flush=True)
    if not (options.quick or options.names or options.client):
        _RESULTS.write_text(render(figures))
    print(f"measured in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

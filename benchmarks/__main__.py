"""`python -m benchmarks` measures everything, prints each figure with its aim, and writes RESULTS.md.

With names it runs only those benchmarks, with `--quick` short forms; it then writes nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import footprint, scheduling, throughput
from benchmarks.measuring import Figure
from benchmarks.report import line, render

_RESULTS = Path(__file__).with_name("RESULTS.md")


def _cores() -> int | None:
    """Pin this process to the first core; return the second one for the server, if there are two."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, {cores[0]})
    return cores[1]


def _benchmarks(core: int | None, *, quick: bool) -> dict[str, Callable[[], Iterator[Figure]]]:
    return {
        # First, since the garbage collector would also scan the modules that the peers import.
        "latency": lambda: scheduling.latency(core, 100 if quick else 1000),
        "limit": lambda: scheduling.hidden_limit(core, 8.0 if quick else 60.0),
        "rate": lambda: scheduling.hidden_rate(core, 5.0 if quick else 40.0),
        "slow": lambda: scheduling.slow_vehicles(core, 200 if quick else 2000, 6 if quick else 60),
        "requests": lambda: scheduling.requests(core, 50 if quick else 300),
        "pages": lambda: throughput.pages(core, 2 if quick else 11, 5 if quick else 1),
        "call": lambda: throughput.list_sessions(core, 5 if quick else 40),
        "memory": lambda: footprint.memory(core, 200 if quick else 1),
        "import": lambda: footprint.imports(2 if quick else 15),
        "blocking": lambda: footprint.blocking(core, 20 if quick else 1),
        "store": lambda: _store(core, 50 if quick else 1000),
        "frames": lambda: _frames(50 if quick else 500, 2 if quick else 11),
    }


def _store(core: int | None, vehicles: int) -> Iterator[Figure]:
    from benchmarks import store  # noqa: PLC0415  # the garbage collector scans DuckDB and Arrow once they are imported

    return store.figures(core, vehicles)


def _frames(vehicles: int, pairs: int) -> Iterator[Figure]:
    from benchmarks import frames  # noqa: PLC0415  # as above

    return frames.figures(vehicles, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="short forms, which take about a minute")
    options = parser.parse_args()
    core = _cores()
    benchmarks = _benchmarks(core, quick=options.quick)
    if unknown := set(options.names) - benchmarks.keys():
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}; choose from {', '.join(benchmarks)}")
    began = time.perf_counter()
    figures = []
    for name in options.names or benchmarks:
        for figure in benchmarks[name]():
            figures.append(figure)
            print(line(figure), flush=True)
    if not options.quick and not options.names:
        _RESULTS.write_text(render(figures))
    print(f"measured in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

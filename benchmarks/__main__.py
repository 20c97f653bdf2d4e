"""`python -m benchmarks` measures everything and writes RESULTS.md and two pictures beside this file.

With names it measures those alone, with `--quick` a short form of most; neither writes anything.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import footprint, guarded, quick_server
from benchmarks.measuring import Figure
from benchmarks.paper import table
from benchmarks.pictures import limit_picture, pager_picture
from benchmarks.report import line, render
from benchmarks.server import Answered

_FOLDER = Path(__file__).parent
_SMALL_PAGES = "small pages, vehicles of 10: ours / (c) the floor"


def _cores() -> int | None:
    """Pin this process to the first core; return the second one for the server, where there is one."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, {cores[0]})
    return cores[1]


def _scenarios(core: int | None, answered: list[Answered], *, quick: bool) -> dict[str, Callable[[], Iterator[Figure]]]:
    seconds = 8.0 if quick else 60.0

    def limit() -> Iterator[Figure]:
        answered.extend(guarded.limit_run(core, seconds, halved=True))
        return guarded.hidden_limit(answered, seconds)

    return {
        # First: what the peers import would be walked over by the collector while 64 places wait.
        "latency": lambda: guarded.latency(core, 100 if quick else 1000),
        "limit": limit,
        "rate": lambda: guarded.hidden_rate(core, 5.0 if quick else 40.0),
        "slow": lambda: guarded.slow_vehicles(core, 200 if quick else 2000, 6 if quick else 60),
        "requests": lambda: guarded.requests(core, 50 if quick else 300),
        "pages": lambda: quick_server.pages(core, 2 if quick else 11, 5 if quick else 1),
        "call": lambda: quick_server.list_sessions(core, 5 if quick else 40),
        "memory": lambda: footprint.memory(core, 200 if quick else 1),
        "import": lambda: footprint.imports(2 if quick else 15),
        "blocking": lambda: footprint.blocking(core, 20 if quick else 1),
        "store": lambda: _store(core, 50 if quick else 1000),
    }


def _store(core: int | None, vehicles: int) -> Iterator[Figure]:
    from benchmarks import store  # noqa: PLC0415  # the collector would walk over DuckDB and Arrow in all the others

    return store.figures(core, vehicles)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="scenarios to measure; all without a name")
    parser.add_argument("--quick", action="store_true", help="in under a minute, for an impression")
    options = parser.parse_args()
    core = _cores()
    answered: list[Answered] = []
    scenarios = _scenarios(core, answered, quick=options.quick)
    if unknown := set(options.names) - scenarios.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(scenarios)}")
    began = time.perf_counter()
    figures = []
    for name in options.names or scenarios:
        for figure in scenarios[name]():
            figures.append(figure)
            print(line(figure), flush=True)
    if not options.quick and not options.names:
        rate = next(figure for figure in figures if figure.name == _SMALL_PAGES).value
        paper = table(10 / float(rate.split(":")[1].split()[0].replace(",", "")))
        (_FOLDER / "limit.svg").write_text(limit_picture(answered, 60.0))
        (_FOLDER / "pager.svg").write_text(pager_picture(core))
        (_FOLDER / "RESULTS.md").write_text(render(figures, paper))
    print(f"measured in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

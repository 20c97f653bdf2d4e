"""Replay the year of a seed: `python -m tests.year SEED [--days N]`."""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

from tests.year.simulation import Year


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.year", description="Replay the year of a seed.")
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--quiet", action="store_true", help="do not print each run")
    options = parser.parse_args()
    total: dict[str, int] = {}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(dir=_memory()) as directory:
            year = Year(seed, options.days, Path(directory))
            print(seed, year.habit, flush=True)
            if not options.quiet:
                year.trace = lambda line: print(line, flush=True)
            before = resource.getrusage(resource.RUSAGE_SELF)
            for name, number in year.run().items():
                total[name] = total.get(name, 0) + number
            after = resource.getrusage(resource.RUSAGE_SELF)
            print(
                f"seed {seed}: {after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.1f} s of CPU,"
                f" digest {year.digest.hexdigest()[:12]}"
            )
    for name in sorted(total):
        print(f"{total[name]:8,} {name}")


def _memory() -> str | None:
    """Return a directory in memory, if there is one, since a year flushes thousands of times."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    main()

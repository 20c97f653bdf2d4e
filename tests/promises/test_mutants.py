"""A change of the code that breaks a promise fails a test: nine of ten mutants are killed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

soak = pytest.mark.soak


@pytest.mark.parametrize(
    ("name", "every"),
    [
        pytest.param("_concurrency", 10, marks=pytest.mark.slow),
        *(pytest.param(name, 1, marks=soak) for name in ("_auth", "_decode", "_fleet", "_flow", "_http", "_paging")),
        pytest.param("backfill.store.duckdb.upsert", 1, marks=soak),
    ],
)
def test_nine_of_ten_mutants_are_killed(
    name: str, every: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """The tests of a module fail for at least nine of ten of its mutants, or of a sample of them."""
    every = max(every, round(1 / soak_scale))
    command = [sys.executable, "-m", "tests._support.mutants", name, "--every", str(every)]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    counts = re.findall(r"(\d+) of (\d+) killed, (\d+) of them hung", run.stdout)
    killed, made, hung = (sum(map(int, column)) for column in zip(*counts, strict=True))
    record_property("figure", f"{name}: {killed} of {made} mutants killed, {hung} of them by a hang")
    assert killed >= 0.9 * made, run.stdout

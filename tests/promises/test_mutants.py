"""Whether the tests would notice: a module with one thing changed must fail them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.soak
@pytest.mark.parametrize(
    "room", ["_retry", "_auth", "_pages", "_decode", "_throttle", "_pace", "backfill._store_write"]
)
def test_nine_of_ten_mutants_are_killed(
    room: str, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """A change that breaks a promise would pass the tests."""
    every = max(1, round(1 / soak_scale))
    command = [sys.executable, "-m", "tests._support.mutants", room, "--every", str(every)]
    told = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True).stdout
    figures = re.findall(r"(\d+) of (\d+) killed, (\d+) of them hung", told)
    killed, made, hung = (sum(map(int, column)) for column in zip(*figures, strict=True))
    record_property("figure", f"{room}: {killed} of {made} mutants killed, {hung} of them by a hang")
    assert killed >= 0.9 * made, told

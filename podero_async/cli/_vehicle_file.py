"""The file of `--vehicles`: every line is checked before the first request, and lines are then read one by one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

from podero_async.backfill import read_vehicle_refs
from podero_async.cli._runtime import UsageError
from podero_async.cli._signals import Signals
from podero_async.models import VehicleRef

__all__ = ["vehicles_from"]


@contextmanager
def vehicles_from(source: str | None, signals: Signals) -> Iterator[Iterator[VehicleRef] | None]:
    """Read vehicles from a file, or from stdin (`-`); yield None if none is given.

    A signal ends the read of a pipe that has no end. Memory does not grow with the number of vehicles: if a source cannot
    be read twice, it is first copied to a temporary file.

    Raises:
        UsageError: The file cannot be read, a line is not a vehicle, or the file has no vehicle.
    """
    if source is None:
        yield None
        return
    with signals.blocked(_opened, source) as file:
        if not sum(1 for _ in _refs(file, source)):
            raise UsageError(f"no vehicle in {_name(source)}")
        file.seek(0)
        yield _refs(file, source)


def _opened(source: str) -> IO[bytes]:
    try:
        if source == "-":
            return _copied(sys.stdin.buffer)
        file = open(source, "rb")  # noqa: PTH123, SIM115 - closed by the caller
        if file.seekable():
            return file
        with file:  # a pipe: `--vehicles <(...)`
            return _copied(file)
    except OSError as error:
        raise UsageError(f"cannot read {_name(source)}: {error.strerror}") from error


def _copied(source: IO[bytes]) -> IO[bytes]:
    copy = TemporaryFile()  # noqa: SIM115 - closed by the caller
    shutil.copyfileobj(source, copy)
    copy.seek(0)
    return copy


def _refs(file: IO[bytes], source: str) -> Iterator[VehicleRef]:
    # A line that is not UTF-8 then fails as a bad vehicle, with its number.
    lines = (line.decode(errors="replace") for line in file)
    try:
        yield from read_vehicle_refs(lines)
    except ValueError as error:
        raise UsageError(f"{_name(source)}, {error}") from error


def _name(source: str) -> str:
    return "stdin" if source == "-" else source

"""The file behind `--vehicles`: checked to its last line before anything begins, then read as it is needed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

from podero_async.backfill import read_vehicle_refs
from podero_async.cli._runtime import UsageError
from podero_async.cli._signals import ends_on_ctrl_c
from podero_async.models import VehicleRef

__all__ = ["given_vehicles"]


@contextmanager
def given_vehicles(source: str | None) -> Iterator[Iterator[VehicleRef] | None]:
    """Read vehicles from a file, or from stdin (`-`); None where none were named.

    However many they are, they are never held: what cannot be read twice is copied to a temporary file first.

    Raises:
        UsageError: There is no such file, one of its lines is no vehicle, or none is.
    """
    if source is None:
        yield None
        return
    with _opened(source) as file:
        if not sum(1 for _ in _refs(file, source)):
            raise UsageError(f"no vehicle in {_name(source)}")
        file.seek(0)
        yield _refs(file, source)


def _opened(source: str) -> IO[bytes]:
    try:
        with ends_on_ctrl_c():
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
    # What is no UTF-8 is no vehicle either: its line is to be named, like any other bad line.
    lines = (line.decode(errors="replace") for line in file)
    try:
        yield from read_vehicle_refs(lines)
    except ValueError as error:
        raise UsageError(f"{_name(source)}, {error}") from error


def _name(source: str) -> str:
    return "stdin" if source == "-" else source

"""What stands on the command line, read into values: each fault is one line that says what is wanted."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, date, datetime
from uuid import UUID

from podero_async.backfill import Shard

__all__ = ["ENVIRONMENT", "add_days", "add_store", "day", "rate", "shard", "uuid", "whole_number"]

ENVIRONMENT = """\
environment:
  PODERO_ORG_ID, and either PODERO_CLIENT_ID and PODERO_CLIENT_SECRET, or PODERO_USERNAME
  and PODERO_PASSWORD, or PODERO_TOKEN; PODERO_BASE_URL for another origin than production.
  Credentials are read from nowhere else.
"""
"""What the help of a command that asks the API says."""


def uuid(text: str) -> UUID:
    """Read an id."""
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"not a uuid: {text!r}") from None


def day(text: str) -> date:
    """Read a UTC day, `YYYY-MM-DD` or `today`."""
    if text == "today":
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"not a day: {text!r}; write YYYY-MM-DD, or today") from None


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Make a reader of whole numbers within bounds."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ArgumentTypeError(f"not a whole number from {least} to {most}: {text!r}")
        return number

    return read


def rate(text: str) -> float:
    """Read how often a second."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (number > 0 and math.isfinite(number)):
        raise ArgumentTypeError(f"not a number above 0: {text!r}")
    return number


def shard(text: str) -> Shard:
    """Read a share of the fleet, `I/N`."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _store(text: str) -> str:
    if text in {"", ":memory:"}:
        raise ArgumentTypeError(f"not a file: {text!r}")
    return text


def add_store(parser: ArgumentParser) -> None:
    """Add `--store`."""
    parser.add_argument("--store", type=_store, required=True, metavar="FILE", help="the DuckDB file of the sessions")


def add_days(parser: ArgumentParser) -> None:
    """Add `--from` and `--to`."""
    parser.add_argument("--from", type=day, required=True, dest="first", metavar="DAY", help="first UTC day")
    parser.add_argument(
        "--to", type=day, required=True, dest="last", metavar="DAY", help="last UTC day, YYYY-MM-DD or today"
    )

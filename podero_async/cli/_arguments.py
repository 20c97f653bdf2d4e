"""What stands on the command line, read into values: each fault is one line that says what is wanted."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, date, datetime
from uuid import UUID

__all__ = ["ENVIRONMENT", "day", "uuid", "whole_number"]

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

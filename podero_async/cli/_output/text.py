"""Plain text output: labels with texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

__all__ = ["Pair", "in_utc", "lines_of", "pairs_of", "print_pairs"]

Pair = tuple[str, str]
"""A label and its text."""


def in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC, or as it is if UTC has no such year:
    some servers send `0001-01-01T00:00:00+01:00` for null.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment


def print_pairs(pairs: Iterable[Pair]) -> None:
    """Print each label and text on one line."""
    for line in lines_of(pairs):
        print(line)


def lines_of(pairs: Iterable[Pair]) -> Iterator[str]:
    """Yield each label and text as one line."""
    return (f"{label:<9} {text}" for label, text in pairs)


def pairs_of(label: str, texts: Sequence[str], maximum: int = 10) -> Iterator[Pair]:
    """Yield at most `maximum` texts under one label, then the number of texts left out."""
    more = [f"and {len(texts) - maximum:,} more"] if len(texts) > maximum else []
    for text in (*texts[:maximum], *more):
        yield label, text
        label = ""

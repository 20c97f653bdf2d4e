"""What there is to see of a backfill that runs, and what shows it: `_plain` as lines, `_terminal` as a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Protocol, TextIO

import attrs

__all__ = ["Display", "Show", "Snapshot"]


@attrs.frozen(kw_only=True)
class Snapshot:
    """A backfill, as it stood when it was looked at."""

    seconds: float
    is_discovering: bool
    vehicles: int
    done: int
    sessions: int
    requests_per_second: float
    in_flight: int
    limit: int
    pauses: int
    failed: int
    left: timedelta | None
    """How long it still takes, where that is known."""

    @property
    def vehicles_text(self) -> str:
        """How far it is."""
        if self.is_discovering:
            return f"looking for vehicles, {self.vehicles:,} so far"
        return f"{self.done:,} of {self.vehicles:,} vehicles"

    @property
    def figures_text(self) -> str:
        """All the rest."""
        return (
            f"{self.sessions:,} sessions, {self.requests_per_second:,.0f} requests/s, {self.in_flight} of {self.limit}"
            f" in flight, {self.pauses} pauses, {self.failed:,} failed"
        )

    @property
    def left_text(self) -> str:
        """How long it still takes."""
        return "-:--:-- left" if self.left is None else f"{self.left} left"


Show = Callable[[Snapshot], None]
"""Tells how far a backfill is."""


class Display(Protocol):
    """What both modules have."""

    @property
    def EVERY_S(self) -> float:  # noqa: N802 - of a module
        """How many seconds pass from one look to the next."""

    @property
    def SHOWS_END(self) -> bool:  # noqa: N802
        """Whether the last look is to be shown, too."""

    def progress(self, stream: TextIO) -> AbstractContextManager[Show]:
        """Show how far a backfill is."""

    def print_pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Print labels and what stands beside them."""

"""The days of a vehicle that a read covers."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import attrs

from podero_async._validation import days, flag

__all__ = ["Window"]


@attrs.frozen
class Window:
    """Inclusive UTC days, and whether hidden sessions are included."""

    from_date: date
    to_date: date
    include_hidden: bool = False

    @classmethod
    def of(cls, from_date: date, to_date: date, *, include_hidden: bool) -> Window:
        """Return the window from one day to another, both inclusive.

        Raises:
            ValueError: An argument is not a day or not a flag, or the first day is after the last.
        """
        return cls(*days(from_date, to_date), flag("include_hidden", include_hidden))

    @property
    def days(self) -> int:
        """Number of days in the window."""
        return (self.to_date - self.from_date).days + 1

    def split(self, parts: int) -> list[Window]:
        """Divide the window into disjoint windows of about the same length, the newest first."""
        bounds = [self.days * part // parts for part in range(parts + 1)]
        windows = [
            attrs.evolve(
                self,
                from_date=self.from_date + timedelta(days=start),
                to_date=self.from_date + timedelta(days=end - 1),  # `end` itself may lie after `date.max`
            )
            for start, end in pairwise(bounds)
        ]
        return windows[::-1]

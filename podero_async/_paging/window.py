"""Which days of a vehicle are asked for."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import attrs

from podero_async._validation import days

__all__ = ["Window"]


@attrs.frozen
class Window:
    """Which sessions of a vehicle are asked for: inclusive UTC days, and whether hidden ones count."""

    from_date: date
    to_date: date
    include_hidden: bool = False

    @classmethod
    def of(cls, from_date: date, to_date: date, *, include_hidden: bool) -> Window:
        """Return the window from one day to another, both inclusive.

        Raises:
            ValueError: An argument is not a day, or the first day is after the last.
        """
        return cls(*days(from_date, to_date), include_hidden)

    @property
    def days(self) -> int:
        """How many days it spans."""
        return (self.to_date - self.from_date).days + 1

    def split(self, parts: int) -> list[Window]:
        """Divide it into so many disjoint windows of about the same length, the newest first, as the list has them."""
        bounds = [self.days * part // parts for part in range(parts + 1)]
        windows = [
            attrs.evolve(
                self,
                from_date=self.from_date + timedelta(days=start),
                to_date=self.from_date + timedelta(days=end - 1),  # never the day after: the calendar may end here
            )
            for start, end in pairwise(bounds)
        ]
        return windows[::-1]

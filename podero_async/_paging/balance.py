"""Compare the distinct rows that were read of a list with the totals that its pages stated."""

from __future__ import annotations

from itertools import pairwise

from podero_async._decode import RowId
from podero_async._paging.page import Page

__all__ = ["Balance", "rows_needed"]

_MIN_PASSES_OF_A_GROWING_LIST = 3


class Balance:
    """Holds the totals that the pages of a list stated, in the order of their arrival, and the distinct rows of a pass.

    In three cases the numbers prove that no row of a list is missing, in any order:

    1. No session was added. Then all rows that were read belong to the first state of the list, which is the largest. If
       they are as many, they are all of it.
    2. No session was removed. Then all rows that were read belong to the last state, and the same follows.
    3. Neither happened during one pass over the list. Then the same follows for the rows of that pass.

    The totals tell the cases apart: they never rise, they never fall, or they stay the same.

    Args:
        rows: Ids of all rows that were read so far. The caller adds to it.
    """

    def __init__(self, rows: set[RowId]) -> None:
        self._rows = rows
        self._totals: list[int] = []
        self._passes = 0
        self._pass_start = 0
        self._pass_rows: set[RowId] = set()

    @property
    def largest_total(self) -> int:
        """The largest total that a page of the list stated."""
        return max(self._totals, default=0)

    def begin_pass(self, first: Page) -> None:
        """Begin another pass over the list, of which `first` is the first page."""
        self._passes += 1
        self._pass_start = len(self._totals)
        self._pass_rows = set()
        self.add_total(first)

    def add_total(self, page: Page) -> None:
        """Take note of the total that a page stated, unless it cannot be true."""
        if not page.is_inconsistent:
            self._totals.append(page.total)

    def add_rows(self, page: Page) -> None:
        """Take note of the rows of a page of the current pass."""
        self._pass_rows.update(page.ids)

    def holds(self, *, is_aligned: bool) -> bool:
        """Return whether the rows are as many as the totals say, in one of the three cases.

        Args:
            is_aligned: Whether all pages of the pass overlap exactly as their offsets say. If not, the list changed, so
                equal totals come from as many additions as removals, or from a session that moved.
        """
        totals = self._totals[self._pass_start :]
        if len(set(totals)) == 1 and not is_aligned:
            return False
        if len(set(totals)) == 1 and len(self._pass_rows) >= totals[0]:
            return True
        is_monotone = _never_falls(self._totals) or _never_falls(self._totals[::-1])
        return is_monotone and len(self._rows) >= self.largest_total

    def holds_for_a_busy_list(self) -> bool:
        """Return whether the rows are as many as each total of this pass says, or each of at least two passes before it.

        This proves nothing alone, since rows that were added and removed may make up for lost ones. It is accepted from
        the second pass on, for a list that is sorted by plug-in time: one of its rows is lost only if, in each pass, it
        moves from the pages not yet read to those already read.
        """
        before, now = self._totals[: self._pass_start], self._totals[self._pass_start :]
        return len(self._rows) >= rows_needed(self._passes, before, max(now, default=0))


def rows_needed(number: int, before: list[int], now: int) -> int:
    """Return how many rows a list that changes must have after a number of passes.

    A list that grows all the time is never read to its last total, but each pass reads what the list had before it.

    Args:
        number: The number of passes, this one included.
        before: The totals that were stated before this pass.
        now: The largest total of this pass.
    """
    return min(now, max(before)) if number >= _MIN_PASSES_OF_A_GROWING_LIST else now


def _never_falls(totals: list[int]) -> bool:
    return all(earlier <= later for earlier, later in pairwise(totals))

"""Errors of publishing, in addition to those of stores.

PoderoError
 +-- TargetError               the target database cannot be reached, read or written
 +-- StoreError
      +-- StoreRestoredError   the store is not a later state of the published one
"""

from __future__ import annotations

from podero_async.backfill.errors import StoreError
from podero_async.errors import PoderoError

__all__ = ["StoreRestoredError", "TargetError"]


class TargetError(PoderoError):
    """The target database cannot be reached, read or written. Run the same call again: it publishes the rest, if any."""

    def __init__(self, reason: str, sqlstate: str | None = None) -> None:
        super().__init__(reason, sqlstate)
        self.reason = reason
        self.sqlstate = sqlstate

    def __str__(self) -> str:
        return self.reason if self.sqlstate is None else f"{self.reason} [SQLSTATE {self.sqlstate}]"


class StoreRestoredError(StoreError):
    """The store is not a later state of the published one: it was restored from a copy. The target is unchanged."""

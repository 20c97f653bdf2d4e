"""Errors of stores and backfills, in addition to the errors of the core package.

PoderoError
 +-- StoreError             the store cannot be opened, read or written
 |    +-- StoreInUseError   another process, or another `SessionStore` of this process, has it open
 |    +-- NotAStoreError    the file is not a store
 |    +-- ForeignStoreError it belongs to another organization, or to the same one at another origin
 |    +-- StoreTooNewError  a newer release of this library created it
 |    +-- StoreFullError    the disk is full
 |    +-- QueryError        a query of the caller's is wrong
 +-- ApiDownError           the API is unavailable; committed data stays

None of them changes the committed content of a store.
"""

from __future__ import annotations

from podero_async.backfill._report import BackfillReport
from podero_async.errors import PoderoError

__all__ = [
    "ApiDownError",
    "ForeignStoreError",
    "NotAStoreError",
    "QueryError",
    "StoreError",
    "StoreFullError",
    "StoreInUseError",
    "StoreTooNewError",
]


class StoreError(PoderoError):
    """A store cannot be opened, read or written. Its committed content is unchanged."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return f"{self.reason}: {self.path}"


class StoreInUseError(StoreError):
    """Another process, or another `SessionStore` of this process, has the store open."""


class NotAStoreError(StoreError):
    """The file is not a database, or the database is not a store. The file is unchanged."""


class ForeignStoreError(StoreError):
    """The store belongs to another organization, or to the same one at another origin. The store is unchanged."""


class StoreTooNewError(StoreError):
    """A newer release of this library created the store. The store is unchanged."""


class StoreFullError(StoreError):
    """The disk is full. The current batch was not written."""


class QueryError(StoreError):
    """A query of the caller's is wrong: its syntax, a name, a type, or a value that it computes."""

    def __str__(self) -> str:
        return self.reason


class ApiDownError(PoderoError):
    """The API is unavailable. `report` counts the committed data; run the same call again later."""

    def __init__(self, reason: str, report: BackfillReport) -> None:
        super().__init__(reason, report)
        self.reason = reason
        self.report = report

    def __str__(self) -> str:
        return self.reason

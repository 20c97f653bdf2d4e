"""What goes wrong with a store or a backfill, besides the errors of the core.

PoderoError
 +-- StoreError            the store cannot be used, read or written
 |    +-- StoreInUseError  another process, or another `SessionStore` of this one, has it open
 |    +-- NotAStoreError   the file is no database, or one that this library did not make
 |    +-- ForeignStoreError it is for another organization, or for the same one at another origin
 |    +-- StoreTooNewError a later version of this library made it
 |    +-- StoreFullError   there is no room left where it lies
 +-- ApiDownError          nothing but failures of the network or the server; what was committed stays
"""

from __future__ import annotations

from podero_async.backfill._report import BackfillReport
from podero_async.errors import PoderoError

__all__ = [
    "ApiDownError",
    "ForeignStoreError",
    "NotAStoreError",
    "StoreError",
    "StoreFullError",
    "StoreInUseError",
    "StoreTooNewError",
]


class StoreError(PoderoError):
    """A store cannot be used, read or written; what it held is still there, as it was."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return f"{self.reason}: {self.path}"


class StoreInUseError(StoreError):
    """Another process, or another `SessionStore` of this one, has the store open."""


class NotAStoreError(StoreError):
    """The file is no database, or a database of something else. It was not touched."""


class ForeignStoreError(StoreError):
    """The store is for another organization, or for the same one at another origin. It was not touched."""


class StoreTooNewError(StoreError):
    """A later version of this library made the store. It was not touched."""


class StoreFullError(StoreError):
    """There is no room left where the store lies. The batch that found none was not written."""


class ApiDownError(PoderoError):
    """The API answers nothing any more. The `report` says what was committed, and whether all was tried: run it again later."""

    def __init__(self, reason: str, report: BackfillReport) -> None:
        super().__init__(reason, report)
        self.reason = reason
        self.report = report

    def __str__(self) -> str:
        return self.reason

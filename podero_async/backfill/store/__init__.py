"""The store of a backfill: `SessionStore` over the protocol of a backend; DuckDB is the only backend.

Import direction: `_session_store` > `duckdb` > `_protocol` > `_status`, `_tables`. The backend `duckdb` is imported when a store is
opened, so that this package does not require DuckDB and Arrow.
"""

from podero_async.backfill.store._protocol import (
    BatchBuilder,
    CommitBatch,
    StoreBackend,
    SupportsExport,
    SupportsForget,
    SupportsMerge,
    SupportsQuery,
    SupportsSnapshot,
    SupportsTables,
)
from podero_async.backfill.store._session_store import SessionStore
from podero_async.backfill.store._status import Coverage, Exported, Merged, RunStatus, StoreStatus
from podero_async.backfill.store._tables import ArrowStream, Column, StoreState, StoreTables, Table

__all__ = [
    "ArrowStream",
    "BatchBuilder",
    "Column",
    "CommitBatch",
    "Coverage",
    "Exported",
    "Merged",
    "RunStatus",
    "SessionStore",
    "StoreBackend",
    "StoreState",
    "StoreStatus",
    "StoreTables",
    "SupportsExport",
    "SupportsForget",
    "SupportsMerge",
    "SupportsQuery",
    "SupportsSnapshot",
    "SupportsTables",
    "Table",
]

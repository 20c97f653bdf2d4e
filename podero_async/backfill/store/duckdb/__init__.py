"""The DuckDB backend of a store: a file that one process opens, with all SQL in this package.

Import direction: `backend` > `comparison` > `runs`, `upsert`, `export`, `forgotten`, `vehicles`, `batch_builder`, `tables` > `snapshot` >
`absence` > `connection`, `interruptible`, `changes`, `work` > `files`, `migrations` > `queries`, `columns`, `coverage` >
`schema`. DuckDB and Arrow are imported in this package only.
"""

from podero_async.backfill.store.duckdb.backend import DuckDBBackend

__all__ = ["DuckDBBackend"]

"""The DuckDB backend of a store: a file that one process opens, with all SQL in this package.

Import direction: `backend` > `runs`, `upsert`, `export` > `connection` > `migrations` > `roster` > `queries`, `columns` >
`schema`. DuckDB and Arrow are imported in this package only.
"""

from podero_async.backfill.store.duckdb.backend import DuckDBBackend

__all__ = ["DuckDBBackend"]

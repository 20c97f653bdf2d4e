"""The tables of a store as Arrow batches, to any destination of dlt: of the sessions, those that have changed.

Read a snapshot to let the next backfill write at the same time: `podero-async backfill --snapshot FILE ...`. Users and
days that the store has forgotten must be deleted from the sessions of the destination.
"""

import sys
from collections.abc import Iterator
from typing import Any

import dlt
import duckdb


@dlt.source(name="podero")
def store_tables(path: str) -> Iterator[Any]:
    """Yield the sessions, merged by id, and the users, vehicles and coverage, which are replaced."""

    def rows_of(sql: str) -> Iterator[Any]:
        with duckdb.connect(path, read_only=True) as con:
            yield from con.sql(sql).to_arrow_reader(50_000)

    @dlt.resource(name="sessions", primary_key="id", write_disposition="merge")
    def changed_sessions() -> Iterator[Any]:
        numbers = dlt.current.resource_state()
        with duckdb.connect(path, read_only=True) as con:
            ((store_id,),) = con.sql("SELECT value FROM meta WHERE key = 'store_id'").fetchall()
            ((newest,),) = con.sql("SELECT coalesce(max(epoch_us(changed_at)), 0) FROM sessions").fetchall()
        changed = f"FROM sessions WHERE epoch_us(changed_at) > {numbers.get(store_id, 0):d}"
        yield from rows_of(f"SELECT * EXCLUDE (fetched_at, absent_at) {changed}")
        numbers[store_id] = newest

    yield changed_sessions
    for table in ("users", "vehicles", "coverage"):
        yield dlt.resource(rows_of, name=table, write_disposition="replace")(f"FROM {table}")


if __name__ == "__main__":
    path, destination = sys.argv[1:]
    print(dlt.pipeline("podero_tables", destination=destination, dataset_name="podero").run(store_tables(path)))

"""The merge of several stores into a new one: the shards of a fleet, with their coverage and history."""

# ruff: noqa: S608 - the SQL is composed of constants and quoted names; values are bound

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import attrs
import duckdb

from podero_async.backfill.errors import ForeignStoreError, NotAStoreError, StoreError, StoreInUseError
from podero_async.backfill.store._status import Merged
from podero_async.backfill.store.duckdb import coverage
from podero_async.backfill.store.duckdb.changes import NEWEST_CHANGE
from podero_async.backfill.store.duckdb.comments import add_comments
from podero_async.backfill.store.duckdb.connection import is_open_here, transaction, translated
from podero_async.backfill.store.duckdb.files import check_name, check_replaceable, is_database, replace, unfinished
from podero_async.backfill.store.duckdb.interruptible import Interruptible
from podero_async.backfill.store.duckdb.retention import kept_from, kept_rows
from podero_async.backfill.store.duckdb.schema import (
    SCHEMA_VERSION,
    add_unknown_fields,
    check_version,
    claim,
    create_tables,
    owner_of,
)
from podero_async.backfill.store.duckdb.snapshot import attached, has_mark, quoted_text

__all__ = ["Merge"]

_PAIR = "user_id, vehicle_id"

_FORGOTTEN = "INSERT INTO forgotten SELECT DISTINCT * EXCLUDE (store) FROM {forgotten}"
_ERASED = """
CREATE OR REPLACE TEMP TABLE erased AS SELECT DISTINCT user_id FROM (
    SELECT user_id FROM {sessions} UNION SELECT user_id FROM {coverage} UNION SELECT user_id FROM {users}
    UNION SELECT user_id FROM {vehicles} UNION SELECT user_id FROM {receipts} UNION SELECT user_id FROM {failures}
    UNION SELECT user_id FROM {rejected_items}
), (SELECT DISTINCT salt FROM forgotten)
WHERE sha256(salt || user_id::VARCHAR) IN (SELECT user_hash FROM forgotten)
"""
# Runs get numbers in the order of their time. A receipt may be kept for longer than its run.
_RUN_NUMBERS = """
CREATE OR REPLACE TEMP TABLE run_numbers AS
SELECT store, run_id AS old, row_number() OVER (ORDER BY started_at NULLS FIRST, store, run_id)::INTEGER AS number FROM (
    SELECT store, run_id FROM {runs} UNION SELECT store, run_id FROM {receipts} UNION SELECT store, run_id FROM {failures}
) LEFT JOIN {runs} r USING (store, run_id)
"""
_WITH_RUNS = """
INSERT INTO {table} BY NAME
SELECT t.* EXCLUDE (store) REPLACE (number AS run_id)
FROM {rows} t JOIN run_numbers n ON n.store = t.store AND n.old = t.run_id
{but_erased} ORDER BY number
"""
_BUT_ERASED = "ANTI JOIN erased USING (user_id)"

_USERS = """
INSERT INTO users BY NAME
SELECT * EXCLUDE (store) REPLACE (min(first_seen_at) OVER (PARTITION BY user_id) AS first_seen_at)
FROM {users} ANTI JOIN erased USING (user_id)
QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY greatest(last_seen_at, gone_since) DESC, store) = 1
"""
_VEHICLES = f"""
INSERT INTO vehicles BY NAME
SELECT * EXCLUDE (store) REPLACE (min(first_seen_at) OVER (PARTITION BY {_PAIR}) AS first_seen_at)
FROM {{vehicles}} ANTI JOIN erased USING (user_id)
QUALIFY row_number() OVER (PARTITION BY {_PAIR} ORDER BY greatest(last_seen_at, gone_since) DESC, store) = 1
"""
# A copy of a store may still have a period open that ended since.
_OWNERSHIP = f"""
INSERT INTO ownership BY NAME
SELECT vehicle_id, user_id, external_user_id, min(since) AS since, ended AS until FROM (
    SELECT {_PAIR}, o.external_user_id, o.since, coalesce(min(o.until), any_value(v.gone_since)) AS ended
    FROM {{ownership}} o ANTI JOIN erased USING (user_id) LEFT JOIN vehicles v USING ({_PAIR})
    GROUP BY {_PAIR}, o.external_user_id, o.since
) GROUP BY vehicle_id, user_id, external_user_id, ended ORDER BY vehicle_id, since
"""

_SHARED = f"""
CREATE OR REPLACE TEMP TABLE shared AS
SELECT {_PAIR} FROM {{coverage}} ANTI JOIN erased USING (user_id) GROUP BY {_PAIR} HAVING count(DISTINCT store) > 1
"""
_COVERAGE = f"""
INSERT INTO coverage BY NAME
SELECT * EXCLUDE (store) FROM {{coverage}} ANTI JOIN erased USING (user_id) ANTI JOIN shared USING ({_PAIR})
"""
# A day of a vehicle that two stores have read is settled only if both call it so, since either may have rows that are gone.
_SHARED_SPANS = f"""
CREATE OR REPLACE TEMP TABLE facts AS FROM {{coverage}} SEMI JOIN shared USING ({_PAIR})
"""

_DOUBLED = """
CREATE OR REPLACE TEMP TABLE doubled AS SELECT id FROM {sessions} GROUP BY id HAVING count(*) > 1
"""
_SESSIONS = """
INSERT INTO sessions BY NAME
SELECT * EXCLUDE (store) FROM {sessions} ANTI JOIN doubled USING (id) ANTI JOIN erased USING (user_id)
"""
# If a vehicle changes to a user of another shard, its sessions are in two stores. The row of the store that lists the
# vehicle is taken; if none or several do, the row of the newest read.
_DOUBLED_SESSIONS = f"""
INSERT INTO sessions BY NAME
SELECT * EXCLUDE (store, is_listed) REPLACE (
    min(first_seen_at) OVER (PARTITION BY id) AS first_seen_at, max(changed_at) OVER (PARTITION BY id) AS changed_at
) FROM (
    SELECT s.*, l.user_id IS NOT NULL AS is_listed FROM (FROM {{sessions}} SEMI JOIN doubled USING (id)) s
    LEFT JOIN (SELECT DISTINCT store, {_PAIR} FROM {{vehicles}} WHERE gone_since IS NULL AND last_seen_at IS NOT NULL) l
        ON l.store = s.store AND l.user_id = s.user_id AND l.vehicle_id = s.vehicle_id
    WHERE s.user_id NOT IN (SELECT user_id FROM erased)
) QUALIFY row_number() OVER (PARTITION BY id ORDER BY is_listed DESC, greatest(fetched_at, withdrawn_at) DESC, store) = 1
"""

_TABLES = (
    "sessions",
    "coverage",
    "users",
    "vehicles",
    "ownership",
    "receipts",
    "failures",
    "rejected_items",
    "runs",
    "forgotten",
)
_COUNTS = """
SELECT (SELECT count(*) FROM sessions), (SELECT count(DISTINCT vehicle_id) FROM (
    SELECT vehicle_id FROM coverage UNION ALL SELECT vehicle_id FROM vehicles
)), (SELECT count(*) FROM doubled)
"""


@attrs.define(kw_only=True)
class Merge(Interruptible[Merged]):
    """Writes a new store with the rows of others, which it only reads; the target appears when it is complete."""

    stores: Sequence[str]
    overwrite: bool

    def work(self, con: duckdb.DuckDBPyConnection) -> Merged:
        """Write the store. The connection is that of a store in memory."""
        with translated(self.target):
            check_name(self.target)
            path = Path(self.target).resolve()
            self._check_target(path)
            with unfinished(path) as made, unfinished(path) as spilled:
                spilled.mkdir()
                con.execute(f"SET temp_directory = {quoted_text(spilled)}")
                with attached(self, con, made, path) as copy, _used(con, copy):
                    create_tables(con)
                    with transaction(con):
                        add_comments(con)
                        merged = self._copy(con, *self._attach_stores(con, copy))
                self.check()
                replace(made, path)
        return merged

    def _check_target(self, path: Path) -> None:
        """Check that no source is the target, and that only an earlier merge without a later backfill is replaced."""
        if not path.parent.is_dir():
            raise StoreError("no such directory for the merged store", self.target)
        sources = [Path(store).resolve() for store in self.stores]
        if len(set(sources)) < len(sources):
            raise StoreError("a store is given twice", ", ".join(self.stores))
        for source in sources:
            check_replaceable(path, source, self.target)
        if not path.exists():
            return
        if not self.overwrite:
            raise StoreError(
                "a file is in the way of the merged store; --overwrite (overwrite=True) replaces an earlier merge",
                self.target,
            )
        if not has_mark(path, "merged_at", self.target):
            raise StoreError(
                "the file is not an earlier merge, or it was changed since, so it is not replaced", self.target
            )

    def _attach_stores(self, con: duckdb.DuckDBPyConnection, copy: str) -> tuple[int, date | None]:
        """Attach the stores for reading, and give the new one their owner.

        Returns:
            The newest change of all, and the first day that all of them keep; None if no day was erased.
        """
        newest, owners, days = 0, {}, []
        for number, store in enumerate(self.stores):
            path = Path(store).resolve()
            with translated(store):
                if is_open_here(path):
                    raise StoreInUseError("the store is open in this process", store)
                if not path.is_file():
                    raise StoreError("no such store", store)
                if not is_database(path):
                    raise NotAStoreError("not a store of charging sessions", store)
                con.execute(f"ATTACH {quoted_text(path)} AS {_name(number)} (READ_ONLY)")
                con.execute(f"USE {_name(number)}")
                if check_version(con, store) != SCHEMA_VERSION:
                    raise StoreError("the store is of an older release: open it once for writing to migrate it", store)
                newest = max(newest, *self.execute(con, NEWEST_CHANGE)[0])
                if (day := kept_from(con)) is not None:
                    days.append(day)
                if (owner := owner_of(con)) is not None:
                    owners[owner] = store
            con.execute(f"USE {copy}")
        if len(owners) > 1:
            (one, its_store), (other, path_of_other), *_ = owners.items()
            raise ForeignStoreError(f"the stores are for {one} ({its_store}) and for {other}", path_of_other)
        for owner in owners:
            claim(con, owner)
        return newest, max(days, default=None)

    def _copy(self, con: duckdb.DuckDBPyConnection, newest: int, first_day: date | None) -> Merged:
        rows = {table: self._rows_of(table, first_day) for table in _TABLES}
        if self.execute(con, f"SELECT 1 FROM (DESCRIBE {rows['sessions']}) WHERE column_name = 'unknown_fields'"):
            add_unknown_fields(con)

        def run(statement: str, **names: str) -> None:
            self.execute(con, statement.format(**rows, **names))

        run(_FORGOTTEN)
        run(_ERASED)
        run(_RUN_NUMBERS)
        for table, but_erased in (("runs", ""), ("receipts", _BUT_ERASED), ("failures", _BUT_ERASED)):
            run(_WITH_RUNS, table=table, rows=rows[table], but_erased=but_erased)
        run("INSERT INTO rejected_items BY NAME SELECT * EXCLUDE (store) FROM {rejected_items} " + _BUT_ERASED)
        for statement in (_USERS, _VEHICLES, _OWNERSHIP, _SHARED, _COVERAGE, _SHARED_SPANS):
            run(statement)
        coverage.insert_folded(con)
        for statement in (_DOUBLED, _SESSIONS, _DOUBLED_SESSIONS):
            run(statement)
        meta = {"newest_change": newest, "merged_at": datetime.now(UTC).isoformat(), "kept_from": first_day}
        for key, value in meta.items():
            if value is not None:
                con.execute("INSERT INTO meta VALUES (?, ?)", [key, str(value)])
        ((sessions, vehicles, doubled),) = self.execute(con, _COUNTS)
        return Merged(stores=len(self.stores), vehicles=vehicles, sessions=sessions, doubled=doubled)

    def _rows_of(self, table: str, first_day: date | None) -> str:
        """Return SQL for the rows of a table of all stores, with the number of the store."""
        kept = (kept_rows(table, f"{_name(number)}.{table}", first_day) for number in range(len(self.stores)))
        parts = [f"SELECT *, {number} AS store FROM ({rows})" for number, rows in enumerate(kept)]
        return f"({' UNION ALL BY NAME '.join(parts)})"


def _name(number: int) -> str:
    return f"podero_async_store_{number}"


@contextmanager
def _used(con: duckdb.DuckDBPyConnection, database: str) -> Iterator[None]:
    """Make a database the current one; at the end, it can be detached."""
    ((before,),) = con.execute("SELECT current_database()").fetchall()
    con.execute(f"USE {database}")
    try:
        yield
    finally:
        con.execute(f"USE {before}")

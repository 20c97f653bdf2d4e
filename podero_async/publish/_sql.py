"""The SQL for PostgreSQL: statements as texts, composed of quoted names and literals."""

# ruff: noqa: S608 - names and values are quoted

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from uuid import UUID

from podero_async.backfill.store import Column, StoreState, Table

__all__ = [
    "COLUMNS",
    "LOCK",
    "LOCK_AT_ONCE",
    "STAGED_USERS",
    "START",
    "compare",
    "create_staging",
    "creation",
    "delete_forgotten",
    "delete_missing",
    "delete_others",
    "foreign_tables",
    "measure",
    "measure_replaced",
    "read_watermark",
    "shape_of",
    "staging_of",
    "upsert",
    "write_watermark",
]

_TYPES = {
    "BIGINT": "bigint",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "DOUBLE": "double precision",
    "INTEGER": "integer",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    "UUID": "uuid",
    "VARCHAR": "text",
}

# A transaction of a stricter level would see the target as it was before it got the lock.
START = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET LOCAL search_path = pg_catalog",
    "SET LOCAL client_encoding = 'UTF8'",
    "SET LOCAL standard_conforming_strings = on",
    "SET LOCAL tcp_keepalives_idle = 60",  # if the client's machine is lost, the lock is free again soon
)
_KEY = 0x706F6465726F  # "podero"
LOCK_AT_ONCE = f"SELECT pg_try_advisory_xact_lock({_KEY})"
LOCK = f"SELECT pg_advisory_xact_lock({_KEY})"

# --- tables ---

_STORES = """
CREATE TABLE podero.stores (
    store_id uuid PRIMARY KEY,
    organization text,
    origin text,
    change bigint NOT NULL,
    sessions bigint NOT NULL,
    checksum numeric NOT NULL,
    shape text NOT NULL,
    published_at timestamp with time zone NOT NULL
)
"""
_STORE_COMMENTS = {
    "store_id": "The random id of the store",
    "organization": "The organization whose sessions the store has",
    "origin": "The origin of the API",
    "change": "Number of the newest change that was published: changed_at in microseconds",
    "sessions": "Number of the store's rows in sessions",
    "checksum": "Sum of the numbers of the last changes of these rows",
    "shape": "The published columns",
    "published_at": "When the store was last published",
}
# If a vehicle changes to a user of another shard, its sessions are in two stores. The row of the store that lists the
# vehicle counts; if none or several do, the row that changed last.
_LIVE_SESSIONS = """
CREATE OR REPLACE VIEW podero.live_sessions AS
SELECT u.external_user_id, v.manufacturer, v.model, s.*
FROM podero.sessions s
LEFT JOIN podero.users u ON u.store_id = s.store_id AND u.user_id = s.user_id
LEFT JOIN podero.vehicles v ON v.store_id = s.store_id AND v.user_id = s.user_id AND v.vehicle_id = s.vehicle_id
WHERE s.withdrawn_at IS NULL AND NOT EXISTS (
    SELECT FROM podero.sessions o
    LEFT JOIN podero.vehicles w ON w.store_id = o.store_id AND w.user_id = o.user_id AND w.vehicle_id = o.vehicle_id
    WHERE o.id = s.id AND o.store_id <> s.store_id
        AND (w.gone_since IS NULL AND w.last_seen_at IS NOT NULL, o.changed_at, o.store_id)
            > (v.gone_since IS NULL AND v.last_seen_at IS NOT NULL, s.changed_at, s.store_id)
)
"""
_LIVE_COMMENT = (
    "The sessions that the server lists, each once, with the external id of the user and the model of the vehicle"
)
COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = 'podero' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT '', '', '' FROM pg_namespace WHERE nspname = 'podero'
"""
"""The columns of the schema; the schema itself is a row without names."""

Found = Mapping[str, Mapping[str, str]]
"""The types of the target's columns, by table and column."""


def foreign_tables(tables: Iterable[Table], found: Found) -> list[str]:
    """Return the names of tables that exist, although nothing was published yet."""
    if found.get("stores", {}).keys() >= _STORE_COMMENTS.keys():
        return []
    return [name for name in ("stores", *(table.name for table in tables)) if name in found]


def compare(table: Table, found: Found) -> list[str]:
    """Return the columns of a table that have another type in the target."""
    known = found.get(table.name, {})
    return [
        f"{table.name}.{column.name} is {known[column.name]}, not {_TYPES[column.kind]}"
        for column in table.columns
        if known.get(column.name, _TYPES[column.kind]) != _TYPES[column.kind]
    ]


def creation(tables: Iterable[Table], found: Found) -> Iterator[str]:
    """Yield the statements that create the missing tables and columns."""
    is_changed = False
    if "" not in found:
        yield "CREATE SCHEMA podero"
    if "stores" not in found:
        yield _STORES
        yield from _comments("stores", "The stores that were published", _STORE_COMMENTS)
    for table in tables:
        known = found.get(table.name)
        missing = [column for column in table.columns if known is None or column.name not in known]
        if known is None:
            columns = "".join(f", {_name(column.name)} {_TYPES[column.kind]}" for column in missing)
            yield f"CREATE TABLE {_table(table)} (store_id uuid{columns}, PRIMARY KEY ({_names(table.key)}, store_id))"
            yield from _comments(table.name, table.comment, {"store_id": "The store that the row comes from"})
        elif missing:
            added = ", ".join(f"ADD COLUMN {_name(column.name)} {_TYPES[column.kind]}" for column in missing)
            yield f"ALTER TABLE {_table(table)} {added}"
        yield from _comments(table.name, None, {column.name: column.comment for column in missing})
        is_changed |= bool(missing)
    if is_changed or "live_sessions" not in found:
        yield _LIVE_SESSIONS
        yield f"COMMENT ON VIEW podero.live_sessions IS {_text(_LIVE_COMMENT)}"


def _comments(table: str, comment: str | None, columns: Mapping[str, str | None]) -> Iterator[str]:
    if comment:
        yield f"COMMENT ON TABLE podero.{_name(table)} IS {_text(comment)}"
    for column, text in columns.items():
        if text:
            yield f"COMMENT ON COLUMN podero.{_name(table)}.{_name(column)} IS {_text(text)}"


# --- the watermark ---


def shape_of(tables: Iterable[Table]) -> str:
    """Return the published columns as a text. If it differs from the last one, all rows are published again."""
    return "; ".join(f"{table.name}: {' '.join(column.name for column in table.columns)}" for table in tables)


def read_watermark(store_id: UUID) -> str:
    """Return the query for the last published change of a store, its number of sessions, its checksum and its columns."""
    return f"SELECT change, sessions, checksum::text, shape FROM podero.stores WHERE store_id = '{store_id}'"


def write_watermark(state: StoreState, shape: str) -> str:
    """Return the statement that stores the state that was published."""
    values = f"{_text(state.org_id)}, {_text(state.origin)}, {state.change}, {state.sessions}, {state.checksum}"
    return f"""
INSERT INTO podero.stores (store_id, organization, origin, change, sessions, checksum, shape, published_at)
VALUES ('{state.store_id}', {values}, {_text(shape)}, now())
ON CONFLICT (store_id) DO UPDATE SET (organization, origin, change, sessions, checksum, shape, published_at) = (
    excluded.organization, excluded.origin, excluded.change, excluded.sessions, excluded.checksum, excluded.shape,
    excluded.published_at
)
"""


# --- rows ---

_NUMBER = "round(extract(epoch FROM t.changed_at) * 1000000)::bigint"
_MEASURE = f"count(*), coalesce(sum({_NUMBER}), 0)::text"
STAGED_USERS = "podero_users_with_sessions"


def staging_of(table: Table) -> str:
    """Return the name of the temporary table into which the rows of a table are copied."""
    return f"podero_staged_{table.name}"


def create_staging(name: str, columns: Iterable[Column]) -> str:
    """Return the statement that creates a temporary table."""
    defined = ", ".join(f"{_name(column.name)} {_TYPES[column.kind]}" for column in columns)
    return f"CREATE TEMPORARY TABLE pg_temp.{_name(name)} ({defined}) ON COMMIT DROP"


def measure(state: StoreState) -> str:
    """Return the query that counts and sums the target's rows of a store."""
    return f"SELECT {_MEASURE} FROM podero.sessions t WHERE store_id = '{state.store_id}'"


def measure_replaced(state: StoreState, table: Table) -> str:
    """Return the query that counts and sums the target's rows that the copied ones replace."""
    return f"""
SELECT {_MEASURE}, (SELECT count(*) FROM pg_temp.{staging_of(table)}),
    (SELECT coalesce(sum({_NUMBER}), 0)::text FROM pg_temp.{staging_of(table)} t)
FROM podero.sessions t JOIN pg_temp.{staging_of(table)} s ON s.id = t.id WHERE t.store_id = '{state.store_id}'
"""


def upsert(state: StoreState, table: Table) -> str:
    """Return the statement that merges the copied rows and returns the number of new and changed ones."""
    names = _names(column.name for column in table.columns)
    values = [column.name for column in table.columns if column.name not in table.key]
    differs = f"({_names(values, 't.')}) IS DISTINCT FROM ({_names(values, 'excluded.')})"
    update = ", ".join(f"{_name(value)} = excluded.{_name(value)}" for value in values)
    return f"""
WITH merged AS (
    INSERT INTO {_table(table)} AS t (store_id, {names})
    SELECT '{state.store_id}', {names} FROM pg_temp.{staging_of(table)} ORDER BY {_names(table.key)}
    ON CONFLICT ({_names(table.key)}, store_id) DO UPDATE SET {update} WHERE {differs} RETURNING 1
) SELECT count(*) FROM merged
"""


def delete_missing(state: StoreState, table: Table) -> str:
    """Return the statement that deletes the rows of a store that were not copied, and counts them."""
    same = " AND ".join(f"s.{_name(key)} = t.{_name(key)}" for key in table.key)
    return _counted(
        f"DELETE FROM {_table(table)} t WHERE store_id = '{state.store_id}'"
        f" AND NOT EXISTS (SELECT FROM pg_temp.{staging_of(table)} s WHERE {same}) RETURNING 1"
    )


def delete_forgotten(state: StoreState) -> str:
    """Return the statement that deletes the sessions of erased days, and of users who have none in the store.

    It counts and sums them.
    """
    is_old = (
        f"t.plug_in_time < TIMESTAMP WITH TIME ZONE '{state.kept_from} 00:00:00+00'" if state.kept_from else "false"
    )
    return f"""
WITH removed AS (
    DELETE FROM podero.sessions t WHERE store_id = '{state.store_id}'
    AND ({is_old} OR NOT EXISTS (SELECT FROM pg_temp.{STAGED_USERS} s WHERE s.user_id = t.user_id)) RETURNING changed_at
) SELECT {_MEASURE} FROM removed t
"""


def delete_others(state: StoreState, table: str) -> str:
    """Return the statement that deletes the rows of all other stores from a table, and counts them."""
    return _counted(f"DELETE FROM podero.{_name(table)} WHERE store_id <> '{state.store_id}' RETURNING 1")


def _counted(deletion: str) -> str:
    return f"WITH removed AS ({deletion}) SELECT count(*) FROM removed"


def _table(table: Table) -> str:
    return f"podero.{_name(table.name)}"


def _names(names: Iterable[str], prefix: str = "") -> str:
    return ", ".join(prefix + _name(name) for name in names)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str | None) -> str:
    return "NULL" if text is None else "'" + text.replace("'", "''").replace("\0", "\ufffd") + "'"

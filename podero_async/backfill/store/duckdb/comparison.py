"""The comparison of a store with the API: the days to read again, and how the sessions of a batch differ.

1. `draw` chooses vehicles and their days, and counts the rows that cannot be compared. `next_compared` returns one work
   item for each vehicle.
2. `compare` compares a batch of reads with the stored sessions of these days, by ids and contents.
3. `unsettle` forgets that the days of the vehicles that differ were read, so that a backfill reads them again, and removes
   all but the newest of the rows with the same id.
4. `draw_differing` chooses these vehicles for another comparison.
"""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from datetime import date
from uuid import UUID

import attrs
import duckdb

from podero_async._paging.window import Window
from podero_async.backfill._comparison import Compared, Difference, Drawn
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.backfill.store.duckdb.retention import kept_from
from podero_async.backfill.store.duckdb.upsert import CONTENT_DIFFERS, FIND_STORED
from podero_async.models import VehicleRef

__all__ = ["compare", "draw", "draw_differing", "next_compared", "next_differing", "unsettle"]

_PAIR = "user_id, vehicle_id"
_MAX_IDS = 100

# --- the days and the work items ---

_IS_COMPARED = """
d.vehicle_id = {row}.vehicle_id AND d.user_id = {row}.user_id AND (d.include_hidden OR NOT {row}.is_hidden)
    AND {row}.plug_in_time >= d.from_date::TIMESTAMPTZ AND {row}.plug_in_time < (d.to_date + 1)::TIMESTAMPTZ
"""
_GONE = "(FROM vehicles WHERE gone_since IS NOT NULL)"
_COMPARABLE = "(is_settled OR $include_provisional)"
_PRESENT = f"SELECT DISTINCT {_PAIR} FROM coverage ANTI JOIN {_GONE} USING ({_PAIR})"
_LEFT = f"SELECT count(DISTINCT ({_PAIR})) FROM coverage SEMI JOIN {_GONE} USING ({_PAIR}) WHERE {_COMPARABLE}"
_DAYS = f"""
CREATE OR REPLACE TEMP TABLE compared_days AS
SELECT {_PAIR}, include_hidden, from_date, to_date FROM coverage SEMI JOIN drawn USING ({_PAIR}) WHERE {_COMPARABLE}
"""
_ENDED = "greatest(s.plug_in_time, coalesce(s.unplug_time, s.inferred_session_end))"
# The API may list a session by its plug-in, by its end, or on all its days. So the window of a read has the whole of each
# stored session of the compared days, unless the session seems to end after the newest read.
_WORK = f"""
CREATE OR REPLACE TEMP TABLE compared AS
SELECT (row_number() OVER (ORDER BY vehicle_id, user_id))::INTEGER AS number, {_PAIR},
    min(from_date) AS from_date, greatest(max(to_date), max(ended)) AS to_date,
    bool_or(include_hidden) AS include_hidden
FROM compared_days LEFT JOIN (
    SELECT {_PAIR}, max({_ENDED})::DATE AS ended FROM sessions s
    SEMI JOIN compared_days d ON {_IS_COMPARED.format(row="s")}
    WHERE s.withdrawn_at IS NULL AND {_ENDED} < (SELECT max(read_at) FROM coverage) GROUP BY {_PAIR}
) USING ({_PAIR}) GROUP BY {_PAIR}
"""
# A row can be compared if its user has the vehicle now, and a read of this user covers the row's day. A row that lasts into
# days that a read covers may be returned by this read, and need not be. All others are counted.
_UNCOMPARABLE = f"""
SELECT count(*) FILTER (({_PAIR}) IN (SELECT ({_PAIR}) FROM {_GONE})) AS of_gone, count(*) - of_gone FROM sessions s
ANTI JOIN (FROM coverage SEMI JOIN ({_PRESENT}) USING ({_PAIR})) d
  ON d.vehicle_id = s.vehicle_id AND d.user_id = s.user_id AND (d.include_hidden OR NOT s.is_hidden)
  AND {_ENDED} >= d.from_date::TIMESTAMPTZ AND s.plug_in_time < (d.to_date + 1)::TIMESTAMPTZ
WHERE s.withdrawn_at IS NULL
"""
_DOUBLED = "CREATE OR REPLACE TEMP TABLE doubled AS SELECT id FROM sessions GROUP BY id HAVING count(*) > 1"
_NONE_DIFFERS = "CREATE OR REPLACE TEMP TABLE differing (user_id UUID, vehicle_id UUID)"


def draw(con: duckdb.DuckDBPyConnection, sample: int | None, *, include_provisional: bool) -> Drawn:
    """Choose the vehicles to compare, at random if it is a sample, and count the rows that cannot be compared."""
    days = {"include_provisional": include_provisional}
    present = f"{_PRESENT} WHERE {_COMPARABLE}"
    drawn = present if sample is None else f"FROM ({present}) USING SAMPLE {int(sample)} ROWS"
    con.execute(f"CREATE OR REPLACE TEMP TABLE drawn AS {drawn}", days)
    con.execute(_DAYS, days)
    ((left,),) = con.execute(_LEFT, days).fetchall() if sample is None else [(0,)]
    return attrs.evolve(_plan(con), left=left)


def draw_differing(con: duckdb.DuckDBPyConnection) -> Drawn:
    """Choose the vehicles that differ, with the same days as before, and count the rows that cannot be compared anew."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE drawn AS SELECT DISTINCT {_PAIR} FROM differing")
    con.execute(f"DELETE FROM compared_days WHERE ({_PAIR}) NOT IN (SELECT ({_PAIR}) FROM drawn)")
    return _plan(con)


def _plan(con: duckdb.DuckDBPyConnection) -> Drawn:
    con.execute(_NONE_DIFFERS)
    ((vehicles,),) = con.execute(_WORK).fetchall()
    ((doubled,),) = con.execute(_DOUBLED).fetchall()
    ((left_sessions, uncovered),) = con.execute(_UNCOMPARABLE).fetchall()
    return Drawn(vehicles=vehicles, left_sessions=left_sessions, uncovered=uncovered, doubled=doubled)


def next_compared(con: duckdb.DuckDBPyConnection, after: int, limit: int) -> list[WorkItem]:
    """Return the work items after a number, in order: all chosen days of a vehicle, and the days between them."""
    rows = con.execute(
        f"SELECT number, {_PAIR}, from_date, to_date, include_hidden FROM compared"
        " WHERE number > $after AND number <= $after + $limit ORDER BY number",
        {"after": after, "limit": limit},
    ).fetchall()
    return [
        WorkItem(number, VehicleRef(user_id=user_id, vehicle_id=vehicle_id), Window(first, last, is_hidden))
        for number, user_id, vehicle_id, first, last, is_hidden in rows
    ]


# --- the comparison ---

# If two users list a vehicle, its rows have one of them.
_HAS_OTHER_OWNER = f"""
s.vehicle_id <> i.vehicle_id
OR (s.user_id <> i.user_id AND (s.user_id, s.vehicle_id) NOT IN (SELECT ({_PAIR}) FROM ({_PRESENT})))
"""
_COMPARE = f"""
CREATE OR REPLACE TEMP TABLE differences AS
WITH incoming AS (
    SELECT i.*, {_PAIR} FROM arrow_sessions i JOIN arrow_reads USING (work_item)
), live AS (
    SELECT s.* FROM sessions s JOIN found f ON s.rowid = f.pos WHERE s.withdrawn_at IS NULL
), comparable AS (
    -- The API may show a session on another day than the store, or as hidden: one of both has to be compared.
    SELECT work_item, id FROM incoming i SEMI JOIN compared_days d ON {_IS_COMPARED.format(row="i")}
    UNION SELECT work_item, s.id FROM live s JOIN arrow_reads USING ({_PAIR})
    SEMI JOIN compared_days d ON {_IS_COMPARED.format(row="s")}
)
SELECT DISTINCT i.work_item, i.id, CASE WHEN s.id IS NULL THEN 'missing' ELSE 'changed' END AS kind
FROM (FROM incoming SEMI JOIN comparable USING (work_item, id)) i LEFT JOIN live s ON s.id = i.id
WHERE s.id IS NULL OR {CONTENT_DIFFERS} OR {_HAS_OTHER_OWNER}
UNION ALL
SELECT DISTINCT work_item, id, 'doubled' FROM (FROM sessions SEMI JOIN doubled USING (id)) JOIN arrow_reads USING ({_PAIR})
UNION ALL
SELECT DISTINCT r.work_item, s.id, 'surplus' FROM (
    FROM sessions s SEMI JOIN compared_days d ON {_IS_COMPARED.format(row="s")}
    WHERE s.withdrawn_at IS NULL AND s.rowid NOT IN (SELECT pos FROM found)
) s JOIN arrow_reads r USING ({_PAIR})
-- The server still has a row that could not be read; without an id, it may be any row of the read.
WHERE {_ENDED} < (r.to_date + 1)::TIMESTAMPTZ
  AND r.work_item NOT IN (SELECT work_item FROM arrow_rejected WHERE session_id IS NULL)
  AND s.id NOT IN (SELECT session_id FROM arrow_rejected WHERE session_id IS NOT NULL)
"""
_NOTE = f"INSERT INTO differing SELECT {_PAIR} FROM arrow_reads SEMI JOIN differences USING (work_item)"
_COUNT = f"""
SELECT count(*), (SELECT count(*) FROM differences WHERE kind = 'surplus') FROM sessions s
SEMI JOIN (FROM compared_days SEMI JOIN arrow_reads USING ({_PAIR})) d ON {_IS_COMPARED.format(row="s")}
WHERE s.withdrawn_at IS NULL
"""
# An unreadable row without a day may be of any day of the read.
_UNREADABLE = f"""
CREATE OR REPLACE TEMP TABLE unreadable AS
SELECT work_item, count(*) AS "rows" FROM (
    SELECT work_item, day, {_PAIR} FROM arrow_rejected JOIN arrow_reads USING (work_item)
) j SEMI JOIN compared_days d ON d.vehicle_id = j.vehicle_id AND d.user_id = j.user_id
  AND (j.day IS NULL OR j.day BETWEEN d.from_date AND d.to_date)
GROUP BY work_item
"""
_COUNT_UNREADABLE = """
SELECT count(*) FILTER (work_item NOT IN (SELECT work_item FROM differences)), coalesce(sum("rows"), 0) FROM unreadable
"""
_IDS = ", ".join(
    f"list(id::VARCHAR ORDER BY id) FILTER (kind = '{kind}' AND place <= {_MAX_IDS}) AS {kind}"
    for kind in ("missing", "surplus", "changed", "doubled")
)
_DIFFERENCES = f"""
SELECT {_PAIR}, from_date, to_date, include_hidden, sessions, missing, surplus, changed, doubled FROM arrow_reads JOIN (
    SELECT work_item, count(DISTINCT id) AS sessions, {_IDS}
    FROM (SELECT *, row_number() OVER (PARTITION BY work_item, kind ORDER BY id) AS place FROM differences)
    GROUP BY work_item
) USING (work_item) ORDER BY work_item
"""


def compare(con: duckdb.DuckDBPyConnection, batch: Batch) -> Compared:
    """Compare a batch of proven reads with the stored sessions, and note the vehicles that differ."""
    for name, table in batch.tables(kept_from(con)).items():
        con.register(name, table)
    con.execute(FIND_STORED)
    con.execute(_COMPARE)
    con.execute(_NOTE)
    con.execute(_UNREADABLE)
    ((unreadable, rejected),) = con.execute(_COUNT_UNREADABLE).fetchall()
    ((stored, surplus),) = con.execute(_COUNT).fetchall()
    found = con.execute(_DIFFERENCES).fetchall()
    return Compared(stored, surplus, unreadable, int(rejected), [_difference(*row) for row in found])


def _difference(
    user_id: UUID, vehicle_id: UUID, first: date, last: date, is_hidden: bool, sessions: int, *ids: list[str] | None
) -> Difference:
    missing, surplus, changed, doubled = (tuple(each or ()) for each in ids)
    return Difference(
        vehicle=VehicleRef(user_id=user_id, vehicle_id=vehicle_id),
        from_date=first,
        to_date=last,
        include_hidden=is_hidden,
        sessions=sessions,
        missing=missing,
        surplus=surplus,
        changed=changed,
        doubled=doubled,
    )


# --- the repair ---

_UNSETTLE = """
UPDATE coverage c SET is_settled = false, read_at = '1970-01-01 00:00:00+00' FROM compared_days d
WHERE d.user_id = c.user_id AND d.vehicle_id = c.vehicle_id AND d.include_hidden = c.include_hidden
  AND c.from_date <= d.to_date AND c.to_date >= d.from_date
  AND (d.user_id, d.vehicle_id) IN (SELECT (user_id, vehicle_id) FROM differing)
"""
_REMOVE_DOUBLED = """
DELETE FROM sessions WHERE rowid IN (
    SELECT pos FROM (
        SELECT rowid AS pos, row_number() OVER (PARTITION BY id ORDER BY changed_at DESC, rowid) AS place
        FROM sessions SEMI JOIN doubled USING (id)
    ) WHERE place > 1
)
"""
# A vehicle is repaired under each of its users, since the rows of one must not be taken for those of another.
_REPAIRS = f"""
CREATE OR REPLACE TEMP TABLE repairs AS
SELECT row_number() OVER (PARTITION BY include_hidden ORDER BY vehicle_id, user_id) AS number, {_PAIR}, include_hidden
FROM (
    SELECT vehicle_id, include_hidden FROM compared_days SEMI JOIN differing USING ({_PAIR}) GROUP BY ALL
) JOIN ({_PRESENT}) USING (vehicle_id)
"""
_LAST_DAYS = f"""
SELECT include_hidden, max(to_date) FROM compared_days SEMI JOIN differing USING ({_PAIR})
GROUP BY include_hidden ORDER BY include_hidden DESC
"""


def unsettle(con: duckdb.DuckDBPyConnection) -> list[tuple[bool, date]]:
    """Make the days of the vehicles that differ provisional, and due to be read; of rows with the same id, keep the newest.

    Returns:
        Pairs of `include_hidden` and the last day to read.
    """
    with transaction(con):
        con.execute(_REPAIRS)
        con.execute(_UNSETTLE)
        con.execute(_REMOVE_DOUBLED)
    return con.execute(_LAST_DAYS).fetchall()


def next_differing(con: duckdb.DuckDBPyConnection, include_hidden: bool, after: int, limit: int) -> list[VehicleRef]:
    """Return the vehicles to repair after a number, in order."""
    rows = con.execute(
        f"SELECT {_PAIR} FROM repairs WHERE include_hidden = $include_hidden"
        " AND number > $after AND number <= $after + $limit ORDER BY number",
        {"include_hidden": include_hidden, "after": after, "limit": limit},
    ).fetchall()
    return [VehicleRef(user_id=user_id, vehicle_id=vehicle_id) for user_id, vehicle_id in rows]

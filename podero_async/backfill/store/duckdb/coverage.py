"""Coverage: the spans of days that were read, per vehicle, and how a batch of reads changes them."""

# ruff: noqa: S608 - the SQL is composed of constants of this package

from __future__ import annotations

import duckdb

__all__ = ["insert_folded", "record"]

_PAIR = "user_id, vehicle_id"

_READS = f"""
CREATE OR REPLACE TEMP TABLE proven_reads AS
SELECT task, {_PAIR}, include_hidden, from_date, least(to_date, fetched_at::DATE) AS to_date, settle_to, fetched_at,
    "count" = 0 AS is_empty
FROM arrow_reads WHERE completeness <> 'unproven' AND from_date <= fetched_at::DATE
"""
# A list may be empty for a night by the server's fault, and rows that were never stored cannot be absent. So a read without
# a session settles only days that a read of an earlier day could have settled, had it had one: that read's last final day
# is as long before it as `settle_to` is before this one.
_FACTS = f"""
CREATE OR REPLACE TEMP TABLE facts AS
SELECT {_PAIR}, include_hidden, from_date, to_date, is_settled, read_at, false AS is_new
FROM coverage SEMI JOIN proven_reads USING ({_PAIR})
UNION ALL
SELECT {_PAIR}, include_hidden, from_date, least(to_date, settle_to), true, fetched_at, true
FROM proven_reads WHERE settle_to >= from_date AND NOT is_empty
UNION ALL
SELECT r.user_id, r.vehicle_id, r.include_hidden, greatest(c.from_date, r.from_date),
    least(c.to_date, r.to_date, r.settle_to, read_at::DATE - date_diff('day', settle_to, fetched_at::DATE)::INTEGER) AS settled,
    true, fetched_at, true
FROM coverage c JOIN proven_reads r USING ({_PAIR}, include_hidden)
WHERE is_empty AND settle_to IS NOT NULL AND NOT is_settled AND read_at::DATE < fetched_at::DATE
    AND settled >= greatest(c.from_date, r.from_date)
UNION ALL
SELECT {_PAIR}, include_hidden,
    CASE WHEN is_empty THEN from_date ELSE greatest(from_date, coalesce(settle_to + 1, from_date)) END,
    to_date, false, fetched_at, true
FROM proven_reads WHERE is_empty OR settle_to IS NULL OR settle_to < to_date
"""
_UNSETTLED = f"""
CREATE OR REPLACE TEMP TABLE unsettled AS
SELECT DISTINCT {_PAIR}, coalesce(day, from_date) AS from_date, coalesce(day, to_date) AS to_date
FROM proven_reads JOIN (SELECT task, day FROM arrow_unsettled UNION ALL SELECT task, day FROM absent) USING (task)
"""
# The first and last days of a vehicle's facts cut its days into pieces. Each piece gets its state from the facts that cover
# it: a settled day stays settled when it is read again, unless the read leaves it unsettled. Then adjoining pieces are
# joined: settled ones, and provisional ones that were read at the same time.
_FOLDED = f"""
CREATE OR REPLACE TEMP TABLE folded AS
WITH cuts AS (
    SELECT {_PAIR}, from_date AS day FROM facts UNION SELECT {_PAIR}, to_date + 1 FROM facts
    UNION SELECT {_PAIR}, from_date FROM unsettled UNION SELECT {_PAIR}, to_date + 1 FROM unsettled
), pieces AS (
    SELECT {_PAIR}, day AS from_date, lead(day) OVER (PARTITION BY {_PAIR} ORDER BY day) - 1 AS to_date FROM cuts
), states AS (
    SELECT f.user_id, f.vehicle_id, f.include_hidden, p.from_date, p.to_date,
        bool_or(f.is_settled) AND NOT bool_or(u.from_date IS NOT NULL) AS is_settled,
        coalesce(max(f.read_at) FILTER (f.is_new), max(f.read_at)) AS read_at
    FROM pieces p JOIN facts f
        ON f.user_id = p.user_id AND f.vehicle_id = p.vehicle_id AND p.from_date BETWEEN f.from_date AND f.to_date
    LEFT JOIN unsettled u
        ON u.user_id = p.user_id AND u.vehicle_id = p.vehicle_id AND p.from_date BETWEEN u.from_date AND u.to_date
    GROUP BY ALL
), islands AS (
    SELECT *, sum(is_first) OVER (PARTITION BY {_PAIR}, include_hidden ORDER BY from_date) AS island FROM (
        SELECT *, CASE WHEN
            lag(to_date) OVER by_key = from_date - 1 AND lag(is_settled) OVER by_key = is_settled
            AND (is_settled OR lag(read_at) OVER by_key = read_at)
        THEN 0 ELSE 1 END AS is_first
        FROM states WINDOW by_key AS (PARTITION BY {_PAIR}, include_hidden ORDER BY from_date)
    )
)
SELECT {_PAIR}, include_hidden, min(from_date) AS from_date, max(to_date) AS to_date, is_settled, min(read_at) AS read_at
FROM islands GROUP BY {_PAIR}, include_hidden, is_settled, island
"""
_DELETE = f"""
DELETE FROM coverage c USING (SELECT DISTINCT {_PAIR} FROM folded) n
WHERE c.user_id = n.user_id AND c.vehicle_id = n.vehicle_id
"""


def record(con: duckdb.DuckDBPyConnection) -> None:
    """Record the proven reads of a batch, within its transaction.

    Reads the tables `arrow_reads`, `arrow_unsettled` and `absent`. A day in one of the last two becomes provisional.
    """
    con.execute(_READS)
    con.execute(_FACTS)
    ((unsettled,),) = con.execute(_UNSETTLED).fetchall()
    if unsettled or con.execute("SELECT 1 FROM facts WHERE NOT is_new LIMIT 1").fetchall():
        _fold(con)
    else:  # the first reads of these vehicles: nothing to fold, and folding would take five times as long
        con.execute("INSERT INTO coverage BY NAME SELECT * EXCLUDE (is_new) FROM facts")


def _fold(con: duckdb.DuckDBPyConnection) -> None:
    """Replace the coverage of the vehicles of the tables `facts` and `unsettled` by what these tables say."""
    con.execute(_FOLDED)
    con.execute(_DELETE)
    _insert(con)


def insert_folded(con: duckdb.DuckDBPyConnection) -> None:
    """Insert the spans of the table `facts`, which may overlap, as disjoint ones; days of `unsettled` are provisional."""
    con.execute(_FOLDED)
    _insert(con)


def _insert(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("INSERT INTO coverage BY NAME FROM folded ORDER BY vehicle_id, user_id, from_date")

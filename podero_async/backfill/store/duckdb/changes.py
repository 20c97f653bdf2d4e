"""The time of a commit, which `changed_at` takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb

__all__ = ["NEWEST_CHANGE", "commit_time"]

# An erased row may have had the newest `changed_at`, which a reader has seen: later changes must be newer still.
NEWEST_CHANGE = """
SELECT greatest(
    (SELECT epoch_us(max(changed_at)) FROM sessions),
    (SELECT max(TRY_CAST(value AS BIGINT)) FROM meta WHERE key = 'newest_change'),
    0
)
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


def commit_time(con: duckdb.DuckDBPyConnection, now: datetime) -> datetime:
    """Return the time of the next commit: now, or just after the newest change if the clock is behind it.

    The newest time is read from the table once, and then kept in a variable of the connection.
    """
    ((newest,),) = con.execute("SELECT getvariable('newest_change')").fetchall()
    if newest is None:  # the first commit of the connection
        con.execute("CREATE TEMP TABLE IF NOT EXISTS roster (user_id UUID, vehicle_id UUID)")
        ((newest,),) = con.execute(NEWEST_CHANGE).fetchall()
    at: datetime = max(now, _EPOCH + (newest + 1) * _TICK)
    con.execute("SET VARIABLE newest_change = ?", [(at - _EPOCH) // _TICK])
    return at

"""The vehicles: the roster of a run, and those that are known from earlier discoveries."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import duckdb

from podero_async.backfill._alarms import Vanished, too_many_vanished
from podero_async.backfill._sharding import Shard
from podero_async.backfill.store.duckdb.columns import unlisted_table, vehicles_table
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.models import VehicleFailure, VehicleRef

__all__ = ["add_to_roster", "clear_roster", "failed", "is_in_roster", "record_fleet"]

_PAIR = "user_id, vehicle_id"
_OF_USERS = f"""
SELECT {_PAIR} FROM (
    SELECT {_PAIR} FROM coverage UNION SELECT {_PAIR} FROM vehicles
) SEMI JOIN arrow_unlisted USING (user_id)
ANTI JOIN (FROM vehicles WHERE gone_since IS NOT NULL) USING ({_PAIR})
"""


def clear_roster(con: duckdb.DuckDBPyConnection) -> None:
    """Start an empty roster."""
    con.execute("CREATE OR REPLACE TEMP TABLE roster (user_id UUID, vehicle_id UUID)")
    con.execute("CREATE OR REPLACE TEMP TABLE unlisted (user_id UUID, kind VARCHAR, message VARCHAR)")


def add_to_roster(con: duckdb.DuckDBPyConnection, vehicles: list[VehicleRef], failures: list[VehicleFailure]) -> None:
    """Add vehicles; if a user's vehicle list failed, add the user's known vehicles."""
    con.register("arrow_vehicles", vehicles_table(vehicles))
    con.execute("INSERT INTO roster FROM arrow_vehicles")
    if failures:
        con.register("arrow_unlisted", unlisted_table(failures))
        con.execute("INSERT INTO unlisted FROM arrow_unlisted")
        con.execute(f"INSERT INTO roster {_OF_USERS}")


def failed(con: duckdb.DuckDBPyConnection) -> list[tuple[UUID, UUID | None]]:
    """Return the pairs of user and vehicle of failures; for a failed vehicle list, the vehicle is None."""
    return con.execute(f"SELECT DISTINCT {_PAIR} FROM failures ORDER BY vehicle_id, user_id").fetchall()


def is_in_roster(con: duckdb.DuckDBPyConnection, vehicle: VehicleRef) -> bool:
    """Return whether the roster has the vehicle under its user."""
    pair = [vehicle.user_id, vehicle.vehicle_id]
    return bool(con.execute("SELECT 1 FROM roster WHERE user_id = ? AND vehicle_id = ?", pair).fetchall())


# A vehicle that moved to another user has not vanished, though its old user has it no longer.
_NOT_LISTED = f"""
SELECT {_PAIR}, vehicle_id NOT IN (SELECT vehicle_id FROM roster) AS has_vanished
FROM (FROM vehicles WHERE gone_since IS NULL) ANTI JOIN roster USING ({_PAIR}) ANTI JOIN unlisted USING (user_id)
"""


# The rows of a vehicle that two users listed are those of one; if this one has it no longer, the other's read changes them.
_UNSETTLE = """
UPDATE coverage SET is_settled = false, read_at = '1970-01-01 00:00:00+00'
WHERE vehicle_id IN (SELECT vehicle_id FROM sessions SEMI JOIN gone USING (user_id, vehicle_id))
  AND vehicle_id IN (SELECT vehicle_id FROM roster)
"""


def record_fleet(
    con: duckdb.DuckDBPyConnection, shard: Shard | None, now: datetime, max_vanished: float, *, is_complete: bool
) -> Vanished:
    """Record the vehicles of the roster and, unless they are too many, those that have gone."""
    with transaction(con):
        con.execute("CREATE OR REPLACE TEMP TABLE gone (user_id UUID, vehicle_id UUID)")
        found = _find_gone(con, shard, max_vanished) if is_complete else Vanished()
        at = {"now": now}
        if found.is_recorded:
            con.execute(
                "UPDATE vehicles v SET gone_since = $now FROM gone g"
                " WHERE v.user_id = g.user_id AND v.vehicle_id = g.vehicle_id",
                at,
            )
            con.execute(_UNSETTLE)
        con.execute(
            "UPDATE vehicles v SET last_seen_at = $now, gone_since = NULL FROM roster r ANTI JOIN unlisted USING (user_id)"
            " WHERE v.user_id = r.user_id AND v.vehicle_id = r.vehicle_id",
            at,
        )
        con.execute(
            f"INSERT INTO vehicles SELECT DISTINCT {_PAIR}, $now, $now, NULL"
            f" FROM roster ANTI JOIN unlisted USING (user_id) ANTI JOIN vehicles USING ({_PAIR})",
            at,
        )
    return found


def _find_gone(con: duckdb.DuckDBPyConnection, shard: Shard | None, max_vanished: float) -> Vanished:
    """Fill the table `gone` with the known vehicles of the shard that are not in the roster."""
    ((listed,),) = con.execute(
        "SELECT count(DISTINCT vehicle_id) FROM vehicles SEMI JOIN roster USING (vehicle_id) WHERE gone_since IS NULL"
    ).fetchall()
    gone = [row for row in con.execute(_NOT_LISTED).fetchall() if shard is None or shard.holds(row[1])]
    vehicles = [VehicleRef(user_id=user_id, vehicle_id=vehicle_id) for user_id, vehicle_id, _ in gone]
    con.register("arrow_gone", vehicles_table(vehicles))
    con.execute("INSERT INTO gone FROM arrow_gone")
    vanished = len({vehicle_id for _, vehicle_id, has_vanished in gone if has_vanished})
    known = listed + vanished
    return Vanished(known, vanished, not too_many_vanished(vanished, known, max_vanished))

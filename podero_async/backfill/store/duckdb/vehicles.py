"""Users and vehicles: the roster of a run, those that earlier runs found, and the history of ownership."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import duckdb

from podero_async.backfill._alarms import Vanished, too_many_vanished
from podero_async.backfill._sharding import Shard
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.backfill.store.duckdb.coverage import insert_folded
from podero_async.backfill.store.duckdb.listing import unlisted_table, users_table, vehicles_table
from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = ["add_to_roster", "clear_roster", "failed", "is_in_roster", "record_fleet", "record_read"]

_PAIR = "user_id, vehicle_id"
_DETAILS = ("manufacturer", "model", "year", "price_zone", "lifecycle_state", "is_authenticated")

_CLEAR = """
CREATE OR REPLACE TEMP TABLE roster (user_id UUID, vehicle_id UUID);
CREATE OR REPLACE TEMP TABLE unlisted (user_id UUID, kind VARCHAR, message VARCHAR);
CREATE OR REPLACE TEMP TABLE listed_users (
    user_id UUID, external_user_id VARCHAR, role VARCHAR, num_electric_vehicles INTEGER
);
CREATE OR REPLACE TEMP TABLE listed_vehicles (
    user_id UUID, vehicle_id UUID, external_user_id VARCHAR, manufacturer VARCHAR, model VARCHAR, "year" INTEGER,
    price_zone VARCHAR, lifecycle_state VARCHAR, is_authenticated BOOLEAN
);
"""
_OF_UNLISTED = f"""
INSERT INTO roster SELECT {_PAIR} FROM (
    SELECT {_PAIR} FROM coverage UNION SELECT {_PAIR} FROM vehicles
) SEMI JOIN unlisted USING (user_id)
ANTI JOIN (FROM vehicles WHERE gone_since IS NOT NULL) USING ({_PAIR})
ANTI JOIN roster USING ({_PAIR})
"""


def clear_roster(con: duckdb.DuckDBPyConnection) -> None:
    """Start an empty roster."""
    con.execute(_CLEAR)


def add_to_roster(
    con: duckdb.DuckDBPyConnection, users: list[User], vehicles: list[VehicleRef], failures: list[VehicleFailure]
) -> None:
    """Add users and vehicles; if a user's vehicle list failed, add the user's known vehicles."""
    con.register("arrow_users", users_table(users))
    con.execute("INSERT INTO listed_users FROM arrow_users")
    con.register("arrow_vehicles", vehicles_table(vehicles))
    con.execute("INSERT INTO listed_vehicles FROM arrow_vehicles")
    con.execute(f"INSERT INTO roster SELECT {_PAIR} FROM arrow_vehicles")
    if failures:
        con.register("arrow_unlisted", unlisted_table(failures))
        con.execute("INSERT INTO unlisted FROM arrow_unlisted")
        con.execute(_OF_UNLISTED)


def failed(con: duckdb.DuckDBPyConnection) -> list[tuple[UUID, UUID | None]]:
    """Return the pairs of user and vehicle of failures; for a failed vehicle list, the vehicle is None."""
    return con.execute(f"SELECT DISTINCT {_PAIR} FROM failures ORDER BY vehicle_id, user_id").fetchall()


def is_in_roster(con: duckdb.DuckDBPyConnection, vehicle: VehicleRef) -> bool:
    """Return whether the roster has the vehicle under its user."""
    pair = [vehicle.user_id, vehicle.vehicle_id]
    return bool(con.execute("SELECT 1 FROM roster WHERE user_id = ? AND vehicle_id = ?", pair).fetchall())


# --- gone users and vehicles ---

# A vehicle has not vanished if it moved to another user, nor if no discovery ever listed it: a caller named it.
_NOT_LISTED = f"""
SELECT {_PAIR}, vehicle_id NOT IN (SELECT vehicle_id FROM roster) AND last_seen_at IS NOT NULL AS has_vanished
FROM (FROM vehicles WHERE gone_since IS NULL) ANTI JOIN roster USING ({_PAIR}) ANTI JOIN unlisted USING (user_id)
"""
_USERS_NOT_LISTED = """
SELECT user_id FROM (FROM users WHERE gone_since IS NULL) ANTI JOIN listed_users USING (user_id)
"""
_VEHICLES_GONE = """
UPDATE vehicles v SET gone_since = $now FROM gone g WHERE v.user_id = g.user_id AND v.vehicle_id = g.vehicle_id
"""
_USERS_GONE = "UPDATE users SET gone_since = $now WHERE user_id IN (SELECT user_id FROM gone_users)"
# A user no longer lists a vehicle, and another user does. All days of the vehicle that were read under any user are read
# again under the present one, so that its sessions move there, and those of its provisional days are still stored.
_MOVED = f"CREATE OR REPLACE TEMP TABLE moved AS SELECT DISTINCT {_PAIR} FROM roster SEMI JOIN gone USING (vehicle_id)"
_FACTS_OF_MOVED = """
CREATE OR REPLACE TEMP TABLE facts AS
SELECT m.user_id, vehicle_id, include_hidden, from_date, to_date, false AS is_settled,
    '1970-01-01 00:00:00+00'::TIMESTAMPTZ AS read_at
FROM moved m JOIN coverage USING (vehicle_id)
"""
_FORGET_MOVED = "DELETE FROM coverage c USING moved m WHERE c.user_id = m.user_id AND c.vehicle_id = m.vehicle_id"


def _unsettle_moved(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(_MOVED)
    con.execute(_FACTS_OF_MOVED)
    con.execute(_FORGET_MOVED)
    insert_folded(con)


def _find_gone(con: duckdb.DuckDBPyConnection, shard: Shard | None, max_vanished: float) -> Vanished:
    """Fill the tables `gone` and `gone_users` with the known vehicles and users of the shard that were not listed."""
    ((listed,),) = con.execute(
        "SELECT count(DISTINCT vehicle_id) FROM vehicles SEMI JOIN roster USING (vehicle_id) WHERE gone_since IS NULL"
    ).fetchall()
    gone = [row for row in con.execute(_NOT_LISTED).fetchall() if shard is None or shard.holds(row[0])]
    vehicles = [VehicleRef(user_id=user_id, vehicle_id=vehicle_id) for user_id, vehicle_id, _ in gone]
    con.register("arrow_gone", vehicles_table(vehicles))
    con.execute(f"INSERT INTO gone SELECT {_PAIR} FROM arrow_gone")
    users = [
        User(id=row[0]) for row in con.execute(_USERS_NOT_LISTED).fetchall() if shard is None or shard.holds(row[0])
    ]
    con.register("arrow_gone", users_table(users))
    con.execute("INSERT INTO gone_users SELECT user_id FROM arrow_gone")
    vanished = len({vehicle_id for _, vehicle_id, has_vanished in gone if has_vanished})
    known = listed + vanished
    return Vanished(known, vanished, not too_many_vanished(vanished, known, max_vanished))


# --- known users and vehicles ---

# The list of users says whether a user has an external id; a list of vehicles that the caller gave may leave it out.
_RECORD_USERS = """
MERGE INTO users u USING (
    SELECT user_id, any_value(external_user_id) AS external_user_id, any_value("role") AS "role",
        any_value(num_electric_vehicles) AS num_electric_vehicles, bool_or(is_listed) AS is_listed
    FROM (
        SELECT *, true AS is_listed FROM listed_users
        UNION ALL SELECT user_id, external_user_id, NULL, NULL, false FROM recorded
    ) GROUP BY user_id
) l ON u.user_id = l.user_id
WHEN MATCHED THEN UPDATE SET
    external_user_id = CASE WHEN is_listed THEN l.external_user_id
        ELSE coalesce(l.external_user_id, u.external_user_id) END,
    "role" = coalesce(l."role", u."role"),
    num_electric_vehicles = coalesce(l.num_electric_vehicles, u.num_electric_vehicles),
    last_seen_at = CASE WHEN is_listed THEN $now ELSE u.last_seen_at END,
    gone_since = CASE WHEN is_listed THEN NULL ELSE u.gone_since END
WHEN NOT MATCHED THEN INSERT VALUES (
    l.user_id, l.external_user_id, l."role", l.num_electric_vehicles, $now, CASE WHEN is_listed THEN $now END, NULL
)
"""
_RECORD_VEHICLES = f"""
MERGE INTO vehicles v USING (
    SELECT {_PAIR}, {", ".join(f'any_value("{name}") AS "{name}"' for name in _DETAILS)} FROM recorded GROUP BY {_PAIR}
) l ON v.user_id = l.user_id AND v.vehicle_id = l.vehicle_id
WHEN MATCHED THEN UPDATE SET
    {", ".join(f'"{name}" = coalesce(l."{name}", v."{name}")' for name in _DETAILS)},
    last_seen_at = CASE WHEN $is_listed THEN $now ELSE v.last_seen_at END,
    gone_since = CASE WHEN $is_listed THEN NULL ELSE v.gone_since END
WHEN NOT MATCHED THEN INSERT VALUES (
    l.user_id, l.vehicle_id, {", ".join(f'l."{name}"' for name in _DETAILS)}, $now, CASE WHEN $is_listed THEN $now END, NULL
)
"""
_DROP_EXTERNAL_IDS = """
UPDATE listed_users SET external_user_id = NULL;
UPDATE listed_vehicles SET external_user_id = NULL;
UPDATE users SET external_user_id = NULL WHERE external_user_id IS NOT NULL;
UPDATE ownership SET external_user_id = NULL WHERE external_user_id IS NOT NULL;
"""
_SAME = """
o.until IS NULL AND o.vehicle_id = n.vehicle_id AND o.user_id = n.user_id
AND o.external_user_id IS NOT DISTINCT FROM n.external_user_id
"""
_OWNED = """
CREATE OR REPLACE TEMP TABLE owned AS
SELECT v.vehicle_id, v.user_id, u.external_user_id
FROM vehicles v LEFT JOIN users u USING (user_id) WHERE v.gone_since IS NULL
"""
_END_PERIODS = f"""
UPDATE ownership o SET until = $now WHERE until IS NULL AND NOT EXISTS (SELECT 1 FROM owned n WHERE {_SAME})
"""
_START_PERIODS = f"""
INSERT INTO ownership SELECT n.*, $now, NULL FROM owned n WHERE NOT EXISTS (SELECT 1 FROM ownership o WHERE {_SAME})
"""


def record_fleet(
    con: duckdb.DuckDBPyConnection,
    shard: Shard | None,
    now: datetime,
    max_vanished: float,
    *,
    is_complete: bool,
    keep_external_ids: bool = True,
) -> Vanished:
    """Record the listed users and vehicles and, unless they are too many, those that have gone."""
    with transaction(con):
        con.execute("CREATE OR REPLACE TEMP TABLE gone (user_id UUID, vehicle_id UUID)")
        con.execute("CREATE OR REPLACE TEMP TABLE gone_users (user_id UUID)")
        found = _find_gone(con, shard, max_vanished) if is_complete else Vanished()
        if found.is_recorded:
            con.execute(_VEHICLES_GONE, {"now": now})
            con.execute(_USERS_GONE, {"now": now})
            _unsettle_moved(con)
        con.execute("CREATE OR REPLACE TEMP TABLE recorded AS FROM listed_vehicles")
        _record(con, now, is_listed=True, keep_external_ids=keep_external_ids)
    return found


def record_read(con: duckdb.DuckDBPyConnection, run_id: int, now: datetime, *, keep_external_ids: bool = True) -> None:
    """Record the vehicles that a run over given vehicles has read, with their known details.

    A pair of user and vehicle that was never read may be a mistake of the caller, so it is not recorded.
    """
    with transaction(con):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE recorded AS FROM listed_vehicles"
            f" SEMI JOIN (FROM receipts WHERE run_id = ? AND completeness <> 'unproven') USING ({_PAIR})",
            [run_id],
        )
        _record(con, now, is_listed=False, keep_external_ids=keep_external_ids)


def _record(con: duckdb.DuckDBPyConnection, now: datetime, *, is_listed: bool, keep_external_ids: bool) -> None:
    if not keep_external_ids:
        con.execute(_DROP_EXTERNAL_IDS)
        con.execute("UPDATE recorded SET external_user_id = NULL")
    con.execute(_RECORD_USERS, {"now": now})
    con.execute(_RECORD_VEHICLES, {"now": now, "is_listed": is_listed})
    con.execute(_OWNED)
    con.execute(_END_PERIODS, {"now": now})
    con.execute(_START_PERIODS, {"now": now})

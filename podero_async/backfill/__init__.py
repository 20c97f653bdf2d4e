"""Durable backfills: a fleet's charging sessions in a DuckDB file, through crashes, today and every night from now on.

Needs the extra `backfill` (DuckDB and Arrow) once a store is opened.
"""

from podero_async.backfill._backfill import backfill
from podero_async.backfill._planner import BackfillPlan, plan_backfill
from podero_async.backfill._report import BackfillReport, FailedVehicle, Progress
from podero_async.backfill._sharding import Shard
from podero_async.backfill._vehicle_files import read_vehicle_refs
from podero_async.backfill._verify import Difference, VerifyReport, verify
from podero_async.backfill.errors import (
    ApiDownError,
    ForeignStoreError,
    NotAStoreError,
    StoreError,
    StoreFullError,
    StoreInUseError,
    StoreTooNewError,
)
from podero_async.backfill.store._session_store import SessionStore

__all__ = [
    "ApiDownError",
    "BackfillPlan",
    "BackfillReport",
    "Difference",
    "FailedVehicle",
    "ForeignStoreError",
    "NotAStoreError",
    "Progress",
    "SessionStore",
    "Shard",
    "StoreError",
    "StoreFullError",
    "StoreInUseError",
    "StoreTooNewError",
    "VerifyReport",
    "backfill",
    "plan_backfill",
    "read_vehicle_refs",
    "verify",
]

for _name in __all__:
    _public = globals()[_name]
    if callable(_public):
        _public.__module__ = __name__  # so that reprs, tracebacks and pickles name no private module

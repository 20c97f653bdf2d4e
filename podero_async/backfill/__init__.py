"""Backfills write the charging sessions of a fleet into a DuckDB file, and keep that file up to date every night.

If a backfill is interrupted by a crash, a signal or an outage, the same call resumes it.

The extra `backfill` installs DuckDB and Arrow. They are imported when a store is opened.

    today = datetime.now(UTC).date()  # days are UTC days
    async with PoderoClient.from_env() as client, SessionStore("fleet.duckdb") as store:
        report = await backfill(client, store, date(2026, 1, 1), today, refresh_days=7)
    report.is_clean        # True if every vehicle was read and proven complete

**Runs.** A run reads one window of days for one set of vehicles: the organization's fleet, a list, or a shard of either
one. It is planned once. For each vehicle, it reads the days that are missing in the store, and the newest `refresh_days`
stored days again, since sessions complete late and savings are computed later. A day counts as stored only if a proven
read was made after the day had ended (UTC). `plan_backfill` returns the plan without reading a session.

**Resume.** The same call (same window, settings and vehicles) resumes an unfinished run: vehicles with a receipt of the run
cost no request, and the fleet is not discovered again. If the window includes the day of the call, the run is resumed on
the same UTC day only. After a run is finished, the same call starts a new one.

**Failures.** If a vehicle fails, the others go on. The failure is stored, and if the window of a later run covers it, that run
tries the vehicle again. If the API is down, the call commits the received sessions and raises `ApiDownError`.

**Shards.** `Shard(2, 5)` is a stable fifth of the vehicles, for a process and a store of its own. A vehicle's id alone
determines its shard.

**Kills.** Each batch of vehicles is one transaction: a killed process leaves a batch stored completely or not at all, with
its receipts. No session is lost or stored twice. At most the outcomes of the last second and the requests in flight are
read again.

**Tables.** SQL (`SessionStore.query`, or DuckDB itself while no process has the store open) sees these tables:

- `sessions`: one row for each session. The columns are the 22 fields of `ChargingSession`, `user_id` and `vehicle_id`, and
  four times: `fetched_at` (the last read that returned the session), `first_seen_at` (the first one), `changed_at` (the
  last one with a changed field; NULL if there was none) and `withdrawn_at` (a proven read no longer returned the session;
  NULL otherwise).
- `receipts`: one row for each read of a window: `run_id`, `task` (the work item's number in the run), `user_id`,
  `vehicle_id`, `from_date`, `to_date`, `include_hidden`, `completeness` (the verdict), `total` (the server's count),
  `count` (stored rows), `digest` (of the ids), `requests`, `held_to` (the days up to this one are stored; NULL if none is)
  and `fetched_at`.
- `failures`: vehicles that failed, and users with a failed vehicle list (`vehicle_id` is NULL), with the error's
  class (`kind`) and `message`, `run_id`, `user_id`, `from_date`, `to_date`, `include_hidden` and `failed_at`.
- `rejected_items`: rows that could not be read: `session_id` (if it is readable), `index` on the page, `path` and `reason` of the
  error, and the `raw` JSON; with `user_id`, `vehicle_id`, `from_date`, `to_date`, `include_hidden` and `fetched_at`. Each
  run reads their windows again until the rows are readable.
- `runs`: `run_id`, `from_date`, `to_date`, `include_hidden`, `refresh_days`, `scope` (the fleet or a list, and the shard),
  `vehicles`, `started_at` and `finished_at` (NULL while the run is unfinished).
- `tasks`: the work items of unfinished runs: `run_id`, `task`, `user_id`, `vehicle_id`, `from_date` and `to_date`.
- `meta`: `key` and `value`: the schema version, and the organization and origin that own the store.

Sessions and energy by month (UTC):

    SELECT strftime(plug_in_time AT TIME ZONE 'UTC', '%Y-%m') AS month, count(*) AS sessions, sum(energy_charged_kwh) AS kwh
    FROM sessions WHERE withdrawn_at IS NULL GROUP BY month ORDER BY month;

The busiest hours of plug-in (UTC):

    SELECT hour(plug_in_time AT TIME ZONE 'UTC') AS hour, count(*) AS sessions
    FROM sessions WHERE withdrawn_at IS NULL GROUP BY hour ORDER BY sessions DESC LIMIT 3;

The fraction of plug-ins under five minutes, in a store that was filled with `include_hidden=True` (by default the API
hides just these):

    SELECT count(*) FILTER (unplug_time - plug_in_time < INTERVAL 5 MINUTES) / count(unplug_time) AS fraction
    FROM sessions WHERE withdrawn_at IS NULL;

Import direction: `_backfill`, `_verify` > `_planner` > `_writer` > `_client_access` > `store` > `errors` > `_report` >
`_values`, `_sharding`, `_vehicle_files`.
"""

from podero_async.backfill._backfill import backfill
from podero_async.backfill._coverage import DayCounts
from podero_async.backfill._planner import plan_backfill
from podero_async.backfill._report import BackfillPlan, BackfillReport, FailedVehicle, Progress
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import Bounds
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
from podero_async.backfill.store import Coverage, Exported, RunStatus, SessionStore, StoreStatus

__all__ = [
    "ApiDownError",
    "BackfillPlan",
    "BackfillReport",
    "Bounds",
    "Coverage",
    "DayCounts",
    "Difference",
    "Exported",
    "FailedVehicle",
    "ForeignStoreError",
    "NotAStoreError",
    "Progress",
    "RunStatus",
    "SessionStore",
    "Shard",
    "StoreError",
    "StoreFullError",
    "StoreInUseError",
    "StoreStatus",
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

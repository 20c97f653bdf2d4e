"""Backfills write the charging sessions of a fleet into a DuckDB file every night; its coverage decides which days are read.

The extra `backfill` installs DuckDB and Arrow. They are imported when a store is opened.

    today = datetime.now(UTC).date()  # days are UTC days
    async with PoderoClient.from_env() as client, SessionStore("fleet.duckdb") as store:
        report = await backfill(client, store, date(2026, 1, 1), today)
    report.is_clean        # True if the run is finished, and nothing about it is implausible
    report.missing         # days of vehicles that are not in the store

# Days

The API lists a session once it is completed, under the UTC day of its plug-in: a day that was read may still get
sessions. So each day of a vehicle has one of three states:

| state | meaning | the next runs |
|---|---|---|
| missing | no proven read of the day | read it if it is in their window |
| provisional | read, and more may come | read it again, also if it is before their window |
| settled | nothing more can come | do not read it |

A day settles when it is read `settle_days` (30) after its end, if the API was asked first for the vehicle's current session
and that one was plugged in later, or does not exist. This question costs a seventh of a request for each vehicle and
night. A day stays provisional while one of its
sessions shows no end (no `unplug_time` and no `inferred_session_end`, or the outcome `in_progress`) or could not be read.

# Runs

These states and the clock alone decide which days a run reads: for each vehicle, the missing days of the window,
and all provisional days and days of failed reads up to the end of the window. For nearly every vehicle this takes one
request. A day that was read less than `fresh_for` (12 hours) ago is not read again, so the same call, made again after a
crash, a signal or an outage, reads the rest. Any schedule works: yesterday alone, a fixed first day, weekly, with pauses
of up to 30 days. Vehicles that were never read come first, then those that were read longest ago. Each call lists the
organization's users and their vehicles. `plan_backfill` returns the plan without reading a session.

# Failures

If a vehicle fails, the others go on. The failure is stored, and the next run tries the vehicle again. If the
API is down, the call commits the received sessions and raises `ApiDownError`. If too many vehicles fail, or too many
vehicles or sessions seem to vanish (`Bounds`), the run is not clean, and `report.alarms` says why.

# Shards

`Shard(2, 5)` is a stable fifth of the users, with their vehicles, for a process and a store of its own. A
user's id alone determines the shard, so each process lists the vehicles of its own users only. `merge_stores` makes one
store of several, with their coverage and history, and backfills may go on with it. If a vehicle changes to a user of
another shard, both stores have its older sessions until they are merged.

# Kills

Each batch of vehicles is one transaction: a killed process leaves a batch stored completely or not at all, with
its receipts. No session is lost or stored twice. At most the outcomes of the last second and the requests in flight are
read again.

# Copies

While a process has the store open, no other process can read it, and its newest rows may be in the file `.wal`
beside it: a copy of the store's file alone, made then or after a kill, lacks them. `SessionStore.snapshot` writes a
consistent copy that others may hold open while the next one replaces it. Tools with DuckDB 1.0 or later read stores and
snapshots.

# Erasure

`SessionStore.forget` erases a user: it writes the file anew, so that no byte of the user's ids remains in it,
and keeps a hash of the id, by which later runs leave the user out. `SessionStore.forget_before` erases all sessions that
were plugged in before a UTC day, in the same way, with the coverage, failures, receipts and unreadable rows of these days. A
receipt that ends later stays as it is, since it has counts and a hash of the whole read alone. Later runs read no such day:
they begin with the first day that is kept, which no later call moves back, and leave out a session of an older day. Exports
and snapshots that were made before still have the erased rows; `publish` removes them from PostgreSQL the next time.

# Tables and columns

SQL (`SessionStore.query`, or DuckDB itself while no process has the store open) sees these tables:

- `sessions`: one row for each session. The columns are the 22 fields of `ChargingSession`, `user_id` and `vehicle_id`, and
  five times: `fetched_at` (the last read that returned the session), `first_seen_at` (the first one), `changed_at` (the
  last visible change: of a field, the vehicle or the user, a withdrawal or a return), `absent_at` (a proven read did not
  return the session, and a second one has not confirmed that yet) and `withdrawn_at` (confirmed; NULL otherwise). If a
  run has kept them (`keep_unknown`), `unknown_fields` has the fields that the release did not know, as JSON.
- `coverage`: the days that were read, as spans: `user_id`, `vehicle_id`, `include_hidden`, `from_date`, `to_date`,
  `is_settled` and `read_at`.
- `users`: one row for each user: `user_id`, `external_user_id` (the partner's own id; see `keep_external_ids`), `role`,
  `num_electric_vehicles`, `first_seen_at`, `last_seen_at` (the last discovery that listed the user; NULL if only callers
  named the user) and `gone_since` (NULL while the user is listed). Names, e-mail and postal addresses are never stored.
- `vehicles`: one row for each vehicle and user: `user_id`, `vehicle_id`, `manufacturer`, `model`, `year`, `price_zone`,
  `lifecycle_state`, `is_authenticated`, `first_seen_at`, `last_seen_at` and `gone_since`.
- `ownership`: the history of each vehicle's users: `vehicle_id`, `user_id`, `external_user_id`, `since` and `until` (NULL
  for the present one).
- `receipts`: one row for each read of a window, for 400 days: `run_id`, `user_id`, `vehicle_id`, `from_date`, `to_date`,
  `include_hidden`, `completeness` (the verdict), `total` (the server's count), `count` (stored rows), `digest` (of ids and
  contents, in the list's order), `requests` and `fetched_at`.
- `failures`: vehicles that failed or were not proven complete, and users with a failed vehicle list (`vehicle_id` is
  NULL), with the error's class (`kind`) and `message`, `run_id`, `user_id`, `from_date`, `to_date`, `include_hidden`,
  `first_failed_at` and `failed_at`.
- `rejected_items`: rows that could not be read: `session_id` (if it is readable), `index` in the list, `path` and
  `reason` of the error, and the `raw` JSON; with `user_id`, `vehicle_id`, `from_date`, `to_date`, `include_hidden`,
  `fetched_at` and `first_rejected_at`.
- `runs`: the records of runs, for 400 days: `run_id`, `from_date`, `to_date`, `include_hidden`, `scope` (the fleet or a
  list, and the shard), `vehicles`, `started_at`, `finished_at` (NULL if the run was interrupted), `done`, `failed`,
  `unproven`, `sessions_new`, `sessions_changed`, `sessions_unchanged`, `sessions_withdrawn`, `rejected`, `requests`,
  `retries` and `alarms` (lines).
- `forgotten`: users that were erased: `user_hash` (SHA-256 of the salt and the user's id), `salt` (the id of the store in
  which the user was erased) and `forgotten_at`.
- `meta`: `key` and `value`: the schema version, the store's id, the organization and origin that own the store, the newest
  `changed_at` at the time of an erasure, and the first day that is kept (`kept_from`).

and these views:

- `live_sessions`: the sessions without the withdrawn ones, with `external_user_id`, `manufacturer` and `model`.
- `monthly_savings`: `sessions`, `energy_charged_kwh`, `actual_cost_eur`, `expected_savings_eur`, `actual_savings_eur` and
  `sessions_without_savings` for each user (`user_id`, `external_user_id`) and `month` in UTC. The table function
  `monthly_savings_in('Europe/Vienna')` has the months of another time zone.
- `vehicle_coverage`: `settled_days`, `provisional_days` and `missing_days` of each vehicle between its first and last day.

All tables, views and columns have comments. Runs over given vehicles fill in what the caller knows (`VehicleRef`).

The savings of each customer by month, in Vienna's time; add a condition on both columns for one of them:

    SELECT external_user_id, month, actual_savings_eur FROM monthly_savings_in('Europe/Vienna') ORDER BY month;

The user of each vehicle today; `since <= t AND (until IS NULL OR until > t)` is true at a time `t`:

    SELECT vehicle_id, user_id, external_user_id, since FROM ownership WHERE until IS NULL;

The busiest hours of plug-in (UTC):

    SELECT hour(plug_in_time AT TIME ZONE 'UTC') AS hour, count(*) AS sessions
    FROM sessions WHERE withdrawn_at IS NULL GROUP BY hour ORDER BY sessions DESC LIMIT 3;

The fraction of plug-ins under five minutes, in a store that was filled with `include_hidden=True` (by default the API
hides just these):

    SELECT count(*) FILTER (unplug_time - plug_in_time < INTERVAL 5 MINUTES) / count(unplug_time) AS fraction
    FROM sessions WHERE withdrawn_at IS NULL;

Import direction: `_verify` > `_backfill`, `_merge` > `_planner` > `_writer` > `_client_access` > `store` > `errors` >
`_comparison` > `_report` > `_alarms` > `_values`, `_coverage` > `_forgotten`, `_sharding`, `_vehicle_files`.
"""

from podero_async.backfill._backfill import backfill
from podero_async.backfill._comparison import Difference, VerifyReport
from podero_async.backfill._coverage import DayCounts
from podero_async.backfill._merge import merge_stores
from podero_async.backfill._planner import plan_backfill
from podero_async.backfill._report import BackfillPlan, BackfillReport, FailedVehicle, Progress
from podero_async.backfill._sharding import Shard
from podero_async.backfill._values import Bounds
from podero_async.backfill._vehicle_files import read_vehicle_refs
from podero_async.backfill._verify import verify
from podero_async.backfill.errors import (
    ApiDownError,
    ForeignStoreError,
    NotAStoreError,
    QueryError,
    StoreError,
    StoreFullError,
    StoreInUseError,
    StoreTooNewError,
)
from podero_async.backfill.store import Coverage, Exported, Merged, RunStatus, SessionStore, StoreStatus

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
    "Merged",
    "NotAStoreError",
    "Progress",
    "QueryError",
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
    "merge_stores",
    "plan_backfill",
    "read_vehicle_refs",
    "verify",
]

for _name in __all__:
    _public = globals()[_name]
    if "._" in getattr(_public, "__module__", ""):
        _public.__module__ = __name__  # so that reprs, tracebacks and pickles name no private module

"""The records of runs, with their counts. No later run depends on them."""

# ruff: noqa: S608 - the SQL is composed of constants of this package; values are bound

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import attrs
import duckdb

from podero_async.backfill._alarms import LONG_FAILED_DAYS, FailureCounts
from podero_async.backfill._report import BackfillReport
from podero_async.backfill._values import Run, RunSettings
from podero_async.backfill.store.duckdb import absence
from podero_async.backfill.store.duckdb.connection import transaction
from podero_async.backfill.store.duckdb.schema import add_unknown_fields
from podero_async.backfill.store.duckdb.work import plan_work

__all__ = ["count_failures", "end_run", "start_run"]

_RETENTION_DAYS = 400

_LAST_RUN = "SELECT coalesce(max(run_id), 0) FROM runs"
# A failure to list a user's vehicles lasts as long as the same user's list fails in each discovery.
_UNLISTED = """
INSERT INTO failures
SELECT $run, u.user_id, NULL, NULL, NULL, $include_hidden, u.kind, u.message, coalesce(o.first_failed_at, $now), $now
FROM unlisted u LEFT JOIN old_unlisted o USING (user_id)
"""
_END = """
UPDATE runs SET finished_at = $finished_at, done = $done, failed = $failed, unproven = $unproven, sessions_new = $new,
    sessions_changed = $changed, sessions_unchanged = $unchanged, sessions_withdrawn = $withdrawn, rejected = $rejected,
    requests = $requests, retries = $retries, alarms = $alarms
WHERE run_id = $run
"""
# The newest read tells the time: a clock that is ahead must not delete records.
_OLD = f"(SELECT max(read_at) FROM coverage) - INTERVAL {_RETENTION_DAYS} DAY"
_FAILED = """
SELECT count(*) FILTER (kind <> $unproven), count(*) FILTER (kind = $unproven), count(*) FILTER (since <= $long_ago)
FROM (
    SELECT user_id, vehicle_id, max(kind) AS kind, min(first_failed_at) AS since FROM failures
    WHERE run_id = $run GROUP BY user_id, vehicle_id
)
"""
_REJECTED = """
SELECT count(*), count(*) FILTER (coalesce(first_rejected_at, fetched_at) > $long_ago)
FROM rejected_items SEMI JOIN roster USING (user_id, vehicle_id)
"""
_UNPROVEN = "CompletenessError"


def start_run(con: duckdb.DuckDBPyConnection, settings: RunSettings, scope: str, *, is_of_fleet: bool) -> Run:
    """Store the record of a run over the roster, and plan its work items."""
    absence.start(con)
    values = attrs.asdict(settings.window) | {"scope": scope, "now": settings.started}
    with transaction(con):
        if settings.keep_unknown:
            add_unknown_fields(con)
        vehicles, items, skipped = plan_work(con, settings)
        ((last,),) = con.execute(_LAST_RUN).fetchall()
        values |= {"run": last + 1, "vehicles": vehicles}
        con.execute("DELETE FROM meta WHERE key = 'merged_at'")  # another merge must not replace what this run writes
        con.execute(
            "INSERT INTO runs (run_id, from_date, to_date, include_hidden, scope, vehicles, started_at)"
            " VALUES ($run, $from_date, $to_date, $include_hidden, $scope, $vehicles, $now)",
            values,
        )
        if is_of_fleet:
            con.execute("CREATE OR REPLACE TEMP TABLE old_unlisted AS FROM failures WHERE vehicle_id IS NULL")
            con.execute("DELETE FROM failures WHERE vehicle_id IS NULL")
            con.execute(_UNLISTED, {name: values[name] for name in ("run", "include_hidden", "now")})
    return Run(last + 1, vehicles, items, skipped)


def count_failures(con: duckdb.DuckDBPyConnection, run_id: int, now: datetime) -> FailureCounts:
    """Count the vehicles that failed or were not proven complete in a run, and the unreadable rows of its vehicles."""
    long_ago = {"long_ago": now - timedelta(days=LONG_FAILED_DAYS)}
    values: dict[str, Any] = long_ago | {"run": run_id, "unproven": _UNPROVEN}
    failed, unproven, long_failed = con.execute(_FAILED, values).fetchall()[0]
    rejected, lately = con.execute(_REJECTED, long_ago).fetchall()[0]
    ((vehicles,),) = con.execute("SELECT count(*) FROM roster").fetchall()
    return FailureCounts(vehicles, failed, unproven, long_failed, rejected, lately)


def end_run(con: duckdb.DuckDBPyConnection, run_id: int, report: BackfillReport, finished_at: datetime | None) -> None:
    """Store the counts and the alarms of a run; if it is finished, delete the records past their retention."""
    counts = (
        "done",
        "failed",
        "unproven",
        "new",
        "changed",
        "unchanged",
        "withdrawn",
        "rejected",
        "requests",
        "retries",
    )
    values = {name: getattr(report, name) for name in counts}
    with transaction(con):
        con.execute(_END, values | {"run": run_id, "alarms": "\n".join(report.alarms), "finished_at": finished_at})
        if finished_at is not None:
            con.execute(f"DELETE FROM receipts WHERE fetched_at < {_OLD}")
            con.execute(f"DELETE FROM runs WHERE started_at < {_OLD} AND run_id <> ?", [run_id])
            con.execute(
                "DELETE FROM failures f USING vehicles v"
                " WHERE f.user_id = v.user_id AND f.vehicle_id = v.vehicle_id AND v.gone_since IS NOT NULL"
            )

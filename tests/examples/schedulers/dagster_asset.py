"""A Dagster asset with a schedule: the sessions of the fleet as one DuckDB file. Run by hand with Dagster 1.13.29 on 2026-11-29.

The asset has no partitions: the store itself knows which days are missing, and each run reads them.
"""

import asyncio
import os

from dagster import Definitions, Failure, MaterializeResult, RetryPolicy, ScheduleDefinition, asset

from tests.examples.nightly import FINAL, nightly


@asset(retry_policy=RetryPolicy(max_retries=3, delay=30 * 60))
def charging_sessions() -> MaterializeResult:
    """All completed charging sessions."""
    path = os.environ.get("STORE", "/data/fleet.duckdb")
    try:
        is_clean = asyncio.run(nightly(path))
    except FINAL as error:
        raise Failure(str(error), allow_retries=False) from error
    if not is_clean:
        raise Failure("some data is missing: `podero-async status` says which", allow_retries=False)
    return MaterializeResult(metadata={"path": path})


every_night = ScheduleDefinition("every_night", target=[charging_sessions], cron_schedule="15 3 * * *")
definitions = Definitions(assets=[charging_sessions], schedules=[every_night])

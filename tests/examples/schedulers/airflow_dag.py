"""An Airflow DAG: the day of each run, and then a copy that readers may hold open.

Run by hand with Airflow 3.3.2 on 2026-11-29. The paths must be on a disk that all workers share, and the pool or
`max_active_runs` must keep two runs from writing at a time. A run that was missed needs no catch-up: each run reads what
earlier ones have left open. Connections' settings are the worker's environment variables `PODERO_*`.
"""

import asyncio
from datetime import UTC, date, datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

from tests.examples.nightly import FINAL, copy_for_readers, nightly


@dag(schedule="15 3 * * *", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, max_active_runs=1)
def podero_nightly() -> None:
    """Read the fleet's sessions every night."""

    @task(retries=3, retry_delay=timedelta(minutes=30))
    def sessions(store: str, copy: str, day: str) -> None:
        try:
            is_clean = asyncio.run(nightly(store, date.fromisoformat(day)))
        except FINAL as error:
            raise AirflowFailException(str(error)) from error  # another try would fail as well
        asyncio.run(copy_for_readers(store, copy))  # each `asyncio.run` needs a client and a store of its own
        if not is_clean:
            raise AirflowFailException(
                "some data is missing: `podero-async status` says which; the next night tries again"
            )

    sessions("/data/fleet.duckdb", "/data/readers.duckdb", "{{ ds }}")


podero_nightly()

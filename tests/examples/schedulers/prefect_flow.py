"""A Prefect flow. Serve it every night: `prefect_flow.py serve`. Run by hand with Prefect 3.9.1 on 2026-11-29."""

import asyncio
import os
import sys
from typing import Any

from prefect import flow, task

from tests.examples.nightly import FINAL, nightly


class IncompleteError(Exception):
    """Some data is missing, which the next night tries again."""


async def is_worth_retrying(_: Any, __: Any, state: Any) -> bool:
    """Return whether another try may succeed."""
    error = await state.aresult(raise_on_failure=False)
    return not isinstance(error, (*FINAL, IncompleteError))


@task(retries=3, retry_delay_seconds=30 * 60, retry_condition_fn=is_worth_retrying)
async def read_sessions(path: str) -> None:
    """Read the fleet's sessions; another try reads the rest."""
    if not await nightly(path):
        raise IncompleteError("some data is missing: `podero-async status` says which")


@flow
async def podero_nightly(path: str) -> None:
    """Read the fleet's sessions every night."""
    await read_sessions(path)


if __name__ == "__main__":
    store = os.environ.get("STORE", "/data/fleet.duckdb")
    if "serve" in sys.argv:
        podero_nightly.serve("podero", cron="15 3 * * *", parameters={"path": store})
    else:
        asyncio.run(podero_nightly(store))

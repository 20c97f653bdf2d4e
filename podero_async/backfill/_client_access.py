"""What the backfill takes from the client: a fleet's vehicles, reads of windows, and whether the API is down.

The only room here that knows the client's inner parts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

from podero_async._client import PoderoClient
from podero_async._fleet.budget import MemoryBudget
from podero_async._fleet.discovery import discover
from podero_async._fleet.fetch import fetch_or_fail
from podero_async._fleet.vehicle import UndecodedSessions
from podero_async._fleet.worker_pool import Outcome, WorkerPool
from podero_async._flow.limiter import Limiter
from podero_async._flow.retry import RequestStats
from podero_async._http.origin import checked_origin
from podero_async.backfill._values import StoreOwner, WorkItem
from podero_async.models import VehicleFailure, VehicleRef

__all__ = ["discovered", "is_down", "limiter_of", "owner_of_client", "reads"]


def owner_of_client(client: PoderoClient) -> StoreOwner:
    """Return whose sessions the client reads."""
    return StoreOwner(str(client._org_id), checked_origin(client._base_url))  # noqa: SLF001


def limiter_of(client: PoderoClient) -> Limiter:
    """Return what says how many requests are under way."""
    return client._transport.limiter  # noqa: SLF001


def is_down(client: PoderoClient) -> bool:
    """Say whether the API must be taken for down."""
    return client._transport.is_down  # noqa: SLF001


def discovered(client: PoderoClient, stats: RequestStats) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Stream the fleet's vehicles; a user whose vehicles cannot be listed is a failure."""
    return discover(client._endpoints, stats, ahead=limiter_of(client).ceiling)  # noqa: SLF001


def reads(client: PoderoClient, tasks: AsyncGenerator[WorkItem, None] | Iterator[WorkItem]) -> WorkerPool[WorkItem]:
    """Read the windows of vehicles; the tasks come out with their results, as they end."""
    endpoints = client._endpoints  # noqa: SLF001

    async def read(task: WorkItem, budget: MemoryBudget) -> UndecodedSessions | Outcome:
        return await fetch_or_fail(endpoints, task.vehicle, task.window, budget)

    return WorkerPool(tasks, read, slots=limiter_of(client).ceiling)

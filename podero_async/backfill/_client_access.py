"""The parts of the client that a backfill uses: discovery, reads of windows, and the state of the API.

This is the only module of the backfill that accesses the client's internals.
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

__all__ = ["discover_fleet", "is_down", "limiter_of", "owner_of", "read_items"]


def owner_of(client: PoderoClient) -> StoreOwner:
    """Return the organization and the origin that the client reads from."""
    return StoreOwner(str(client._org_id), checked_origin(client._base_url))  # noqa: SLF001


def limiter_of(client: PoderoClient) -> Limiter:
    """Return the limiter of the client's requests."""
    return client._transport.limiter  # noqa: SLF001


def is_down(client: PoderoClient) -> bool:
    """Return whether the client considers the API unavailable."""
    return client._transport.is_down  # noqa: SLF001


def discover_fleet(client: PoderoClient, stats: RequestStats) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Yield the vehicles of the organization, and a failure for each user with a failed vehicle list."""
    return discover(client._bulk_endpoints, stats, ahead=limiter_of(client).ceiling)  # noqa: SLF001


def read_items(
    client: PoderoClient, items: AsyncGenerator[WorkItem, None] | Iterator[WorkItem]
) -> WorkerPool[WorkItem]:
    """Read the windows of work items; each item is yielded with its outcome, in order of completion."""
    endpoints = client._bulk_endpoints  # noqa: SLF001

    async def read(item: WorkItem, budget: MemoryBudget) -> UndecodedSessions | Outcome:
        return await fetch_or_fail(endpoints, item.vehicle, item.window, budget)

    return WorkerPool(items, read, slots=limiter_of(client).ceiling)

"""What the backfill takes from the client: a fleet's vehicles, reads of windows, and whether the API is down.

The only room here that knows the client's inner parts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

from podero_async._client import PoderoClient
from podero_async._fleet.discovery import discover
from podero_async._fleet.fetch import fetch_or_fail
from podero_async._fleet.vehicle import Room, VehicleRead
from podero_async._fleet.worker_pool import FanOut, Result
from podero_async._flow.limiter import Throttle
from podero_async._flow.retry import Tally
from podero_async._http.origin import checked_origin
from podero_async.backfill._source import Source
from podero_async.backfill._task import Task
from podero_async.errors import RateLimitError, ServerError, TransportError
from podero_async.models import VehicleFailure, VehicleRef

__all__ = ["discovered", "is_down", "is_outage", "reads", "source_of", "throttle_of"]


def source_of(client: PoderoClient) -> Source:
    """Return whose sessions the client reads."""
    return Source(str(client._org_id), checked_origin(client._base_url))  # noqa: SLF001


def throttle_of(client: PoderoClient) -> Throttle:
    """Return what says how many requests are under way."""
    return client._transport.throttle  # noqa: SLF001


def is_down(client: PoderoClient) -> bool:
    """Say whether the API must be taken for down."""
    return client._transport.is_down  # noqa: SLF001


def is_outage(error: Exception) -> bool:
    """Say whether an error is one that an outage brings, and says nothing of the vehicle that met it."""
    return isinstance(error, TransportError | ServerError | RateLimitError)


def discovered(client: PoderoClient, tally: Tally) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Stream the fleet's vehicles; a user whose vehicles cannot be listed is a failure."""
    return discover(client._api, tally, ahead=throttle_of(client).ceiling)  # noqa: SLF001


def reads(client: PoderoClient, tasks: AsyncGenerator[Task, None] | Iterator[Task]) -> FanOut[Task]:
    """Read the windows of vehicles; the tasks come out with their results, as they end."""
    api = client._api  # noqa: SLF001

    async def read(task: Task, room: Room) -> VehicleRead | Result:
        return await fetch_or_fail(api, task.vehicle, task.window, room)

    return FanOut(tasks, read, places=throttle_of(client).ceiling)

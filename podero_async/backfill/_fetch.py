"""What the backfill takes from the client: a fleet's vehicles, reads of windows, and whether the API is down.

The only room here that knows the client's inner parts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from podero_async._client import PoderoClient
from podero_async._discovery import discover, would_fail_all
from podero_async._lookahead import as_completed
from podero_async._retry import Tally
from podero_async._throttle import Throttle
from podero_async._vehicle import read_vehicle
from podero_async.backfill._task import Outcome, Task
from podero_async.errors import PoderoError
from podero_async.models import VehicleFailure, VehicleRef

__all__ = ["discovered", "is_down", "outcomes", "throttle_of"]


def throttle_of(client: PoderoClient) -> Throttle:
    """Return what says how many requests are under way."""
    return client._transport.throttle  # noqa: SLF001


def is_down(client: PoderoClient) -> bool:
    """Say whether the API must be taken for down."""
    return client._transport.is_down  # noqa: SLF001


def discovered(client: PoderoClient, tally: Tally) -> AsyncGenerator[VehicleRef | VehicleFailure, None]:
    """Stream the fleet's vehicles; a user whose vehicles cannot be listed is a failure."""
    return discover(client._api, tally, ahead=throttle_of(client).ceiling)  # noqa: SLF001


def outcomes(client: PoderoClient, tasks: AsyncIterator[Task]) -> AsyncGenerator[Outcome, None]:
    """Read the windows of vehicles, and yield how each ended, as they end.

    Work is pulled: as many reads are under way as requests may be, and a few more.
    """
    api, ceiling = client._api, throttle_of(client).ceiling  # noqa: SLF001

    async def read(task: Task) -> Outcome:
        tally = Tally()
        try:
            return Outcome(task, await read_vehicle(api, task.vehicle, task.window, tally))
        except PoderoError as error:
            if would_fail_all(error):
                raise
            failure = VehicleFailure(
                user_id=task.vehicle.user_id,
                vehicle=task.vehicle,
                error=error,
                requests=tally.requests,
                retries=tally.retries,
            )
            return Outcome(task, failure)

    return as_completed(read, tasks, ahead=ceiling + max(2, ceiling // 8))

"""The items of summaries and frames: an item is a session, or an outcome with its sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from podero_async.models import ChargingSession, VehicleFailure, VehicleRef, VehicleSessions

__all__ = ["Item", "OnFailure", "sessions_of"]

Item: TypeAlias = ChargingSession | VehicleSessions | VehicleFailure
OnFailure: TypeAlias = Callable[[VehicleFailure], object]


def sessions_of(item: Item, on_failure: OnFailure | None) -> tuple[VehicleRef | None, Sequence[ChargingSession]]:
    """Return the sessions of an item, and their vehicle if it is known.

    Args:
        item: A session or an outcome.
        on_failure: Called with a failure, which has no sessions. If none is given, its error is raised.

    Raises:
        PoderoError: The item is a failure, and `on_failure` was not given.
        ValueError: The item is neither a session nor an outcome.
    """
    if isinstance(item, ChargingSession):
        return None, (item,)
    if isinstance(item, VehicleSessions):
        return item.vehicle, item.sessions
    if not isinstance(item, VehicleFailure):
        raise ValueError(f"items must be sessions or outcomes, not {type(item).__name__}")  # noqa: TRY004
    if on_failure is None:
        raise item.error
    on_failure(item)
    return item.vehicle, ()

"""The user and the vehicle of a command: `--user` or `--external-id`, and `--vehicle`."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any
from uuid import UUID

import attrs

from podero_async import PoderoClient, VehicleRef
from podero_async import _validation as arguments
from podero_async.cli import _options as shared
from podero_async.cli._runtime import UsageError
from podero_async.models import ElectricVehicle

__all__ = ["UserOptions", "add_user", "add_vehicle", "user_of", "vehicle_of"]

_MAX_LISTED = 5


@attrs.frozen(kw_only=True)
class UserOptions:
    """The options that name a user; `add_user` adds their arguments."""

    user: UUID | None
    external_id: str | None


def _external_id(text: str) -> str:
    try:
        return arguments.external_id(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error).removeprefix("external_id ")) from None


def add_user(group: Any, text: str, *, required: bool = True) -> shared.AddArgument:
    """Add `--user` and `--external-id`, of which one may be given, to a group of arguments.

    Returns:
        The method that adds an argument to be given instead of these.
    """
    add: shared.AddArgument = group.add_mutually_exclusive_group(required=required).add_argument
    add("--user", type=shared.uuid, metavar="UUID", help=text)
    add("--external-id", type=_external_id, metavar="ID", help="your own id for the user, instead of --user")
    return add


def add_vehicle(add: shared.AddArgument) -> None:
    """Add `--vehicle`."""
    text = "the vehicle (default: the only one of the user)"
    add("--vehicle", type=shared.uuid, metavar="UUID", help=text)


async def user_of(options: UserOptions, client: PoderoClient) -> UUID:
    """Return the id of the user; an external id costs one request."""
    if options.user is not None:
        return options.user
    return (await client.user_by_external_id(options.external_id or "")).id


async def vehicle_of(options: UserOptions, vehicle: UUID | None, client: PoderoClient) -> VehicleRef:
    """Return the ids of the vehicle; if it is not given, one request lists those of the user.

    Raises:
        UsageError: The user has no vehicle, or more than one.
    """
    user = await user_of(options, client)
    if vehicle is not None:
        return VehicleRef(user_id=user, vehicle_id=vehicle)
    found = await client.electric_vehicles(user)
    if len(found) == 1:
        return VehicleRef(user_id=user, vehicle_id=found[0].id)
    if not found:
        raise UsageError("the user has no vehicle")
    listed = ", ".join(map(_described, found[:_MAX_LISTED])) + (", ..." if len(found) > _MAX_LISTED else "")
    raise UsageError(f"the user has {len(found)} vehicles; pass one of them as --vehicle: {listed}")


def _described(vehicle: ElectricVehicle) -> str:
    device = vehicle.device_model
    model = " ".join(filter(None, (device.manufacturer, device.model))) if device else ""
    return f"{vehicle.id} ({model})" if model else str(vehicle.id)

"""Listed users and vehicles as Arrow tables; of a user, only the columns below are taken. Ids are text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from podero_async.models import User, VehicleFailure, VehicleRef

__all__ = ["unlisted_table", "users_table", "vehicles_table"]

_TEXT = pa.string()
_USER = pa.schema(
    [
        ("user_id", _TEXT),
        ("external_user_id", _TEXT),
        ("role", _TEXT),
        ("num_electric_vehicles", pa.int32()),
    ]
)
_VEHICLE = pa.schema(
    [
        ("user_id", _TEXT),
        ("vehicle_id", _TEXT),
        ("external_user_id", _TEXT),
        ("manufacturer", _TEXT),
        ("model", _TEXT),
        ("year", pa.int32()),
        ("price_zone", _TEXT),
        ("lifecycle_state", _TEXT),
        ("is_authenticated", pa.bool_()),
    ]
)
_UNLISTED = pa.schema([("user_id", _TEXT), ("kind", _TEXT), ("message", _TEXT)])
_MAX_INTEGER = 2**31 - 1


def users_table(users: Iterable[User]) -> pa.Table:
    """Return a table of users."""
    rows = [(user.id, user.external_user_id, user.role, user.num_electric_vehicles) for user in users]
    return _table(rows, _USER)


def vehicles_table(vehicles: Iterable[VehicleRef]) -> pa.Table:
    """Return a table of vehicles."""
    return _table([tuple(getattr(vehicle, name) for name in _VEHICLE.names) for vehicle in vehicles], _VEHICLE)


def unlisted_table(failures: Iterable[VehicleFailure]) -> pa.Table:
    """Return a table of users with a failed vehicle list."""
    return _table([(each.user_id, type(each.error).__name__, str(each.error)) for each in failures], _UNLISTED)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [
        pa.array([_storable(value) for value in column], kind)
        for column, kind in zip(columns, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _storable(value: Any) -> Any:
    """Return an id as text, and a value of the API as one that its column can hold."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _MAX_INTEGER else None
    return str(value).encode(errors="replace").decode()

"""Files of vehicles that users write, as CSV or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from podero_async.models import VehicleRef

__all__ = ["read_vehicle_refs"]

_NAMES = ("user_id", "vehicle_id")
_DETAILS = {
    "external_user_id": str,
    "manufacturer": str,
    "model": str,
    "year": int,
    "price_zone": str,
    "lifecycle_state": str,
    "is_authenticated": bool,
}


def read_vehicle_refs(lines: Iterable[str]) -> Iterator[VehicleRef]:
    """Yield the vehicles of lines: CSV (`user_id,vehicle_id`) or one JSON object a line.

    JSON lines may have the other fields of `VehicleRef`, too, as those of `podero-async vehicles` do.
    CSV may begin with a header: the two names, in any case and in either order. Blank lines, and lines that begin with
    `#`, are skipped. Each line is read when its vehicle is needed.

    Raises:
        ValueError: A line is not a vehicle; the message contains the line's number, counted from 1.
    """
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").strip()
        if not text or text.startswith("#"):
            continue
        if not names:
            header = [field.lower() for field in _fields(text)]
            names = header if sorted(header) == sorted(_NAMES) else list(_NAMES)
            if names == header:
                continue
        try:
            yield _from_json(text) if text.startswith("{") else _from_csv(text, names)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"line {number}: {error}") from None


def _fields(text: str) -> list[str]:
    return [field.strip().strip('"') for field in text.split(",")]


def _from_csv(text: str, names: list[str]) -> VehicleRef:
    fields = _fields(text)
    if len(fields) != len(names):
        raise ValueError("expected user_id,vehicle_id")
    row = dict(zip(names, fields, strict=True))
    return _ref(row["user_id"], row["vehicle_id"])


def _from_json(text: str) -> VehicleRef:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not a JSON object") from None
    if not isinstance(row, dict) or any(not isinstance(row.get(name), str) for name in _NAMES):
        raise ValueError("expected an object with a user_id and a vehicle_id")
    details = {name: row[name] for name, kind in _DETAILS.items() if type(row.get(name)) is kind}
    return _ref(row["user_id"], row["vehicle_id"], **details)


def _ref(user_id: str, vehicle_id: str, **details: Any) -> VehicleRef:
    for name, value in zip(_NAMES, (user_id, vehicle_id), strict=True):
        try:
            UUID(value)
        except ValueError:
            raise ValueError(f"{name} must be a uuid") from None
    return VehicleRef(user_id=user_id, vehicle_id=vehicle_id, **details)

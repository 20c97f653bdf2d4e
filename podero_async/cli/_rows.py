"""A session as the wire has it: names, texts and order of the fields. And any value as JSON has it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import attrs

from podero_async.models import ChargingSession

__all__ = ["as_json", "as_row", "stored_row"]

_NAMES = tuple(field.name for field in attrs.fields(ChargingSession))


def as_row(session: ChargingSession) -> dict[str, Any]:
    """Return a session's fields under the wire's own names, ready for JSON."""
    return {name: as_json(getattr(session, name)) for name in _NAMES}


def stored_row(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same of a session that was read from a store."""
    return {name: as_json(columns[name]) for name in _NAMES}


def as_json(value: Any) -> Any:
    """Return a value that JSON knows."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
    return value

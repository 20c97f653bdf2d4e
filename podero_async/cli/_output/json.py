"""A session as the wire has it: names, texts and order of the fields. And any value as JSON has it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import attrs

from podero_async.models import ChargingSession

__all__ = ["as_json", "as_row"]

_NAMES = tuple(field.name for field in attrs.fields(ChargingSession))


def as_row(session: ChargingSession) -> dict[str, Any]:
    """Return a session's fields under the wire's own names, ready for JSON."""
    return {name: as_json(getattr(session, name)) for name in _NAMES}


def as_json(value: Any) -> Any:
    """Return a value that JSON knows."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value

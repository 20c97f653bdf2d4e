"""A session as the wire has it: names, texts and order of the fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import attrs

from podero_async.models import ChargingSession

__all__ = ["as_row"]

_NAMES = tuple(field.name for field in attrs.fields(ChargingSession))


def as_row(session: ChargingSession) -> dict[str, Any]:
    """Return a session's fields under the wire's own names, ready for JSON."""
    return {name: _plain(getattr(session, name)) for name in _NAMES}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
    return str(value) if isinstance(value, UUID) else value

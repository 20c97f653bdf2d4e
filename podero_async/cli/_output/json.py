"""JSON output: sessions with the API's own field names, and reports as one object."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any
from uuid import UUID

import attrs

from podero_async.cli._output.text import in_utc
from podero_async.models import ChargingSession

__all__ = ["print_error", "print_json", "session_row"]

_NAMES = tuple(field.name for field in attrs.fields(ChargingSession))


def session_row(session: ChargingSession) -> dict[str, Any]:
    """Return a session as the API sends it: the same names, formats and order."""
    return {name: _json_value(getattr(session, name)) for name in _NAMES}


def print_json(report: attrs.AttrsInstance, **more: Any) -> None:
    """Print a report as one JSON object on one line."""
    fields = attrs.asdict(report, value_serializer=lambda _, __, value: _json_value(value))
    print(json.dumps(fields | more))


def print_error(error: BaseException, message: str, exit_code: int) -> None:
    """Print an error as one JSON object; if it has a report, the fields of the report are in the object, too."""
    described = {"error": {"kind": type(error).__name__, "message": message, "exit_code": exit_code}}
    report = getattr(error, "report", None)
    if report is not None:
        print_json(report, is_clean=report.is_clean, **described)
    else:
        print(json.dumps(described))


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return in_utc(value).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value

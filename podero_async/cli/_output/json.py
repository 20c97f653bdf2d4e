"""JSON output: sessions with the API's own field names, and reports as one object."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import attrs

from podero_async.cli._output.text import in_utc
from podero_async.models import ChargingSession

__all__ = ["json_value", "print_error", "print_json", "session_row"]

_NAMES = tuple(field.name for field in attrs.fields(ChargingSession))


def session_row(session: ChargingSession) -> dict[str, Any]:
    """Return a session as the API sends it: the same names, formats and order."""
    return {name: json_value(getattr(session, name)) for name in _NAMES}


def print_json(report: attrs.AttrsInstance, **more: Any) -> None:
    """Print a report as one JSON object on one line."""
    # Fields that do not count for equality, such as the details of a `VehicleRef`, are not part of a report.
    fields = attrs.asdict(
        report, filter=lambda field, _: bool(field.eq), value_serializer=lambda _, __, value: json_value(value)
    )
    print(json.dumps(fields | more))


def print_error(error: BaseException, message: str, exit_code: int) -> None:
    """Print an error as one JSON object; if it has a report, the fields of the report are in the object, too."""
    described = {"error": {"kind": type(error).__name__, "message": message, "exit_code": exit_code}}
    report = getattr(error, "report", None)
    if report is not None:
        print_json(report, is_clean=report.is_clean, **described)
    else:
        print(json.dumps(described))


def json_value(value: Any) -> Any:
    """Return a value in the types of JSON: times are texts in UTC, ids are texts, and NaN and infinity are null."""
    plain = value
    match value:
        case None | bool() | int() | str():
            pass
        case float():
            plain = value if math.isfinite(value) else None
        case Decimal():
            plain = int(value) if value == value.to_integral_value() else float(value)
        case datetime():
            plain = in_utc(value).isoformat().replace("+00:00", "Z")
        case date() | time():
            plain = value.isoformat()
        case bytes():
            plain = value.hex()
        case dict():
            plain = {str(name): json_value(each) for name, each in value.items()}
        case list() | tuple() if not hasattr(value, "_fields"):  # an interval is a named tuple
            plain = [json_value(each) for each in value]
        case _ if not attrs.has(type(value)):
            plain = str(value)
    return plain

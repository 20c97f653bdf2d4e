"""What callers hand over, checked before anything is sent: each fault names its argument."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from podero_async._http.endpoints import MOST_PER_PAGE
from podero_async._paging.page import Window
from podero_async.models import VehicleRef

__all__ = ["day", "external_id", "page_bounds", "uuid", "vehicle_ref", "window"]


def uuid(name: str, value: UUID | str) -> UUID:
    """Return the uuid that a value is, or is the text of."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{name} must be a uuid") from None


def vehicle_ref(user_id: UUID | str, vehicle_id: UUID | str) -> VehicleRef:
    """Return the vehicle that two ids name."""
    return VehicleRef(user_id=uuid("user_id", user_id), vehicle_id=uuid("vehicle_id", vehicle_id))


def day(name: str, value: date) -> date:
    """Return a value that is a day, and not a moment: which day a moment falls on depends on the time zone."""
    if isinstance(value, datetime) or not isinstance(value, date):
        raise ValueError(f"{name} must be a datetime.date, not a {type(value).__name__}")  # noqa: TRY004
    return value


def window(from_date: date, to_date: date, *, include_hidden: bool) -> Window:
    """Return the window from one day to another, both inclusive."""
    first, last = day("from_date", from_date), day("to_date", to_date)
    if first > last:
        raise ValueError("from_date must not be after to_date")
    return Window(first, last, include_hidden)


def page_bounds(limit: int, offset: int) -> tuple[int, int]:
    """Return a page's limit and offset."""
    if not _is_whole(limit) or not 1 <= limit <= MOST_PER_PAGE:
        raise ValueError(f"limit must be a whole number from 1 to {MOST_PER_PAGE}")
    if not _is_whole(offset) or offset < 0:
        raise ValueError("offset must be a whole number of at least 0")
    return limit, offset


def external_id(value: str) -> str:
    """Return a partner's own id that can stand in a path: not empty, and no dots that would climb out of it."""
    if not isinstance(value, str) or value in {"", ".", ".."}:
        raise ValueError("external_id must be a text that is not empty")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("external_id must be Unicode that can be sent")
    return value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

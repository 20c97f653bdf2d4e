"""Checks of arguments and settings before anything is sent. Each error names the argument, never its value."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import suppress
from datetime import date, datetime
from types import UnionType
from typing import TypeVar
from uuid import UUID

import attrs

from podero_async.errors import ConfigurationError
from podero_async.models import VehicleRef

__all__ = [
    "MAX_PAGE_SIZE",
    "Id",
    "callback",
    "concurrency",
    "count",
    "day",
    "days",
    "days_back",
    "external_id",
    "flag",
    "flag_setting",
    "instance",
    "is_whole_number",
    "page_bounds",
    "positive",
    "uuid",
    "vehicle_ref",
    "vehicle_refs",
]

Id = UUID | str
Vehicles = TypeVar("Vehicles", bound=Iterable[VehicleRef] | AsyncIterable[VehicleRef] | None)
T = TypeVar("T")

MAX_PAGE_SIZE = 200
"""The largest `limit` that the API accepts."""
_MAX_DAYS_BACK = 3650
_MAX_CONCURRENCY = 10_000


def positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    """Check a setting that is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        raise ConfigurationError(f"{attribute.name} must be a finite number above 0")


def count(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    """Check a setting that is a whole number of at least 1."""
    if not is_whole_number(value) or value < 1:
        raise ConfigurationError(f"{attribute.name} must be a whole number of at least 1")


def concurrency(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    """Check a number of requests in flight; a fleet fetch has some more workers than that, each with a task."""
    if not is_whole_number(value) or not 1 <= value <= _MAX_CONCURRENCY:
        raise ConfigurationError(f"{attribute.name} must be a whole number from 1 to {_MAX_CONCURRENCY:,}")


def flag_setting(_: object, attribute: attrs.Attribute[bool], value: bool) -> None:
    """Check a setting that is True or False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{attribute.name} must be True or False")


def instance(name: str, value: object, kinds: type | UnionType, wanted: str) -> None:
    """Check the class of a setting."""
    if not isinstance(value, kinds):
        raise ConfigurationError(f"{name} must be {wanted}, not {type(value).__name__}")


def flag(name: str, value: bool) -> bool:
    """Return a flag if it is True or False: the text "false" would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not a {type(value).__name__}")  # noqa: TRY004
    return value


def callback(name: str, value: Callable[[T], object] | None) -> Callable[[T], None] | None:
    """Return a function, or None. An async one is refused, now or when it is called, since nothing would await it."""
    if value is None:
        return None
    if not callable(value):
        raise ValueError(f"{name} must be a function, not {type(value).__name__}")  # noqa: TRY004
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise ValueError(f"{name} must be a function, not async")

    def call(argument: T) -> None:
        result = value(argument)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()  # else it warns that it was never awaited
            raise ValueError(f"{name} must be a function, not async")

    return call


def is_whole_number(value: object) -> bool:
    """Return whether a value is an integer, and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def uuid(name: str, value: Id) -> UUID:
    """Return a UUID, parsed if it is a string."""
    with suppress(ValueError, TypeError, AttributeError):
        return value if isinstance(value, UUID) else UUID(value)
    raise ValueError(f"{name} must be a uuid")  # without a context: an unfinished UUID has no repr


def vehicle_ref(user_id: Id, vehicle_id: Id) -> VehicleRef:
    """Return a reference to a vehicle whose ids are checked."""
    return VehicleRef(user_id=uuid("user_id", user_id), vehicle_id=uuid("vehicle_id", vehicle_id))


def vehicle_refs(value: Vehicles) -> Vehicles:
    """Return a value if it is an iterable or None; the items are not read."""
    if not isinstance(value, Iterable | AsyncIterable | None):
        raise ValueError(f"vehicles must be an iterable of VehicleRef, not a {type(value).__name__}")  # noqa: TRY004
    return value


def day(name: str, value: date) -> date:
    """Return a UTC day. A `datetime` is refused although it is a `date`: its day depends on a time zone."""
    if isinstance(value, datetime) or not isinstance(value, date):
        raise ValueError(f"{name} must be a datetime.date, not a {type(value).__name__}")  # noqa: TRY004
    return value


def days(from_date: date, to_date: date) -> tuple[date, date]:
    """Return two UTC days if the first is not after the last."""
    if day("from_date", from_date) > day("to_date", to_date):
        raise ValueError("from_date must not be after to_date")
    return from_date, to_date


def days_back(value: int) -> int:
    """Return a number of days to look back, 1 to 3,650."""
    if not is_whole_number(value) or not 1 <= value <= _MAX_DAYS_BACK:
        raise ValueError(f"days must be a whole number from 1 to {_MAX_DAYS_BACK}")
    return value


def page_bounds(limit: int, offset: int) -> tuple[int, int]:
    """Return limit and offset of a page if the API accepts them."""
    if not is_whole_number(limit) or not 1 <= limit <= MAX_PAGE_SIZE:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_PAGE_SIZE}")
    if not is_whole_number(offset) or offset < 0:
        raise ValueError("offset must be a whole number of at least 0")
    return limit, offset


def external_id(value: str) -> str:
    """Return a partner's own user id if it can be a segment of a URL path."""
    if not isinstance(value, str) or value in {"", ".", ".."}:
        raise ValueError("external_id must be a string other than '', '.' and '..'")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("external_id must not contain surrogate characters")
    return value

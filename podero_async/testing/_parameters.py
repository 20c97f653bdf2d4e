"""Path and query parameters, parsed as the contract defines them and refused in the format of django-ninja."""

import re
import uuid
from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar

import attrs
from aiohttp import web

from podero_async.models import VehicleRef
from podero_async.testing._responses import RefusedError, Response

MAX_PAGE_SIZE = 200

_T = TypeVar("_T")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@attrs.frozen(kw_only=True)
class PageRequest:
    """One valid request for a page of the sessions list."""

    number: int
    """The number of this page among all pages of the simulator, from 1."""
    vehicle: VehicleRef
    from_date: date
    to_date: date
    limit: int
    offset: int
    include_hidden: bool


class _InvalidParameterError(ValueError):
    """A parameter is invalid: pydantic's type of the error, and its message."""


def _uuid(text: str) -> uuid.UUID:
    if not _UUID.fullmatch(text):
        raise _InvalidParameterError("uuid_parsing", "Input should be a valid UUID")
    return uuid.UUID(text)


def _date(text: str) -> date:
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass  # well-formed, but not a date, such as 2026-02-30
    raise _InvalidParameterError("date_from_datetime_parsing", "Input should be a valid date in the format YYYY-MM-DD")


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise _InvalidParameterError("bool_parsing", "Input should be a valid boolean, unable to interpret input")
    return text == "true"


def _integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise _InvalidParameterError(
                "int_parsing", "Input should be a valid integer, unable to parse string as an integer"
            )
        value = int(text)
        if value < minimum:
            raise _InvalidParameterError("greater_than_equal", f"Input should be greater than or equal to {minimum}")
        if maximum is not None and value > maximum:
            raise _InvalidParameterError("less_than_equal", f"Input should be less than or equal to {maximum}")
        return value

    return parse


@attrs.define
class Parameters:
    """Parses the parameters of one request and collects all errors, which `check` raises together."""

    _request: web.Request
    _errors: list[dict[str, Any]] = attrs.field(factory=list, init=False)

    def _parse(self, loc: str, name: str, text: str, parse: Callable[[str], _T], fallback: _T) -> _T:
        try:
            return parse(text)
        except _InvalidParameterError as error:
            kind, message = error.args
            self._errors.append({"type": kind, "loc": [loc, name], "msg": message})
            return fallback

    def path_uuid(self, name: str) -> uuid.UUID:
        return self._parse("path", name, self._request.match_info[name], _uuid, uuid.UUID(int=0))

    def query(self, name: str, parse: Callable[[str], _T], default: _T, *, required: bool = False) -> _T:
        values = self._request.query.getall(name, ())
        if values:
            return self._parse("query", name, values[-1], parse, default)
        if required:
            self._errors.append({"type": "missing", "loc": ["query", name], "msg": "Field required"})
        return default

    def check(self) -> None:
        if self._errors:
            raise RefusedError(Response.of(422, {"detail": self._errors}))

    def vehicle(self) -> VehicleRef:
        return VehicleRef(user_id=self.path_uuid("user_id"), vehicle_id=self.path_uuid("electric_vehicle_id"))

    def flag(self, name: str) -> bool:
        return self.query(name, _boolean, default=False)

    def limit(self) -> int:
        return self.query("limit", _integer(1, MAX_PAGE_SIZE), 50)

    def offset(self) -> int:
        return self.query("offset", _integer(0), 0)

    def day(self, name: str) -> date:
        return self.query(name, _date, date.min, required=True)

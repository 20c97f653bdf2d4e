"""A vehicle's sessions as encoded JSON rows, sorted newest first, and selected by days."""

from __future__ import annotations

import json
import uuid
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import Any

import attrs

from podero_async.models import ChargingSession, VehicleRef
from podero_async.testing._arguments import AnyRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1) // _MICROSECOND

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(value: object) -> bytes:
    return _to_json(value).encode()


def wire_time(moment: datetime) -> str:
    """Format a time as `2026-01-05T18:03:11Z`, with a fraction only if it is not zero. A naive time is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elif moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat().removesuffix("+00:00") + "Z"


def parse_time(text: object) -> datetime:
    """Parse a time of a row; a time without an offset is UTC.

    Raises:
        ValueError: If the value is not an ISO 8601 time.
    """
    if not isinstance(text, str):
        raise ValueError(f"not a time: {text!r}")  # noqa: TRY004 - every invalid row is a ValueError
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def wire_row(row: AnyRow) -> dict[str, Any]:
    """Return a session as the API sends it. Values of a mapping that are JSON already are kept as they are."""
    fields = attrs.asdict(row, recurse=False) if isinstance(row, ChargingSession) else row
    return {name: _wire_value(value) for name, value in fields.items()}


def _wire_value(value: Any) -> Any:
    match value:
        case datetime():
            return wire_time(value)
        case uuid.UUID():
            return str(value)
        case Enum():
            return value.value
    return value


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _midnight(day: date) -> int:
    return (day - _EPOCH.date()) // _MICROSECOND


@attrs.frozen
class Row:
    """One session. `order`, its sort key, puts the newest plug-in first and breaks ties by id."""

    id: str
    order: tuple[int, str]
    is_hidden: bool
    encoded: bytes

    @classmethod
    def of(cls, row: AnyRow) -> Row:
        """Encode one session.

        Raises:
            ValueError: If the row has no `id` or no valid `plug_in_time`, so it cannot be sorted.
        """
        fields = wire_row(row)
        row_id = fields.get("id")
        if not isinstance(row_id, str):
            raise ValueError("a row needs an id of type str")  # noqa: TRY004 - as above
        order = (-_microseconds(parse_time(fields.get("plug_in_time"))), row_id)
        return cls(row_id, order, fields.get("is_hidden", False) is True, encode(fields))

    @property
    def fields(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.encoded)
        return decoded

    @property
    def plug_in_time(self) -> datetime:
        return _EPOCH - self.order[0] * _MICROSECOND


_order = attrgetter("order")


@attrs.define
class SessionList:
    """One vehicle's completed sessions, newest first, with unique ids; hidden rows are listed only on request."""

    _by_id: dict[str, Row]
    _all: list[Row]
    _visible: list[Row]

    @classmethod
    def of(cls, rows: Iterable[AnyRow]) -> SessionList:
        """Sort and encode rows.

        Raises:
            ValueError: If a row cannot be sorted (see `Row.of`), or if an id occurs twice.
        """
        ordered = sorted(map(Row.of, rows), key=_order)
        by_id = {row.id: row for row in ordered}
        if len(by_id) < len(ordered):
            raise ValueError("a session id occurs twice in the rows of a vehicle")
        return cls(by_id, ordered, [row for row in ordered if not row.is_hidden])

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._by_id

    def window(self, from_date: date | None, to_date: date | None, *, include_hidden: bool) -> tuple[list[Row], slice]:
        """Return the list and the slice of it that lies within the days (inclusive; None: no bound), newest first.

        The list is not a copy: apply the slice before the next change.
        """
        rows = self._all if include_hidden else self._visible
        # Sort keys are negated times in whole microseconds, so `1 - end` is the smallest key of a session before `end`.
        start = bisect_left(rows, (1 - _midnight(to_date or date.max) - _DAY, ""), key=_order)
        stop = bisect_left(rows, (1 - _midnight(from_date or date.min), ""), key=_order)
        return rows, slice(start, max(start, stop))

    def newest(self) -> Row | None:
        return self._all[0] if self._all else None

    def oldest(self) -> Row | None:
        return self._all[-1] if self._all else None

    def fields(self, row_id: str) -> dict[str, Any]:
        return self._by_id[row_id].fields

    def insert(self, fields: Mapping[str, Any]) -> None:
        row = Row.of(fields)
        if row.id in self._by_id:
            raise ValueError(f"the vehicle already has a session {row.id}")
        self._by_id[row.id] = row
        for rows in self._lists_of(row):
            insort(rows, row, key=_order)

    def remove(self, row_id: str) -> None:
        """Remove a session, or raise `KeyError` if its id is unknown."""
        row = self._by_id.pop(row_id)
        for rows in self._lists_of(row):
            del rows[bisect_left(rows, row.order, key=_order)]

    def _lists_of(self, row: Row) -> list[list[Row]]:
        return [self._all] if row.is_hidden else [self._all, self._visible]


def rows_from_jsonl(source: Path | str | Iterable[str]) -> dict[VehicleRef, list[dict[str, Any]]]:
    """Read rows from JSON lines, for `PoderoSimulator(rows=...)`.

    Args:
        source: The path of a file, or lines. Each line is an object with the fields of one session, a `user_id` and
            a `vehicle_id`; blank lines are ignored.

    Raises:
        ValueError: If a line is invalid; the message has its number, counted from 1.
    """
    if isinstance(source, Path | str):
        with Path(source).open(encoding="utf-8") as lines:
            return rows_from_jsonl(lines)
    rows: dict[VehicleRef, list[dict[str, Any]]] = {}
    seen: set[tuple[VehicleRef, str]] = set()
    for number, line in enumerate(source, start=1):
        if not line.strip():
            continue
        try:
            vehicle, fields = _read_line(line)
            key = (vehicle, Row.of(fields).id)
            if key in seen:
                raise ValueError(f"session {key[1]} occurs twice")  # noqa: TRY301 - the line number is added below
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        seen.add(key)
        rows.setdefault(vehicle, []).append(fields)
    return rows


def _read_line(line: str) -> tuple[VehicleRef, dict[str, Any]]:
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - every invalid line is a ValueError
    missing = [
        name for name in ("user_id", "vehicle_id", "id", "plug_in_time") if not isinstance(fields.get(name), str)
    ]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing or not of type str")
    vehicle = VehicleRef(user_id=fields.pop("user_id"), vehicle_id=fields.pop("vehicle_id"))
    return vehicle, fields

"""Outcomes as Arrow columns, built in bulk. The only room that knows Arrow's types.

Building holds the interpreter, and a thread that does so makes the event loop wait at each of its own calls into the
system. So sessions become columns in the loop itself, some hundreds at a time as they come; what is left to the writing
thread runs without the interpreter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

import attrs
import pyarrow as pa  # type: ignore[import-untyped]

from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS
from podero_async.models import ChargingSession, Completeness, RejectedItem, VehicleFailure, VehicleRef, VehicleSessions

__all__ = ["ROWS_AT_ONCE", "Batch", "SessionColumns", "unlisted_table", "vehicles_table"]

ROWS_AT_ONCE = 128
"""Sessions that are built into columns at once, in about a millisecond."""

_MAX_ROWS = 16_384
_MAX_OUTCOMES = 2_048

_UUID = pa.uuid()
_MOMENT = pa.timestamp("us", tz="UTC")
_TYPES = {
    "UUID": _UUID,
    "TIMESTAMPTZ": _MOMENT,
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "VARCHAR": pa.string(),
    "INTEGER": pa.int32(),
}
_SESSION = pa.schema([("task", pa.int32()), *((name, _TYPES[kind]) for name, kind in SESSION_COLUMNS.items())])
_READ = pa.schema(
    [
        ("task", pa.int32()),
        ("user_id", _UUID),
        ("vehicle_id", _UUID),
        ("from_date", pa.date32()),
        ("to_date", pa.date32()),
        ("include_hidden", pa.bool_()),
        ("completeness", pa.string()),
        ("total", pa.int64()),
        ("count", pa.int64()),
        ("requests", pa.int32()),
        ("held_to", pa.date32()),
        ("fetched_at", _MOMENT),
    ]
)
_REJECTED = pa.schema(
    [
        ("task", pa.int32()),
        ("session_id", _UUID),
        ("index", pa.int64()),
        ("path", pa.string()),
        ("reason", pa.string()),
        ("raw", pa.string()),
    ]
)
_FAILURE = pa.schema(
    [
        ("user_id", _UUID),
        ("vehicle_id", _UUID),
        ("from_date", pa.date32()),
        ("to_date", pa.date32()),
        ("include_hidden", pa.bool_()),
        ("kind", pa.string()),
        ("message", pa.string()),
        ("failed_at", _MOMENT),
    ]
)
_UNLISTED = pa.schema([("user_id", _UUID), ("kind", pa.string()), ("message", pa.string())])
_VEHICLE = pa.schema([("user_id", _UUID), ("vehicle_id", _UUID)])

_fields_of: Callable[[ChargingSession], tuple[Any, ...]] = attrgetter(*SESSION_COLUMNS)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_UNSTORABLE = (pa.ArrowException, OverflowError, ValueError, TypeError)


@attrs.define
class Batch:
    """Outcomes of a run that are committed together; sessions become columns as they come."""

    run_id: int
    complete_until: date
    """The last day of which a read shows all there will be: the day before it was made."""
    rows: int = 0
    outcomes: int = 0
    _reads: list[tuple[Any, ...]] = attrs.field(factory=list)
    _rejected: list[tuple[Any, ...]] = attrs.field(factory=list)
    _failures: list[tuple[Any, ...]] = attrs.field(factory=list)
    _pieces: list[pa.RecordBatch] = attrs.field(factory=list)
    _pending: list[tuple[int, ChargingSession]] = attrs.field(factory=list)

    @property
    def is_full(self) -> bool:
        """Whether it is time to commit."""
        return self.rows >= _MAX_ROWS or self.outcomes >= _MAX_OUTCOMES

    def add(
        self,
        task: WorkItem,
        result: VehicleSessions,
        built: Sequence[SessionColumns],
        rest: Iterable[ChargingSession],
        at: datetime,
    ) -> bool:
        """Take the sessions of a vehicle, those that were built into columns and the rest, all at once.

        Return whether columns were built, which took some milliseconds.
        """
        for piece in built:
            self._take(piece)
        self._pending.extend((task.number, row) for row in rest)
        self._rejected.extend(_rejected_row(task.number, item) for item in result.rejected)
        self._reads.append(_read_row(task, result, self.complete_until, at))
        self.rows += len(result.sessions)
        self.outcomes += 1
        has_enough = len(self._pending) >= ROWS_AT_ONCE
        if has_enough:
            self._build_pending()
        return has_enough

    def add_failure(self, task: WorkItem, error: Exception, at: datetime) -> None:
        """Take a vehicle that failed."""
        window = task.window
        who = (task.vehicle.user_id, task.vehicle.vehicle_id, window.from_date, window.to_date, window.include_hidden)
        self._failures.append((*who, type(error).__name__, _clean(str(error)), at))
        self.outcomes += 1

    def seal(self) -> None:
        """Build what is left: the rest is the writing thread's."""
        self._build_pending()

    def tables(self) -> dict[str, pa.Table]:
        """Return its tables by name; rows point to their read by its task."""
        return {
            "arrow_sessions": pa.Table.from_batches(self._pieces, _SESSION),
            "arrow_reads": _table(self._reads, _READ),
            "arrow_rejected": _table(self._rejected, _REJECTED),
            "arrow_failures": _table(self._failures, _FAILURE),
        }

    def _build_pending(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            self._take(SessionColumns.of(pending))

    def _take(self, piece: SessionColumns) -> None:
        self._pieces.extend(piece.stored)
        self._rejected.extend(_rejected_row(task, item) for task, item in piece.refused)


@attrs.frozen
class SessionColumns:
    """Some sessions as columns, and those that have a value which no column can hold."""

    stored: Sequence[pa.RecordBatch]
    refused: Sequence[tuple[int, RejectedItem]]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, ChargingSession]]) -> SessionColumns:
        """Build columns from sessions with their tasks' numbers."""
        try:
            return cls([_record_batch(rows)], [])
        except _UNSTORABLE as error:
            if len(rows) == 1:
                ((task, row),) = rows
                return cls([], [(task, _unstorable(row, error))])
        middle = len(rows) // 2
        one, other = cls.of(rows[:middle]), cls.of(rows[middle:])
        return cls([*one.stored, *other.stored], [*one.refused, *other.refused])


def unlisted_table(failures: Iterable[VehicleFailure]) -> pa.Table:
    """Build a table of users whose vehicles could not be listed."""
    rows = [(each.user_id, type(each.error).__name__, _clean(str(each.error))) for each in failures]
    return _table(rows, _UNLISTED)


def vehicles_table(vehicles: Iterable[VehicleRef]) -> pa.Table:
    """Build a table of vehicles."""
    return _table([(vehicle.user_id, vehicle.vehicle_id) for vehicle in vehicles], _VEHICLE)


def _record_batch(piece: Sequence[tuple[int, ChargingSession]]) -> pa.RecordBatch:
    columns = zip(*[(task, *_fields_of(row)) for task, row in piece], strict=True)
    return pa.RecordBatch.from_arrays(
        [_array(*pair) for pair in zip(columns, _SESSION.types, strict=True)], schema=_SESSION
    )


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if kind == _MOMENT:
        present = [value for value in values if value is not None]
        if present and not (min(present) >= _EARLIEST and max(present) <= _LATEST):
            raise OverflowError("a time that UTC does not have")  # Arrow would take it, and no query give it back
    if kind == _UUID:
        plain = pa.array([None if value is None else value.bytes for value in values], pa.binary(16))
        return pa.ExtensionArray.from_storage(_UUID, plain)
    return pa.array(values, kind)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    if not rows:
        return schema.empty_table()
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays([_array(*pair) for pair in zip(columns, schema.types, strict=True)], schema=schema)


def _read_row(task: WorkItem, result: VehicleSessions, complete_until: date, at: datetime) -> tuple[Any, ...]:
    is_proven = result.completeness is not Completeness.UNPROVEN
    held_to = min(result.to_date, complete_until)
    return (
        task.number,
        task.vehicle.user_id,
        task.vehicle.vehicle_id,
        result.from_date,
        result.to_date,
        task.window.include_hidden,
        result.completeness.value,
        min(result.total, 2**63 - 1),
        len(result.sessions),
        result.requests,
        held_to if is_proven and held_to >= result.from_date else None,
        at,
    )


def _rejected_row(task: int, item: RejectedItem) -> tuple[Any, ...]:
    try:
        raw = json.dumps(item.raw, default=str)
    except RecursionError:  # it was read in a thread, whose stack is short
        raw = '"nested too deeply"'
    return (task, _id_of(item), item.index, _clean(item.path), _clean(item.reason), raw)


def _unstorable(row: ChargingSession, error: Exception) -> RejectedItem:
    raw = attrs.asdict(row)
    return RejectedItem(index=-1, path="$", reason=f"a value that no column holds: {error}", raw=raw)


def _id_of(item: RejectedItem) -> UUID | None:
    try:
        return UUID(str(item.raw["id"]))
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()

"""Batches of outcomes as Arrow tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

import attrs
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from podero_async._decode import encode_json
from podero_async.backfill._values import StoreOwner, WorkItem
from podero_async.backfill.store.duckdb.schema import SESSION_COLUMNS
from podero_async.errors import CompletenessError
from podero_async.models import (
    ChargingSession,
    Completeness,
    RejectedItem,
    SessionOutcome,
    VehicleSessions,
)

__all__ = ["ROWS_PER_SLICE", "Batch", "SessionColumns", "encoded"]

ROWS_PER_SLICE = 128
_DIGEST_DIGITS = 32

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
_TASK = ("task", pa.int32())
_VEHICLE = [("user_id", _UUID), ("vehicle_id", _UUID)]
_KEY = [*_VEHICLE, ("from_date", pa.date32()), ("to_date", pa.date32()), ("include_hidden", pa.bool_())]
_COUNTS = [("completeness", pa.string()), ("total", pa.int64()), ("count", pa.int64())]
_ERROR = [("kind", pa.string()), ("message", pa.string())]
_REASON = [("path", pa.string()), ("reason", pa.string()), ("raw", pa.string())]

_SESSION = pa.schema([_TASK, *((name, _TYPES[kind]) for name, kind in SESSION_COLUMNS.items())])
_COVERAGE = [("fetched_at", _MOMENT), ("settle_to", pa.date32()), ("is_confirming", pa.bool_())]
_READ = pa.schema([_TASK, *_KEY, *_COUNTS, ("digest", pa.string()), ("requests", pa.int32()), *_COVERAGE])
_UNSETTLED = pa.schema([_TASK, ("day", pa.date32())])
_REJECTED = pa.schema([_TASK, ("day", pa.date32()), ("session_id", _UUID), ("index", pa.int64()), *_REASON])
_FAILURE = pa.schema([*_KEY, *_ERROR, ("failed_at", _MOMENT)])

_fields_of: Callable[[ChargingSession], tuple[Any, ...]] = attrgetter(*SESSION_COLUMNS)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_UNSTORABLE = (pa.ArrowException, OverflowError, ValueError, TypeError)


@attrs.define
class Batch:
    """The outcomes of a run that one transaction commits."""

    run_id: int
    owner: StoreOwner | None = None
    """Claims the store with the first read, unless the store has an owner."""
    outcomes: int = 0
    rows: int = 0
    done: int = 0
    failed: int = 0
    unproven: int = 0
    requests: int = 0
    retries: int = 0
    _reads: list[tuple[Any, ...]] = attrs.field(factory=list)
    _rejected: list[tuple[int, RejectedItem]] = attrs.field(factory=list)
    _failures: list[tuple[Any, ...]] = attrs.field(factory=list)
    _slices: list[pa.RecordBatch] = attrs.field(factory=list)
    _pending: list[tuple[int, ChargingSession]] = attrs.field(factory=list)

    def add(
        self,
        item: WorkItem,
        outcome: VehicleSessions,
        at: datetime,
        settle_to: date | None,
        *,
        converted: Sequence[SessionColumns] = (),
        contents: hashlib._Hash | None = None,
    ) -> None:
        """Add the sessions of a vehicle: the first ones already converted, the others as they are.

        Args:
            item: The work item.
            outcome: Its sessions. If they are not proven complete, a failure is added as well.
            at: The time of the read.
            settle_to: The last day that the read may settle; None settles no day.
            converted: The first sessions as columns.
            contents: The hash of the converted sessions.
        """
        for columns in converted:
            self._take(columns)
        rest = outcome.sessions[len(converted) * ROWS_PER_SLICE :]
        contents = contents or hashlib.sha256()
        contents.update(encoded(rest))
        self._pending.extend((item.number, row) for row in rest)
        self._rejected.extend((item.number, rejected) for rejected in outcome.rejected)
        digest = contents.hexdigest()[:_DIGEST_DIGITS]
        self._reads.append(_read_row(item, outcome, digest, at, settle_to))
        if outcome.completeness is Completeness.UNPROVEN:
            self.unproven += 1
            message = f"the list could not be proven complete: {outcome.reason}"
            self._failures.append((*_key(item), CompletenessError.__name__, _clean(message), at))
        self.rows += len(outcome.sessions)
        self.requests += outcome.requests
        self.retries += outcome.retries
        self.done += 1
        self.outcomes += 1

    def add_failure(self, item: WorkItem, error: Exception, at: datetime) -> None:
        """Add a vehicle that failed."""
        self._failures.append((*_key(item), type(error).__name__, _clean(str(error)), at))
        self.failed += 1
        self.outcomes += 1

    @property
    def is_slice_pending(self) -> bool:
        """Whether enough sessions for a slice are not converted yet."""
        return len(self._pending) >= ROWS_PER_SLICE

    def convert_pending(self) -> None:
        """Convert the sessions that are not converted yet."""
        pending, self._pending = self._pending, []
        if pending:
            self._take(SessionColumns.of(pending))

    @property
    def has_duplicates(self) -> bool:
        """Whether two reads return the same session."""
        ids = pa.chunked_array([each.column("id").storage for each in self._slices], pa.binary(16))
        return bool(pc.count_distinct(ids).as_py() < len(ids))

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables by name. Their rows refer to a read by the number of its work item, `task`."""
        sessions, rejected = pa.Table.from_batches(self._slices, _SESSION), self._rejected_rows()
        return {
            "arrow_sessions": sessions,
            "arrow_reads": _table(self._reads, _READ),
            "arrow_unsettled": pa.concat_tables([_open_days(sessions), rejected.select(["task", "day"])]),
            "arrow_rejected": rejected,
            "arrow_failures": _table(self._failures, _FAILURE),
        }

    def _take(self, columns: SessionColumns) -> None:
        self._slices.extend(columns.stored)
        self._rejected.extend(columns.refused)

    def _rejected_rows(self) -> pa.Table:
        """Return the rejected rows with their days; None stands for all days of the read."""
        days = {number: (first, last) for number, _, _, first, last, *_ in self._reads}
        return _table([_rejected_row(number, item, *days[number]) for number, item in self._rejected], _REJECTED)


@attrs.frozen
class SessionColumns:
    """Sessions as columns, and the sessions with a value that no column can hold."""

    stored: Sequence[pa.RecordBatch]
    refused: Sequence[tuple[int, RejectedItem]]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, ChargingSession]]) -> SessionColumns:
        """Convert sessions, given with the numbers of their work items."""
        try:
            return cls([_record_batch(rows)], [])
        except _UNSTORABLE as error:
            if len(rows) == 1:
                ((number, row),) = rows
                return cls([], [(number, _unstorable(row, error))])
        middle = len(rows) // 2
        one, other = cls.of(rows[:middle]), cls.of(rows[middle:])
        return cls([*one.stored, *other.stored], [*one.refused, *other.refused])


def encoded(rows: Sequence[ChargingSession]) -> bytes:
    """Return sessions as bytes for the digest of a receipt: as JSON, in the order of the list."""
    try:
        return encode_json(rows)
    except ValueError:  # a text that is not Unicode
        return ascii(rows).encode()


def _record_batch(rows: Sequence[tuple[int, ChargingSession]]) -> pa.RecordBatch:
    columns = zip(*[(number, *_fields_of(row)) for number, row in rows], strict=True)
    return pa.RecordBatch.from_arrays(
        [_array(*pair) for pair in zip(columns, _SESSION.types, strict=True)], schema=_SESSION
    )


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if kind == _MOMENT:
        present = [value for value in values if value is not None]
        if present and not (min(present) >= _EARLIEST and max(present) <= _LATEST):
            raise OverflowError("a time outside the range of UTC")  # Arrow stores it, but queries fail
    if kind == _UUID:
        plain = pa.array([None if value is None else value.bytes for value in values], pa.binary(16))
        return pa.ExtensionArray.from_storage(_UUID, plain)
    return pa.array(values, kind)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    if not rows:
        return schema.empty_table()
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays([_array(*pair) for pair in zip(columns, schema.types, strict=True)], schema=schema)


def _key(item: WorkItem) -> tuple[Any, ...]:
    return (item.vehicle.user_id, item.vehicle.vehicle_id, *attrs.astuple(item.window))


def _read_row(
    item: WorkItem, outcome: VehicleSessions, digest: str, at: datetime, settle_to: date | None
) -> tuple[Any, ...]:
    total = min(outcome.total, 2**63 - 1)
    counts = (outcome.completeness.value, total, len(outcome.sessions), digest, outcome.requests)
    return (item.number, *_key(item), *counts, at, settle_to, item.is_confirming)


def _open_days(sessions: pa.Table) -> pa.Table:
    """Return the days on which sessions that show no end were plugged in."""
    shows_no_end = pc.and_(pc.is_null(sessions["unplug_time"]), pc.is_null(sessions["inferred_session_end"]))
    is_in_progress = pc.equal(sessions["session_outcome"], SessionOutcome.IN_PROGRESS.value)
    rows = sessions.filter(pc.or_(shows_no_end, pc.fill_null(is_in_progress, False)))
    return pa.Table.from_arrays([rows["task"], pc.cast(rows["plug_in_time"], pa.date32())], schema=_UNSETTLED)


def _rejected_row(number: int, item: RejectedItem, first: date, last: date) -> tuple[Any, ...]:
    try:
        raw = json.dumps(item.raw, default=str)
    except RecursionError:
        raw = '"nested too deeply"'
    day = _day_of(item, first, last)
    return (number, day, _id_of(item), item.index, _clean(item.path), _clean(item.reason), raw)


def _unstorable(row: ChargingSession, error: Exception) -> RejectedItem:
    raw = attrs.asdict(row)
    return RejectedItem(index=-1, path="$", reason=f"a value that no column can hold: {error}", raw=raw)


def _id_of(item: RejectedItem) -> UUID | None:
    try:
        return UUID(str(item.raw["id"]))
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _day_of(item: RejectedItem, first: date, last: date) -> date | None:
    """Return the day on which a rejected session was plugged in; None if it is unknown or outside the window."""
    try:
        moment = item.raw["plug_in_time"]
        moment = moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
        day = (moment.astimezone(UTC) if moment.tzinfo else moment).date()
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return None
    return day if first <= day <= last else None


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()

"""Sessions to record batches of a fixed number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from podero_async.frames._columns import column, encode_enum, plain_columns
from podero_async.frames._schema import ENUMS, SESSION_SCHEMA, VEHICLE_SCHEMA, frame_schema
from podero_async.models import ChargingSession, VehicleRef

__all__ = ["BatchBuilder"]

_ROWS_PER_SLICE = 1000  # converted in 2 to 4 ms
_VEHICLES_PER_SLICE = 500  # at least; few columns of many vehicles cost less than many of few
_MAX_TEXTS_KEPT = 1000


class BatchBuilder:
    """Gathers sessions, converts them slice by slice, and returns them as batches of one schema.

    The dictionary of an enum begins with the dictionary of the batch before, or with the members of the enum if that one
    has over 1,000 texts.

    Args:
        rows: The rows of a batch; the last batch may have fewer.
        text_ids: Ids are texts instead of Arrow's uuid.
    """

    def __init__(self, rows: int, *, text_ids: bool = False) -> None:
        self.schema = frame_schema(text_ids=text_ids)
        self._rows = rows
        self._session_fields = pa.schema([self.schema.field(name) for name in SESSION_SCHEMA.names])
        self._vehicle_fields = pa.schema([self.schema.field(name) for name in VEHICLE_SCHEMA.names])
        self._dictionaries = dict(ENUMS)
        self._clear()

    def _clear(self) -> None:
        self.count = 0
        """The rows of the batch that is being filled."""
        self._pending: list[ChargingSession] = []
        self._slices: list[list[pa.Array]] = []
        self._vehicles: list[VehicleRef | None] = []
        self._sizes: list[int] = []
        self._vehicle_slices: list[list[pa.Array]] = []

    def add(self, vehicle: VehicleRef | None, sessions: Sequence[ChargingSession]) -> Iterator[pa.RecordBatch | None]:
        """Add sessions; yield each batch that is full, and None after each step of some milliseconds."""
        start = 0
        while start < len(sessions):
            size = min(self._rows - self.count, _ROWS_PER_SLICE - len(self._pending))
            added = sessions[start : start + size]
            start += len(added)
            self._pending.extend(added)
            self.count += len(added)
            self._vehicles.append(vehicle)
            self._sizes.append(len(added))
            if len(self._pending) == _ROWS_PER_SLICE:
                self._convert()
                yield None
            if self.count == self._rows:
                yield from self.finish()

    def finish(self) -> Iterator[pa.RecordBatch | None]:
        """Yield None after each step, then the batch, even if it is empty or not full; begin the next one."""
        if self._pending or not self._slices:
            self._convert()
            yield None
        self._convert_vehicles()
        columns = [pa.concat_arrays(slices) for slices in zip(*self._vehicle_slices, strict=True)]
        for name, slices in zip(SESSION_SCHEMA.names, zip(*self._slices, strict=True), strict=True):
            yield None
            array = pa.concat_arrays(slices)
            columns.append(self._encoded(name, array) if name in ENUMS else array)
        batch = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        self._clear()
        yield batch

    def _encoded(self, name: str, texts: pa.StringArray) -> pa.DictionaryArray:
        array = encode_enum(texts, self._dictionaries[name])
        self._dictionaries[name] = array.dictionary if len(array.dictionary) <= _MAX_TEXTS_KEPT else ENUMS[name]
        return array

    def _convert(self) -> None:
        try:
            self._slices.append(plain_columns(self._pending, self._session_fields))
        except ValueError:
            for session in self._pending:
                try:
                    plain_columns([session], self._session_fields)
                except ValueError as error:
                    raise ValueError(f"session {session.id}: {error}") from error
            raise
        self._pending.clear()
        if len(self._vehicles) >= _VEHICLES_PER_SLICE:
            self._convert_vehicles()

    def _convert_vehicles(self) -> None:
        indices = pa.array([index for index, size in enumerate(self._sizes) for _ in range(size)], pa.int32())
        self._vehicle_slices.append(
            [
                column([_unicode(getattr(vehicle, field.name, None)) for vehicle in self._vehicles], field).take(
                    indices
                )
                for field in self._vehicle_fields
            ]
        )
        self._vehicles.clear()
        self._sizes.clear()


def _unicode(value: Any) -> Any:
    """Return a text without halves of surrogate pairs, which the API may send and no column can hold."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value

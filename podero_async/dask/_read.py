"""The task: fetches a share of the vehicles with a client and an event loop of its own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any, TypeAlias

import attrs
import pandas as pd  # type: ignore[import-untyped]
from dask.dataframe.utils import clear_known_categories

from podero_async.dask._place import Place
from podero_async.frames import arrow_batches, frame_schema, to_pandas
from podero_async.frames._frames import batches_to_pandas
from podero_async.models import VehicleFailure, VehicleRef, VehicleSessions

__all__ = ["MARK", "OUTCOME_COLUMNS", "Read", "Share", "empty_rows"]

Outcome: TypeAlias = VehicleSessions | VehicleFailure

_VEHICLE_COLUMNS = ["user_id", "vehicle_id", "external_user_id", "manufacturer", "model"]
_TEXTS = ["completeness", "reason", "error"]
_NUMBERS = ["total", "sessions", "rejected", "requests", "retries"]
OUTCOME_COLUMNS = [*_VEHICLE_COLUMNS, *_TEXTS, *_NUMBERS]
MARK = "is_outcome"
"""The column that tells the rows of outcomes from those of sessions."""


@cache
def empty_rows() -> pd.DataFrame:
    """Return a frame without rows that has all columns. Enums have unknown categories, since the API may send more."""
    kinds = dict.fromkeys(_TEXTS, "str") | dict.fromkeys(_NUMBERS, "int32[pyarrow]") | {MARK: "bool"}
    others = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
    return clear_known_categories(pd.concat([to_pandas([]), others], axis="columns"))  # type: ignore[no-untyped-call]


@attrs.frozen
class Share:
    """The vehicles of a partition."""

    vehicles: list[VehicleRef]
    _token: str = attrs.field(init=False, repr=False)  # Dask asks for it several times

    @_token.default
    def _hash(self) -> str:
        return hashlib.sha256(repr([attrs.astuple(each) for each in self.vehicles]).encode()).hexdigest()

    def __dask_tokenize__(self) -> str:
        return self._token


@attrs.frozen
class Read:
    """Fetches a partition with a client and an event loop of its own, on the worker that runs the task."""

    from_date: date
    to_date: date
    include_hidden: bool
    requests_per_second: float | None
    partitions: int

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return type(self).__name__, *attrs.astuple(self)

    def __call__(self, share: Share, columns: list[str] | None = None) -> pd.DataFrame:
        names = list(empty_rows().columns) if columns is None else columns
        place = Place.current(self.partitions, is_counted=self.requests_per_second is not None)
        return asyncio.run(self._fetch(share.vehicles, names, place))

    async def _fetch(self, vehicles: list[VehicleRef], names: list[str], place: Place) -> pd.DataFrame:
        records: list[Mapping[str, object]] = []
        wanted = [name for name in frame_schema().names if name in names] or ["id"]
        async with (
            place.client(self.requests_per_second) as client,
            client.fetch_fleet(self.from_date, self.to_date, vehicles, include_hidden=self.include_hidden) as fleet,
        ):
            noted = _noted(fleet, records)
            batches = [
                batch.select(wanted) async for batch in arrow_batches(noted, text_ids=True, on_failure=lambda _: None)
            ]
        return _joined(batches_to_pandas(batches) if batches else to_pandas([]), records, names)


async def _noted(fleet: AsyncIterator[Outcome], records: list[Mapping[str, object]]) -> AsyncIterator[Outcome]:
    async for outcome in fleet:
        records.append(_record(outcome))
        yield outcome


def _record(outcome: Outcome) -> Mapping[str, object]:
    vehicle = {name: _text(getattr(outcome.vehicle, name)) for name in _VEHICLE_COLUMNS}
    counts = {"requests": outcome.requests, "retries": outcome.retries}
    if isinstance(outcome, VehicleFailure):
        return {**vehicle, **counts, "error": type(outcome.error).__name__, "reason": _text(outcome.error)}
    counts |= {"total": outcome.total, "sessions": len(outcome.sessions), "rejected": len(outcome.rejected)}
    return {**vehicle, **counts, "completeness": str(outcome.completeness), "reason": _text(outcome.reason or None)}


def _text(value: object) -> str | None:
    """Return a text without halves of surrogate pairs, as in the frames of sessions."""
    return None if value is None else str(value).encode(errors="replace").decode()


def _joined(sessions: pd.DataFrame, records: Sequence[Mapping[str, object]], names: list[str]) -> pd.DataFrame:
    """Return some columns of sessions and outcomes, with a mark at the outcomes."""
    kinds = {**empty_rows().dtypes, **sessions.dtypes}
    outcomes = pd.DataFrame(records, columns=OUTCOME_COLUMNS)
    parts = [sessions.assign(**{MARK: False}), outcomes.assign(**{MARK: True})]
    kinds = {name: kinds[name] for name in names}
    return pd.concat([part.reindex(columns=names).astype(kinds) for part in parts], ignore_index=True)

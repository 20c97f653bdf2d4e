"""Iterables of sessions and outcomes to frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import pyarrow as pa  # type: ignore[import-untyped]

from podero_async import _validation as arguments
from podero_async._outcomes import Item, OnFailure, sessions_of
from podero_async.frames._batches import BatchBuilder
from podero_async.models import ChargingSession, VehicleRef

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]  # noqa: ICN001
    import polars  # noqa: ICN001

__all__ = ["arrow_batches", "batches_to_pandas", "to_arrow", "to_pandas", "to_polars"]

_ROWS = 50_000


def to_arrow(
    items: Iterable[Item],
    *,
    text_ids: bool = False,
    on_failure: OnFailure | None = None,
) -> pa.Table:
    """Return sessions as an Arrow table, in their order.

    Args:
        items: Sessions, or outcomes of a fleet fetch.
        text_ids: Ids are texts instead of Arrow's uuid, which many libraries do not join with texts.
        on_failure: Called with each `VehicleFailure`. If none is given, its error is raised.

    Raises:
        PoderoError: The error of a failure, if `on_failure` was not given.
        ValueError: A session has a value that no column can hold, such as a time before the year 1 in UTC.
    """
    arguments.instance("items", items, Iterable, "an iterable of sessions or outcomes")
    on_failure = arguments.callback("on_failure", on_failure)
    builder = BatchBuilder(_ROWS, text_ids=text_ids)
    rows = (sessions_of(item, on_failure) for item in items)
    batches = [batch for of_item in rows for batch in builder.add(*of_item) if batch is not None]
    if builder.count or not batches:  # an empty table has the dictionaries, too
        batches += [batch for batch in builder.finish() if batch is not None]
    return pa.Table.from_batches(batches, builder.schema).unify_dictionaries()


def to_pandas(
    items: Iterable[Item],
    *,
    on_failure: OnFailure | None = None,
) -> pandas.DataFrame:
    """Return sessions as a pandas frame, in their order; arguments and errors are those of `to_arrow`.

    Ids are texts, and whole numbers and booleans stay such if some are null.
    """
    return _as_pandas(to_arrow(items, text_ids=True, on_failure=on_failure))


def batches_to_pandas(batches: Sequence[pa.RecordBatch]) -> pandas.DataFrame:
    """Return batches with text ids, at least one, as a frame like that of `to_pandas`."""
    return _as_pandas(pa.Table.from_batches(batches).unify_dictionaries())


def _as_pandas(table: pa.Table) -> pandas.DataFrame:
    import pandas as pd  # noqa: PLC0415

    nullable = {kind: pd.ArrowDtype(kind) for kind in (pa.bool_(), pa.int32())}
    return table.to_pandas(types_mapper=nullable.get)


def to_polars(
    items: Iterable[Item],
    *,
    on_failure: OnFailure | None = None,
) -> polars.DataFrame:
    """Return sessions as a polars frame, in their order; arguments and errors are those of `to_arrow`. Ids are texts."""
    import polars as pl  # noqa: PLC0415

    return pl.DataFrame(to_arrow(items, text_ids=True, on_failure=on_failure))


async def arrow_batches(
    items: AsyncIterable[Item],
    *,
    rows: int = _ROWS,
    text_ids: bool = False,
    on_failure: OnFailure | None = None,
) -> AsyncGenerator[pa.RecordBatch, None]:
    """Stream sessions as Arrow record batches, for a fleet that is larger than memory.

    ```python
    async with client.fetch_fleet(from_date, to_date) as fleet:
        with ParquetWriter("sessions.parquet", frame_schema()) as file:
            async for batch in arrow_batches(fleet, on_failure=failures.append):
                file.write_batch(batch)
    ```

    One batch is in memory at a time, and other tasks run while it fills. The dictionary of an enum begins with that of the
    batch before, unless that has over 1,000 texts. If `items` raises an error, the rows before it are yielded first. If you
    leave early, the rows of the batch that is being filled are lost.

    Args:
        items: A fleet fetch, or any async iterable of sessions or outcomes.
        rows: The rows of each batch; the last one may have fewer.
        text_ids: Ids are texts instead of Arrow's uuid.
        on_failure: Called with each `VehicleFailure`. If none is given, its error is raised.

    Raises:
        PoderoError: The error of a failure, if `on_failure` was not given, or the error that ended the fetch.
        ValueError: An argument is wrong, or a session has a value that no column can hold; its batch is not yielded.
    """
    if not arguments.is_whole_number(rows) or rows < 1:
        raise ValueError(f"rows must be a whole number of at least 1, not {rows!r}")
    on_failure = arguments.callback("on_failure", on_failure)
    builder = BatchBuilder(rows, text_ids=text_ids)
    error: Exception | None = None
    async with aclosing(_sessions_of_each(items, on_failure)) as source:
        is_over = False
        while not is_over:
            try:
                steps = builder.add(*await anext(source))
            except StopAsyncIteration:
                is_over = True
            except Exception as caught:  # noqa: BLE001  # raised below
                is_over, error = True, caught
            if is_over:
                steps = builder.finish() if builder.count else iter(())
            for batch in steps:
                if batch is None:
                    await asyncio.sleep(0)
                else:
                    yield batch
    if error is not None:
        raise error


async def _sessions_of_each(
    items: AsyncIterable[Item], on_failure: OnFailure | None
) -> AsyncGenerator[tuple[VehicleRef | None, Sequence[ChargingSession]], None]:
    async for item in items:
        yield sessions_of(item, on_failure)

"""Frames: one schema for any data, the same rows in every library, and streams that are larger than memory."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any
from uuid import UUID

import attrs
import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

from podero_async import (
    ChargingSession,
    HiddenReason,
    NotFoundError,
    SessionOutcome,
    VehicleFailure,
    VehicleRef,
    VehicleSessions,
)
from podero_async.frames import arrow_batches, frame_schema, to_arrow, to_pandas, to_polars
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of
from tests._support.made_outcomes import outcome_of, session_of

pd = pytest.importorskip("pandas", minversion="3")
pl = pytest.importorskip("polars", minversion="1.30")

NEW = SessionOutcome("new_outcome")
NULLS: dict[str, Any] = {
    field.name: None
    for field in attrs.fields(ChargingSession)
    if "None" in str(field.type) and field.default is attrs.NOTHING
}
OUTCOMES = [
    outcome_of(1, session_of(1, reachable_soc_pct=70, target_reachable=True), session_of(2, session_outcome=NEW)),
    outcome_of(2),
    outcome_of(3, session_of(3, hidden_reason=HiddenReason.SHORT_DURATION, is_hidden=True), session_of(4, **NULLS)),
]
NOTHING: list[VehicleSessions] = []
FAILURE = VehicleFailure(user_id=UUID(int=9), vehicle=None, error=NotFoundError(404, "not found", "GET", "/users"))


def _rows(outcomes: Iterable[VehicleSessions], *, text_ids: bool = False) -> list[dict[str, Any]]:
    """Return the rows that a frame of outcomes has."""
    nothing = dict.fromkeys(("external_user_id", "manufacturer", "model"))
    rows = [
        {
            "user_id": outcome.vehicle.user_id,
            "vehicle_id": outcome.vehicle.vehicle_id,
            **nothing,
            **attrs.asdict(session),
        }
        for outcome in outcomes
        for session in outcome.sessions
    ]
    ids = ("user_id", "vehicle_id", "id") if text_ids else ()
    return [row | {name: str(row[name]) for name in ids} for row in rows]


async def _stream(*items: VehicleSessions | VehicleFailure, error: Exception | None = None) -> AsyncIterator[Any]:
    for item in items:
        yield item
    if error is not None:
        raise error


@pytest.mark.parametrize("text_ids", [False, True])
def test_a_table_has_each_session_once_with_its_vehicle(text_ids: bool) -> None:
    """A table has one row for each session, in order, with the ids of its vehicle and all 22 fields."""
    table = to_arrow(iter(OUTCOMES), text_ids=text_ids)
    table.validate(full=True)
    assert table.to_pylist() == _rows(OUTCOMES, text_ids=text_ids)


def test_sessions_without_a_vehicle_have_null_ids() -> None:
    """Sessions that are given without an outcome have nulls in the columns of the vehicle."""
    rows = to_arrow([session_of(1), session_of(2)]).to_pylist()
    assert [(row["id"].int, row["vehicle_id"], row["user_id"]) for row in rows] == [(1, None, None), (2, None, None)]


@pytest.mark.parametrize("items", [NOTHING, OUTCOMES, [session_of(1, **NULLS)]], ids=["nothing", "outcomes", "nulls"])
def test_the_schema_does_not_depend_on_the_data(items: list[Any]) -> None:
    """No data, only nulls or unknown enums: the types are the same in Arrow, pandas and polars, and frames concatenate."""
    assert to_arrow(items).schema == frame_schema()
    assert to_arrow(items, text_ids=True).schema == frame_schema(text_ids=True)
    nothing = to_pandas(NOTHING).dtypes, to_polars(NOTHING).schema
    kinds = to_pandas(items).dtypes
    assert [str(kind) for kind in kinds] == [str(kind) for kind in nothing[0]]
    assert to_polars(items).schema == nothing[1]
    assert len(pa.concat_tables([to_arrow(items), to_arrow(OUTCOMES)])) == len(to_arrow(items)) + 4


def test_dictionaries_begin_with_all_members() -> None:
    """All members come first in a dictionary, even those that no session has, and unknown texts follow."""
    outcomes = to_arrow(OUTCOMES)["session_outcome"].chunk(0).dictionary
    assert outcomes.to_pylist() == [*SessionOutcome, "new_outcome"]
    assert to_arrow(NOTHING)["hidden_reason"].chunk(0).dictionary.to_pylist() == [*HiddenReason]


def test_a_large_table_has_one_dictionary() -> None:
    """All chunks of a table have the same dictionary, even if an unknown text comes last, so that it fits into one file."""
    table = to_arrow([outcome_of(1, *[session_of(1)] * 50_000, session_of(2, session_outcome=NEW))])
    assert table["session_outcome"].num_chunks == 2
    with pa.ipc.new_file(pa.BufferOutputStream(), table.schema) as file:
        file.write_table(table)
    assert to_pandas([session_of(1, session_outcome=NEW)]).session_outcome.tolist() == ["new_outcome"]


def test_a_failure_is_raised_or_collected() -> None:
    """The error of a failure is raised, unless `on_failure` takes the failure; then the other rows are there."""
    with pytest.raises(NotFoundError):
        to_arrow([*OUTCOMES, FAILURE])
    failures: list[VehicleFailure] = []
    for convert in (to_arrow, to_pandas, to_polars):
        assert len(convert([FAILURE, *OUTCOMES], on_failure=failures.append)) == 4
    assert failures == [FAILURE] * 3


def test_other_items_are_refused() -> None:
    """An item that is neither a session nor an outcome raises a `ValueError` that names its type."""
    with pytest.raises(ValueError, match="not VehicleRef"):
        to_arrow([OUTCOMES[0].vehicle])  # type: ignore[list-item]


def test_a_session_that_fits_no_column_is_named() -> None:
    """The error for a value that no column can hold names the session and the field."""
    with pytest.raises(ValueError, match=f"session {UUID(int=2)}: .* reachable_soc_pct"):
        to_arrow([session_of(1), session_of(2, reachable_soc_pct=2**31)])


def test_half_a_surrogate_pair_of_a_vehicle_is_replaced() -> None:
    """A model whose text was cut within a character fails no frame."""
    outcome = outcome_of(1, session_of(1))
    cut = attrs.evolve(outcome, vehicle=attrs.evolve(outcome.vehicle, model="e-Up \ud83d"))
    assert to_arrow([cut])["model"].to_pylist() == ["e-Up ?"]


def test_pandas_has_the_values() -> None:
    """A pandas frame has the values of the sessions: nulls as missing, numbers and booleans of their own types."""
    frame = to_pandas(OUTCOMES)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    assert rows == _rows(OUTCOMES, text_ids=True)
    assert str(frame.reachable_soc_pct.dtype) == "int32[pyarrow]"
    assert str(frame.target_reachable.dtype) == "bool[pyarrow]"
    assert frame.plug_in_time.dt.tz_convert("Europe/Vienna").dt.month.tolist() == [10] * 4
    assert list(frame.session_outcome.cat.categories[:18]) == list(SessionOutcome)


def test_pandas_joins_by_id() -> None:
    """A pandas frame joins another table by the texts of ids, whether these are `str` or objects."""
    for kind in ("str", "object"):
        names = pd.DataFrame({"vehicle_id": pd.Series([str(UUID(int=2003))], dtype=kind), "name": "c"})
        assert to_pandas(OUTCOMES).merge(names, on="vehicle_id").id.tolist() == [str(UUID(int=3)), str(UUID(int=4))]


def test_polars_has_the_values_and_joins_by_id() -> None:
    """A polars frame has the values of the sessions, and joins another table by the texts of ids."""
    frame = to_polars(OUTCOMES)
    assert frame.to_dicts() == _rows(OUTCOMES, text_ids=True)
    names = pl.DataFrame({"vehicle_id": [str(UUID(int=2003))], "name": ["c"]})
    assert frame.join(names, on="vehicle_id")["id"].to_list() == [str(UUID(int=3)), str(UUID(int=4))]


def test_duckdb_reads_a_table_and_joins_by_id() -> None:
    """DuckDB reads a table with all values, and joins its ids with uuids and with texts."""
    sessions = to_arrow(OUTCOMES)
    with duckdb.connect() as con:
        con.register("sessions", sessions)
        columns = ", ".join(
            f"epoch_us({name})" if name.endswith(("_time", "_end", "line")) else name for name in sessions.column_names
        )
        rows = con.execute(f"SELECT {columns} FROM sessions").fetchall()
        moments = [pa.types.is_timestamp(field.type) for field in sessions.schema]
        expected = pa.Table.from_arrays(
            [
                column.cast(pa.int64()) if is_moment else column
                for column, is_moment in zip(sessions.columns, moments, strict=True)
            ],
            names=sessions.column_names,
        )
        assert [list(row) for row in rows] == [list(row.values()) for row in expected.to_pylist()]
        for kind in ("UUID", "VARCHAR"):
            con.execute(f"CREATE OR REPLACE TABLE names AS SELECT '{UUID(int=2003)}'::{kind} AS vehicle_id")
            assert con.execute("SELECT count(*) FROM sessions JOIN names USING (vehicle_id)").fetchall() == [(2,)]


@pytest.mark.filterwarnings("ignore:Series.values returning")  # of pyarrow before 26 with pandas 3.1
@pytest.mark.parametrize("convert", [to_arrow, to_pandas, to_polars])
def test_a_frame_is_an_arrow_stream(convert: Callable[..., Any]) -> None:
    """Each frame has the Arrow PyCapsule interface, which other libraries read."""
    assert len(pa.table(convert(OUTCOMES))) == 4
    assert hasattr(convert(OUTCOMES), "__arrow_c_stream__")


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
async def test_batches_have_the_rows_that_were_asked_for(rows: int) -> None:
    """Each batch has `rows` rows, apart from the last; together they are the table,
    even if a vehicle has rows in two batches.
    """
    batches = [batch async for batch in arrow_batches(_stream(*OUTCOMES), rows=rows)]
    assert [len(batch) for batch in batches] == [min(rows, 4 - start) for start in range(0, 4, rows)]
    assert pa.Table.from_batches(batches, frame_schema()).to_pylist() == _rows(OUTCOMES)


async def test_the_dictionaries_of_batches_agree() -> None:
    """The dictionary of a batch begins with that of the batch before, so that a file with deltas can be written."""
    texts = ["b", "optimized", "a", "b", "c"]
    outcome = outcome_of(
        1, *[session_of(number, session_outcome=SessionOutcome(text)) for number, text in enumerate(texts)]
    )
    batches = [batch async for batch in arrow_batches(_stream(outcome), rows=1)]
    dictionaries = [batch["session_outcome"].dictionary.to_pylist()[18:] for batch in batches]
    assert dictionaries == [["b"], ["b"], ["b", "a"], ["b", "a"], ["b", "a", "c"]]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, frame_schema(), options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as file:
        for batch in batches:
            file.write_batch(batch)
    assert pa.ipc.open_file(sink.getvalue()).read_all()["session_outcome"].to_pylist() == texts


async def test_a_stream_of_ever_new_texts_keeps_a_bounded_dictionary() -> None:
    """A server whose outcomes are all different does not make the dictionaries grow without end."""
    outcomes = [
        outcome_of(1, *[session_of(1, session_outcome=SessionOutcome(f"{batch} {row}")) for row in range(400)])
        for batch in range(9)
    ]
    batches = [batch async for batch in arrow_batches(_stream(*outcomes), rows=400)]
    assert max(len(batch["session_outcome"].dictionary) for batch in batches) <= 1400
    assert pa.Table.from_batches(batches)["session_outcome"].to_pylist() == [
        session.session_outcome for outcome in outcomes for session in outcome.sessions
    ]


@pytest.mark.parametrize("last", [(FAILURE,), ()], ids=["a failure", "an error"])
async def test_batches_come_before_the_error(last: tuple[VehicleFailure, ...]) -> None:
    """The rows before an error are in a batch that comes before it."""
    rows = 0
    with pytest.raises(NotFoundError):
        async for batch in arrow_batches(_stream(*OUTCOMES, *last, error=FAILURE.error), rows=3):
            rows += len(batch)
    assert rows == 4


async def test_batches_collect_failures() -> None:
    """`on_failure` takes each failure of a stream."""
    failures: list[VehicleFailure] = []
    stream = arrow_batches(_stream(FAILURE, *OUTCOMES, FAILURE), on_failure=failures.append)
    assert [len(batch) async for batch in stream] == [4]
    assert failures == [FAILURE] * 2


@pytest.mark.parametrize("rows", [0, -1, 1.5, True])
async def test_a_batch_has_at_least_one_row(rows: Any) -> None:
    """A number of rows that is not at least 1 raises a `ValueError`."""
    with pytest.raises(ValueError, match="rows must be"):
        await anext(arrow_batches(_stream(*OUTCOMES), rows=rows))


async def test_an_async_callback_is_refused() -> None:
    """A callback that nothing would await raises a `ValueError`."""

    async def collect(_: VehicleFailure) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match="on_failure must be a function, not async"):
        to_arrow([FAILURE], on_failure=collect)
    with pytest.raises(ValueError, match="on_failure must be a function, not async"):
        await anext(arrow_batches(_stream(FAILURE), on_failure=collect))


async def test_an_error_of_the_callback_is_not_the_end_of_the_stream() -> None:
    """A `StopAsyncIteration` that the callback raises does not end the batches as if all items were read."""

    def stop(_: VehicleFailure) -> None:
        raise StopAsyncIteration

    with pytest.raises(RuntimeError):
        async for _ in arrow_batches(_stream(*OUTCOMES, FAILURE), on_failure=stop):
            pass


async def test_the_event_loop_runs_while_a_batch_fills() -> None:
    """Other tasks run between slices of some thousand rows, also in one long list."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    outcome = outcome_of(1, *[session_of(1)] * 20_000)
    assert [len(batch) async for batch in arrow_batches(_stream(outcome))] == [20_000]
    counting.cancel()
    assert turns >= 10


async def test_a_stream_holds_few_sessions() -> None:
    """Sessions are freed as soon as they are converted: of 10,000, at most some thousand are in memory at a time."""
    seen: list[weakref.ref[ChargingSession]] = []
    alive: list[int] = []

    async def outcomes() -> AsyncIterator[VehicleSessions]:
        for vehicle in range(50):
            outcome = outcome_of(vehicle, *map(session_of, range(200)))
            seen.extend(map(weakref.ref, outcome.sessions))
            alive.append(sum(reference() is not None for reference in seen))
            yield outcome

    assert sum([len(batch) async for batch in arrow_batches(outcomes(), rows=4000)]) == 10_000
    assert max(alive) <= 2000


async def test_vehicles_become_columns_slice_by_slice() -> None:
    """Of 6,000 vehicles with one session each, at most 2,000 wait to be converted, so no step blocks the event loop."""
    seen: list[weakref.ref[VehicleRef]] = []
    alive: list[int] = []

    async def outcomes() -> AsyncIterator[VehicleSessions]:
        for vehicle in range(6000):
            outcome = outcome_of(vehicle, session_of(vehicle))
            seen.append(weakref.ref(outcome.vehicle))
            if vehicle % 500 == 0:
                alive.append(sum(reference() is not None for reference in seen))
            yield outcome

    batches = [batch async for batch in arrow_batches(outcomes(), rows=4500)]
    assert [len(batch) for batch in batches] == [4500, 1500]
    assert max(alive) <= 2000


async def test_a_fleet_becomes_batches(simulator: PoderoSimulator) -> None:
    """All sessions of a fleet are in its batches, which can be written as one Parquet file."""
    window = simulator.first_day, simulator.last_day
    sink = pa.BufferOutputStream()
    async with client_of(simulator) as client, client.fetch_fleet(*window) as fleet:
        with parquet.ParquetWriter(sink, frame_schema()) as file:
            async for batch in arrow_batches(fleet, rows=50):
                file.write_batch(batch)
    table = parquet.read_table(sink.getvalue())
    assert len(table) == fleet.summary.sessions > 0
    assert len(table["id"].combine_chunks().storage.unique()) == len(table)

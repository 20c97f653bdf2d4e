"""The export of a store and the frames have the same columns, of the same types and values."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import parquet

from podero_async.backfill import SessionStore, backfill
from podero_async.frames import frame_schema, to_arrow
from podero_async.testing import PoderoSimulator
from tests._support.clients import client_of


async def test_an_export_can_be_cast_to_a_frame(simulator: PoderoSimulator, tmp_path: Path) -> None:
    """The columns of a session in an exported Parquet file have the types of a frame with texts as ids, and its values."""
    days = simulator.first_day, simulator.last_day
    path = tmp_path / "sessions.parquet"
    async with client_of(simulator) as client, SessionStore(tmp_path / "fleet.duckdb") as store:
        assert (await backfill(client, store, *days)).is_clean
        await store.export(path)
        async with client.fetch_fleet(*days) as fleet:
            frame = to_arrow([outcome async for outcome in fleet], text_ids=True)
    exported = parquet.read_table(path)
    fields = [
        pa.field(field.name, pa.string()) if pa.types.is_dictionary(field.type) else field
        for field in frame_schema(text_ids=True)
        if field.name in exported.column_names
    ]
    assert len(fields) >= 24
    plain = pa.schema(fields)
    selected = exported.select(plain.names).sort_by("id")
    assert selected.schema.types == plain.types
    assert selected.cast(plain).equals(frame.select(plain.names).cast(plain).sort_by("id"))

"""The fields of sessions that this release does not know, which a store keeps on request."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest

from podero_async import PoderoClient
from podero_async._decode import Keep
from podero_async._paging.window import Window
from podero_async.backfill import SessionStore, backfill, merge_stores, verify
from podero_async.backfill._report import Written
from podero_async.backfill._values import Limits, WorkItem
from podero_async.backfill.store.duckdb.batch_builder import ArrowBatchBuilder
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.models import VehicleRef
from podero_async.testing import PoderoSimulator
from tests._support.clients import USER, VEHICLE, page_body, wire_row
from tests._support.expected_rows import FIRST, LAST
from tests._support.fetched import fetched
from tests._support.written_store import START, Read, WrittenStore
from tests.backfill.conftest import AGAIN, Clock

ITEM = WorkItem(7, VehicleRef(user_id=USER, vehicle_id=VEHICLE), Window(date(2026, 1, 1), date(2026, 1, 31)))
VALUES = (
    "1.10",
    "12345678901234567890123",
    "-0",
    '{"zones": [1,  2.50, {}], "note": null}',
    "null",
    '"gr\\u00f6\\u00dfer"',
)
TEXTS = {number: f'{{"tariff":{value}}}' for number, value in enumerate(VALUES, 1)}


def _page(*others: bytes) -> bytes:
    """Make a page of the rows with an unknown field, of one without, and of others."""
    rows = [json.dumps(wire_row(number, tariff="?")).replace('"?"', value) for number, value in enumerate(VALUES, 1)]
    items = [*others, *(row.encode() for row in rows), json.dumps(wire_row(9)).encode()]
    return b'{"total": %d, "items": [%s]}' % (len(items), b", ".join(items))


def _written(page: bytes, is_new: list[bool] | None = None) -> dict[int, str | None]:
    """Return the column of a batch with a page, by the number of the row."""
    batch = Batch(1, keep_unknown=True)
    outcome = fetched(ITEM, page, keep=Keep.UNKNOWN_FIELDS)
    outcome.pages[:] = [each.select(is_new) for each in outcome.pages]
    batch.add(ITEM, outcome, START, None)
    sessions = batch.tables()["arrow_sessions"]
    ids = (UUID(bytes=each) if isinstance(each, bytes) else each for each in sessions["id"].to_pylist())
    return dict(zip((each.int for each in ids), sessions["unknown_fields"].to_pylist(), strict=True))


_GOOD = json.dumps(wire_row(8)).encode()
_EXPECTED = {**TEXTS, 8: None, 9: None}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(_GOOD, id="read by Arrow"),
        pytest.param(_GOOD.replace(b'00:00Z"', b'00:00.1234567Z"'), id="refused by Arrow"),
        pytest.param(_GOOD.replace(b"{", b"{" + b" " * 60_000, 1), id="without the body"),
        pytest.param(_GOOD + b', {"id": 7}', id="with a rejected row"),
        pytest.param(_GOOD + b", 7", id="with a number instead of a row"),
    ],
)
def test_values_are_kept_as_they_were_sent(other: bytes) -> None:
    """Each row has the text of its own unknown fields, or NULL, in whichever way its page is read."""
    assert _written(_page(other)) == _EXPECTED


def test_only_the_wanted_rows_of_a_page_count() -> None:
    """Of a page that overlaps with the one before, only the new rows have a text."""
    assert _written(_page(), [True, False] * 3 + [True]) == {number: _EXPECTED[number] for number in (1, 3, 5, 9)}


def test_a_body_that_is_not_json_gives_the_same_values() -> None:
    """If a row has NaN, which only the slow path reads, the values of the others are the same, and NaN is a text."""
    row = json.dumps(wire_row(8, tariff=[float("nan"), "?"])).encode().replace(b"?", b"\\ud800")
    found = {number: text and json.loads(text) for number, text in _written(_page(row)).items()}
    expected = {number: text and json.loads(text) for number, text in _EXPECTED.items()}
    assert found == expected | {8: {"tariff": ["NaN", "?"]}}


def test_of_equal_names_the_last_counts_and_invalid_text_is_replaced() -> None:
    """A name has one value, the last one, and a byte that is not UTF-8 becomes U+FFFD: the database reads the text."""
    row = _GOOD[:-1] + b', "a": 1, "a": "\xff"}'
    text = _written(_page(row))[8]
    assert text == '{"a":"\ufffd"}'
    assert duckdb.execute("SELECT ?::JSON ->> 'a'", [text]).fetchall() == [("\ufffd",)]


def test_long_values_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Unknown fields of over 16 KiB are not kept; one warning counts them. Long ones fill a batch before its rows do."""
    rows = [wire_row(1, curve="x" * 16_000), wire_row(2, curve="x" * 17_000), wire_row(3, curve="x" * 17_000)]
    found = _written(page_body(*rows))
    assert [len(text) if text else text for text in found.values()] == [16_012, None, None]
    assert caplog.messages == ["the unknown fields of 2 sessions were not kept: they are over 16 KiB, or not JSON"]

    async def write(*_: Any) -> Written:
        return Written()

    builder = ArrowBatchBuilder(Batch(1, keep_unknown=True), Limits(), write)
    page = page_body(*[rows[0]] * 1_000)
    adding = 0
    while not builder.is_full:
        builder.add(ITEM, fetched(ITEM, page, keep=Keep.UNKNOWN_FIELDS), START, None)
        adding += 1
    assert adding == 3


# --- what a run changes -----------------------------------------------------------------------------------------------

_KEPT = "SELECT unknown_fields FROM sessions ORDER BY id"


def test_a_change_of_unknown_fields_alone_is_a_change(store: WrittenStore) -> None:
    """With the option, new, changed and vanished unknown fields change a row; a run without it leaves them as they are."""
    old, new, changed = (Read(1, [wire_row(1, **fields), wire_row(2)]) for fields in ({}, {"a": 1}, {"a": 2}))
    assert store.write(new) == Written(new=2)
    assert not store.query("SELECT 1 FROM (DESCRIBE live_sessions) WHERE column_name = 'unknown_fields'")
    steps = [
        (new, True, 1, '{"a":1}'),
        (new, True, 0, '{"a":1}'),
        (changed, False, 0, '{"a":1}'),
        (changed, True, 1, '{"a":2}'),
        (old, False, 0, '{"a":2}'),
        (old, True, 1, None),
    ]
    for read, keep_unknown, count, text in steps:
        assert store.write(read, keep_unknown=keep_unknown) == Written(changed=count, unchanged=2 - count)
        assert store.query(_KEPT) == [(text,), (None,)]
        ((moved,),) = store.query(f"SELECT count(*) FROM sessions WHERE changed_at = '{store.at.isoformat()}'")
        assert moved == count
    assert store.query("SELECT count(DISTINCT digest) FROM receipts") == [(1,)]


def test_the_view_shows_them_with_comments(store: WrittenStore) -> None:
    """`live_sessions` has the column, and its comments stay; values are read by their names."""
    store.write(Read(1, [wire_row(1, tariff={"name": "night"})]), keep_unknown=True)
    assert store.query("SELECT unknown_fields.tariff.name FROM live_sessions") == [('"night"',)]
    assert store.query("SELECT unknown_fields ->> '$.tariff.name' FROM live_sessions") == [("night",)]
    comments = dict(store.query("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'live_sessions'"))
    assert comments["unknown_fields"].startswith("The fields that the release did not know, as JSON")
    assert None not in comments.values()


# --- a fleet ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_from_the_api_to_exports_and_merged_stores(
    sim: PoderoSimulator, client: PoderoClient, tmp_path: Path, clock: Clock
) -> None:
    """Without the option, nothing of them is in a store; with it, exports, snapshots and merged stores have them.

    If the API changes unknown fields, a verification reports no difference. Forgetting a user removes them.
    """
    vehicle = sim.vehicles[0]
    row = sim.insert(vehicle, sim.truth(vehicle, FIRST, LAST)[0] | {"id": str(UUID(int=1)), "driver": "Jane Roe"})
    plain, kept, merged = (tmp_path / f"{name}.duckdb" for name in ("plain", "kept", "merged"))
    async with SessionStore(plain) as store:
        assert (await backfill(client, store, FIRST, LAST, now=clock)).is_clean
    assert b"Jane Roe" not in plain.read_bytes()
    kept.write_bytes(plain.read_bytes())
    async with SessionStore(kept) as store:
        report = await backfill(client, store, FIRST, LAST, keep_unknown=True, fresh_for=AGAIN, now=clock)
        assert (report.is_clean, report.changed, report.new) == (True, 1, 0)
        assert await _kept_in(store, row) == [{"driver": "Jane Roe"}]
        sim.update(vehicle, row["id"], driver="John Doe")
        assert (await verify(client, store, include_provisional=True)).is_clean
        for kind in ("parquet", "csv", "jsonl"):
            path = tmp_path / f"sessions.{kind}"
            await store.export(path, kind)
            query = f"SELECT unknown_fields::JSON::VARCHAR FROM '{path}' WHERE id = '{row['id']}'"
            assert duckdb.execute(query).fetchall() == [('{"driver":"Jane Roe"}',)]
        await store.snapshot(tmp_path / "copy.duckdb")
    async with SessionStore(tmp_path / "copy.duckdb", read_only=True) as store:
        assert await _kept_in(store, row) == [{"driver": "Jane Roe"}]
    await merge_stores(merged, [plain, kept])
    async with SessionStore(merged) as store:
        assert await _kept_in(store, row) == [{"driver": "Jane Roe"}]
        await store.forget(vehicle.user_id)
    assert b"Jane Roe" not in merged.read_bytes()
    assert b"Jane Roe" in kept.read_bytes()


async def _kept_in(store: SessionStore, row: dict[str, Any]) -> list[Any]:
    found = await store.query("SELECT unknown_fields FROM live_sessions WHERE id = ?", [row["id"]])
    return [json.loads(each["unknown_fields"]) for each in found]

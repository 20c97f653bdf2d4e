"""Columns of a page: made of its body or of its sessions, they are the same, value by value."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podero_async import DecodeError
from podero_async._decode import Keep, PageRows, decode_page, read_page
from podero_async._paging.window import Window
from podero_async.backfill._values import WorkItem
from podero_async.backfill.store.duckdb.columns import Batch
from podero_async.frames._bodies import columns_of_bodies
from podero_async.models import VehicleRef
from tests._support.clients import USER, VEHICLE, page_body, wire_row
from tests._support.fetched import fetched, rows_of
from tests._support.odd_bodies import bodies, mutated
from tests._support.written_store import FIRST, LAST, START

ITEM = WorkItem(7, VehicleRef(user_id=USER, vehicle_id=VEHICLE), Window(FIRST, LAST))
NAMES = sorted(wire_row())
TIMES = {name for name in NAMES if name.endswith("_time") or name in {"charge_deadline", "inferred_session_end"}}
TEXTS = {"session_outcome", "hidden_reason"}


def _tables(*pages: bytes | PageRows) -> dict[str, list[str]]:
    """Return the rows of a batch's tables, as texts. -0 is 0.0 for msgspec, and -0.0 for Arrow, which are equal numbers."""
    batch = Batch(1)
    batch.add(ITEM, fetched(ITEM, *pages), START, None)
    return {
        name: [repr(row).replace("-0.0,", "0.0,") for row in table.to_pylist()]
        for name, table in batch.tables().items()
    }


def _objects(body: bytes) -> PageRows:
    """Read a page as sessions and rejected items, in order."""
    page = decode_page(body)
    rejected, items = {item.index: item for item in page.rejected}, iter(page.items)
    count = len(page.items) + len(page.rejected)
    return rows_of(rejected.get(index) or next(items) for index in range(count))


def _check(body: bytes) -> bool:
    """Check that a body gives the same columns as its sessions; return whether Arrow read it."""
    try:
        objects = _objects(body)
    except DecodeError as error:
        with pytest.raises(DecodeError) as caught:
            read_page(body, keep=Keep.BODY)
        assert (caught.value.json_path, caught.value.retryable) == (error.json_path, error.retryable)
        return False
    page = read_page(body, keep=Keep.BODY)
    assert (len(page), page.total, page.ids, page.times) == (
        len(objects),
        decode_page(body).total,
        objects.ids,
        objects.times,
    )
    assert (list(map(repr, page.sessions())), page.rejected) == (list(map(repr, objects.sessions())), objects.rejected)
    assert _tables(page) == _tables(objects)
    if page.body is None:
        return False
    try:
        columns_of_bodies([page.body])
    except ValueError:
        return False
    return True


# --- odd pages, written by hand -----------------------------------------------------------------------------------------

_NUMBERS = [
    *(
        "0",
        "-0",
        "-0.0",
        "0.0",
        "80",
        "80.0",
        "8e1",
        "8E+1",
        "0.1",
        "-1",
        "1e400",
        "-1e400",
        "1e-400",
        "5e-324",
        "2.5e-324",
    ),
    *("1.7976931348623157e308", "1.7976931348623159e308", "9007199254740993", "9007199254740993.0", "2147483647"),
    *("2147483648", "-2147483649", "9223372036854775808", "18446744073709551616", "123456789012345678901234567890"),
    *(
        "0." + "3" * 40,
        "1" + "0" * 400,
        "NaN",
        "Infinity",
        "-Infinity",
        ".5",
        "5.",
        "01",
        "+1",
        "0x10",
        "1_0",
        "true",
        "null",
    ),
    *('"80"', "[80]", "{}"),
]
_TIMES = [
    *("2026-01-01T00:00:00Z", "2026-01-01t00:00:00z", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00+00:00"),
    *("2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00+0100", "2026-01-01T00:00:00+01", "2026-01-01T00:00:00+23:59"),
    *(
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00-01:30",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00Z",
        "2026-01-01",
    ),
    *(
        "2026-01-01T00:00:00.1Z",
        "2026-01-01T00:00:00.123456Z",
        "2026-01-01T00:00:00.1234565Z",
        "2026-01-01T00:00:00,5Z",
    ),
    *("2026-01-01T00:00:00.999999999Z", "2026-01-01T00:00:00.0000000000000000001Z", "2026-01-01T00:00:00.Z"),
    *(
        "9999-12-31T23:59:59.9999999Z",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-01:00",
        "10000-01-01T00:00:00Z",
    ),
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "0000-01-01T00:00:00Z", "-001-01-01T00:00:00Z"),
    *(
        "2026-02-29T00:00:00Z",
        "2024-02-29T00:00:00Z",
        "2026-12-31T23:59:60Z",
        "2026-01-01T24:00:00Z",
        "2026-W01-4T00:00:00Z",
    ),
    *("1969-12-31T23:59:59.999999Z", "1677-09-21T00:12:43Z", "2262-04-12T00:00:00Z", " 2026-01-01T00:00:00Z", ""),
    *(
        "2026-01-01T00:00:00Z\\u0000",
        "2026-01-01T00:00:00\\u005a",
        "\\uff12026-01-01T00:00:00Z",
        "2026-01-01T00:00:00 Z",
    ),
    "2026-01-01T00:00:00+01:00:30",
]
_TEXTS = [
    '""',
    '"optimized"',
    '"\\u006fptimized"',
    '"new one"',
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\ud83d\\ude00"',
]
_TEXTS += [
    '"\\udc00\\ud800"',
    '"\\/\\b\\n\\""',
    '"größer 🚗"',
    '"\x00"',
    '"a\nb"',
    '"\t"',
    '"\\x41"',
    '"' + "x" * 5000 + '"',
    "5",
]
_IDS = [
    '"00000000-0000-0000-0000-000000000001"',
    '"00000000000000000000000000000002"',
    '"ABCDEFAB-0000-4000-8000-00000000000F"',
]
_IDS += [
    '"{00000000-0000-0000-0000-000000000001}"',
    '"urn:uuid:00000000-0000-0000-0000-000000000001"',
    '"0000-00000000-0000-0000-000000000001"',
]
_IDS += ['" 0000000-0000-0000-0000-000000000001"', '"\\u0030000000000000000000000000000000a"', '""', "1"]
_JUNK = [
    "null",
    "true",
    "false",
    "0",
    '""',
    "[]",
    "{}",
    "[[[[]]]]",
    '{"id": 5, "items": []}',
    "[" * 200 + "]" * 200,
    "NaN",
    '"\\ud800"',
]


def _values(name: str) -> list[str]:
    if name == "id":
        return _IDS
    if name in TIMES:
        return [f'"{time}"' for time in _TIMES] + ["null", "0", "1767225600", "1767225600.5"]
    return _TEXTS if name in TEXTS else _NUMBERS


def _plain(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f'"{name}"', json.dumps(value)) for name, value in row.items()]


def _page(rows: Iterable[list[tuple[str, str]]], more: str = "") -> bytes:
    written = ["{" + ", ".join(f"{key}: {value}" for key, value in row) + "}" for row in rows]
    return f'{{"total": {len(written)}{more}, "items": [{", ".join(written)}]}}'.encode(errors="surrogatepass")


CASES = [(name, value) for name in NAMES for value in [*_values(name), *_JUNK]]


@pytest.mark.slow
def test_each_odd_value_of_each_field_gives_the_same_columns() -> None:
    """For each odd value of each field, and for some beside a good row, both ways give the same rows and rejected items."""
    read_by_arrow = 0
    for number, (name, value) in enumerate(CASES):
        row = [(key, value if key == f'"{name}"' else known) for key, known in _plain(wire_row(1))]
        read_by_arrow += _check(_page([row]))
        if number % 4 == 0:
            _check(_page([_plain(wire_row(2)), row]))
    assert len(CASES) / 5 < read_by_arrow < len(CASES)


@pytest.mark.parametrize("name", NAMES)
def test_missing_repeated_and_escaped_keys_give_the_same_columns(name: str) -> None:
    """A key that is missing, null, given twice, escaped, or in another case is read the same in both ways."""
    plain, key = _plain(wire_row(1)), f'"{name}"'
    others = [pair for pair in plain if pair[0] != key]
    known = dict(plain)[key]
    escaped = f'"\\u{ord(name[0]):04x}{name[1:]}"'
    for forms in [
        [],
        [(key, "null")],
        [(key, known), (key, known)],
        [(key, known), (key, "null")],
        [(key, "null"), (key, known)],
        [(escaped, known)],
        [(key, known), (escaped, "null")],
        [(escaped, known), (key, "[5]")],
        [(f'"{name.upper()}"', known)],
        [(f'"{name}\\u0000"', known), (key, known)],
        [(f'"{name}.x"', known), (key, known)],
    ]:
        for row in (others + forms, forms + others):
            _check(_page([row]))
            _check(_page([_plain(wire_row(2)), row, _plain(wire_row(3))]))


@pytest.mark.parametrize(
    "body",
    [
        b'{"total": 0, "items": []}',
        b'{"items": [], "total": 5, "items": [], "next": null}',
        page_body(wire_row(1)).replace(b'"items"', b'"\\u0069tems"'),
        page_body(wire_row(1)).replace(b"{", b'{"items": [],', 1),
        page_body(wire_row(1))[:-1] + b', "items": []}',
        page_body(wire_row(1))[:-1] + b', "items": null}',
        page_body(wire_row(1)) + b" \r\n\t",
        page_body(wire_row(1)) + page_body(wire_row(2)),
        page_body(wire_row(1)) + b"\x00",
        b"\xef\xbb\xbf" + page_body(wire_row(1)),
        json.dumps(json.loads(page_body(wire_row(1), wire_row(2))), indent=3).encode(),
        page_body(wire_row(1), wire_row(2)).replace(b" ", b"\r\n"),
        page_body(wire_row(1, unknown="x")).replace(b'"x"', b'"\xff"'),
        page_body(wire_row(1, unknown="x")).replace(b'"unknown"', b'"\xff"'),
        page_body(wire_row(1, session_outcome="x")).replace(b'"x"', b'"\xff"'),
        page_body(wire_row(1, unknown=[[{"id": str(USER), "items": [1]}]], items=[{"id": 1}], total=7)),
        page_body(*[wire_row(number) for number in range(1, 40)], total=10**30),
        page_body(wire_row(1, unknown="x" * 5000)),
    ],
)
def test_odd_pages_give_the_same_columns(body: bytes) -> None:
    """A page in an unusual form is read the same in both ways."""
    _check(body)


# --- generated pages ----------------------------------------------------------------------------------------------------

_odd_row = st.lists(st.sampled_from(CASES), max_size=3).flatmap(
    lambda odd: st.permutations(list((dict(_plain(wire_row(1))) | {f'"{name}"': value for name, value in odd}).items()))
)
_time = st.datetimes().map(lambda time: time.isoformat() + "Z")
_good_row = st.fixed_dictionaries(
    {},
    optional={
        "id": st.uuids().map(str),
        **dict.fromkeys(TIMES - {"plug_in_time"}, st.none() | _time),
        "plug_in_time": _time,
        **dict.fromkeys(
            ("target_soc_pct", "energy_charged_kwh", "actual_cost_eur"), st.none() | st.floats(allow_nan=False)
        ),
        "reachable_soc_pct": st.none() | st.integers(),
        "session_outcome": st.text(),
        "hidden_reason": st.none() | st.text(),
        "target_reachable": st.none() | st.booleans(),
    },
).map(lambda changes: _plain(wire_row(1) | changes))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(rows=st.lists(_good_row | _odd_row, max_size=4), more=st.sampled_from(["", ', "next": {"items": [1]}']))
def test_generated_pages_give_the_same_columns(rows: list[list[tuple[str, str]]], more: str) -> None:
    """Rows with values, keys and orders of any kind are read the same in both ways."""
    _check(_page(rows, more))


@pytest.mark.parametrize(
    "count", [200, pytest.param(2_000, marks=pytest.mark.slow), pytest.param(100_000, marks=pytest.mark.soak)]
)
def test_mutated_pages_give_the_same_columns(
    count: int, soak_scale: float, record_property: Callable[[str, object], None]
) -> None:
    """Pages with changed bytes are read the same, or refused the same, in both ways."""
    chance = random.Random(5)
    page = page_body(*(wire_row(number, note="größer", unknown=[1.5, {}]) for number in range(1, 4)))
    odd = bodies(chance)
    read_by_arrow = sum(
        _check(body) for _ in range(round(count * soak_scale)) for body in (mutated(chance, page), next(odd))
    )
    record_property("figure", f"{2 * count:,} bodies, {read_by_arrow:,} read by Arrow")
    assert read_by_arrow


@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("is_new", [None, [True, False]])
def test_arrow_reads_a_usual_page(indent: int | None, is_new: list[bool] | None) -> None:
    """Arrow itself reads pages with unknown fields, line breaks and rows that are not wanted."""
    rows = [wire_row(number, later={"unit": ["kWh"]}, session_outcome="new") for number in (1, 2)]
    page = read_page(json.dumps({"total": 2, "items": rows}, indent=indent).encode(), keep=Keep.BODY).select(is_new)
    assert page.body is not None
    columns = columns_of_bodies([page.body])
    assert [len(column) for column in columns] == [len(page)] * len(columns)


def test_pages_of_a_batch_are_kept_apart() -> None:
    """Pages are read together; only wanted rows count, and one page that Arrow refuses does not change the others."""
    good, odd = (
        page_body(wire_row(1), wire_row(2), wire_row(3)),
        page_body(wire_row(4, unplug_time="2026-01-01T00:00:00.1234567Z")),
    )
    rejected = page_body(wire_row(5), wire_row(6, is_at_home=5), wire_row(7, reachable_soc_pct=2**40))
    some = read_page(good, keep=Keep.BODY).select([True, False, True])
    batches: list[list[bytes | PageRows]] = [
        [good, odd, rejected],
        [some, odd, rejected],
        [some, rejected],
        [some, page_body()],
        [good] * 45,
    ]
    for pages in batches:
        objects = [rows_of(page.sessions()) if isinstance(page, PageRows) else _objects(page) for page in pages]
        found, expected = _tables(*pages), _tables(*objects)
        assert {name: sorted(rows) for name, rows in found.items()} == {
            name: sorted(rows) for name, rows in expected.items()
        }

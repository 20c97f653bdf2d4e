"""Bodies to models: the fast path refuses faulty bodies, the slow path keeps the good rows and explains the others."""

from __future__ import annotations

import gc
import json
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podero_async import (
    ChargingSession,
    DecodeError,
    ElectricVehicle,
    HiddenReason,
    PoderoClient,
    SessionOutcome,
    StaticToken,
    User,
)
from podero_async._decode import (
    Keep,
    decode_current_session,
    decode_json,
    decode_listed_vehicles,
    decode_page,
    decode_user,
    decode_users,
    describe_error,
    oauth_error_code,
    read_page,
    uuid_text,
)
from podero_async._decode.unknown import unknown_fields
from podero_async.models import DeviceModel, VehicleOwner
from tests._support.clients import page_body, wire_row


def test_a_page_becomes_typed_rows() -> None:
    """Each field of a row has its model's type."""
    row = wire_row(
        plug_in_time="2026-01-05T18:03:11.5Z",
        unplug_time="2026-01-06T01:00:00+01:00",
        is_hidden=True,
        hidden_reason="short_duration",
        target_reachable=False,
        reachable_soc_pct=71,
    )
    page = decode_page(page_body(row, total=9))
    assert page.total == 9
    session = page.items[0]
    assert session.id == uuid.UUID(int=1)
    assert session.plug_in_time == datetime(2026, 1, 5, 18, 3, 11, 500_000, UTC)
    assert session.unplug_time == datetime(2026, 1, 6, 0, 0, tzinfo=UTC)
    assert session.target_soc_pct == 80.0
    assert isinstance(session.target_soc_pct, float)
    assert session.session_outcome is SessionOutcome.OPTIMIZED
    assert session.hidden_reason is HiddenReason.SHORT_DURATION
    assert (session.is_hidden, session.target_reachable, session.reachable_soc_pct) == (True, False, 71)


def test_missing_optional_fields_take_the_contracts_defaults() -> None:
    """A row without its optional fields has the defaults of the contract."""
    session = decode_page(page_body(wire_row())).items[0]
    assert (session.is_hidden, session.hidden_reason) == (False, None)
    assert (session.target_reachable, session.reachable_soc_pct) == (None, None)


def test_unknown_fields_and_outcomes_are_accepted() -> None:
    """An unknown field is ignored, and an unknown outcome keeps its text."""
    body = page_body(wire_row(battery={"cells": [1, 2]}, session_outcome="solar_only"))
    page = decode_page(body)
    assert page.items[0].session_outcome.value == "solar_only"
    assert page.rejected == []


_PADDING = "x" * (9 << 20)
"""More than the slow path takes."""


@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (decode_page, {"total": 2, "items": [wire_row(1), wire_row(2, session_outcome="new", note=_PADDING)]}),
        (read_page, {"total": 1, "items": [wire_row(1, note=_PADDING)]}),
        (decode_current_session, {"session": wire_row(1, note=_PADDING)}),
        (decode_listed_vehicles, [{"id": str(uuid.UUID(int=8)), "device_model": {"year": 2024}, "note": _PADDING}]),
        (decode_users, [{"id": str(uuid.UUID(int=7)), "note": _PADDING}]),
        (decode_user, {"id": str(uuid.UUID(int=7)), "note": _PADDING}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_fast_path_reads_a_good_body(decode: Callable[[bytes], object], body: object) -> None:
    """A valid body is decoded without the slow path, so it may be larger than the slow path allows."""
    assert decode(json.dumps(body).encode())
    with pytest.raises(DecodeError, match="too large"):
        decode(json.dumps(body).replace('"id": "', '"id": 5, "x": "').encode())


@pytest.mark.parametrize("field", ["plug_in_time", "unplug_time", "charge_deadline"])
def test_a_naive_timestamp_is_utc(field: str) -> None:
    """A timestamp without an offset is read as UTC, and the offset of another one in the same row counts."""
    times = {"inferred_session_end": "2026-01-05T18:00:00+02:00", field: "2026-01-05T18:03:11"}
    (session,) = decode_page(page_body(wire_row(**times))).items
    assert getattr(session, field) == datetime(2026, 1, 5, 18, 3, 11, tzinfo=UTC)
    assert session.inferred_session_end == datetime(2026, 1, 5, 16, tzinfo=UTC)


def test_the_models_annotations_stay_plain() -> None:
    """Building a decoder leaves the annotations of the model as they were."""
    assert get_type_hints(ChargingSession, include_extras=True)["plug_in_time"] is datetime


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"id": "nobody"}, "$.id", "expected a uuid, got another string"),
    ({"id": 5}, "$.id", "expected a uuid, got an integer"),
    ({"plug_in_time": None}, "$.plug_in_time", "expected a timestamp, got null"),
    ({"plug_in_time": "yesterday"}, "$.plug_in_time", "expected a timestamp, got another string"),
    ({"unplug_time": 5}, "$.unplug_time", "expected a timestamp, got an integer"),
    ({"target_soc_pct": "80"}, "$.target_soc_pct", "expected a number, got a string"),
    ({"target_soc_pct": True}, "$.target_soc_pct", "expected a number, got a boolean"),
    ({"is_at_home": "false"}, "$.is_at_home", "expected a boolean, got a string"),
    ({"is_at_home": None}, "$.is_at_home", "expected a boolean, got null"),
    ({"session_outcome": None}, "$.session_outcome", "expected a string, got null"),
    ({"hidden_reason": 7}, "$.hidden_reason", "expected a string, got an integer"),
    ({"reachable_soc_pct": 70.5}, "$.reachable_soc_pct", "expected an integer, got a number"),
    ({"reachable_soc_pct": True}, "$.reachable_soc_pct", "expected an integer, got a boolean"),
    ({"energy_charged_kwh": 10**400}, "$.energy_charged_kwh", "expected a number, got one out of range"),
]


@pytest.mark.parametrize(("fields", "path", "reason"), BAD_FIELDS, ids=lambda value: str(value)[:40])
def test_a_bad_row_is_kept_with_its_reason(fields: dict[str, Any], path: str, reason: str) -> None:
    """A row with a faulty field becomes a `RejectedItem` with index, path, reason and raw row; its neighbours are kept."""
    bad = wire_row(2, **fields)
    page = decode_page(page_body(wire_row(1), bad, wire_row(3)), first_index=400)
    assert [row.id.int for row in page.items] == [1, 3]
    (rejected,) = page.rejected
    assert (rejected.index, rejected.path, rejected.reason) == (401, path, reason)
    assert rejected.raw == bad


def test_a_missing_field_is_named() -> None:
    """The rejection of a row without a required field names the field."""
    row = wire_row()
    del row["is_at_home"]
    (rejected,) = decode_page(page_body(row)).rejected
    assert (rejected.path, rejected.reason) == ("$.is_at_home", "a required field is missing")


@pytest.mark.parametrize("row", [None, 5, [], "text"])
def test_a_row_that_is_not_an_object_is_kept(row: Any) -> None:
    """A row that is not an object is rejected with the path `$`."""
    page = decode_page(page_body(row, wire_row()))
    assert (len(page.items), page.rejected[0].path) == (1, "$")


@pytest.mark.parametrize("number", [b"1e999", b"NaN", b"-Infinity"])
def test_a_non_finite_number_spoils_only_its_row(number: bytes) -> None:
    """NaN, Infinity, and numbers out of a float's range reject their row, not the page."""
    body = page_body(wire_row(1), wire_row(2)).replace(b"12.25", number, 1)
    page = decode_page(body)
    assert [row.id.int for row in page.items] == [2]
    assert page.rejected[0].reason == "expected a number, got one out of range"
    assert json.loads(page.to_json())["rejected"][0]["raw"]["energy_charged_kwh"] in {"NaN", "Infinity", "-Infinity"}


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00.9999999Z",
        "2026-01-01t00:00:00.1234567z",
        "2026-01-01 00:00+02:00",
        "20260101T000000Z",
        "2026-01-01",
    ],
)
def test_a_time_does_not_depend_on_the_other_rows(text: str) -> None:
    """A session has the same time whether or not another row of its page is unreadable."""
    row = wire_row(plug_in_time=text)
    (alone,) = decode_page(page_body(row)).items
    (beside,) = decode_page(page_body(row, 7)).items
    assert alone == beside


def test_a_whole_number_may_be_written_as_a_float() -> None:
    """80.0 is read as the integer 80, also as a total."""
    page = decode_page(page_body(wire_row(reachable_soc_pct=80.0), total=80.0))
    assert (page.items[0].reachable_soc_pct, page.total) == (80, 80)
    assert decode_users(b'{"total": 7.0, "items": []}') == (7, [])


@pytest.mark.parametrize(
    "decode", [decode_page, read_page, decode_users, decode_listed_vehicles, decode_user, decode_current_session]
)
@pytest.mark.parametrize("body", [b"", b'{"total": 1, "ite', b"<html>502</html>", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_not_json_is_retryable(decode: Callable[[bytes], object], body: bytes) -> None:
    """Invalid JSON, such as a proxy's error page with status 200, is a retryable `DecodeError`."""
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the response body is empty"),
        (b"\xef\xbb\xbf\r\n<!doctype html>s3cret", "the response is an HTML or XML page, not JSON"),
        (b"[1,", "the response body is not JSON: Expecting value: line 1 column 4 (char 3)"),
    ],
)
def test_the_error_says_whether_a_body_is_empty_or_a_page(body: bytes, reason: str) -> None:
    """An empty body and a proxy's HTML page are named as such, and nothing of the page is repeated."""
    with pytest.raises(DecodeError) as caught:
        decode_json(body)
    assert caught.value.reason == reason


@pytest.mark.parametrize("decode", [decode_page, read_page])
@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"[]", "$"),
        (b"null", "$"),
        (b"{}", "$.items"),
        (b'{"items": {}, "total": 1}', "$.items"),
        (b'{"items": []}', "$.total"),
        (b'{"items": [], "total": "1"}', "$.total"),
        (b'{"items": [], "total": true}', "$.total"),
    ],
)
def test_json_that_is_not_a_page_is_not_retryable(decode: Callable[[bytes], object], body: bytes, path: str) -> None:
    """JSON of another shape is a final `DecodeError` with the path of the first fault."""
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert (caught.value.json_path, caught.value.retryable) == (path, False)


def test_a_decode_error_holds_no_row() -> None:
    """A `DecodeError` has no cause and no attribute with values of the row."""
    with pytest.raises(DecodeError) as caught:
        decode_user(json.dumps({"id": "x", "email": "user-1@example.com"}).encode())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "example.com" not in repr(vars(caught.value))


# --- other responses --------------------------------------------------------------------------------------------------


def test_the_current_session_may_be_none() -> None:
    """If no session is active, the result is None; a missing or faulty session is a `DecodeError`."""
    assert decode_current_session(b'{"session": null}') is None
    session = decode_current_session(json.dumps({"session": wire_row(unplug_time="2026-01-31T00:00:00")}).encode())
    assert session is not None
    assert session.unplug_time == datetime(2026, 1, 31, tzinfo=UTC)
    assert decode_current_session(b'{"session": null, "power_kw": NaN}') is None
    with pytest.raises(DecodeError, match="missing"):
        decode_current_session(b"{}")
    with pytest.raises(DecodeError) as caught:
        decode_current_session(json.dumps({"session": wire_row(is_at_home=5)}).encode())
    assert caught.value.json_path == "$.session.is_at_home"


USER_ROW = {
    "id": str(uuid.UUID(int=7)),
    "email": "user-7@example.com",
    "num_electric_vehicles": 2,
    "address": {"city": "x"},
}


def readable(users: list[User | DecodeError]) -> list[User]:
    """Return the users, all of which must be readable."""
    return [user for user in users if isinstance(user, User) or pytest.fail(str(user))]


def test_users_come_as_an_array_or_a_page() -> None:
    """Users are read from an array and from a page, because the contract leaves this open."""
    assert decode_users(json.dumps([USER_ROW]).encode())[0] is None
    total, users = decode_users(json.dumps({"total": 7, "items": [USER_ROW]}).encode())
    (user,) = readable(users)
    assert (total, user.id.int, user.num_electric_vehicles) == (7, 7, 2)
    assert decode_user(json.dumps(USER_ROW).encode()) == user


@pytest.mark.parametrize("field", ["num_electric_vehicles", "joined_at", "email", "is_onboarded"])
def test_an_unreadable_optional_field_of_a_user_is_none(field: str) -> None:
    """Unreadable optional fields become None, and the user's other fields are kept."""
    rows: list[dict[str, Any]] = [USER_ROW | {field: {"strange": 1}, "role": 5}, USER_ROW]
    for body in (rows, {"total": 2, "items": rows}):
        users = readable(decode_users(json.dumps(body).encode())[1])
        assert [user.id.int for user in users] == [7, 7]
        assert (getattr(users[0], field), users[0].role) == (None, None)
        assert decode_user(json.dumps(rows[0]).encode()) == users[0]
        assert users[0].num_electric_vehicles == (None if field == "num_electric_vehicles" else 2)


def test_an_unreadable_nested_field_of_a_vehicle_is_left_out_alone() -> None:
    """If the year of a device model or the id of an owner is unreadable, the vehicle keeps all its other fields."""
    row = {
        "id": str(uuid.UUID(int=8)),
        "device_model": {"manufacturer": "Maker", "model": "One", "year": "new"},
        "owner": {"id": 5, "external_id": "customer-7"},
        "price_zone": "NO3",
    }
    (vehicle,) = decode_listed_vehicles(json.dumps([row]).encode())
    assert isinstance(vehicle, ElectricVehicle)
    assert vehicle.device_model == DeviceModel(manufacturer="Maker", model="One")
    assert (vehicle.owner, vehicle.price_zone) == (VehicleOwner(external_id="customer-7"), "NO3")


@pytest.mark.parametrize(
    ("row", "path", "reason"),
    [
        ({"id": "x"}, "[1].id", "expected a uuid, got another string"),
        ({}, "[1].id", "a required field is missing"),
        (5, "[1]", "expected an object, got an integer"),
    ],
)
@pytest.mark.parametrize("paged", [False, True])
def test_a_user_without_an_id_is_an_error(row: Any, path: str, reason: str, paged: bool) -> None:
    """A user without a readable id is replaced by its `DecodeError`; if no user has one, the error is raised."""
    body = {"total": 2, "items": [USER_ROW, row]} if paged else [USER_ROW, row]
    _, (user, error) = decode_users(json.dumps(body).encode())
    assert isinstance(user, User)
    assert isinstance(error, DecodeError)
    assert (error.json_path, error.reason) == ("$.items" * paged + "$" * (not paged) + path, reason)
    assert (error.__traceback__, error.__context__) == (None, None), "their frames hold the row"
    with pytest.raises(DecodeError) as caught:
        decode_users(json.dumps({"total": 1, "items": [row]} if paged else [row]).encode())
    assert caught.value.reason == reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "path"),
    [({"total": 0, "items": {}}, "$.items"), ({"total": 0}, "$.items"), ({"items": []}, "$.total")],
)
@pytest.mark.parametrize("note", ["", "x" * (9 << 20)])
def test_a_page_of_users_without_total_or_rows_is_an_error(page: dict[str, Any], path: str, note: str) -> None:
    """A page without a total, or with an object in place of the rows, is refused with its path, also if it is large."""
    with pytest.raises(DecodeError) as caught:
        decode_users(json.dumps(page | {"note": note}).encode())
    assert (caught.value.json_path, caught.value.retryable) == (path, False)


TRICKY = 'x"},\n {"id":"},{'
"""Text that looks like the end of one user and the start of the next."""


def user_rows(count: int, **extra: Any) -> list[dict[str, Any]]:
    return [USER_ROW | {"id": str(uuid.UUID(int=number))} | extra for number in range(count)]


@pytest.mark.parametrize("separator", [",", " ,\n\t", ", "])
@pytest.mark.parametrize("extra", [{}, {"note": TRICKY}, {"homes": [{"a": 1}, {"b": [{}, {}]}]}])
def test_a_list_of_users_is_decoded_in_slices(separator: str, extra: dict[str, Any]) -> None:
    """No user is lost if a list in slices has texts or nested objects that look like the border of two users."""
    body = f" [{separator.join(map(json.dumps, user_rows(50, **extra)))}] ".encode()
    _, users = decode_users(body, slice_bytes=1000)
    assert [user.id.int for user in readable(users)] == list(range(50))


@pytest.mark.parametrize("is_page", [False, True])
@pytest.mark.parametrize(
    "extra",
    [
        {"joined_at": "2026-01-01T00:00:00"},
        {"role": 5, "homes": [{"a": number} for number in range(9)]},
        {"role": 5, "cars": [{"id": 1}] * 2},
        {"cars": [{"id": 1, "note": "x" * 400}] * 250, "note": ""},
    ],
)
def test_a_list_larger_than_the_slow_path_takes_is_read_in_slices(extra: dict[str, Any], is_page: bool) -> None:
    """If each user needs the slow path, or holds many objects like users, 10 MB are read; invalid JSON is refused."""
    rows = user_rows(99, **({"note": TRICKY + "x" * 100_000} | extra))
    body = json.dumps({"total": 7, "items": rows} if is_page else rows)
    total, users = decode_users(body.encode())
    assert total == (7 if is_page else None)
    assert [user.id.int for user in readable(users)] == list(range(99))
    with pytest.raises(DecodeError, match="too large"):
        decode_users(body.replace("}", "", 1).encode())


def test_the_slow_path_reads_at_most_2000_rows() -> None:
    """A page of over 2,000 rows is refused if a row is unreadable, and accepted if all are good."""
    assert len(decode_page(page_body(*[0] * 2000)).rejected) == 2000
    with pytest.raises(DecodeError, match="at most 2000 rows"):
        decode_page(page_body(*[0] * 2001))
    assert len(decode_page(page_body(*[wire_row()] * 2001)).items) == 2001


def test_the_slow_path_parses_one_row_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter lock is never held for a whole page, unless it has a value such as NaN, which msgspec refuses."""
    parsed: list[int] = []

    def parse(body: bytes) -> Any:
        parsed.append(len(body))
        return json.loads(body)

    monkeypatch.setattr("podero_async._decode.responses.decode_json", parse)
    rows = [wire_row(number, curve=[0.125] * 1000) for number in range(50)]
    rows[7]["target_soc_pct"] = "eighty"
    assert len(decode_page(page_body(*rows)).items) == 49
    assert len(parsed) == 50
    rows[7]["target_soc_pct"] = float("nan")
    assert len(decode_page(page_body(*rows)).items) == 49
    assert parsed[50:] == [len(page_body(*rows))]


class RecordingBytes(bytes):
    """Bytes that record the sizes of the slices taken from them."""

    sizes: list[int]

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        self.sizes.append(len(part))
        return part


@pytest.mark.parametrize("separator", [",", " ,\n\t", ", "])
@pytest.mark.parametrize("before", ["", " "])
def test_no_slice_of_a_list_is_long(separator: str, before: str) -> None:
    """A list is decoded in slices of 128 KiB and at most one user more."""
    body = RecordingBytes(f"{before}[{separator.join(map(json.dumps, user_rows(4000)))}]".encode())
    body.sizes = []
    assert len(decode_users(body)[1]) == 4000
    assert len(body.sizes) == len(body) // (128 << 10) + 1
    assert max(body.sizes) < (128 << 10) + 500


@pytest.mark.parametrize("extra", [{}, {"note": TRICKY}])
def test_the_index_of_a_faulty_user_counts_from_the_start_of_the_list(extra: dict[str, Any]) -> None:
    """The error of a user without an id names the index in the whole list, not in its slice."""
    rows = user_rows(50, **extra)
    rows[41]["id"] = None
    error = decode_users(json.dumps(rows).encode(), slice_bytes=1000)[1][41]
    assert isinstance(error, DecodeError)
    assert (error.json_path, error.index) == ("$[41].id", 41)


@pytest.mark.parametrize("cut", [-1, -40, 30_000])
def test_a_truncated_list_of_users_is_retryable(cut: int) -> None:
    """If a list is cut short, the error is retryable, although the slices before the cut are valid."""
    with pytest.raises(DecodeError) as caught:
        decode_users(json.dumps(user_rows(2000)).encode()[:cut])
    assert caught.value.retryable


def test_a_users_naive_times_are_utc() -> None:
    """A naive timestamp of a user is read as UTC, in a list and alone."""
    row = USER_ROW | {"joined_at": "2026-01-01T00:00:00"}
    (user,) = readable(decode_users(json.dumps([row]).encode())[1])
    assert user.joined_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert decode_user(json.dumps(row).encode()).joined_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_vehicles_have_their_device_model_and_owner() -> None:
    """A vehicle has its device model, owner and times; a vehicle without a readable id is an error with its index."""
    row = {
        "id": str(uuid.UUID(int=8)),
        "device_model": {"manufacturer": "Maker", "model": "One", "year": 2024, "image": "x"},
        "owner": {"id": str(uuid.UUID(int=7)), "external_id": "customer-7"},
        "deleted_at": None,
        "created_at": "2026-01-01T00:00:00",
    }
    (vehicle,) = decode_listed_vehicles(json.dumps([row]).encode())
    assert isinstance(vehicle, ElectricVehicle)
    assert vehicle.device_model is not None
    assert vehicle.device_model.year == 2024
    assert vehicle.owner is not None
    assert vehicle.owner.external_id == "customer-7"
    assert vehicle.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    _, error = decode_listed_vehicles(json.dumps([row, {"id": 5}]).encode())
    assert isinstance(error, DecodeError)
    assert (error.json_path, error.index) == ("$[1].id", 1)


@pytest.mark.parametrize(("name", "is_slow"), [("solar_share_pct", False), ("grid_share_pct", True)])
def test_an_unknown_field_is_logged_once(caplog: pytest.LogCaptureFixture, name: str, is_slow: bool) -> None:
    """An unknown field is logged once, within 1,024 pages, or at once on a page that has an unreadable row."""
    pages = [page_body(wire_row(**{name: 5}), *([7] if is_slow else []))] * (2 if is_slow else 1024)
    unknown_fields.logged.clear()
    with caplog.at_level(logging.INFO, "podero_async"):
        for body in pages:
            decode_page(body)
    expected = f"unknown field {name!r} of a session: the API has more fields than this release"
    assert caplog.messages == [expected]
    assert PoderoClient(uuid.uuid4(), StaticToken("t")).statistics().unknown_fields == 1


def test_unreadable_rows_are_identified() -> None:
    """A row without an id has its JSON in place of the id, and an unreadable time is None."""
    bad_id, bad_time = wire_row(2, id=None), wire_row(3, plug_in_time=5)
    rows = read_page(page_body(wire_row(1), bad_id, bad_time, 7, total=4))
    assert (rows.total, rows.ids[0], rows.ids[2:]) == (4, 1, [3, "7"])
    assert json.loads(str(rows.ids[1])) == bad_id
    assert rows.times == [datetime(2026, 1, 1, 0, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 2, tzinfo=UTC), None, None]


def test_a_body_is_kept_only_for_its_rows() -> None:
    """A page keeps its body on request, unless it has an unreadable row, or is much longer than its rows need."""
    row = wire_row(1)
    for body, is_kept in [
        (page_body(row), True),
        (page_body(), True),
        (page_body(row, wire_row(2, is_at_home=5)), False),
        (page_body(row | {"note": "x" * 5000}), False),
    ]:
        kept = read_page(body, keep=Keep.BODY).body
        assert (kept is not None and kept.data) == (is_kept and body)
        assert read_page(body).body is None


def test_the_collector_scans_only_the_ids_of_a_page_that_waits() -> None:
    """Of the rows of a page that was read for later, the garbage collector knows only the uuids, and not the records."""
    body = page_body(*map(wire_row, range(1, 101)))
    gc.collect()
    before = len(gc.get_objects())
    page = read_page(body)
    assert len(gc.get_objects()) - before < 110
    sessions = page.sessions()
    assert len(gc.get_objects()) - before >= 2 * len(sessions) == 200


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": "forbidden"}', "forbidden"),
        (b'{"error": "forbidden", "error_description": "not yours"}', "not yours"),
        (b'{"detail": [{"loc": ["query", "limit"], "msg": "too large", "input": "hush"}]}', "query.limit: too large"),
        (b'{"detail": ["odd", 5, null]}', "odd; no explanation; no explanation"),
        (b'{"detail": [{"loc": "s3cret", "msg": "no"}, {"msg": {"input": "s3cret"}}]}', ": no; : no explanation"),
        (b" \n<html>Bad gateway</html>", "no explanation, but an HTML or XML page"),
        (b"[]", "no explanation"),
        (b'{"error": 5}', "no explanation"),
        (b'{"detail": "user-1@example.com is gone, said s3cret"}', "*** is gone, said ***"),
        (b'{"detail": "user=a%40example.com is gone"}', "*** is gone"),
        (b'{"detail": "two\\nlines"}', "two lines"),
        (json.dumps({"detail": "x" * 5000}).encode(), "x" * 300),
    ],
)
def test_an_error_message_is_safe_to_log(body: bytes, message: str) -> None:
    """The message of an error body is one short line without secrets, addresses and the request's input."""
    assert describe_error(body, ["s3cret"]) == message


@pytest.mark.parametrize("written", ['s3/cr +"t', "s3%2Fcr%20%2B%22t", "s3%2fcr%20%2b%22t", "s3/cr +&quot;t"])
def test_a_secret_is_masked_in_plain_url_and_html_form(written: str) -> None:
    """A secret is masked if the server repeats it unchanged, URL-encoded or HTML-escaped."""
    assert describe_error(json.dumps({"detail": f"no: <{written}>"}).encode(), ['s3/cr +"t']) == "no: <***>"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": "invalid_client", "error_description": "not s3cret"}', "invalid_client"),
        (b'{"error": "not s3cret"}', None),
        (b'{"error": "%s"}' % (b"a" * 41), None),
        (b'{"error": ["invalid_client"]}', None),
        (b'{"detail": "invalid_client"}', None),
        (b"[]", None),
        (b"<html>", None),
    ],
)
def test_a_refused_token_request_gives_only_a_plain_error_code(body: bytes, code: str | None) -> None:
    """The error code is up to 40 lowercase letters and underscores; any other text is ignored."""
    assert oauth_error_code(body) == code


# --- arbitrary changes ------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(sorted(wire_row())) | st.text(), inner, max_size=6)
    ),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(wire_row())), _json, max_size=3))
def test_any_change_of_a_row_leaves_its_neighbours(changes: dict[str, Any]) -> None:
    """If any fields of a row change in any way, the rows beside it are kept."""
    page = decode_page(page_body(wire_row(1), wire_row(2, **changes), wire_row(3)))
    assert {1, 3} <= {row.id.int for row in page.items}
    assert len(page.items) + len(page.rejected) == 3
    assert all(row.plug_in_time.tzinfo is not None for row in page.items)


@pytest.mark.parametrize(
    ("secret", "detail"),
    [
        ("abc/de+f==", "bad token abc/de%2Bf%3D%3D"),
        ("O'Brien", "no user O&#39;Brien"),
        ("J\u00fcrgen", r"no user b'J\xfcrgen'"),
        ("O'Brien", "no user O&#x27;Brien"),
        ("Jane Doe", "no user Jane+Doe"),
        ("fleet/Jane Doe", "no user fleet/Jane%20Doe"),
        ("Jürgen Müller", "no user J%C3%BCrgen+M%C3%BCller"),
        ("Jürgen", r"no user J\u00fcrgen"),
        ("Jürgen", "no user J&uuml;RGEN"),
    ],
)
def test_a_message_that_repeats_a_secret_in_another_form_is_not_reported(secret: str, detail: str) -> None:
    """If a server's message holds a secret escaped as in URLs, JSON or HTML, the message is left out."""
    assert describe_error(json.dumps({"detail": detail}).encode(), [secret]).startswith(
        ("no explanation", "no user ***")
    )
    assert describe_error(json.dumps({"detail": detail}).encode(), ["another"]) == detail


@pytest.mark.parametrize(
    ("secret", "detail", "message"),
    [("o", "Not Found", "Not Found"), (" ", "Not Found", "Not Found"), ("o", "no user 'o'", "no user '***'")],
)
def test_a_short_secret_is_masked_as_a_word(secret: str, detail: str, message: str) -> None:
    """A secret of a few letters is masked if it is a word of its own, and leaves other words as they are."""
    assert describe_error(json.dumps({"detail": detail}).encode(), [secret]) == message


class _DriverUuid(uuid.UUID):
    """As the driver of a database returns it."""


@given(st.uuids())
def test_the_text_of_a_uuid_is_that_of_str(value: uuid.UUID) -> None:
    """A UUID is written as `str` writes it, even if it is of a class that inherits from `UUID`."""
    assert uuid_text(value) == uuid_text(_DriverUuid(int=value.int)) == str(value)

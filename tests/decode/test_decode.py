"""Bytes to values: the fast path refuses what is wrong, the slow path says why and keeps what is right."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podero_async import ChargingSession, DecodeError, HiddenReason, SessionOutcome
from podero_async._decode import (
    decode_current_session,
    decode_page,
    decode_user,
    decode_users,
    decode_vehicles,
    describe_error,
    outline_page,
    stated_total,
)
from podero_async._decode import plain_json as _plain
from podero_async._decode import responses as _answers
from podero_async._decode import users as _users
from tests._support.clients import page_body, wire_row


def test_a_page_becomes_typed_rows() -> None:
    """A caller would compute with text."""
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


def test_left_out_fields_take_the_contracts_defaults() -> None:
    """A server that leaves out what has a default would be refused."""
    session = decode_page(page_body(wire_row())).items[0]
    assert (session.is_hidden, session.hidden_reason) == (False, None)
    assert (session.target_reachable, session.reachable_soc_pct) == (None, None)


def test_unknown_fields_and_outcomes_are_no_error() -> None:
    """The server's next release would break every client."""
    body = page_body(wire_row(battery={"cells": [1, 2]}, session_outcome="solar_only"))
    page = decode_page(body)
    assert page.items[0].session_outcome.value == "solar_only"
    assert page.rejected == []


@pytest.mark.parametrize(
    ("decode", "answer"),
    [
        (decode_page, {"total": 2, "items": [wire_row(1), wire_row(2, session_outcome="new")]}),
        (decode_current_session, {"session": wire_row(1)}),
        (decode_vehicles, [{"id": str(uuid.UUID(int=8)), "device_model": {"year": 2024}}]),
        (decode_users, [{"id": str(uuid.UUID(int=7))}]),
        (decode_user, {"id": str(uuid.UUID(int=7))}),
    ],
)
def test_the_fast_path_takes_a_good_answer(
    decode: Callable[[bytes], object], answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything would be decoded at an eighth of the speed, and nobody would notice."""
    for room in (_answers, _users):
        monkeypatch.setattr(room, "decode_json", None)
    assert decode(json.dumps(answer).encode())


def test_both_paths_keep_the_moment_of_a_timestamp() -> None:
    """One bad field would move the other times of its row by the server's offset."""
    times = {"plug_in_time": "2026-01-05T18:00:00+02:00", "unplug_time": "2026-01-05T20:00:00"}
    (session,) = decode_page(page_body(wire_row(**times))).items
    assert session.plug_in_time == datetime(2026, 1, 5, 16, tzinfo=UTC)
    assert session.unplug_time == datetime(2026, 1, 5, 20, tzinfo=UTC)


@pytest.mark.parametrize("field", ["plug_in_time", "unplug_time", "charge_deadline"])
def test_a_naive_timestamp_is_utc(field: str) -> None:
    """A naive time among aware ones would raise when they are compared."""
    page = decode_page(page_body(wire_row(**{field: "2026-01-05T18:03:11"})))
    assert getattr(page.items[0], field) == datetime(2026, 1, 5, 18, 3, 11, tzinfo=UTC)


def test_the_models_annotations_stay_plain() -> None:
    """What tools show of a model would speak of the decoder."""
    assert ChargingSession.__annotations__["plug_in_time"] == "datetime"


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"id": "nobody"}, "$.id", "expected a uuid, got another text"),
    ({"id": 5}, "$.id", "expected a uuid, got an integer"),
    ({"plug_in_time": None}, "$.plug_in_time", "expected a timestamp, got null"),
    ({"plug_in_time": "yesterday"}, "$.plug_in_time", "expected a timestamp, got another text"),
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
    """One bad row would sink its page, or vanish without a word."""
    bad = wire_row(2, **fields)
    page = decode_page(page_body(wire_row(1), bad, wire_row(3)), first_index=400)
    assert [row.id.int for row in page.items] == [1, 3]
    (rejected,) = page.rejected
    assert (rejected.index, rejected.path, rejected.reason) == (401, path, reason)
    assert rejected.raw == bad


def test_a_missing_field_is_named() -> None:
    """The vendor could not be told what is missing."""
    row = wire_row()
    del row["is_at_home"]
    (rejected,) = decode_page(page_body(row)).rejected
    assert (rejected.path, rejected.reason) == ("$.is_at_home", "a required field is missing")


@pytest.mark.parametrize("row", [None, 5, [], "text"])
def test_a_row_that_is_no_object_is_kept(row: Any) -> None:
    """A null among the rows would sink the page."""
    page = decode_page(page_body(row, wire_row()))
    assert (len(page.items), page.rejected[0].path) == (1, "$")


@pytest.mark.parametrize("number", [b"1e999", b"NaN", b"-Infinity"])
def test_a_number_that_is_none_spoils_its_row_only(number: bytes) -> None:
    """A number past any float, or a NaN of a Python server, would sink the page."""
    body = page_body(wire_row(1), wire_row(2)).replace(b"12.25", number, 1)
    page = decode_page(body)
    assert [row.id.int for row in page.items] == [2]
    assert page.rejected[0].reason == "expected a number, got one out of range"


def test_a_whole_number_may_be_written_as_a_float() -> None:
    """80.0 can only mean 80."""
    assert decode_page(page_body(wire_row(reachable_soc_pct=80.0))).items[0].reachable_soc_pct == 80


@pytest.mark.parametrize(
    "decode", [decode_page, outline_page, decode_users, decode_vehicles, decode_user, decode_current_session]
)
@pytest.mark.parametrize("body", [b"", b'{"total": 1, "ite', b"<html>502</html>", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_may_be_tried_again(decode: Callable[[bytes], object], body: bytes) -> None:
    """A proxy's error page with status 200 would end a run that a second try would have saved."""
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert caught.value.retryable


def test_what_was_found_instead_of_a_page_is_named() -> None:
    """The vendor could not be told what is wrong."""
    with pytest.raises(DecodeError, match="expected an object, got an array"):
        decode_page(b"[]")


@pytest.mark.parametrize("decode", [decode_page, outline_page])
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
def test_what_is_no_page_is_an_error_at_once(decode: Callable[[bytes], object], body: bytes, path: str) -> None:
    """The same answer would be asked for again and again."""
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert (caught.value.json_path, caught.value.retryable) == (path, False)


def test_a_decode_error_holds_no_row() -> None:
    """A traceback with locals, or a pickled error, would carry personal data."""
    with pytest.raises(DecodeError) as caught:
        decode_user(json.dumps({"id": "x", "email": "user-1@example.com"}).encode())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "example.com" not in repr(vars(caught.value))


# --- the other answers ------------------------------------------------------------------------------------------------


def test_the_current_session_may_be_none() -> None:
    """A vehicle that is not plugged in would be an error."""
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


def test_users_come_bare_or_in_pages() -> None:
    """The vendor does not show which: either must do."""
    assert decode_users(json.dumps([USER_ROW]).encode())[0] == 1
    total, users = decode_users(json.dumps({"total": 7, "items": [USER_ROW]}).encode())
    assert (total, users[0].id.int, users[0].num_electric_vehicles) == (7, 7, 2)
    assert decode_user(json.dumps(USER_ROW).encode()) == users[0]


@pytest.mark.parametrize("field", ["num_electric_vehicles", "joined_at", "email", "is_onboarded"])
def test_a_user_can_do_without_what_cannot_be_read(field: str) -> None:
    """One strange field of one user would cost the whole fleet."""
    rows: list[dict[str, Any]] = [USER_ROW | {field: {"strange": 1}, "role": 5}, USER_ROW]
    for body in (rows, {"total": 2, "items": rows}):
        _, users = decode_users(json.dumps(body).encode())
        assert [user.id.int for user in users] == [7, 7]
        assert (getattr(users[0], field), users[0].role) == (None, None)
        assert users[0].num_electric_vehicles == (None if field == "num_electric_vehicles" else 2)


def test_a_vehicle_can_do_without_a_part_of_which_a_part_cannot_be_read() -> None:
    """One strange model year would cost all vehicles of its user."""
    row = {"id": str(uuid.UUID(int=8)), "device_model": {"model": "One", "year": "new"}, "price_zone": "NO3"}
    (vehicle,) = decode_vehicles(json.dumps([row]).encode())
    assert (vehicle.device_model, vehicle.price_zone) == (None, "NO3")


@pytest.mark.parametrize(
    ("row", "path", "reason"),
    [
        ({"id": "x"}, "[1].id", "expected a uuid, got another text"),
        ({}, "[1].id", "a required field is missing"),
        (5, "[1]", "expected an object, got an integer"),
    ],
)
@pytest.mark.parametrize("paged", [False, True])
def test_a_user_that_cannot_be_named_is_an_error(row: Any, path: str, reason: str, paged: bool) -> None:
    """Its vehicles would be left out without a word."""
    body = {"total": 2, "items": [USER_ROW, row]} if paged else [USER_ROW, row]
    with pytest.raises(DecodeError) as caught:
        decode_users(json.dumps(body).encode())
    assert (caught.value.json_path, caught.value.reason) == ("$.items" * paged + "$" * (not paged) + path, reason)


def test_a_page_of_users_without_rows_is_an_error() -> None:
    """An answer of another shape would be taken for an organization without users."""
    with pytest.raises(DecodeError) as caught:
        decode_users(b'{"total": 0, "items": {}}')
    assert caught.value.json_path == "$.items"


TRICKY = 'x"},\n {"id":"},{'


@pytest.mark.parametrize("separator", [",", " ,\n\t", ", "])
@pytest.mark.parametrize("extra", [{}, {"note": TRICKY}, {"homes": [{"a": 1}, {"b": [{}, {}]}]}])
def test_a_large_list_of_users_is_decoded_in_slices(
    separator: str, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice that is cut in the middle of a text or of an object would lose users, or the list."""
    monkeypatch.setattr(_users, "_SLICE_BYTES", 1000)
    rows = [USER_ROW | {"id": str(uuid.UUID(int=number))} | extra for number in range(50)]
    body = f" [{separator.join(map(json.dumps, rows))}] ".encode()
    total, users = decode_users(body)
    assert total == 50
    assert [user.id.int for user in users] == list(range(50))


@pytest.mark.parametrize(
    "extra", [{"note": TRICKY}, {"homes": [{"a": number} for number in range(9)]}, {"cars": [{"id": 1}, {"id": 2}]}]
)
def test_a_large_list_is_never_read_as_plain_values(extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Users with a list of their own would take 25 times the list's room, and hold up the event loop as they do."""
    monkeypatch.setattr(_users, "_SLICE_BYTES", 1000)
    monkeypatch.setattr(_plain, "_MAX_PLAIN_BYTES", 5000)
    rows = [
        USER_ROW | {"id": str(uuid.UUID(int=number)), "joined_at": "2026-01-01T00:00:00"} | extra
        for number in range(99)
    ]
    assert [user.id.int for user in decode_users(json.dumps(rows).encode())[1]] == list(range(99))
    with pytest.raises(DecodeError, match="too large"):
        decode_users(json.dumps(rows).replace("}", "", 1).encode())


def test_a_large_page_of_users_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers in pages, and with all users at once, could not be read."""
    monkeypatch.setattr(_plain, "_MAX_PLAIN_BYTES", 5000)
    rows = [USER_ROW | {"id": str(uuid.UUID(int=number))} for number in range(99)]
    total, users = decode_users(json.dumps({"total": 100, "items": rows}).encode())
    assert (total, len(users)) == (100, 99)


def test_a_page_with_more_rows_than_any_has_is_not_explained() -> None:
    """A body of the wrong kind would be looked at for minutes, row by row."""
    assert len(decode_page(page_body(*[0] * 2000)).rejected) == 2000
    with pytest.raises(DecodeError, match="at most 2000 rows"):
        decode_page(page_body(*[0] * 2001))
    assert len(decode_page(page_body(*[wire_row()] * 2001)).items) == 2001


@pytest.mark.parametrize("separator", [",", " ,\n\t", ", "])
@pytest.mark.parametrize("before", ["", " "])
def test_no_slice_of_a_large_list_is_long(separator: str, before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend's loop would stand still while the users of a large organization are decoded."""
    slices = []

    def decode_array(array: bytes, first_index: int) -> list[Any]:
        slices.append(array)
        return json.loads(array)  # type: ignore[no-any-return]

    monkeypatch.setattr(_users, "_decode_array", decode_array)
    rows = [json.dumps(USER_ROW | {"id": str(uuid.UUID(int=number))}) for number in range(4000)]
    body = f"{before}[{separator.join(rows)}]".encode()
    assert decode_users(body)[0] == 4000
    assert len(slices) == len(body) // (128 << 10) + 1
    assert max(map(len, slices)) < (128 << 10) + 500


@pytest.mark.parametrize("extra", [{}, {"note": TRICKY}])
def test_a_user_without_an_id_is_named_by_its_place_in_the_whole_list(
    extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from its slice, the place would name another user."""
    monkeypatch.setattr(_users, "_SLICE_BYTES", 1000)
    rows: list[dict[str, Any]] = [USER_ROW | {"id": str(uuid.UUID(int=number))} | extra for number in range(50)]
    rows[41]["id"] = None
    with pytest.raises(DecodeError) as caught:
        decode_users(json.dumps(rows).encode())
    assert (caught.value.json_path, caught.value.index) == ("$[41].id", 41)


@pytest.mark.parametrize("cut", [-1, -40, 30_000])
def test_a_large_list_of_users_that_was_cut_short_is_asked_for_again(cut: int) -> None:
    """The users of the slices before the cut would be taken for all."""
    rows = [USER_ROW | {"id": str(uuid.UUID(int=number))} for number in range(2000)]
    with pytest.raises(DecodeError) as caught:
        decode_users(json.dumps(rows).encode()[:cut])
    assert caught.value.retryable


def test_a_users_naive_times_are_utc() -> None:
    """One naive timestamp would refuse the whole list."""
    row = USER_ROW | {"joined_at": "2026-01-01T00:00:00"}
    assert decode_users(json.dumps([row]).encode())[1][0].joined_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert decode_user(json.dumps(row).encode()).joined_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_vehicles_decode_with_what_surrounds_them() -> None:
    """Nobody could tell one vehicle from another."""
    row = {
        "id": str(uuid.UUID(int=8)),
        "device_model": {"manufacturer": "Maker", "model": "One", "year": 2024, "image": "x"},
        "owner": {"id": str(uuid.UUID(int=7)), "external_id": "customer-7"},
        "deleted_at": None,
        "created_at": "2026-01-01T00:00:00",
    }
    (vehicle,) = decode_vehicles(json.dumps([row]).encode())
    assert vehicle.device_model is not None
    assert vehicle.device_model.year == 2024
    assert vehicle.owner is not None
    assert vehicle.owner.external_id == "customer-7"
    assert vehicle.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(DecodeError) as caught:
        decode_vehicles(json.dumps([row, {"id": 5}]).encode())
    assert (caught.value.json_path, caught.value.index) == ("$[1].id", 1)


@pytest.mark.parametrize(
    ("body", "total"),
    [
        (b'{"total": 900, "items": [' + b" " * 999 + b"]}", 900),
        (b'{"total":900,"items":[' + b" " * 999 + b"]}", 900),
        (b'{"items": [' + b" " * 999 + b'], "total" : 7}', 7),
        (b'{"total": 3}', 3),
        (b'{"items": [], "of": {' + b" " * 99 + b'"total": 3' + b" " * 99 + b"}}", 0),
        (b'{"total": -1, "items": []}', 0),
        (b'{"totals": 5, "items": []}', 0),
        (b"", 0),
    ],
)
def test_a_total_is_read_off_either_end_of_a_page(body: bytes, total: int) -> None:
    """Long lists would be decoded page by page as they come, and be walked over until they are whole."""
    assert stated_total(body) == total


def test_an_outline_names_rows_that_cannot_be_read() -> None:
    """A row without an id could neither be told from others nor counted."""
    bad_id, bad_time = wire_row(2, id=None), wire_row(3, plug_in_time=5)
    outline = outline_page(page_body(wire_row(1), bad_id, bad_time, 7, total=4))
    assert (outline.total, outline.ids[0]) == (4, str(uuid.UUID(int=1)))
    assert json.loads(outline.ids[1]) == bad_id
    assert outline.ids[3] == "7"
    assert outline.times == [datetime(2026, 1, 1, 0, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 2, tzinfo=UTC), None, None]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b'{"detail": "Not Found"}', None, "Not Found"),
        (b'{"error": "invalid_client"}', "invalid_client", "invalid_client"),
        (b'{"error": "invalid_grant", "error_description": "wrong"}', "invalid_grant", "wrong"),
        (
            b'{"detail": [{"loc": ["query", "limit"], "msg": "too large", "input": "hush"}]}',
            None,
            "query.limit: too large",
        ),
        (b'{"detail": ["odd", 5, null]}', None, "odd; no explanation; no explanation"),
        (b'{"detail": [{"loc": "s3cret", "msg": "no"}, {"msg": {"input": "s3cret"}}]}', None, ": no; : no explanation"),
        (b"<html>Bad gateway</html>", None, "no explanation"),
        (b"[]", None, "no explanation"),
        (b'{"error": 5}', None, "no explanation"),
        (b'{"detail": "user-1@example.com is gone, said s3cret"}', None, "*** is gone, said ***"),
        (b'{"detail": "two\\nlines"}', None, "two lines"),
    ],
)
def test_an_errors_words_are_safe_to_log(body: bytes, code: str | None, words: str) -> None:
    """A server that echoes its input would put secrets and addresses into logs."""
    assert describe_error(body, ["s3cret"]) == (code, words)


@pytest.mark.parametrize("written", ['s3/cr +"t', "s3%2Fcr%20%2B%22t", "s3%2fcr+%2b%22t", 's3/cr +\\"t'])
def test_a_secret_is_masked_however_the_request_wrote_it(written: str) -> None:
    """A server that repeats a form, a URL or a JSON object would put the secret of it into logs."""
    body = json.dumps({"detail": f"no: client_secret={written}&user=a%40example.com"}).encode()
    assert describe_error(body, ['s3/cr +"t'])[1] == "no: ***"
    body = json.dumps({"detail": f"no: <{written}>"}).encode()
    assert describe_error(body, ['s3/cr +"t'])[1] == "no: <***>"


@pytest.mark.parametrize(
    "written",
    [
        "s/ö &\"t'",
        "s/%C3%B6%20%26%22t%27",
        "s/\\u00f6 &\\\"t'",
        "s/ö &\\\"t'",
        "s/ö &amp;&quot;t&#x27;",
        "s/ö &amp;&#34;t&#39;",
    ],
)
def test_a_secret_is_masked_however_a_server_writes_it(written: str) -> None:
    """A page that names the path that was not found, or what was sent, would put the secret of it into logs."""
    assert describe_error(json.dumps({"detail": f"no: <{written}>"}).encode(), ["s/ö &\"t'"])[1] == "no: <***>"


def test_an_errors_words_are_bounded() -> None:
    """A verbose server would fill the log."""
    assert len(describe_error(json.dumps({"detail": "x" * 5000}).encode())[1]) == 300


# --- anything at all --------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(sorted(wire_row())) | st.text(), inner, max_size=6)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=400)
    | _json.map(lambda value: json.dumps(value).encode())
    | st.builds(lambda items, total: json.dumps({"total": total, "items": items}).encode(), _json, _json)
)
@pytest.mark.parametrize(
    "decode", [decode_page, outline_page, decode_users, decode_vehicles, decode_user, decode_current_session]
)
def test_anything_decodes_or_is_a_decode_error(decode: Callable[[bytes], object], body: bytes) -> None:
    """A hostile or broken server could crash the caller."""
    try:
        decode(body)
    except DecodeError as error:
        assert error.json_path.startswith("$")


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(wire_row())), _json, max_size=3))
def test_any_change_of_a_row_leaves_its_neighbours(changes: dict[str, Any]) -> None:
    """A strange row could take good ones with it."""
    page = decode_page(page_body(wire_row(1), wire_row(2, **changes), wire_row(3)))
    assert {1, 3} <= {row.id.int for row in page.items}
    assert len(page.items) + len(page.rejected) == 3
    assert all(row.plug_in_time.tzinfo is not None for row in page.items)

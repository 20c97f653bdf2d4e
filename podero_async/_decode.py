"""From bytes to values, in two tiers: msgspec decodes whole answers; what it refuses is explained row by row by cattrs.

Knows nothing of HTTP, and is the only room that knows msgspec and cattrs.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import attrs
import cattrs
import msgspec

from podero_async.errors import DecodeError
from podero_async.models import (
    ChargingSession,
    ElectricVehicle,
    HiddenReason,
    RejectedItem,
    SessionOutcome,
    SessionsPage,
    User,
)

__all__ = [
    "PageOutline",
    "decode_current_session",
    "decode_json",
    "decode_page",
    "decode_user",
    "decode_users",
    "decode_vehicles",
    "encode_json",
    "explain_error",
    "outline_page",
]

T = TypeVar("T")
# How msgspec refuses a body; bytes that are no UTF-8 it leaves to Python's own error.
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


def _with_aware_times(decoded: type, *models: type[attrs.AttrsInstance]) -> msgspec.json.Decoder[Any]:
    """Build a decoder for `decoded` that refuses naive timestamps in `models`.

    The models must not know msgspec, and msgspec reads a class's annotations once, when its first decoder is built.
    So the requirement stands in them only for that moment.
    """
    plain = [dict(model.__annotations__) for model in models]
    try:
        for model in models:
            hints = get_type_hints(model)
            model.__annotations__ = {name: _aware(hints[name]) for name in hints}
        return msgspec.json.Decoder(decoded)
    finally:
        for model, annotations in zip(models, plain, strict=True):
            model.__annotations__ = annotations


def _aware(hint: Any) -> Any:
    if hint is datetime:
        return _Aware
    return _Aware | None if datetime in get_args(hint) else hint


class _PageWire(msgspec.Struct, gc=False):
    total: int
    items: list[ChargingSession]


class _CurrentWire(msgspec.Struct):
    session: ChargingSession | None


class _RowOutline(msgspec.Struct, gc=False):
    id: str
    plug_in_time: _Aware


class _PageOutlineWire(msgspec.Struct, gc=False):
    total: int
    items: list[_RowOutline]


_page = _with_aware_times(_PageWire, ChargingSession)
_current = msgspec.json.Decoder(_CurrentWire)
_outline = msgspec.json.Decoder(_PageOutlineWire)
_vehicles = _with_aware_times(list[ElectricVehicle], ElectricVehicle)
_users = _with_aware_times(list[User], User)
_user = msgspec.json.Decoder(User)


# --- whole answers ----------------------------------------------------------------------------------------------------


def decode_page(body: bytes, *, first_index: int = 0) -> SessionsPage:
    """Decode one page of charging sessions; rows that cannot be read are on its `rejected`.

    Args:
        body: The answer, inflated.
        first_index: The offset of the page, which the indexes of rejected rows count from.

    Raises:
        DecodeError: The body is no JSON (`retryable`), or no page.
    """
    try:
        page = _page.decode(body)
    except _REFUSED:
        return _page_row_by_row(body, first_index)
    return SessionsPage(total=page.total, items=page.items)


def decode_current_session(body: bytes) -> ChargingSession | None:
    """Decode the answer of `.../sessions/current`; None when no session is active."""
    try:
        return _current.decode(body).session
    except _REFUSED:
        answer = _expect(decode_json(body), dict, "$")
        row = _field(answer, "session")
        return None if row is None else _structured(row, ChargingSession, "$.session")


def decode_vehicles(body: bytes) -> list[ElectricVehicle]:
    """Decode a user's vehicles."""
    try:
        return _vehicles.decode(body)  # type: ignore[no-any-return]
    except _REFUSED:
        return _structured_list(_expect(decode_json(body), list, "$"), ElectricVehicle, "$")


def decode_users(body: bytes) -> tuple[int, list[User]]:
    """Decode users, as a bare array or as a page, and how many there are in all."""
    try:
        users = _users.decode(body)
        return len(users), users
    except _REFUSED:
        answer = decode_json(body)
    if isinstance(answer, dict):
        items = _expect(_field(answer, "items"), list, "$.items")
        return _total(answer), _structured_list(items, User, "$.items")
    items = _expect(answer, list, "$")
    return len(items), _structured_list(items, User, "$")


def decode_user(body: bytes) -> User:
    """Decode one user."""
    try:
        return _user.decode(body)
    except _REFUSED:
        return _structured(decode_json(body), User, "$")


def decode_json(body: bytes) -> Any:
    """Decode any JSON, and the NaN and Infinity that Python's servers take for JSON: a row's fault, not the page's.

    A body that is none may be the fault of the way here, so its error is `retryable`.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        # The parser names a place and a character at most, never the text.
        raise DecodeError(f"the body is no JSON: {error}", retryable=True) from None


def encode_json(value: Any) -> bytes:
    """Encode plain values as JSON."""
    return msgspec.json.encode(value)


def explain_error(body: bytes, secrets: Iterable[str] = ()) -> tuple[str | None, str]:
    """Read an error's body: OAuth 2's error code, where there is one, and the server's words, made safe to log.

    Of a validation error only where and what is kept: its `input` would be the request's body, secrets included.
    """
    try:
        answer = decode_json(body)
    except DecodeError:
        return None, "no explanation"
    fields = answer if isinstance(answer, dict) else {}
    code = fields.get("error") if isinstance(fields.get("error"), str) else None
    words = fields.get("detail") or fields.get("error_description") or code
    if isinstance(words, list):
        words = "; ".join(_explain_fault(fault) for fault in words)
    # Anything but words might be the request's own body, come back.
    return code, _safe(words, secrets) if isinstance(words, str) else "no explanation"


def _explain_fault(fault: Any) -> str:
    if not isinstance(fault, dict):
        return fault if isinstance(fault, str) else "no explanation"
    where, words = fault.get("loc"), fault.get("msg")
    path = ".".join(str(part) for part in where) if isinstance(where, list) else ""
    return f"{path}: {words if isinstance(words, str) else 'no explanation'}"


def _safe(words: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        words = words.replace(secret, "***")
    words = _EMAIL.sub("***", words[: 2 * _MOST_WORDS])[:_MOST_WORDS]  # cut last: half an address is one, too
    return "".join(char if char.isprintable() else " " for char in words)


_MOST_WORDS = 300
_EMAIL = re.compile(r"[^\s@\"'<>]+@[^\s@\"'<>]+")


# --- outlines: what the pager needs to know of a page that is kept as bytes -------------------------------------------


@attrs.frozen
class PageOutline:
    """Which rows a page holds, and since when they were plugged in; nothing else of them.

    A row without a readable id or time stands with its own text as id, or with None as time.
    """

    total: int
    ids: list[str]
    times: list[datetime | None]


def outline_page(body: bytes) -> PageOutline:
    """Read the outline of a page, at a third of the cost of its rows.

    Raises:
        DecodeError: The body is no JSON (`retryable`), or no page.
    """
    try:
        page = _outline.decode(body)
        return PageOutline(page.total, [row.id for row in page.items], [row.plug_in_time for row in page.items])
    except _REFUSED:
        answer = _expect(decode_json(body), dict, "$")
    rows = [_outline_of(row) for row in _expect(_field(answer, "items"), list, "$.items")]
    return PageOutline(_total(answer), [row[0] for row in rows], [row[1] for row in rows])


def _outline_of(row: Any) -> tuple[str, datetime | None]:
    fields = row if isinstance(row, dict) else {}
    row_id, plugged_in = fields.get("id"), fields.get("plug_in_time")
    if not isinstance(row_id, str):
        row_id = json.dumps(row)
    try:
        return row_id, _to_datetime(plugged_in, datetime)
    except ValueError:
        return row_id, None


# --- the slow path: says what is wrong, and reads what can be read ----------------------------------------------------


def _page_row_by_row(body: bytes, first_index: int) -> SessionsPage:
    answer = _expect(decode_json(body), dict, "$")
    items, rejected = [], []
    for index, row in enumerate(_expect(_field(answer, "items"), list, "$.items")):
        try:
            items.append(_structured(row, ChargingSession, "$"))
        except DecodeError as error:
            rejected.append(
                RejectedItem(index=first_index + index, path=error.json_path, reason=error.reason, raw=row),
            )
    return SessionsPage(total=_total(answer), items=items, rejected=rejected)


def _structured_list(rows: list[Any], model: type[T], path: str) -> list[T]:
    return [_structured_essentials(row, model, f"{path}[{index}]", index) for index, row in enumerate(rows)]


def _structured_essentials(row: Any, model: type[T], path: str, index: int) -> T:
    """Leave out what a row can do without and cannot be read: no field of one user may cost the whole fleet."""
    while True:
        try:
            return _structured(row, model, path, index)
        except DecodeError as error:
            name = error.json_path.removeprefix(f"{path}.").partition(".")[0]
            if not isinstance(row, dict) or name not in row or name == "id":
                raise
            row = {field: value for field, value in row.items() if field != name}


def _structured(row: Any, model: type[T], path: str, index: int | None = None) -> T:
    try:
        return _converter.structure(_expect(row, dict, path), model)
    except cattrs.BaseValidationError as errors:
        where, reason = _first_fault(errors)
        raise DecodeError(reason, path + where, index) from None  # the cause would carry the row into a traceback


def _first_fault(errors: BaseException, where: str = "") -> tuple[str, str]:
    """Find the first fault of an exception tree, as a JSON path and words that hold no value of the row."""
    if isinstance(errors, cattrs.BaseValidationError):
        error = errors.exceptions[0]
        notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, cattrs.AttributeValidationNote)]
        return _first_fault(error, where + "".join(f".{note.name}" for note in notes))
    if isinstance(errors, KeyError):
        return where, "a required field is missing"
    return where, str(errors)


def _expect(value: Any, kind: type[T], path: str) -> T:
    if isinstance(value, kind):
        return value
    raise DecodeError(f"expected {_JSON_NAMES[kind]}, got {_json_name(value)}", path)


def _field(answer: Mapping[str, Any], name: str) -> Any:
    if name not in answer:
        raise DecodeError("a required field is missing", f"$.{name}")
    return answer[name]


def _total(answer: Mapping[str, Any]) -> int:
    total = _field(answer, "total")
    if isinstance(total, bool):
        raise DecodeError("expected an integer, got a boolean", "$.total")
    return _expect(total, int, "$.total")


_JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), "something else")


def _refuse(expected: str, value: Any) -> ValueError:
    return ValueError(f"expected {expected}, got {_json_name(value)}")


# Converters of single values: strict about kinds (cattrs alone would make "None" of None and True of "false"), and
# lenient only where no reading could be wrong: a naive timestamp is UTC, 80.0 is the integer 80.


def _to_datetime(value: Any, _: Any) -> datetime:
    if not isinstance(value, str):
        raise _refuse("a timestamp", value)
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("expected a timestamp, got another text") from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def _to_uuid(value: Any, _: Any) -> uuid.UUID:
    if not isinstance(value, str):
        raise _refuse("a uuid", value)
    try:
        return uuid.UUID(value)
    except ValueError:
        raise ValueError("expected a uuid, got another text") from None


def _to_float(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse("a number", value)
    try:
        read = float(value)
    except OverflowError:
        read = math.inf
    if not math.isfinite(read):
        raise ValueError("expected a number, got one out of range")
    return read


def _to_int(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse("an integer", value)
    if isinstance(value, float) and not value.is_integer():
        raise _refuse("an integer", value)
    return int(value)


def _exactly(kind: type[T]) -> Callable[[Any, Any], T]:
    def check(value: Any, _: Any) -> T:
        if isinstance(value, kind):
            return value
        raise _refuse(_JSON_NAMES[kind], value)

    return check


def _to_outcome(value: Any, _: Any) -> SessionOutcome:
    return SessionOutcome(_exactly(str)(value, str))


def _to_hidden_reason(value: Any, _: Any) -> HiddenReason:
    return HiddenReason(_exactly(str)(value, str))


def _build_converter(hooks: Iterable[tuple[Any, Callable[[Any, Any], Any]]]) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for kind, hook in hooks:
        converter.register_structure_hook(kind, hook)
    return converter


_converter = _build_converter(
    (
        (datetime, _to_datetime),
        (uuid.UUID, _to_uuid),
        (float, _to_float),
        (int, _to_int),
        (str, _exactly(str)),
        (bool, _exactly(bool)),
        (SessionOutcome, _to_outcome),
        (HiddenReason, _to_hidden_reason),
    ),
)

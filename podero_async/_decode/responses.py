"""Whole responses to models: msgspec decodes them at once; if it refuses one, cattrs reads it row by row."""

from __future__ import annotations

from typing import Any

import msgspec

from podero_async._decode.plain_json import MSGSPEC_ERRORS, decode_json, expect, required, total_of
from podero_async._decode.structure import expect_any, structure_or_reject, structure_row, structure_rows
from podero_async._decode.timestamps import build_decoder
from podero_async._decode.unknown import unknown_fields
from podero_async.errors import DecodeError
from podero_async.models import ChargingSession, ElectricVehicle, SessionsPage

__all__ = ["decode_current_session", "decode_listed_vehicles", "decode_page", "structure_page"]


class _PageWire(msgspec.Struct, gc=False):
    total: int
    items: list[ChargingSession]


class _RawPageWire(msgspec.Struct, gc=False):
    total: Any
    items: list[msgspec.Raw]


class _CurrentWire(msgspec.Struct):
    session: ChargingSession | None


_MAX_STRUCTURED_ROWS = 2000  # ten times the largest page that is requested

_page = build_decoder(_PageWire, ChargingSession)
_raw_page = msgspec.json.Decoder(_RawPageWire)
_current = build_decoder(_CurrentWire, ChargingSession)
_vehicles = build_decoder(list[ElectricVehicle], ElectricVehicle)


def decode_page(body: bytes, *, first_index: int = 0) -> SessionsPage:
    """Decode one page of charging sessions; unreadable rows go to `rejected`.

    Args:
        body: The inflated body.
        first_index: The page's offset, which is added to the indexes of rejected rows.

    Raises:
        DecodeError: The body is not JSON (`retryable`), or not a page.
    """
    try:
        page = _page.decode(body)
    except MSGSPEC_ERRORS:
        return structure_page(body, first_index)
    if page.items:
        unknown_fields.sample(body)
    return SessionsPage(total=page.total, items=page.items)


def decode_current_session(body: bytes) -> ChargingSession | None:
    """Decode the response of `.../sessions/current`; None if no session is active."""
    try:
        return _current.decode(body).session  # type: ignore[no-any-return]
    except MSGSPEC_ERRORS:
        row = required(expect(decode_json(body), dict, "$"), "session")
        return None if row is None else structure_row(row, ChargingSession, "$.session")


def decode_listed_vehicles(body: bytes) -> list[ElectricVehicle | DecodeError]:
    """Decode a user's vehicles. A vehicle without a readable id is replaced by its error, unless no vehicle has one."""
    try:
        return _vehicles.decode(body)  # type: ignore[no-any-return]
    except MSGSPEC_ERRORS:
        return expect_any(structure_rows(expect(decode_json(body), list, "$"), ElectricVehicle, "$"))


def structure_page(body: bytes, first_index: int) -> SessionsPage:
    """Read a page that msgspec refuses, row by row."""
    page = _plain_page(body)
    rows = expect(required(page, "items"), list, "$.items")
    if len(rows) > _MAX_STRUCTURED_ROWS:
        raise DecodeError(f"expected at most {_MAX_STRUCTURED_ROWS} rows, because some are unreadable", "$.items")
    unknown_fields.log(rows)
    items, rejected = structure_or_reject(rows, ChargingSession, first_index)
    return SessionsPage(total=total_of(page), items=items, rejected=rejected)


def _plain_page(body: bytes) -> dict[str, Any]:
    """Decode a page to plain values, row by row if possible: `json.loads` holds the interpreter lock until it ends."""
    try:
        page = _raw_page.decode(body)
    except MSGSPEC_ERRORS:
        return expect(decode_json(body), dict, "$")
    return {"total": page.total, "items": [decode_json(bytes(row)) for row in page.items]}

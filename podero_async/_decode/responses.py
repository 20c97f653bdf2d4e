"""Whole answers to models, in two tiers: msgspec decodes them at once; what it refuses is explained row by row."""

from __future__ import annotations

import msgspec

from podero_async._decode.plain_json import REFUSED, decode_json, expect, field, total_of
from podero_async._decode.structure import structured, structured_list
from podero_async._decode.timestamps import decoder_of
from podero_async.errors import DecodeError
from podero_async.models import ChargingSession, ElectricVehicle, RejectedItem, SessionsPage

__all__ = ["decode_current_session", "decode_page", "decode_vehicles"]


class _PageWire(msgspec.Struct, gc=False):
    total: int
    items: list[ChargingSession]


class _CurrentWire(msgspec.Struct):
    session: ChargingSession | None


_MAX_ROWS = 2000  # of a page that is read row by row: ten times what is asked for

_page = decoder_of(_PageWire, ChargingSession)
_current = decoder_of(_CurrentWire, ChargingSession)
_vehicles = decoder_of(list[ElectricVehicle], ElectricVehicle)


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
    except REFUSED:
        return _page_row_by_row(body, first_index)
    return SessionsPage(total=page.total, items=page.items)


def decode_current_session(body: bytes) -> ChargingSession | None:
    """Decode the answer of `.../sessions/current`; None when no session is active."""
    try:
        return _current.decode(body).session  # type: ignore[no-any-return]
    except REFUSED:
        answer = expect(decode_json(body), dict, "$")
        row = field(answer, "session")
        return None if row is None else structured(row, ChargingSession, "$.session")


def decode_vehicles(body: bytes) -> list[ElectricVehicle]:
    """Decode a user's vehicles."""
    try:
        return _vehicles.decode(body)  # type: ignore[no-any-return]
    except REFUSED:
        return structured_list(expect(decode_json(body), list, "$"), ElectricVehicle, "$")


def _page_row_by_row(body: bytes, first_index: int) -> SessionsPage:
    answer = expect(decode_json(body), dict, "$")
    rows = expect(field(answer, "items"), list, "$.items")
    if len(rows) > _MAX_ROWS:
        raise DecodeError(f"expected at most {_MAX_ROWS} rows, some of them cannot be read", "$.items")
    items, rejected = [], []
    for index, row in enumerate(rows):
        try:
            items.append(structured(row, ChargingSession, "$"))
        except DecodeError as error:
            rejected.append(
                RejectedItem(index=first_index + index, path=error.json_path, reason=error.reason, raw=row),
            )
    return SessionsPage(total=total_of(answer), items=items, rejected=rejected)

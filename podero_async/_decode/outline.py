"""The outline of a page that is kept as bytes: its total, and its rows' ids and times, which the pager needs."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import attrs
import msgspec

from podero_async._decode.plain_json import MSGSPEC_ERRORS, decode_json, expect, required, total_of
from podero_async._decode.responses import decode_page
from podero_async._decode.timestamps import Aware, to_datetime

__all__ = ["PageOutline", "outline_page", "stated_total"]

_TOTAL = re.compile(rb'"total"\s*:\s*(\d{1,9})')
_EDGE_BYTES = 64


class _RowOutline(msgspec.Struct, gc=False):
    id: str
    plug_in_time: Aware


class _PageOutlineWire(msgspec.Struct, gc=False):
    total: int
    items: list[_RowOutline]


_outline = msgspec.json.Decoder(_PageOutlineWire)


@attrs.frozen
class PageOutline:
    """The ids and plug-in times of a page's rows.

    A row without a readable id has its JSON in place of the id. An unreadable time is None.
    """

    total: int
    ids: list[str]
    times: list[datetime | None]


def outline_page(body: bytes) -> PageOutline:
    """Read the outline of a page, at a third of the cost of decoding its rows.

    Raises:
        DecodeError: The body is not JSON (`retryable`), or not a page.
    """
    try:
        page = _outline.decode(body)
        _check_text(body)
        return PageOutline(page.total, [row.id for row in page.items], [row.plug_in_time for row in page.items])
    except MSGSPEC_ERRORS:
        fields = expect(decode_json(body), dict, "$")
    rows = [_outline_row(row) for row in expect(required(fields, "items"), list, "$.items")]
    return PageOutline(total_of(fields), [row_id for row_id, _ in rows], [time for _, time in rows])


def _check_text(body: bytes) -> None:
    """Raise the error of a page with broken text, so that it is requested again: msgspec checks no text that it skips."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            decode_page(body)


def stated_total(body: bytes) -> int:
    """Read a page's total from its first or last bytes; 0 if it is not there.

    This is a hint: the body is not checked to be a page.
    """
    found = _TOTAL.search(body, 0, _EDGE_BYTES) or _TOTAL.search(body, max(0, len(body) - _EDGE_BYTES))
    return int(found[1]) if found else 0


def _outline_row(row: Any) -> tuple[str, datetime | None]:
    fields = row if isinstance(row, dict) else {}
    row_id = fields.get("id")
    if not isinstance(row_id, str):
        row_id = json.dumps(row)
    try:
        return row_id, to_datetime(fields.get("plug_in_time"))
    except ValueError:
        return row_id, None

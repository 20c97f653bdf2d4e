"""What the pager needs to know of a page that is kept as bytes: its total, and its rows' ids and times."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import attrs
import msgspec

from podero_async._decode.plain_json import REFUSED, decode_json, expect, field, total_of
from podero_async._decode.timestamps import Aware, to_datetime

__all__ = ["PageOutline", "outline_page", "stated_total"]

_TOTAL = re.compile(rb'"total"\s*:\s*(\d{1,9})')
_EDGE = 64  # bytes


class _RowOutline(msgspec.Struct, gc=False):
    id: str
    plug_in_time: Aware


class _PageOutlineWire(msgspec.Struct, gc=False):
    total: int
    items: list[_RowOutline]


_outline = msgspec.json.Decoder(_PageOutlineWire)


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
    except REFUSED:
        answer = expect(decode_json(body), dict, "$")
    rows = [_outline_of(row) for row in expect(field(answer, "items"), list, "$.items")]
    return PageOutline(total_of(answer), [row[0] for row in rows], [row[1] for row in rows])


def stated_total(body: bytes) -> int:
    """Read a page's total off its first or last bytes, where a server writes it; 0 where it stands elsewhere.

    A hint, which nothing was checked for.
    """
    found = _TOTAL.search(body, 0, _EDGE) or _TOTAL.search(body, max(0, len(body) - _EDGE))
    return int(found[1]) if found else 0


def _outline_of(row: Any) -> tuple[str, datetime | None]:
    fields = row if isinstance(row, dict) else {}
    row_id, plugged_in = fields.get("id"), fields.get("plug_in_time")
    if not isinstance(row_id, str):
        row_id = json.dumps(row)
    try:
        return row_id, to_datetime(plugged_in)
    except ValueError:
        return row_id, None

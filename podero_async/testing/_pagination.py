"""How a page is cut from a vehicle's list, and the faults that shape it. Synchronous, and so atomic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random

from podero_async.testing._faults import ArmedFault, Fault
from podero_async.testing._parameters import PageRequest
from podero_async.testing._session_list import SessionList, encode
from podero_async.testing._stats import Counts

_REQUIRED = ("id", "plug_in_time", "unplug_time", "energy_charged_kwh", "is_at_home", "session_outcome")
_NO_FIELD_TAKES = {"damaged": True}  # neither text nor number, boolean nor null


def cut_page(listed: SessionList, request: PageRequest, shaping: Mapping[str, ArmedFault], counts: Counts) -> bytes:
    """Cut one page and its total from the list as it stands now, and encode both."""
    rows, window = listed.window(request.from_date, request.to_date, include_hidden=request.include_hidden)
    total = window.stop - window.start
    if armed := shaping.get("unstable_order"):
        rows, window = rows[window], slice(0, total)
        armed.rng.shuffle(rows)
        counts.faults["unstable_order"] += 1
    limit = request.limit
    if (armed := shaping.get("clamped_limit")) and armed.fault.limit is not None and armed.fault.limit < limit:
        limit = armed.fault.limit
        counts.faults["clamped_limit"] += 1
    start = window.start + request.offset
    items = [row.encoded for row in rows[start : min(start + limit, window.stop)]]
    if items and (armed := shaping.get("malformed_row")):
        at = armed.rng.randrange(len(items))
        items[at] = _damaged(items[at], armed.fault, armed.rng)
        counts.faults["malformed_row"] += 1
    if armed := shaping.get("wrong_total"):
        total = _lie(total, armed.fault)
        counts.faults["wrong_total"] += 1
    counts.rows_served += len(items)
    return b'{"total":%d,"items":[%b]}' % (total, b",".join(items))


def _damaged(encoded: bytes, fault: Fault, rng: Random) -> bytes:
    fields = json.loads(encoded)
    field = fault.field or rng.choice(_REQUIRED)
    damage = fault.damage or rng.choice(["missing", "wrong_type"])
    if damage == "missing":
        fields.pop(field, None)
    else:
        fields[field] = _NO_FIELD_TAKES
    return encode(fields)


def _lie(total: int, fault: Fault) -> int:
    if callable(fault.delta):
        return fault.delta(total)
    return max(0, total + (1 if fault.delta is None else fault.delta))

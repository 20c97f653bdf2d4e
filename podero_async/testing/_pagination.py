"""One page of a vehicle's sessions, and the faults that change its content. Synchronous, and therefore atomic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random

from podero_async.testing._faults import ArmedFault, Fault
from podero_async.testing._parameters import PageRequest
from podero_async.testing._session_list import SessionList, encode
from podero_async.testing._stats import Counts

_DAMAGED_FIELDS = ("id", "plug_in_time", "unplug_time", "energy_charged_kwh", "is_at_home", "session_outcome")
_WRONG_TYPE = {"damaged": True}  # an object: no field of a session accepts one


def cut_page(sessions: SessionList, request: PageRequest, shaping: Mapping[str, ArmedFault], counts: Counts) -> bytes:
    """Encode one page and its total from the current state of a list."""
    rows, window = sessions.window(request.from_date, request.to_date, include_hidden=request.include_hidden)
    total = window.stop - window.start
    if "empty_list" in shaping:
        counts.faults["empty_list"] += 1
        return b'{"total":0,"items":[]}'
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
        index = armed.rng.randrange(len(items))
        items[index] = _damaged(items[index], armed.fault, armed.rng)
        counts.faults["malformed_row"] += 1
    if armed := shaping.get("wrong_total"):
        total = _wrong_total(total, armed.fault)
        counts.faults["wrong_total"] += 1
    counts.rows_served += len(items)
    return b'{"total":%d,"items":[%b]}' % (total, b",".join(items))


def _damaged(encoded: bytes, fault: Fault, rng: Random) -> bytes:
    fields = json.loads(encoded)
    field = fault.field or rng.choice(_DAMAGED_FIELDS)
    damage = fault.damage or rng.choice(["missing", "wrong_type"])
    if damage == "missing":
        fields.pop(field, None)
    else:
        fields[field] = _WRONG_TYPE
    return encode(fields)


def _wrong_total(total: int, fault: Fault) -> int:
    if callable(fault.delta):
        return fault.delta(total)
    return max(0, total + (1 if fault.delta is None else fault.delta))
